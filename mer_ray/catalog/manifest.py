"""The manifest: one row a song, with ``track_id``, unique, and ``uri``. One Parquet file, or a folder of them.

What is not known of ``dataset``, ``split``, ``labels``, ``ratings``, ``size_bytes``, ``etag`` and of a song's names
is null. ``ratings`` is soft truth: how strongly listeners heard a label, on the dataset's own scale. The same source
gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.catalog.datasets import SPLITS
from mer_ray.catalog.folder import folder_tables, songs_of_files
from mer_ray.catalog.repeats import refuse_repeated_ids
from mer_ray.errors import InputError
from mer_ray.songs import stored_json
from mer_ray.uris import without_credentials

NAMES = ("title", "artist", "album", "isrc")
"""The columns that say what a song is called."""

MANIFEST_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("ratings", pa.list_(pa.struct([("label", pa.string()), ("rating", pa.float32())]))),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
        *((name, pa.string()) for name in NAMES),
    ]
)
READINGS = "mer_ray.catalog"
"""Metadata: which readings of the paper chose a manifest's labels and splits."""

ROWS = 50_000
"""Of a manifest at a time, where it is read or made in a stream."""


def make_manifest(columns: dict[str, Any], source: str, readings: dict[str, str] | None = None) -> pa.Table:
    """Cast columns to the manifest's schema, absent ones as nulls, and hold them to its contract.

    Raises:
        InputError: there are no songs, or values that the contract does not allow; ``source`` is named.
    """
    rows = len(columns["track_id"])
    if not rows:
        raise no_songs(source)
    arrays = []
    try:
        for field in MANIFEST_SCHEMA:
            values = columns.get(field.name, pa.nulls(rows, field.type))
            given = isinstance(values, (pa.Array, pa.ChunkedArray))
            arrays.append(values.cast(field.type) if given else pa.array(values, field.type))
    except UnicodeEncodeError as error:
        raise InputError(f"{source}: the name {error.object!a} is not UTF-8; rename the file.") from error
    except pa.ArrowException as error:
        raise InputError(f"{source}: column {field.name} is malformed ({error}); mend it.") from error
    schema = MANIFEST_SCHEMA.with_metadata({READINGS: json.dumps(readings)} if readings else None)
    table = pa.Table.from_arrays(arrays, schema=schema)
    _check(table, source)
    return table


def whole(batches: Iterable[pa.Table], source: str) -> pa.Table:
    """One manifest of several parts of it.

    Raises:
        InputError: there are no songs, or an id stands more than once.
    """
    parts = list(batches)
    if not parts:
        raise no_songs(source)
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables(parts).combine_chunks()
    refuse_repeated_ids(table["track_id"], source)
    return table


def no_songs(source: str) -> InputError:
    """What to say of a source without songs."""
    return InputError(f"{source}: no songs found; check the path and the file extensions.")


def _check(table: pa.Table, source: str) -> None:
    for name in ("track_id", "uri"):
        if table[name].null_count:
            raise InputError(f"{source}: a row has no {name}; fill it in or drop the row.")
    uris = table["uri"]
    for uri in uris.filter(pc.match_substring(uris, "@")).to_pylist():
        without_credentials(uri)
    refuse_repeated_ids(table["track_id"], source)
    ratings = pc.list_flatten(table["ratings"])
    given = pc.struct_field(ratings, "rating")
    if ratings.null_count or given.null_count or not pc.all(pc.is_finite(given), min_count=0).as_py():
        raise InputError(f"{source}: a rating is no finite number; leave out the ratings that are not known.")
    unknown = sorted(set(pc.unique(table["split"]).to_pylist()) - {None, *SPLITS})
    if unknown:
        raise InputError(f"{source}: split {unknown[0]!r} is none of {', '.join(SPLITS)}; rename it.")


def read_manifest(uri: str) -> pa.Table:
    """Read a manifest as it was written; absent optional columns are added as nulls, others dropped.

    Raises:
        InputError: it is missing, empty, no Parquet, or its ids are not unique.
    """
    counts = songs_of_files(uri)
    return as_written(read_parquet(uri), uri) if counts is None else whole(folder_batches(uri, counts), uri)


def folder_batches(uri: str, counts: list[int], rows: int = ROWS) -> Iterator[pa.Table]:
    """The manifest that is a folder whose files hold these ``counts`` of songs, so many rows at a time."""
    for table in folder_tables(uri, counts, rows):
        yield as_written(table, uri)


def as_written(table: pa.Table, uri: str) -> pa.Table:
    """A manifest, or some rows of one, from the columns of its file."""
    for name in ("track_id", "uri"):
        if name not in table.column_names:
            raise InputError(f"{uri}: no column {name!r}; make a manifest of it with jobs/catalog.py.")
    columns = {name: table[name] for name in MANIFEST_SCHEMA.names if name in table.column_names}
    return make_manifest(columns, uri, stored_json(table.schema, READINGS))


def read_parquet(uri: str) -> pa.Table:
    """A user's Parquet file, whatever its columns.

    Raises:
        InputError: it is missing or no Parquet.
    """
    with storage.readable_parquet(uri):
        return storage.read_table(uri)
