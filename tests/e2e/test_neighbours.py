"""Runs in one cluster know of each other, and of none that has ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_ray.cluster import neighbours
from mer_ray.cluster.supervision import Watched
from mer_ray.cluster.watch import start_watch
from tests.conftest import Job, done
from tests.support import ROOT
from tests.support.chaos import assert_same, rows_of

OTHER = """
import sys, ray
from mer_ray.cluster.watch import start_watch
ray.init(log_to_driver=False, logging_level="error")
watch = start_watch("tag", {})
ray.get(watch.look.remote())
print("there", flush=True)
sys.stdin.read()
"""


def waited_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return condition()


@pytest.mark.usefixtures("ray_address")
def test_another_drivers_run_is_seen_until_it_ends_however_that_is(job_environment: dict[str, str]) -> None:
    import ray

    before = {run.driver for run in neighbours.others()[0]}
    own = start_watch("extract", {})
    ray.get(own.look.remote())
    assert {run.driver for run in neighbours.others()[0]} == before, "one's own is no other"
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], env=job_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        seen = [run for run in neighbours.others()[0] if run.process == other.pid]
        assert [run.job for run in seen] == ["tag"]
        assert neighbours.others()[1] == len(before), "it began later"
        other.kill()
    assert waited_for(lambda: other.pid not in {run.process for run in neighbours.others()[0]})
    ray.kill(own)


class Output:
    """The run's directory, as far as a watched run needs it."""

    job = "extract"

    def __init__(self) -> None:
        self.written: list[dict[str, list[int]]] = []

    def own(self, name: str) -> str:
        return name

    def read_json(self, name: str) -> dict[str, list[int]]:
        return {"old": [1, 0]}

    def write_json(self, name: str, value: dict[str, list[int]]) -> None:
        self.written.append(value)


@pytest.mark.usefixtures("ray_address")
def test_a_watch_whose_node_is_lost_starts_anew_and_nothing_known_of_deaths_is_forgotten() -> None:
    import ray

    watched = Watched(output := Output())  # type: ignore[arg-type]
    ray.get(watched.actor.remember.remote({"new": [0, 1]}))
    first = watched.look()
    assert first is not None
    ray.kill(watched.actor, no_restart=False)
    assert waited_for(lambda: (view := watched.look()) is not None and view.born != first.born)
    assert waited_for(lambda: (view := watched.look()) is not None and view.deaths.keys() == {"old", "new"})
    assert [known.keys() for known in output.written] == [{"old", "new"}]
    ray.kill(watched.actor)


@pytest.mark.slow
def test_two_runs_that_begin_at_once_where_there_is_room_for_one_both_end(
    store: Path, job: Job, job_environment: dict[str, str], tmp_path: Path
) -> None:
    """Each would take all CPUs for encoders, and none would be left to decode with."""
    flags = ["--catalog", str(store / "demo-gems.parquet"), "--encoder", "descriptors", "--features"]
    command = [sys.executable, str(ROOT / "jobs" / "extract.py"), *flags, str(tmp_path / "one")]
    with subprocess.Popen(command, env=job_environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        printed = done(job("extract", *flags, tmp_path / "two"))
        said = other.communicate()[0]
    assert other.returncode == 0, said
    assert "have no place beside the extract run" in printed + said
    for name in ("one", "two"):
        assert_same(tmp_path / name, rows_of(store / "features"))
