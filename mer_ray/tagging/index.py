"""The songs of a whole store with their vectors, kept in one file that a search maps into memory.

    features/_projected/<model>/songs-<parts>.arrow      made by a search, a batch some thousand songs

The name holds what the store's parts are as one listing of them tells, so what is there is right. When parts have
joined, changed or gone it is made anew: what the old one has of the others is taken over, the rest read from their
projections. It can be deleted at any time. Of a store on S3 it lies there, and is fetched once into the user's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import text_sha256
from mer_ray.learning.scoring import lots
from mer_ray.songs import STATUS_FIELDS, damaged, list_parts, metadata, stored_json, stored_metadata
from mer_ray.tagging.projections import FOLDER, Projections, collect, song_vectors, vector_column

BATCH = 4096
"""Songs of a batch, fewer in the last: their vectors as float32 fit into a processor's cache."""

_PREFIX, _PARTS = "songs-", "mer_ray.parts"
_OF_SONG = ("track_id", "uri", "duration_s")


class _Index(NamedTuple):
    """An index: the number in it of each of the store's parts it was made of, and its songs."""

    parts: dict[str, int]
    batches: list[pa.RecordBatch]


def song_batches(projections: Projections) -> list[pa.RecordBatch]:
    """Every song of a store that could be read: ``track_id``, ``uri``, ``duration_s``, ``lot`` and ``vector``.

    ``lot`` is as :func:`mer_ray.learning.scoring.lots` has it, ``vector`` [E] float16. They stay on disk until they
    are looked at; where nothing is to be kept they are in memory, unless an index is there.

    Raises:
        InputError: a part of the store is damaged, or the store changes meanwhile.
    """
    parts = _parts(projections.features)
    schema = _schema(projections, parts)
    kept = storage.join(_places(projections.folder)[0], f"{_PREFIX}{text_sha256(chr(0).join(parts))[:16]}.arrow")
    found = _read(kept, schema, projections.keep)
    if found is None or found.parts.keys() != parts.keys():
        songs = _batched(_songs(projections, parts, schema), schema)
        if not projections.keep:
            return list(songs)
        _keep(kept, schema, songs)
        found = _read(kept, schema, fetch=False)
        if found is None:
            raise InputError(f"features {projections.features}: changed while they were searched; search again.")
    return found.batches


