"""A night tells the truth: what stops it, with which sentence and exit code, and what is written of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mer_ray.catalog.manifest import make_manifest
from mer_ray.runs.breaker import LEAST
from tests.conftest import Job, done, refused
from tests.support import ROOT


@pytest.fixture
def old(store: Path, tmp_path: Path) -> list[object]:
    """Flags that go on with a copy of a store of thirty good songs."""
    shutil.copytree(store / "features", tmp_path / "features")
    return ["--features", tmp_path / "features", "--encoder", "descriptors"]


def catalogue(folder: Path, count: int, name: str = "new") -> Path:
    """A manifest of songs that are not there."""
    ids = [f"{name}{number}" for number in range(count)]
    uris = [f"{folder}/wrong/prefix/{one}.mp3" for one in ids]
    pq.write_table(make_manifest({"track_id": ids, "uri": uris}, "test"), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def test_a_catalogue_of_which_nothing_is_there_stops_with_what_all_have_in_common_and_writes_nothing(
    old: list[object], job: Job, tmp_path: Path
) -> None:
    before = {path.name for path in (tmp_path / "features").glob("part-*")}
    for _ in range(2):
        sentence = refused(job("extract", "--catalog", catalogue(tmp_path, 4 * LEAST), *old))
        assert f"all not_found, below {tmp_path}/wrong/prefix/, named *.mp3" in sentence
        assert {path.name for path in (tmp_path / "features").glob("part-*")} == before
        assert not (tmp_path / "features" / "_SUCCESS").exists()


def test_exit_codes_speak_of_this_run(old: list[object], job: Job, store: Path, tmp_path: Path) -> None:
    few = ["--catalog", catalogue(tmp_path, 8), *old]
    printed = done(job("extract", *few), code=3)
    assert "extract: 0 ok, 8 failed (8 not_found)" in printed
    assert "30 other songs among it" in printed
    summary = json.loads((tmp_path / "features" / "_run" / "summary.json").read_text())
    assert (summary["songs"], summary["failed"], summary["asked"]["songs"], summary["asked"]["ok"]) == (38, 8, 8, 0)
    assert (summary["this_run"]["songs"], summary["this_run"]["failed"]) == (8, 8)
    assert summary["this_run"]["error_classes"] == {"not_found": 8}
    assert "0 of 8 songs to do" in done(job("extract", *few)), "old failures do not spoil a run"
    assert "8 of 8 songs to do" in done(job("extract", *few, "--retry-failed", "--max-failure-rate", 1))
    shown = done(job("status", "--run", tmp_path / "features"))
    assert "by node    " in shown
    assert " 100% of 8 (8 not_found)" in shown
    assert "30 songs in the parts that the manifest does not list" in shown
    good = ["--catalog", store / "demo-gems.parquet", *old]
    assert "extract: 30 ok, 0 failed, " in done(job("extract", *good))
    done(job("validate", "--run", tmp_path / "features"))


def test_changed_audio_is_extracted_and_tagged_again_and_a_takedown_holds(
    world: Path, model: Path, job: Job, tmp_path: Path
) -> None:
    songs, music = sorted((world / "demo-gems").iterdir())[:4], tmp_path / "music"
    music.mkdir()
    for number, song in enumerate(songs[:3]):
        shutil.copy(song, music / f"{number}.mp3")
    features, tags = tmp_path / "features", tmp_path / "tags"
    flags = ["--catalog", music, "--features", features, "--encoder", "descriptors"]
    flags += ["--model", model, "--labels", "gems", "--output", tags, "--yardstick", "model"]
    done(job("tag", *flags))
    before = pd.read_parquet(tags).set_index("track_id").sort_index().tags.map(str)
    shutil.copy(songs[3], music / "1.mp3")
    printed = done(job("tag", *flags))
    assert "extract: 1 of 3 songs to do" in printed
    assert "tag: 1 of 3 songs to do" in printed
    after = pd.read_parquet(tags).set_index("track_id").sort_index().tags.map(str)
    assert (before != after).to_dict() == {"0.mp3": False, "1.mp3": True, "2.mp3": False}
    done(job("forget", "--songs", "2.mp3", "--run", features, "--run", tags))
    for uri in (features, tags):
        assert sorted(pd.read_parquet(uri).track_id) == ["0.mp3", "1.mp3"]
        done(job("validate", "--run", uri))
    assert "tag: 0 of 2 songs to do" in done(job("tag", *flags))
    kept = {path.name.rpartition("-")[0] for path in (features / "_projected").rglob("*.arrow")}
    assert kept <= {path.stem for path in features.glob("part-*")}


def started(environment: dict[str, str], *command: object) -> subprocess.Popen[str]:
    # A shell has what it runs in the background ignore Ctrl-C, and all that is started from there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(there: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not there() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert there(), run.communicate(timeout=10)


@pytest.mark.slow
def test_sigterm_ends_an_extract_as_ctrl_c_does_and_the_same_command_goes_on(
    world: Path, job: Job, job_environment: dict[str, str], tmp_path: Path
) -> None:
    features = tmp_path / "features"
    flags = ["--catalog", world / "demo-gems", "--features", features]
    flags += ["--encoder", "descriptors", "--songs-per-part", 2]
    run = started(job_environment, "jobs/extract.py", *flags)
    wait_for(lambda: any(features.glob("part-*")), run)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert err.splitlines()[-1] == "stopped by SIGTERM; the same command goes on where this one stopped."
    assert "Traceback" not in err
    assert not (features / "_run" / "lock").exists()
    done(job("extract", *flags))
    assert pd.read_parquet(features).track_id.is_unique


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_training_with_workers_and_a_sentence(
    number: signal.Signals, code: int, store: Path, job_environment: dict[str, str], tmp_path: Path
) -> None:
    flags = ["--train", store / "demo-gems.parquet", "--features", store / "features", "--model", tmp_path / "model"]
    run = started(job_environment, "jobs/train.py", *flags, "--epochs", 5_000, "--stop-patience", 0, "--workers", 1)
    wait_for((tmp_path / "model" / "_run" / "progress.json").exists, run)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code, err
    assert "the same command goes on where this one stopped" in err
    assert "Traceback" not in err
    assert not (tmp_path / "model" / "_run" / "lock").exists()


@pytest.mark.slow
def test_sigterm_while_ray_starts_is_a_sentence_too(
    world: Path, job_environment: dict[str, str], tmp_path: Path
) -> None:
    with TemporaryDirectory(prefix="ray-") as short:  # the path of a Unix socket has room for 107 bytes
        alone = {**job_environment, "RAY_ADDRESS": "local", "RAY_TMPDIR": short}
        run = started(alone, "jobs/extract.py", "--catalog", world / "demo-gems", "--features", tmp_path / "f")
        wait_for(lambda: any(Path(short).rglob("gcs_server*")), run)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert err.splitlines()[-1] == "stopped by SIGTERM; the same command goes on where this one stopped."
    assert "Traceback" not in err


def test_the_logs_of_a_failed_run_are_kept_with_it(old: list[object], tmp_path: Path, ray_address: str) -> None:
    import ray

    from mer_ray.cluster.logs import NODE_BYTES, kept_if_it_fails
    from mer_ray.runs.songs_directory import SongsDirectory

    output = SongsDirectory(str(tmp_path / "features"), "extract")

    def fail() -> None:
        ray.get(ray.remote(lambda: print("the last words of a worker", flush=True)).remote())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), kept_if_it_fails(output):
        fail()
    (kept,) = (tmp_path / "features" / "_run" / "logs").iterdir()
    assert "the last words of a worker" in kept.read_text()
    assert "worker-" in kept.read_text()
    assert kept.stat().st_size < 2 * NODE_BYTES
