"""What a song is called: title, artist, album and ISRC, from the files' own tags or from a manifest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.catalog.folder import songs_of_files
from mer_ray.catalog.manifest import NAMES
from mer_ray.catalog.sources import is_table, load_catalog

_KEYS = {
    "title": ("title", "TIT2", "Title"),
    "artist": ("artist", "TPE1", "Author"),
    "album": ("album", "TALB", "WM/AlbumTitle"),
    "isrc": ("isrc", "TSRC", "WM/ISRC", "----:com.apple.iTunes:ISRC"),
}
"""By name: of Vorbis comments and mutagen's easy tags, ID3 (in WAV and AIFF), ASF and MP4."""


def names_in_files(paths: Iterable[str]) -> dict[str, list[str | None]]:
    """What local files say of themselves, by column of the manifest; None where they say nothing or cannot be read."""
    rows = [_names_in(path) for path in paths]
    return {name: [row.get(name) for row in rows] for name in NAMES}


def with_names(table: pa.Table) -> pa.Table:
    """A manifest with what its local files say of themselves where it says nothing."""
    local = [None if storage.is_s3(uri) else uri for uri in table["uri"].to_pylist()]
    if not any(local):
        return table
    found = names_in_files(uri or "" for uri in local)
    for name in NAMES:
        own = pc.coalesce(table[name], pa.chunked_array([pa.array(found[name], pa.string())]))
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), own)
    return table


def names_of(ids: pa.ChunkedArray, catalog: str | None) -> pa.Table:
    """The columns NAMES of these songs, in their order, as a manifest or table has them; null where none says.

    A folder of songs or a prefix says nothing, and is not listed again.
    """
    nothing = pa.table({name: pa.nulls(len(ids), pa.string()) for name in NAMES})
    if catalog is None or not (songs_of_files(catalog) or (is_table(catalog) and storage.exists(catalog))):
        return nothing
    manifest = load_catalog(catalog)
    at = pc.index_in(ids.combine_chunks(), value_set=manifest["track_id"].combine_chunks())
    return manifest.select(list(NAMES)).take(at)


def _names_in(path: str) -> dict[str, str]:
    import mutagen

    try:
        tags: Any = getattr(mutagen.File(path, easy=True), "tags", None) or {}
    except (mutagen.MutagenError, OSError):
        return {}
    said = {name: next((text for key in keys if (text := _text(tags, key))), None) for name, keys in _KEYS.items()}
    return {name: text for name, text in said.items() if text}


def _text(tags: Any, key: str) -> str:
    """The first value of a tag as plain text; empty if there is none."""
    try:
        value = tags[key]
    except (KeyError, ValueError):  # mutagen's word for a key that the format cannot have
        return ""
    first = next(iter(getattr(value, "text", value)), "") if not isinstance(value, str) else value
    first = first.decode(errors="replace") if isinstance(first, bytes) else first
    return " ".join(str(first).split())
