"""Which songs of a directory are done again: what may have failed for the world's sake, and what has other audio now.

    tries.parquet        how often each song that failed so was tried again
    audio.parquet        what audio each song's row was made of: uri, size, ETag, as far as they are known

Both are a shard's, and kept up as a run opens it, before any row is taken back. Deleted, the one counts anew, and the
other notices no change of what was done before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.runs.directory import AUDIO, MANIFEST, TRIED
from mer_ray.runs.shards import Shard
from mer_ray.songs import WORLDLY, read_whole

TRIES = 3
"""Runs that try a song again by themselves; after that only ``--retry-failed`` does."""

AUDIO_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("uri", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string())]
)
_TRIES_SCHEMA = pa.schema([("track_id", pa.string()), ("tries", pa.int32())])


class Keeper(Protocol):
    """Who has the lock that a shard's files are written under."""

    @property
    def shard(self) -> Shard: ...

    def keep(self, name: str, table: pa.Table) -> None: ...


def passing(failed: pa.Table, keeper: Keeper) -> pa.Array:
    """Ids of failed rows (``track_id``, ``error_class``) that may be the world's fault and were not tried too often.

    They count as tried from now on.
    """
    counted, before = _counted(failed, keeper.shard), _tries(keeper.shard)
    again = counted.filter(pc.less(counted["tries"], TRIES))["track_id"].combine_chunks()
    if len(again):
        others = before.filter(pc.invert(pc.is_in(before["track_id"], value_set=counted["track_id"].combine_chunks())))
        tries = pc.min_element_wise(pc.add(counted["tries"], 1), TRIES).cast(pa.int32())
        keeper.keep(TRIED, pa.concat_tables([others, pa.table([counted["track_id"], tries], schema=_TRIES_SCHEMA)]))
    return again


def waiting(failed: pa.Table, shard: Shard) -> pa.Array:
    """Ids of failed rows that the next run tries again by itself."""
    counted = _counted(failed, shard)
    return counted.filter(pc.less(counted["tries"], TRIES))["track_id"].combine_chunks()


def _tries(shard: Shard) -> pa.Table:
    found = read_whole(shard.file(TRIED))
    return _TRIES_SCHEMA.empty_table() if found is None else found.cast(_TRIES_SCHEMA)


def _counted(failed: pa.Table, shard: Shard) -> pa.Table:
    """Of failed rows those that may be the world's fault, with how often they were tried again."""
    ids = failed.filter(pc.is_in(failed["error_class"], value_set=pa.array(sorted(WORLDLY))))["track_id"]
    if not len(ids):
        return _TRIES_SCHEMA.empty_table()
    counted = pa.table([ids.combine_chunks()], ["track_id"]).join(_tries(shard), "track_id")
    return pa.table([counted["track_id"], pc.fill_null(counted["tries"], 0)], schema=_TRIES_SCHEMA)


def audio_of(manifest: pa.Table) -> pa.Table:
    """AUDIO_SCHEMA of a manifest, what it does not say as null."""
    rows = len(manifest)
    columns = [manifest[f.name] if f.name in manifest.column_names else pa.nulls(rows, f.type) for f in AUDIO_SCHEMA]
    return pa.table(columns, AUDIO_SCHEMA.names).cast(AUDIO_SCHEMA)


def read_audio(shard: Shard) -> pa.Table:
    """AUDIO_SCHEMA of the songs of a shard, empty where it keeps none."""
    found = read_whole(shard.file(AUDIO))
    return AUDIO_SCHEMA.empty_table() if found is None else found.cast(AUDIO_SCHEMA)


def keep_audio(keeper: Keeper) -> None:
    """Where none is kept, as by older versions: take what the manifest says, while it stands."""
    shard = keeper.shard
    if not storage.exists(shard.file(AUDIO)) and (asked := read_whole(shard.file(MANIFEST))) is not None:
        note_audio(keeper, AUDIO_SCHEMA.empty_table(), asked)


def note_audio(keeper: Keeper, before: pa.Table, manifest: pa.Table) -> None:
    """Write down what is known of songs' audio: of the manifest's songs what that says, of others what was known."""
    now = audio_of(manifest)
    if len(before):
        asked = now["track_id"].combine_chunks()
        others = before.filter(pc.invert(pc.is_in(before["track_id"], value_set=asked)))
        keeper.keep(AUDIO, pa.concat_tables([others, now]))
    elif now["size_bytes"].null_count < len(now) or now["etag"].null_count < len(now):
        keeper.keep(AUDIO, now)


def with_audio(songs: pa.Table, stores: Sequence[Shard]) -> pa.Table:
    """Songs (``track_id``, ``uri``) with what audio the rows of shards of a feature store were made of."""
    found = pa.concat_tables([read_audio(store) for store in stores])
    if not len(found):
        return songs
    known = found.take(pc.index_in(songs["track_id"], value_set=found["track_id"].combine_chunks()))
    return pa.table([*songs.columns, known["size_bytes"], known["etag"]], AUDIO_SCHEMA.names)


def changed(before: pa.Table, now: pa.Table) -> pa.Array:
    """Ids whose audio is another than before: of another size, or of another ETag at the same uri."""
    if not len(before):
        return pa.array([], pa.string())
    both = now.join(before, "track_id", join_type="inner", right_suffix="_before")
    size = pc.not_equal(both["size_bytes"], both["size_bytes_before"])
    etag = pc.and_(pc.equal(both["uri"], both["uri_before"]), pc.not_equal(both["etag"], both["etag_before"]))
    return both["track_id"].filter(pc.or_kleene(pc.fill_null(size, False), pc.fill_null(etag, False))).combine_chunks()
