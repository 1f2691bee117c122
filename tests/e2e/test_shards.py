"""A catalogue in several shards: extracted by two drivers, tagged, searched and validated as one of one shard is."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from tests.conftest import Job, done, refused
from tests.support.chaos import Night, assert_same, rows_of

SHARDS = 10


@pytest.fixture(scope="module")
def songs(store: Path) -> list[object]:
    """Flags that extract the thirty songs in ten shards."""
    few = ("--songs-per-part", 2, "--songs-per-shard", 3)
    return ["--catalog", store / "demo-gems.parquet", "--encoder", "descriptors", *few]


@pytest.fixture(scope="module")
def sharded(songs: list[object], job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their store, each half of the shards extracted by a run of its own."""
    output = tmp_path_factory.mktemp("sharded") / "features"
    flags = [*songs, "--features", output]
    printed = done(job("extract", *flags, "--shards", "0:5"))
    assert f" songs to do in 5 of {SHARDS} shards with descriptors" in printed
    assert "5 other shards are not finished" in printed
    assert not (output / "_SUCCESS").exists()
    done(job("extract", *flags, "--shards", f"5:{SHARDS}"))
    return output


def test_two_runs_with_half_of_the_shards_each_end_as_one_of_all(sharded: Path, store: Path, job: Job) -> None:
    assert_same(sharded, rows_of(store / "features"))
    assert len({part.name[:10] for part in sharded.glob("part-*")}) == SHARDS
    done(job("validate", "--run", sharded, "--deep"))
    assert f"{SHARDS}, {SHARDS} of them finished" in done(job("status", "--run", sharded))


def test_pandas_and_duckdb_read_shards_as_they_read_one(sharded: Path, store: Path) -> None:
    for read in (
        lambda folder: pd.read_parquet(folder),
        lambda folder: duckdb.read_parquet(f"{folder}/*.parquet").df(),
    ):
        ids = read(sharded)["track_id"].tolist()
        assert sorted(ids) == sorted(read(store / "features")["track_id"])


def test_tags_and_answers_are_those_of_one_shard(sharded: Path, store: Path, job: Job, tmp_path: Path) -> None:
    tables, found = [], []
    song = rows_of(sharded)["track_id"][0].as_py()
    for name, features in (("several", sharded), ("one", store / "features")):
        flags = ["--features", features, "--model", "gems"]
        done(job("tag", *flags, "--labels", "moods", "--output", tmp_path / name))
        tables.append(rows_of(tmp_path / name))
        answers = tmp_path / f"{name}.csv"
        done(job("search", *flags, "--query", "tender but tense", "--like", song, "-k", 5, "--output", answers))
        found.append(pd.read_csv(answers))
    assert_same(tmp_path / "several", tables[1])
    done(job("validate", "--run", tmp_path / "several"))
    assert found[0].track_id.tolist() == found[1].track_id.tolist()
    np.testing.assert_allclose(found[0].score, found[1].score, atol=1e-4)


def test_a_retry_touches_the_shards_that_have_failed_songs(
    songs: list[object], world: Path, job: Job, tmp_path: Path
) -> None:
    music, output = tmp_path / "music", tmp_path / "features"
    music.mkdir()
    names = sorted(path.name for path in (world / "demo-gems").iterdir())[:20]
    for name in names:
        (music / name).write_bytes((world / "demo-gems" / name).read_bytes() if name != names[7] else b"not yet")
    flags = ["--catalog", music, *songs[2:], "--features", output]
    done(job("extract", *flags))
    (music / names[7]).write_bytes((world / "demo-gems" / names[7]).read_bytes())
    before = {part.name: part.stat().st_mtime_ns for part in output.glob("part-*")}
    printed = done(job("extract", *flags, "--retry-failed"))
    assert "1 of 20 songs to do" in printed
    after = {part.name: part.stat().st_mtime_ns for part in output.glob("part-*")}
    touched = {name[:10] for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert len(touched) == 1
    assert set(rows_of(output)["status"].to_pylist()) == {"ok"}


def test_a_range_beyond_the_shards_is_refused(songs: list[object], sharded: Path, job: Job) -> None:
    assert "stay within" in refused(job("extract", *songs, "--features", sharded, "--shards", "8:12"))


@pytest.mark.slow
def test_extract_in_shards_survives_kills_and_damage(
    songs: list[object], store: Path, job_environment: dict[str, str], tmp_path: Path
) -> None:
    output, undisturbed = tmp_path / "features", rows_of(store / "features")
    night = Night(job_environment, cluster=os.getpid(), seed=5, undisturbed=undisturbed)
    kinds = ["driver", "torn record", "late part", "encoder", "driver", "no record", "torn asked", "part twice"]
    left = night.through("extract", [*songs, "--features", output], output, kinds)
    assert len(left) <= 3, f"only {night.kills} came to strike"
    assert_same(output, undisturbed)
