"""Looking at a store costs the columns that are looked at, not the store. In numbers: ``tests.cost_of_looking``."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.features import FEATURES
from mer_ray.runs.validation import validate
from tests.cost_of_looking import LOOKS, write_store
from tests.support.faults import FaultyProxy
from tests.support.s3 import S3Server

PARTS = 6
PER_PART = 100_000
"""Bytes that a look may fetch of a part of 2 MB: a footer is asked for with the 64 kB at a file's end."""


@pytest.fixture(scope="module")
def store(s3: S3Server) -> tuple[str, pa.Table]:
    """A finished store in a bucket, and its manifest."""
    uri = f"s3://{s3.bucket}/bytes"
    return uri, write_store(uri, PARTS, megabytes=2)


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_fetches_footers_and_columns_with_a_few_requests(
    name: str, store: tuple[str, pa.Table], faults: FaultyProxy
) -> None:
    uri, asked = store
    assert sum(part.size for part in storage.entries(uri)) > PARTS * 1_500_000
    faults.inject()
    LOOKS[name](uri, asked)
    assert PARTS * 1_000 < faults.fetched < PARTS * PER_PART
    assert faults.requests["GET"] <= 2 * PARTS + 30
    assert faults.requests["HEAD"] <= PARTS + 20


@pytest.mark.parametrize("name", ["status", "start", "end"])
def test_of_finished_shards_the_records_are_read_and_no_part(name: str, s3: S3Server, faults: FaultyProxy) -> None:
    uri, shards = f"s3://{s3.bucket}/bytes-{name}", 3
    asked = write_store(uri, PARTS, megabytes=2, shards=shards)
    faults.inject()
    LOOKS[name](uri, asked)
    assert faults.fetched < 20_000 + shards * 2_000
    assert faults.requests.total() <= 10 * shards + 40


def test_a_deep_validation_reads_every_value_once(store: tuple[str, pa.Table], faults: FaultyProxy) -> None:
    uri, _ = store
    size = sum(part.size for part in storage.entries(uri))
    faults.inject()
    assert validate(uri, [FEATURES], deep=True).valid
    assert size < faults.fetched < 1.2 * size