def batch_vectors(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """[songs, E] the vectors of a batch."""
    import torch

    column = batch["vector"]
    halves_SE = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    # numpy's astype takes six times as long.
    vectors_SE: NDArray[np.float32] = torch.from_numpy(halves_SE.copy()).float().numpy()
    return vectors_SE


def rows_at(batches: list[pa.RecordBatch], positions_N: NDArray[np.int64]) -> pa.Table:
    """The songs at these positions among those of all batches, in this order."""
    order_N = np.argsort(positions_N, kind="stable")
    starts = np.cumsum([0, *map(len, batches)])
    bounds = np.searchsorted(positions_N[order_N], starts)
    taken = [
        batch.take(pa.array(positions_N[order_N[first:end]] - start))
        for batch, start, first, end in zip(batches, starts, bounds, bounds[1:], strict=False)
        if first < end
    ]
    return pa.Table.from_batches(taken, batches[0].schema).take(pa.array(np.argsort(order_N)))


def collect_kept(features: str) -> int:
    """Delete what is kept for parts that the store no longer has, or has written anew; returns how many files.

    An index goes if it has songs of such a part; one that only lacks some is where the next begins.
    """
    parts = _parts(features)
    stale = []
    for model in storage.names(storage.join(features, FOLDER)):
        for place in _places(storage.join(features, FOLDER, model)):
            for index in _indexes(place):
                made_of = _made_of(index)
                if not made_of or made_of.keys() - parts.keys():
                    stale.append(index)
    for index in stale:
        storage.remove(index)
    return len(stale) + collect(features)


def _parts(features: str) -> dict[str, str]:
    """The URIs of a store's parts by name and content, as a listing tells it."""
    return {f"{part.name} {part.version} {part.size} {part.written}": part.uri for part in list_parts(features)}


def _schema(projections: Projections, parts: Iterable[str]) -> pa.Schema:
    of_status = {field.name: field for field in STATUS_FIELDS}
    fields = [
        *(of_status[name] for name in _OF_SONG),
        pa.field("lot", pa.uint64()),
        pa.field("part", pa.int32()),
        pa.field("vector", pa.list_(pa.float16(), projections.model.projector.shape.output_dim)),
    ]
    numbers = {part: number for number, part in enumerate(parts)}
    made_by = {"mer_ray.model": projections.model.digest, _PARTS: json.dumps(numbers)}
    return pa.schema(fields, metadata=metadata(projections.encoder, **made_by))


def _songs(projections: Projections, parts: dict[str, str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The readable songs of each part: as an index made before has them, else from its projections."""
    before = _before(projections, schema)
    old = pa.Table.from_batches(before.batches, schema)
    numbers = old["part"].to_numpy()
    for number, (part, uri) in enumerate(parts.items()):
        if part in before.parts:
            first, end = np.searchsorted(numbers, before.parts[part] + np.arange(2))
            yield _numbered(old.slice(first, end - first), number, schema)
            continue
        for songs in _projected(projections, uri):
            halves_SE = song_vectors(songs)[0].astype(np.float16)
            more = {"lot": lots(songs["track_id"].to_pylist()), "vector": vector_column(halves_SE)}
            yield _numbered(songs.select(_OF_SONG), number, schema, more)


def _numbered(songs: pa.Table, number: int, schema: pa.Schema, more: Mapping[str, Any] | None = None) -> pa.Table:
    """Rows of an index, by their part's number in it."""
    columns = {**{name: songs[name] for name in songs.column_names}, **(more or {})}
    columns["part"] = np.full(len(songs), number, np.int32)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _projected(projections: Projections, part: str) -> Iterator[pa.Table]:
    try:
        for songs in projections.songs(part):
            yield songs.filter(songs["vector"].is_valid())
    except FileNotFoundError as error:
        raise InputError(f"features {part}: gone while it was read; search again.") from error
    except (OSError, pa.ArrowException) as error:
        if not damaged(error):
            raise
        raise InputError(
            f"features {part}: not a readable Parquet file; run extract again, it mends the store."
        ) from error


def _batched(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    waiting = schema.empty_table()
    for songs in tables:
        waiting = pa.concat_tables([waiting, songs])
        while len(waiting) >= BATCH:
            yield waiting.slice(0, BATCH).combine_chunks().to_batches()[0]
            waiting = waiting.slice(BATCH)
    if len(waiting):
        yield waiting.combine_chunks().to_batches()[0]


def _before(projections: Projections, schema: pa.Schema) -> _Index:
    """An index of other parts, if one is there."""
    found = (_read(index, schema, projections.keep) for index in _indexes(projections.folder))
    return next(filter(None, found), _Index({}, []))


def _keep(kept: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write an index, and delete those before it."""
    here = _here(kept)
    with storage.local_file(here) as file, pa.ipc.new_file(file, schema) as index:
        for batch in batches:
            index.write_batch(batch)
    if here != kept:
        storage.upload(here, kept)
        _leave_alone(kept)
    _leave_alone(here)


def _read(kept: str, schema: pa.Schema, fetch: bool) -> _Index | None:
    """An index of this schema; None if it is not there, torn or another's. One on S3 is fetched, or read whole."""
    here = _here(kept)
    if not storage.exists(here):
        if here == kept or not storage.exists(kept):
            return None
        if fetch:
            storage.download(kept, here)
            _leave_alone(here)
        else:
            here = kept
    try:
        with storage.guarded(here):
            whole = pa.memory_map(here) if not storage.is_s3(here) else pa.BufferReader(storage.read_bytes(here))
            file = pa.ipc.open_file(whole)
            if not file.schema.equals(schema) or _made_by(file.schema) != _made_by(schema):
                return None
            batches = [file.get_batch(number) for number in range(file.num_record_batches)]
            return _Index(stored_json(file.schema, _PARTS), batches)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if damaged(error):
            return None
        raise


def _made_by(schema: pa.Schema) -> list[str | None]:
    stored = stored_metadata(schema)
    return [stored.get(f"mer_ray.{name}") for name in ("schema", "encoder", "model")]


def _made_of(index: str) -> dict[str, Any]:
    """The parts of an index; {} of one that is torn, or gone."""
    try:
        with storage.opened(index) as file:
            return stored_json(pa.ipc.open_file(file).schema, _PARTS)
    except (FileNotFoundError, pa.ArrowInvalid):
        return {}


def _indexes(folder: str) -> list[str]:
    return [storage.join(folder, name) for name in storage.names(folder) if name.startswith(_PREFIX)]


def _leave_alone(kept: str) -> None:
    """Delete the indexes beside this one."""
    for other in _indexes(kept.rpartition("/")[0]):
        if other != kept:
            storage.remove(other)


def _here(kept: str) -> str:
    """The local path of an index."""
    folder, _, name = kept.rpartition("/")
    return storage.join(_places(folder)[-1], name)


def _places(folder: str) -> list[str]:
    """Where the indexes of a folder lie: there, and of one on S3 in the user's cache too."""
    if not storage.is_s3(folder):
        return [storage.absolute(folder)]
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [folder, os.path.join(caches, "mer_ray", text_sha256(folder)[:16])]
