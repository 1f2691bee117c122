"""Which songs of a directory are done again: what may have failed for the world's sake, and what has other audio now.

    _run/tries.parquet        how often each song that failed so was tried again
    _run/audio.parquet        what audio each song's row was made of: uri, size, ETag, as far as they are known

Both are kept up as a run begins, before any row is taken back. Deleted, the one counts anew, and the other notices no
change of what was done before.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.runs.directory import AUDIO, MANIFEST, TRIED, RunDirectory, run_file
from mer_ray.songs import WORLDLY, read_whole

TRIES = 3
"""Runs that try a song again by themselves; after that only ``--retry-failed`` does."""

AUDIO_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("uri", pa.string()), ("size_bytes", pa.int64()), ("etag", pa.string())]
)
_TRIES_SCHEMA = pa.schema([("track_id", pa.string()), ("tries", pa.int32())])


def passing(failed: pa.Table, directory: RunDirectory) -> pa.Array:
    """Ids of failed rows (``track_id``, ``error_class``) that may be the world's fault and were not tried too often.

    They count as tried from now on.
    """
    worldly = failed.filter(pc.is_in(failed["error_class"], value_set=pa.array(sorted(WORLDLY))))["track_id"]
    if not len(worldly):
        return pa.array([], pa.string())
    before = (read_whole(directory.file(TRIED)) or _TRIES_SCHEMA.empty_table()).cast(_TRIES_SCHEMA)
    counted = pa.table([worldly.combine_chunks()], ["track_id"]).join(before, "track_id")
    counts = pc.fill_null(counted["tries"], 0)
    again = counted["track_id"].filter(pc.less(counts, TRIES))
    if len(again):
        others = before.filter(pc.invert(pc.is_in(before["track_id"], value_set=worldly.combine_chunks())))
        tried = pa.table([counted["track_id"], pc.min_element_wise(pc.add(counts, 1), TRIES)], schema=_TRIES_SCHEMA)
        _write(directory, TRIED, pa.concat_tables([others, tried]))
    return again.combine_chunks()


def audio_of(manifest: pa.Table) -> pa.Table:
    """AUDIO_SCHEMA of a manifest, what it does not say as null."""
    rows = len(manifest)
    columns = [manifest[f.name] if f.name in manifest.column_names else pa.nulls(rows, f.type) for f in AUDIO_SCHEMA]
    return pa.table(columns, AUDIO_SCHEMA.names).cast(AUDIO_SCHEMA)


def read_audio(uri: str) -> pa.Table:
    """AUDIO_SCHEMA of the songs of a directory, empty where it keeps none."""
    found = read_whole(run_file(uri, AUDIO))
    return AUDIO_SCHEMA.empty_table() if found is None else found.cast(AUDIO_SCHEMA)


def keep_audio(directory: RunDirectory) -> None:
    """Of a directory that keeps none, written by an older version: take what its manifest says, while it stands."""
    if not storage.exists(directory.file(AUDIO)) and (asked := read_whole(directory.file(MANIFEST))) is not None:
        note_audio(directory, AUDIO_SCHEMA.empty_table(), asked)


def note_audio(directory: RunDirectory, before: pa.Table, manifest: pa.Table) -> None:
    """Write down what is known of songs' audio: of the manifest's songs what that says, of others what was known."""
    now = audio_of(manifest)
    if len(before):
        asked = now["track_id"].combine_chunks()
        others = before.filter(pc.invert(pc.is_in(before["track_id"], value_set=asked)))
        _write(directory, AUDIO, pa.concat_tables([others, now]))
    elif now["size_bytes"].null_count < len(now) or now["etag"].null_count < len(now):
        _write(directory, AUDIO, now)


def with_audio(songs: pa.Table, store: str) -> pa.Table:
    """Songs (``track_id``, ``uri``) with what audio the rows of a feature store were made of."""
    found = read_whole(run_file(store, AUDIO))
    if found is None:
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


def _write(directory: RunDirectory, name: str, table: pa.Table) -> None:
    directory.publish(f"_run/{name}", storage.parquet_bytes(table))
