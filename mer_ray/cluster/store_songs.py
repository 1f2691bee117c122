"""The songs of a feature store as tag reads them: where they stand, which are to do, which measure the words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.cluster.work import Opened
from mer_ray.learning.scoring import YARDSTICK_SONGS, lots, yardstick_songs
from mer_ray.runs.again import with_audio
from mer_ray.runs.directory import MANIFEST
from mer_ray.runs.open_shard import Lease
from mer_ray.runs.shards import Shard, numbers_of, overlapping
from mer_ray.songs import read_columns

_STORE_ROWS = pa.schema([pa.field(name, pa.string()) for name in ("track_id", "uri", "status", "part")])

WORK = pa.schema([pa.field("part", pa.string()), pa.field("wanted", pa.list_(pa.string()))])
"""Parts of a store to read: their URIs, and the ids that are wanted of each; null for all."""


@dataclass(frozen=True)
class SongsToTag:
    """Opens the shards of a tags directory: what is asked of one are the songs of the store's shard of that number.

    ``catalog``: of these only the songs that the store's own manifest lists.
    """

    lease: Lease
    features: str
    catalog: bool
    retry_failed: bool

    def __call__(self, shard: int, number: int) -> Opened:
        stores, own = overlapping(self.features, shard, self.lease.of), self.lease.open(shard)
        found = [store_rows(store, self.catalog) for store in stores]
        rows, wanted = (pa.concat_tables(tables) for tables in zip(*found, strict=True))
        wanted = wanted.filter(pa.array(numbers_of(wanted["track_id"], self.lease.of) == shard))
        asked = with_audio(wanted.select(["track_id", "uri"]), stores)
        own.ask(asked)
        mended = wanted.filter(pc.equal(wanted["status"], "ok"))["track_id"].combine_chunks()
        pending = own.pending_in(number, retry_failed=self.retry_failed, mended=mended)
        return Opened(by_part(rows, pending["track_id"].combine_chunks()), len(pending), len(asked))


def store_rows(store: Shard, catalog: bool) -> tuple[pa.Table, pa.Table]:
    """track_id, uri, status and part of every song of a store's shard; and of those that its manifest lists."""
    rows = pa.concat_tables(
        [
            _STORE_ROWS.empty_table(),
            *(
                table.replace_schema_metadata(None).append_column("part", pa.array([part] * len(table), pa.string()))
                for part, table in read_columns([part.uri for part in store.parts()], _STORE_ROWS.names[:3])
            ),
        ],
        promote_options="permissive",
    )
    if not catalog:
        return rows, rows
    asked = storage.read_table(store.file(MANIFEST), ["track_id"])["track_id"].combine_chunks()
    return rows, rows.filter(pc.is_in(rows["track_id"], value_set=asked))


def by_part(rows: pa.Table, ids: pa.Array) -> pa.Table:
    """Where these songs stand among the rows of a store (``track_id``, ``part``), as WORK."""
    picked = rows.filter(pc.is_in(rows["track_id"], value_set=ids)).group_by("part").aggregate([("track_id", "list")])
    whole = rows.group_by("part").aggregate([("track_id", "count")])
    held = dict(zip(whole["part"].to_pylist(), whole["track_id_count"].to_pylist(), strict=True))
    counts = pc.list_value_length(picked["track_id_list"]).to_pylist()
    partial = pa.array([count < held[part] for part, count in zip(picked["part"].to_pylist(), counts, strict=True)])
    wanted = pc.if_else(partial, picked["track_id_list"], pa.scalar(None, pa.list_(pa.string())))
    return pa.table([picked["part"], wanted], schema=WORK)


class Sample:
    """Songs of a store that could be read, for the yardstick: as shards are drawn by hash, the first few will do."""

    def __init__(self, uri: str, of: int, *, catalog: bool) -> None:
        self._shards, self._catalog = [Shard(uri, number, of) for number in range(of)], catalog

    @cached_property
    def _found(self) -> tuple[pa.Table, pa.Array]:
        rows, ids, songs = [], [], 0
        for shard in self._shards:
            held, wanted = store_rows(shard, self._catalog)
            readable = wanted.filter(pc.equal(wanted["status"], "ok"))["track_id"]
            rows.append(held)
            ids += readable.chunks
            songs += len(readable)
            if songs >= YARDSTICK_SONGS:
                break
        return pa.concat_tables(rows), pa.chunked_array(ids, pa.string()).combine_chunks()

    @property
    def rows(self) -> pa.Table:
        """``track_id`` and ``part`` of the songs of the shards that were read."""
        return self._found[0]

    @property
    def ids(self) -> pa.Array:
        """Those of the songs that could be read, and are asked for."""
        return self._found[1]

    @property
    def some(self) -> pa.Array:
        """Those of them that measure."""
        return self.ids.take(pa.array(yardstick_songs(lots(self.ids.to_pylist()))))
