"""The stages of an extract before and after its encoders: decode songs, commit them; plain functions of tables."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.audio.patience import shared_patience
from mer_ray.audio.process import Limits, shared_decoder
from mer_ray.cluster.watch import Told
from mer_ray.cluster.work import TOLD, told_by, work_of
from mer_ray.errors import StorageError
from mer_ray.runs.open_shard import Lease
from mer_ray.runs.receipts import COSTS, committed_ok
from mer_ray.runs.shards import by_shard
from mer_ray.songs import STATUS_FIELDS, lengths

DECODED_SCHEMA = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("windows", pa.list_(pa.large_binary())),
        pa.field("scales", pa.list_(pa.float32())),
        pa.field("decode_s", pa.float32()),
        pa.field("fetch_retries", pa.int32()),
        pa.field("fetch_retry_s", pa.float32()),
        pa.field("node", pa.string()),
        pa.field("opened", TOLD),
        pa.field("trouble", pa.string()),
    ]
)
"""A decoded song on its way to an encoder: int16 windows, each scaled to its own peak, so that quiet
and over-full windows lose nothing. ``opened`` tells of a shard and ``trouble`` of what ends the run; such a row is no
song, and is not committed."""

BESIDE = (*COSTS, "ready", "node", "opened", "trouble")
"""All that an encoded song carries to its commit beside its row: its costs, when its worker was ready, the node that
decoded it, what is told on the way."""

PART_BYTES = 256_000_000
"""Features in one part: 256 songs of usual length have 30 MB, as many of two hours a gigabyte."""


@dataclass(frozen=True)
class Decoding:
    """How songs become windows (:func:`mer_ray.audio.decode_windows`), within a song's time and a decoder's memory.

    ``patience_s`` is how long a process waits for a world in which nothing can be fetched.
    """

    window_seconds: float
    keep_tail: bool
    max_seconds: float
    sample_rate: int
    min_seconds: float
    limits: Limits
    patience_s: float = 0.0

    def decode(self, uri: str, attempts: int) -> dict[str, Any]:
        """One song's decoded columns; whatever goes wrong with it, or it does to its decoder, becomes its status."""
        options = asdict(self)
        del options["limits"], options["patience_s"]
        return shared_decoder(self.limits).decode(uri, attempts=attempts, **options)

    def fingerprint(self) -> dict[str, Any]:
        """What of it decides a feature beside the encoder."""
        return {name: getattr(self, name) for name in ("window_seconds", "keep_tail", "max_seconds")}


def decode_work(
    work: pa.Table, decode: Callable[[pa.Table], Iterator[pa.Table]], watch: Any = None
) -> Iterator[pa.Table]:
    """Decode the songs of rows of a source (:func:`mer_ray.cluster.work.source_rows`); ``watch`` is told of each."""
    told = Told(watch, "decode")
    for at in range(len(work)):
        row = work.slice(at, 1)
        if row["work"].null_count:
            told_of = {name: row[name][0].as_py() for name in ("opened", "trouble")}
            yield decoded_table({"track_id": "", "status": "failed", **told_of})
            continue
        decoded = decode(work_of(row))
        while True:
            with told.busy():  # not while a song waits to be taken
                song = next(decoded, None)
            if song is None:
                break
            told.step()
            yield song


def decode_songs(songs: pa.Table, decoding: Decoding) -> Iterator[pa.Table]:
    """Fetch and decode songs, each into a row of DECODED_SCHEMA, failed ones too; trouble is the last row."""
    node = os.uname().nodename

    def decode(song: dict[str, str], attempts: int) -> dict[str, Any]:
        started = time.perf_counter()
        row = decoding.decode(song["uri"], attempts)
        return {**song, **row, "decode_s": time.perf_counter() - started, "node": node}

    try:
        for _, row in shared_patience(decoding.patience_s).read(songs.select(["track_id", "uri"]).to_pylist(), decode):
            yield decoded_table(row)
    except StorageError as error:
        yield decoded_table({"track_id": "", "status": "failed", "node": node, "trouble": str(error)})


def decoded_table(row: dict[str, Any]) -> pa.Table:
    """One row of DECODED_SCHEMA; ``windows``, a list of bytes-likes, is emptied as it is taken over."""
    at = DECODED_SCHEMA.get_field_index("windows")
    column = _one_buffer(row.pop("windows")) if "windows" in row else pa.nulls(1, DECODED_SCHEMA.field(at).type)
    table = pa.Table.from_pylist([row], schema=DECODED_SCHEMA.remove(at))
    return table.add_column(at, DECODED_SCHEMA.field(at), column)


def _one_buffer(windows: list[bytearray]) -> pa.Array:
    """A song's windows as a column of one row, in a buffer of the right size: a builder's would grow to four times."""
    ends = np.cumsum([0, *map(len, windows)], dtype=np.int64)
    buffer = pa.allocate_buffer(int(ends[-1]))
    view = np.frombuffer(buffer, np.uint8)
    count = len(windows)
    while windows:  # from the last, whose memory goes back to the system first
        last = windows.pop()
        view[ends[len(windows)] : ends[len(windows) + 1]] = np.frombuffer(last, np.uint8)
    values = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(ends), buffer])
    return pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)


def commit_features(songs: pa.Table, lease: Lease) -> Iterator[pa.Table]:
    """Write encoded songs as a part of each of their shards, or as several where they are very long; yields receipts.

    Failed songs are not written: the receipt takes them along.
    """
    told = pc.or_(pc.is_valid(songs["trouble"]), pc.is_valid(songs["opened"]))
    for number, own in by_shard(songs.filter(pc.invert(told)), lease.of):
        for part in _parts(own):
            costs = {name: pc.sum(part[name]).as_py() or 0 for name in COSTS}
            rows, ready = part.drop_columns([*BESIDE]), pc.min(part["ready"]).as_py()
            yield committed_ok(lease.open(number), rows, part["node"], ready=ready, **costs).table()
    beside = songs.filter(told).select(["opened", "trouble"])
    for at in range(len(beside)):
        yield told_by(beside.slice(at, 1)).table()


def _parts(songs: pa.Table) -> Iterator[pa.Table]:
    """Cut before the song whose features would begin another PART_BYTES."""
    windows = lengths(songs["features"]).to_numpy().astype(np.int64)
    dim = songs.schema.field("features").type.value_type.list_size
    ends = np.cumsum(windows) * dim * np.dtype(np.float16).itemsize
    cuts = np.flatnonzero(np.diff(ends // PART_BYTES)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(songs)]):
        if end > start:
            yield songs.slice(start, end - start)
