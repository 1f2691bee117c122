"""What it costs to look at a feature store on S3: bytes fetched, requests and seconds, beside the size of the store.

python -m tests.cost_of_looking --parts 40 --megabytes 30 [--shards 10]
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
from mer_ray.runs.shards import by_shard
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.runs.status import look
from mer_ray.runs.validation import validate
from mer_ray.songs import read_columns
from mer_ray.storage import tables
from tests.support.faults import FaultyProxy
from tests.support.s3 import seaweed_server
from tests.support.song_directories import ENCODER, FINGERPRINT, manifest, status_columns

DIM, WINDOWS = 3_072, 20


def write_store(uri: str, parts: int, megabytes: float, shards: int = 1) -> pa.Table:
    """A finished store of so many parts of about this size, or some more, if of several shards; its manifest."""
    songs, noise = max(1, round(megabytes * 1e6 / (DIM * WINDOWS * 2))), np.random.default_rng(0)
    asked = manifest(*(f"{part}/{song}" for part in range(parts) for song in range(songs)))
    windows = [noise.standard_normal((WINDOWS, DIM)) for _ in range(songs)]
    schema = store_schema({**ENCODER, "dim": DIM}, DIM)
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked, of=shards)
        for number, own in by_shard(asked, shards):
            for at in range(0, len(own), songs):
                ids = tuple(own["track_id"][at : at + songs].to_pylist())
                rows = [*status_columns(ids, None), features_column(windows[: len(ids)], DIM)]
                output.shards[number].commit(pa.table(rows, schema=schema))
        output.finish(songs=len(asked), work_seconds=1.0)
    return asked


def start(uri: str, asked: pa.Table) -> None:
    """Begin a run that finds nothing to do."""
    with SongsDirectory(uri, "extract") as output:
        output.begin({**FINGERPRINT, "dim": DIM}, {}, asked)
        assert not sum(len(output.shards[number].pending()) for number in output.unfinished())


def one_shard(uri: str, asked: pa.Table) -> None:
    """Open a shard and account for it anew."""
    with SongsDirectory(uri, "extract") as output:
        output.go_on()
        output.shards[0].pending_in(0)
        output.shards[0].account(output.keys[0])


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
    parser.add_argument("--shards", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="looking-") as folder,
        seaweed_server(Path(folder) / "weed") as server,
        FaultyProxy(server.endpoint) as proxy,
        patch.dict(os.environ, {**server.environment, "AWS_ENDPOINT_URL": proxy.url}),
    ):
        uri = f"s3://{server.bucket}/store"
        songs = write_store(uri, asked.parts, asked.megabytes, asked.shards)
        size = sum(part.size for part in storage.entries(uri))
        there = f"{asked.shards} shards, {len(Store.open(uri).parts)} parts"
        print(f"a store of {there}, {len(songs):,} songs, {size / 1e6:,.1f} MB")

        def measured(name: str, deed: Callable[[str, pa.Table], object]) -> None:
            proxy.inject()
            started = time.perf_counter()
            deed(uri, songs)
            seconds, requests = time.perf_counter() - started, proxy.requests.total()
            share = f"{proxy.fetched / size:.3%}"
            print(f"  {name:32}{proxy.fetched / 1e6:10,.2f} MB {share:>9} {requests:6,} requests {seconds:7.2f} s")

        for name, deed in LOOKS.items():
            measured(name, deed)
        measured("one shard, opened and finished", one_shard)
        measured("validate --deep", whole)
        with patch.object(tables, "opened", reading_ahead):
            measured("plan of tag, reading ahead", plan_of_tag)


if __name__ == "__main__":
    main()
