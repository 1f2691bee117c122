"""Whatever is killed or damaged on the way, the same command ends with every song there once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import Job, done, refused
from tests.support import ROOT
from tests.support.chaos import Night, assert_same, rows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def songs(store: Path) -> list[object]:
    """Flags that extract the thirty songs, two a part."""
    return ["--catalog", store / "demo-gems.parquet", "--encoder", "descriptors", "--songs-per-part", 2]


@pytest.fixture
def night(job_environment: dict[str, str], store: Path) -> Night:
    return Night(job_environment, cluster=os.getpid(), seed=7, undisturbed=rows_of(store / "features"))


@pytest.fixture
def undisturbed(store: Path) -> pa.Table:
    return rows_of(store / "features")


def test_extract_survives_kills_of_all_it_consists_of(
    night: Night, songs: list[object], undisturbed: pa.Table, world: Path, tmp_path: Path
) -> None:
    output = tmp_path / "features"
    kinds = ["decode worker", "encoder", "driver", "decoder", "late part", "driver (SIGTERM)", "commit worker"]
    left = night.through("extract", [*songs, "--features", output], output, kinds, [world / "demo-gems"])
    assert len(left) <= 2, f"only {night.kills} came to strike"
    assert_same(output, undisturbed)
    assert night.redone.total() <= 8 * len(night.kills)


def test_extract_survives_what_a_power_loss_leaves(
    night: Night, songs: list[object], undisturbed: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "features"
    kinds = ["driver", "torn part", "empty part", "part twice", "temporary", "stale lock", "half a summary"]
    assert night.through("extract", [*songs, "--features", output], output, kinds) == []
    assert_same(output, undisturbed)


def test_tag_survives_kills(night: Night, store: Path, model: Path, job: Job, tmp_path: Path) -> None:
    flags = ["--features", store / "features", "--model", model, "--labels", "gems", "--output"]
    done(job("tag", *flags, tmp_path / "undisturbed"))
    output = tmp_path / "tags"
    night.through("tag", [*flags, output], output, ["tagger", "driver"])
    assert_same(output, rows_of(tmp_path / "undisturbed"))


def test_a_retry_of_failed_songs_killed_in_the_middle_leaves_each_id_once(
    night: Night, songs: list[object], undisturbed: pa.Table, world: Path, job: Job, tmp_path: Path
) -> None:
    output, music = tmp_path / "features", tmp_path / "music"
    music.mkdir()
    names = sorted(path.name for path in (world / "demo-gems").iterdir())[:12]
    for name in names:
        (music / name).write_bytes(b"not yet" if len(name) % 2 else b"")
    flags = ["--catalog", music, "--encoder", "descriptors", "--songs-per-part", 2, "--features", output]
    done(job("extract", *flags), 3)
    for name in names:
        (music / name).write_bytes((world / "demo-gems" / name).read_bytes())
    night.through("extract", [*flags, "--retry-failed"], output, ["driver"], [music])
    rows = rows_of(output)
    assert rows["track_id"].to_pylist() == names
    assert set(rows["status"].to_pylist()) == {"ok"}


def test_the_second_of_two_runs_is_refused_naming_the_first(
    songs: list[object], job: Job, job_environment: dict[str, str], tmp_path: Path
) -> None:
    flags = [*songs, "--features", tmp_path / "features"]
    command = [sys.executable, str(ROOT / "jobs" / "extract.py"), *map(str, flags)]
    with subprocess.Popen(command, env=job_environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert any("30 of 30 songs to do" in line for line in iter(first.stdout.readline, ""))
        assert f"in use by the extract run with process {first.pid}" in refused(job("extract", *flags))
        first.stdout.read()
    assert first.returncode == 0
