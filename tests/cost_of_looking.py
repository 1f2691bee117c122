"""What it costs to look at a feature store on S3: bytes fetched, requests and seconds, beside the size of the store.

python -m tests.cost_of_looking --parts 40 --megabytes 30
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from mer_ray import storage
from mer_ray.features import FEATURES, Store, features_column, store_schema
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.status import look
from mer_ray.runs.validation import validate
from mer_ray.songs import read_columns
from mer_ray.storage import tables
from tests.support.faults import FaultyProxy
from tests.support.s3 import seaweed_server
from tests.support.song_directories import ENCODER, FINGERPRINT, manifest, status_columns

DIM, WINDOWS = 3_072, 20


def write_store(uri: str, parts: int, megabytes: float) -> pa.Table:
    """A finished store of so many parts of about this size; returns its manifest."""
    songs, noise = max(1, round(megabytes * 1e6 / (DIM * WINDOWS * 2))), np.random.default_rng(0)
    ids = [tuple(f"{part}/{song}" for song in range(songs)) for part in range(parts)]
    asked = manifest(*(song for each in ids for song in each))
    windows = features_column([noise.standard_normal((WINDOWS, DIM)) for _ in range(songs)], DIM)
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked)
        for each in ids:
            schema = store_schema({**ENCODER, "dim": DIM}, DIM)
            commit(uri, pa.table([*status_columns(each, None), windows], schema=schema))
        output.finish(songs=len(asked), work_seconds=1.0)
    return asked


def start(uri: str, asked: pa.Table) -> None:
    """Begin a run that finds nothing to do."""
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked)
        assert not len(output.pending())


def end(uri: str, asked: pa.Table) -> None:
    """Account for every song."""
    with SongsDirectory(uri, "extract") as output:
        output.go_on()
        assert output.finish(songs=0, work_seconds=0.0)["ok"] == len(asked)


def plan_of_tag(uri: str, asked: pa.Table) -> None:
    """What tag reads before it hands out work."""
    found = [table for _, table in read_columns(Store.open(uri).parts, ["track_id", "uri", "status"])]
    assert sum(map(len, found)) == len(asked)


def whole(uri: str, asked: pa.Table) -> None:
    """Every value, as a deep validation does."""
    assert validate(uri, [FEATURES], deep=True).valid


LOOKS: dict[str, Callable[[str, pa.Table], object]] = {
    "status": lambda uri, _: look(uri),
    "validate": lambda uri, _: validate(uri, [FEATURES]),
    "start": start,
    "end": end,
    "plan of tag": plan_of_tag,
}


@contextlib.contextmanager
def reading_ahead(uri: str) -> Iterator[BinaryIO]:
    """How a file is opened where nobody says otherwise."""
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as file:
        yield file


def main() -> None:
    """Write a store, look at it in every way, and print what each look cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--megabytes", type=float, default=30)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="looking-") as folder,
        seaweed_server(Path(folder) / "weed") as server,
        FaultyProxy(server.endpoint) as proxy,
        patch.dict(os.environ, {**server.environment, "AWS_ENDPOINT_URL": proxy.url}),
    ):
        uri = f"s3://{server.bucket}/store"
        songs = write_store(uri, asked.parts, asked.megabytes)
        size = sum(part.size for part in storage.entries(uri))
        print(f"a store of {asked.parts} parts, {len(songs):,} songs, {size / 1e6:,.1f} MB")

        def measured(name: str, deed: Callable[[str, pa.Table], object]) -> None:
            proxy.inject()
            started = time.perf_counter()
            deed(uri, songs)
            seconds, requests = time.perf_counter() - started, proxy.requests.total()
            share = f"{proxy.fetched / size:.3%}"
            print(f"  {name:28}{proxy.fetched / 1e6:10,.2f} MB {share:>9} {requests:6,} requests {seconds:7.2f} s")

        for name, deed in LOOKS.items():
            measured(name, deed)
        measured("validate --deep", whole)
        with patch.object(tables, "opened", reading_ahead):
            measured("plan of tag, reading ahead", plan_of_tag)


if __name__ == "__main__":
    main()
