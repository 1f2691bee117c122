"""What is asked of a directory, by shard: a manifest of any length in one pass, in bounded memory.

    _run/manifest.parquet                    of a directory with one shard
    _run/shards/<shard>/manifest.parquet     of one with several
    _run/asked.json                          how many songs each shard's lists, and a digest of it

The songs of a pass are put down by shard in a temporary folder of this machine, some 100 bytes each, and then written
shard by shard; one that is finished with what is asked of it stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.repeats import refuse_repeated_ids
from mer_ray.errors import InputError
from mer_ray.fingerprints import text_sha256
from mer_ray.runs.directory import ASKED, DONE, MANIFEST, run_file
from mer_ray.runs.forgetting import without
from mer_ray.runs.open_shard import OpenShard
from mer_ray.runs.shards import Shard, by_shard, listed, state_of, stated

WRITERS, READERS = 4, 32
"""Manifests written, and records read at a time: each is a request or two."""

SOURCE = "catalogue"
"""What a sentence calls what is asked for, wherever that came from."""

CUT_SONGS = 100_000
"""Songs that are cut by shard at a time."""


@dataclass(frozen=True)
class Asked:
    """What is asked of each shard.

    Attributes:
        songs: how many songs.
        digests: of its manifest.
    """

    songs: list[int]
    digests: list[str]

    @classmethod
    def read(cls, uri: str) -> Asked | None:
        """Of a directory of several shards; None where it does not say."""
        found = storage.read_json(run_file(uri, ASKED)) or {}
        songs, digests = found.get("songs"), found.get("digests")
        if isinstance(songs, list) and isinstance(digests, list) and len(songs) == len(digests):
            return cls(songs, digests)
        return None


@dataclass(frozen=True)
class Shards:
    """What the shards of a store ask of those of its tags.

    Attributes:
        songs: how many songs, as far as that is known before they are opened.
        keys: another for each content.
        parts: how many parts.
    """

    songs: list[int]
    keys: list[str]
    parts: list[int]

    @classmethod
    def of(cls, uri: str, of: int, *, catalog: bool) -> Shards:
        """Of a store with ``of`` shards; of its songs only those that its manifests list, if a ``catalog`` is asked.

        One listing and a record a shard: no part is read.
        """
        there, asked = stated(uri), Asked.read(uri) or Asked([0], [""])
        parts, _ = listed(uri, there)
        songs, digests = asked.songs, asked.digests
        if there != of:  # each may hold songs of each
            parts = [[part for own in parts for part in own]] * of
            songs, digests = [0] * of, [" ".join(digests)] * of
        versions = [sorted(f"{part.name} {part.version}" for part in own) for own in parts]
        told = [[*own, digest if catalog else ""] for own, digest in zip(versions, digests, strict=True)]
        return cls(songs, [text_sha256("\n".join(each))[:20] for each in told], [*map(len, parts)])


def records(
    shards: Sequence[Shard], keys: Sequence[str], parts: Sequence[Sequence[storage.Entry]]
) -> list[dict[str, Any] | None]:
    """What each shard says of itself that is finished with its key, and has the parts it had then; None of others."""
    with ThreadPoolExecutor(READERS) as pool:
        return [*pool.map(_finished_as, shards, keys, parts)]


def _finished_as(shard: Shard, key: str, parts: Iterable[storage.Entry]) -> dict[str, Any] | None:
    done = storage.read_json(shard.file(DONE)) if shard.of > 1 else None
    same = done is not None and (done.get("key"), done.get("parts")) == (key, state_of(parts))
    return done if same else None


def added(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of what shards count."""
    if len(counts) == 1:
        return dict(counts[0])
    total: dict[str, Any] = {}
    for name, value in counts[0].items():
        if isinstance(value, dict):
            classes = sum((Counter(each[name]) for each in counts), Counter())
            total[name] = dict(classes.most_common())
        else:
            total[name] = round(sum(each[name] for each in counts), 1)
    return total


def digest_of(manifest: pa.Table) -> str:
    """The same for the same songs; in the order of their ids."""
    digest = hashlib.sha256()
    for batch in manifest.replace_schema_metadata(None).to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()[:20]


class Spool:
    """Songs that come in a stream, put down on this machine: so many that it is known before they are cut."""

    def __init__(self, batches: Iterable[pa.Table]) -> None:
        self.songs = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this
        batches = iter(batches)
        first = next(batches)
        with pa.ipc.new_stream(self._file, first.schema) as stream:
            for batch in chain([first], batches):
                stream.write_table(batch.cast(first.schema))
                self.songs += len(batch)
        pa.default_memory_pool().release_unused()

    def __iter__(self) -> Iterator[pa.Table]:
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])


def write_manifests(
    shards: list[OpenShard], own: Callable[[int], bool], batches: Iterable[pa.Table], forgotten: pa.Array
) -> Asked:
    """Write what is asked of each shard of a directory.

    Args:
        shards: all of them.
        own: which are to be written.
        batches: the manifest, some songs at a time.
        forgotten: songs that are left out.

    Raises:
        InputError: an id stands there twice.
    """
    asked = Asked([], [])
    with tempfile.TemporaryDirectory(prefix="mer-ray-manifest-") as folder, ThreadPoolExecutor(WRITERS) as pool:
        known = pool.map(_finished_with, (shard if own(number) else None for number, shard in enumerate(shards)))
        schema, written = _put_down(folder, batches, len(shards), forgotten), deque[Future[None]]()
        for shard, key in zip(shards, known, strict=True):
            manifest = _taken_up(os.path.join(folder, str(shard.shard.number)), schema)
            asked.songs.append(len(manifest))
            asked.digests.append(digest_of(manifest))
            if own(shard.shard.number) and asked.digests[-1] != key:
                written.append(pool.submit(_write, shard, manifest))
            if len(written) > WRITERS:  # so few are in memory
                written.popleft().result()
        for each in written:
            each.result()
    return asked


def _put_down(folder: str, batches: Iterable[pa.Table], of: int, forgotten: pa.Array) -> pa.Schema:
    """Append each batch's songs to a file a shard; returns their schema."""
    schema: pa.Schema | None = None
    for batch in _larger(batches):
        songs = without(batch, forgotten)
        schema = schema or songs.schema
        for number, own in by_shard(songs.cast(schema), of):
            with open(os.path.join(folder, str(number)), "ab") as file, pa.ipc.new_stream(file, schema) as stream:
                stream.write_table(own)
    if schema is None:
        raise InputError("no songs to do; check the catalogue.")
    return schema


def _larger(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """A hundred thousand songs at a time: each shard's share of them is a write."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= CUT_SONGS:
            yield pa.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _finished_with(shard: OpenShard | None) -> Any:
    """What a shard is finished with, if it is."""
    return (storage.read_json(shard.file(DONE)) or {}).get("key") if shard else None


def _write(shard: OpenShard, manifest: pa.Table) -> None:
    storage.remove(shard.file(DONE))  # first: killed between, it must not be finished with another manifest
    shard.keep(MANIFEST, manifest)


def _taken_up(path: str, schema: pa.Schema) -> pa.Table:
    """The songs of one shard, in the order of their ids."""
    tables = [schema.empty_table()]
    if os.path.exists(path):
        with open(path, "rb") as file:
            while file.tell() < os.path.getsize(path):
                tables.append(pa.ipc.open_stream(file).read_all())
    songs = pa.concat_tables(tables)
    refuse_repeated_ids(songs["track_id"], SOURCE)
    return songs.sort_by("track_id").combine_chunks()
