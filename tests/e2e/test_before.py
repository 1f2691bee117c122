"""Directories that version 0.1.0 left, half-finished ones too, are gone on with: the same parts, the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mer_ray.songs import part_uris
from tests.conftest import Job, done
from tests.support import ROOT
from tests.support.chaos import assert_same, rows_of

BEFORE = ROOT / "tests" / "fixtures" / "before"
TAGGING = ("--labels", "gems", "--min-percentile", "0.6", "--ranking", "cosine", "--yardstick", "model")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy to work on."""
    return Path(shutil.copytree(BEFORE, tmp_path / "before"))


def parts(folder: Path) -> dict[str, int]:
    """The parts and when they were written."""
    return {Path(part).name: Path(part).stat().st_mtime_ns for part in part_uris(str(folder))}


def test_a_half_finished_store_goes_on_to_the_parts_of_the_undisturbed_run(job: Job, before: Path) -> None:
    store, expected = before / "store-half", before / "store-half-expected"
    kept = parts(store)
    flags = ("--catalog", before / "music", "--features", store, "--encoder", "tiny", "--songs-per-part", 1)
    assert "extract: 4 of 7 songs to do with tiny (D = 192)" in done(job("extract", *flags))
    assert len(kept) == 3
    assert kept.items() <= parts(store).items()
    assert parts(store).keys() == parts(expected).keys()
    assert_same(store, rows_of(expected).drop_columns("uri"), without=("uri",))
    done(job("validate", "--run", store))
    assert "extract: 0 of 7 songs to do" in done(job("extract", *flags))


def test_tags_of_which_two_parts_were_lost_go_on_with_the_same_words_and_numbers(job: Job, before: Path) -> None:
    tags, expected = before / "tags-percentile", rows_of(before / "tags-percentile")
    lost = sorted(tags.glob("part-*"))[:2]
    for part in (*lost, tags / "_SUCCESS"):
        part.unlink()
    kept = parts(tags)
    flags = ("--features", before / "store-finished", "--no-keep-projections", "--model", before / "model-paper")
    printed = done(job("tag", *flags, *TAGGING, "--output", tags))
    assert f"tag: {len(expected) - rows_in(tags, kept)} of {len(expected)} songs to do" in printed
    assert kept.items() <= parts(tags).items()
    assert parts(tags).keys() == {*kept, *(part.name for part in lost)}
    assert_same(tags, expected)
    done(job("validate", "--run", tags))


def rows_in(folder: Path, names: dict[str, int]) -> int:
    """How many songs some of a directory's parts hold."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(folder / name).num_rows for name in names)
