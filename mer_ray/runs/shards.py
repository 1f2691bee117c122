"""How an output directory is cut into shards: which songs, parts and files are whose.

A song's shard is a hash of its id. How many shards there are is chosen at a directory's first run and never changes:
a small catalogue has one, and its directory looks as if there were none.

    of one shard      part-<songs>.parquet              _run/<file>
    of several        part-<shard>-<songs>.parquet      _run/shards/<shard>/<file>
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.fingerprints import text_sha256
from mer_ray.runs.directory import SETTINGS, run_file
from mer_ray.songs import list_parts, part_name

SONGS = 20_000
"""Songs in a shard, about, unless another number is asked for."""

_NAMED = re.compile(r"part-(\d{5})-")

MOST = 100_000
"""Shards of a directory; of more, each would be a few songs."""


def count_for(songs: int, each: int) -> int:
    """Shards of a directory whose first run has so many songs, ``each`` in one."""
    return min(MOST, max(1, round(songs / each)))


def stated(uri: str) -> int:
    """How many shards a directory has; 1 where it does not say, as before there were several."""
    return int((storage.read_json(run_file(uri, SETTINGS)) or {}).get("shards", 1))


def numbers_of(ids: pa.Array | pa.ChunkedArray, of: int) -> NDArray[np.int64]:
    """[songs] the shard of each id."""
    if of == 1:
        return np.zeros(len(ids), np.int64)
    return np.fromiter((zlib.crc32(each.encode()) % of for each in ids.to_pylist()), np.int64, len(ids))


def listed(uri: str, of: int) -> tuple[list[list[storage.Entry]], list[storage.Entry]]:
    """The committed parts of each of ``of`` shards from one listing, and those that by their names are of none."""
    parts: list[list[storage.Entry]] = [[] for _ in range(of)]
    strange = []
    for part in list_parts(uri):
        named = _NAMED.match(part.name)
        if of == 1:
            parts[0].append(part)
        elif named and int(named[1]) < of:
            parts[int(named[1])].append(part)
        else:
            strange.append(part)
    return parts, strange


def state_of(parts: Iterable[storage.Entry]) -> str:
    """Another for each set of parts, by their names and sizes; the same for a copy of them."""
    return text_sha256("\n".join(sorted(f"{part.name} {part.size}" for part in parts)))[:20]


@dataclass(frozen=True)
class Shard:
    """One of the ``of`` shards of an output directory, and where what is its own lies."""

    output: str
    number: int = 0
    of: int = 1

    @property
    def prefix(self) -> str:
        """What the names of its parts begin with."""
        return "part-" if self.of == 1 else f"part-{self.number:05d}-"

    def path(self, name: str) -> str:
        """A file of its own, from ``_run``."""
        return name if self.of == 1 else f"shards/{self.number:05d}/{name}"

    def file(self, name: str) -> str:
        """The URI of a file of its own."""
        return run_file(self.output, self.path(name))

    def parts(self) -> list[storage.Entry]:
        """Its committed parts."""
        return list_parts(self.output, self.prefix)

    def part_name(self, rows: pa.Table) -> str:
        """The name of a part of these songs."""
        return part_name(rows["track_id"], self.prefix)


def all_of(uri: str) -> list[Shard]:
    """The shards of a directory."""
    of = stated(uri)
    return [Shard(uri, number, of) for number in range(of)]


def overlapping(uri: str, number: int, of: int) -> list[Shard]:
    """The shards of a directory that may hold songs of shard ``number`` of ``of``."""
    shards = all_of(uri)
    return [shards[number]] if len(shards) == of else shards


def by_shard(songs: pa.Table, of: int) -> Iterator[tuple[int, pa.Table]]:
    """Songs of several shards, the rows of each together; in one shard they stay as they are."""
    if of == 1:
        yield 0, songs
        return
    numbers = numbers_of(songs["track_id"], of)
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    together, bounds = songs.take(pa.array(order)), [*starts.tolist(), len(order)]
    for number, start, end in zip(found.tolist(), bounds, bounds[1:], strict=False):
        yield number, together.slice(start, end - start)
