"""Looking at a store costs the columns that are looked at, not the store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.features import FEATURES, Store, features_column, store_schema
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.status import look
from mer_ray.runs.validation import validate
from mer_ray.songs import read_columns
from tests.support.faults import FaultyProxy
from tests.support.s3 import S3Server
from tests.support.song_directories import ENCODER, FINGERPRINT, manifest, status_columns

PARTS, SONGS, DIM = 6, 10, 4_000
PER_PART = 100_000
"""Bytes that a look may fetch of a part: a footer is asked for with the 64 kB at a file's end."""


@pytest.fixture(scope="module")
def asked() -> pa.Table:
    return manifest(*(f"{part}/{song}" for part in range(PARTS) for song in range(SONGS)))


@pytest.fixture(scope="module")
def store(s3: S3Server, asked: pa.Table) -> str:
    """A finished store of parts of 2 MB, in a bucket."""
    uri, noise = f"s3://{s3.bucket}/bytes", np.random.default_rng(0)
    identity = {**ENCODER, "dim": DIM}
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked)
        for part in range(PARTS):
            songs = tuple(f"{part}/{song}" for song in range(SONGS))
            windows = features_column([noise.standard_normal((25, DIM)) for _ in songs], DIM)
            commit(uri, pa.table([*status_columns(songs, None), windows], schema=store_schema(identity, DIM)))
        output.finish(songs=PARTS * SONGS, work_seconds=1.0)
    return uri


def start(uri: str, asked: pa.Table) -> None:
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked)
        assert not len(output.pending(asked, retry_failed=False))


def end(uri: str, asked: pa.Table) -> None:
    with SongsDirectory(uri, "extract") as output:
        assert output.finish(songs=0, work_seconds=0.0)["ok"] == PARTS * SONGS


def plan_of_tag(uri: str, asked: pa.Table) -> None:
    """What tag reads before it hands out work."""
    found = [table for _, table in read_columns(Store.open(uri).parts, ["track_id", "uri", "status"])]
    assert sum(map(len, found)) == PARTS * SONGS


LOOKS: dict[str, Callable[[str, pa.Table], object]] = {
    "status": lambda uri, _: look(uri),
    "validate": lambda uri, _: validate(uri, [FEATURES]),
    "start": start,
    "end": end,
    "plan of tag": plan_of_tag,
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_fetches_footers_and_columns_with_a_few_requests(
    name: str, store: str, asked: pa.Table, faults: FaultyProxy
) -> None:
    size = sum(part.size for part in storage.entries(store))
    assert size > PARTS * 1_500_000
    faults.inject()
    LOOKS[name](store, asked)
    assert PARTS * 1_000 < faults.fetched < PARTS * PER_PART
    assert faults.requests["GET"] <= 2 * PARTS + 30
    assert faults.requests["HEAD"] <= PARTS + 20


def test_a_deep_validation_reads_every_value_once(store: str, faults: FaultyProxy) -> None:
    size = sum(part.size for part in storage.entries(store))
    faults.inject()
    assert validate(store, [FEATURES], deep=True).valid
    assert size < faults.fetched < 1.2 * size
