"""Taking songs out of an output directory for good, and letting them in again.

The list is written first and the rows go after it, so that a takedown that was interrupted is finished by the same
command. What is left is whole: parts, manifest, failures and counts agree without the songs.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.runs.directory import AUDIO, DEATHS, DONE, FAILURES, LOGS, MANIFEST, PENDING, SUMMARY, TRIED
from mer_ray.runs.forgetting import read_forgotten, without, write_forgotten
from mer_ray.runs.open_shard import OpenShard
from mer_ray.runs.ranges import forget_ranges
from mer_ray.runs.shards import by_shard
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.runs.status import TRAINING, RunFiles, open_run

_TABLES = (MANIFEST, PENDING, AUDIO, TRIED, FAILURES)


class Takedown(NamedTuple):
    """Rows that were taken out, and songs that the directory is to forget from now on."""

    rows: int
    forgotten: int


def forget(uri: str, ids: pa.Array) -> Takedown:
    """Take songs out of a directory of extract or tag; later runs leave them out.

    Raises:
        InputError: it is no such directory, or a run is at work there.
    """
    found = _found(uri)
    with SongsDirectory(uri, "forget") as output:
        output.go_on()
        forgotten = pc.unique(pa.chunked_array([read_forgotten(uri), ids.cast(pa.string())]))
        write_forgotten(uri, forgotten)
        success = storage.join(uri, "_SUCCESS")
        finished = storage.exists(success)
        storage.remove(success)
        by_shards = by_shard(pa.table({"track_id": forgotten}), output.lease.of)
        rows = sum(_forget_in(output.shards[number], own["track_id"].combine_chunks()) for number, own in by_shards)
        _clean_notes(output, set(forgotten.to_pylist()))
        if finished:
            output.account(found.job, (output.read_json(SUMMARY) or {}).get("this_run", {}))
    return Takedown(rows, len(forgotten))


def _forget_in(shard: OpenShard, ids: pa.Array) -> int:
    storage.remove(shard.file(DONE))
    rows = shard.take_out(ids)
    for name in _TABLES:
        _clean(shard.file(name), ids)
    return rows


def unforget(uri: str, ids: pa.Array) -> Takedown:
    """Let later runs of a directory do these songs again. Raises as :func:`forget`."""
    _found(uri)
    with SongsDirectory(uri, "forget"):
        before = read_forgotten(uri)
        left = before.filter(pc.invert(pc.is_in(before, value_set=ids.cast(pa.string()))))
        write_forgotten(uri, left)
    return Takedown(0, len(left))


def _found(uri: str) -> RunFiles:
    with storage.readable(uri):
        run = open_run(uri)
    if run.job == TRAINING:
        raise InputError(f"--run {uri}: a model directory holds no songs; train it anew without them.")
    return run


def _clean_notes(output: SongsDirectory, ids: set[str]) -> None:
    """What names songs outside tables: those that encoders died of, and Ray's logs, which may name any."""
    deaths = output.read_json(DEATHS) or {}
    if deaths.keys() & ids:
        output.write_json(DEATHS, {song: counts for song, counts in deaths.items() if song not in ids})
    forget_ranges(output.uri)
    storage.remove_folder(output.file(LOGS))


def _clean(uri: str, ids: pa.Array) -> None:
    try:
        table = storage.read_table(uri)
    except FileNotFoundError:
        return
    kept = without(table, ids)
    if len(kept) < len(table):
        storage.write_table(uri, kept)
