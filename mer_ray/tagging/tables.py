"""Tags as tables for a spreadsheet: a row a song and word, or a row a song with a column a word."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mer_ray import storage
from mer_ray.catalog.manifest import NAMES
from mer_ray.catalog.names import names_of
from mer_ray.errors import InputError

SONG = ("track_id", "uri", "status", "error_class", "duration_s")
"""What a table tells of a song, before its names."""


def check_table(flag: str, uri: str | None) -> None:
    """Raise InputError for a file that is neither CSV nor Parquet."""
    if uri is not None and not uri.endswith((".csv", ".parquet")):
        raise InputError(f"{flag} {uri}: neither .csv nor .parquet; end the name with one of them.")


def long_table(songs: pa.Table, catalog: str | None) -> pa.Table:
    """A row a song and word, best first; a song without a word, such as a failed one, has none."""
    at = pc.list_parent_indices(songs["tags"]).combine_chunks()
    tags = pc.list_flatten(songs["tags"]).combine_chunks()
    said = _named(songs, catalog).take(at)
    starts = np.flatnonzero(np.diff(at.to_numpy(), prepend=-1))
    rank = np.arange(len(at)) - np.repeat(starts, np.diff(np.append(starts, len(at)))) + 1
    said = said.append_column("rank", pa.array(rank, pa.int32()))
    for name in ("label", "score", "percentile"):
        said = said.append_column(name, pc.struct_field(tags, name))
    return said


def wide_table(songs: pa.Table, labels: Sequence[str], catalog: str | None) -> pa.Table:
    """A row a song, failed ones too; a column a word with its percentile, null where the song was not given it."""
    at = pc.list_parent_indices(songs["tags"]).to_numpy()
    tags = pc.list_flatten(songs["tags"])
    column = pc.index_in(pc.struct_field(tags, "label"), value_set=pa.array(labels, pa.string())).to_numpy()
    values_SL = np.full((len(songs), len(labels)), np.nan, np.float32)
    values_SL[at, column] = pc.struct_field(tags, "percentile").to_numpy()
    table = _named(songs, catalog)
    for number, label in enumerate(labels):
        # A word that is called like a column of the song's own stands in brackets.
        name = f"[{label}]" if label in table.column_names else label
        table = table.append_column(name, pa.array(values_SL[:, number], from_pandas=True))
    return table


def write_rows(uri: str, tables: Iterator[pa.Table]) -> int:
    """Write tables of one schema, at least one, one after another, as CSV or Parquet; returns how many rows."""
    first = next(tables)
    kind: Any = pyarrow.csv.CSVWriter if uri.endswith(".csv") else pq.ParquetWriter
    file, rows = io.BytesIO(), 0
    with kind(file, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            rows += len(table)
    storage.write_bytes(uri, file.getvalue())
    return rows


def _named(songs: pa.Table, catalog: str | None) -> pa.Table:
    names = names_of(songs["track_id"], catalog)
    table = songs.select(list(SONG))
    for name in NAMES:
        table = table.append_column(name, names[name])
    return table
