"""Songs that stand in a table: CSV, TSV or Parquet, read some rows at a time."""

from __future__ import annotations

import csv
import io
import itertools
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.manifest import MANIFEST_SCHEMA, NAMES, make_manifest
from mer_ray.errors import InputError
from mer_ray.uris import without_credentials

TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet")
_RATING = "rating:"


def table_batches(source: str, audio: str | None, rows: int) -> Iterator[pa.Table]:
    """A manifest of the songs of a CSV, TSV or Parquet table: ``uri``, optionally the manifest's other columns.

    A relative uri starts from ``audio``, by default the table's folder. Without ``track_id`` the id is
    the path below it, or the whole path of a uri elsewhere. Labels are a list in Parquet; in text they are
    separated by ``|`` if the cell has one, else by ``;`` if it has one, else by ``,``. So a label that
    holds a comma needs ``|``, if only at its end: ``calming, soothing|``. A column ``rating:calm`` holds how strongly
    listeners heard that label, a number or nothing; in Parquet ``ratings`` holds all of a song's as {label, rating}.
    """
    base = storage.absolute(audio or posixpath.dirname(storage.absolute(source))).rstrip("/")
    first = 1
    for columns in _chunks(source, rows):
        if "uri" not in columns:
            raise InputError(f"{source}: no column 'uri' among {', '.join(columns) or 'none'}; name one so.")
        if songs := len(columns["uri"]):
            yield make_manifest(_manifest_columns(columns, base, source, first), source)
            first += songs


def _manifest_columns(columns: Mapping[str, list[Any]], base: str, source: str, first: int) -> dict[str, list[Any]]:
    """A table's columns as a manifest has them; ``first`` is the number of their first row."""
    uris = [_resolve(_cell(uri), base, f"{source} row {row}") for row, uri in enumerate(columns["uri"], first)]
    given = columns.get("track_id", [None] * len(uris))
    below = [uri.removeprefix(f"{base}/").removeprefix("s3://").lstrip("/") for uri in uris]
    ids = [_cell(name) or default for name, default in zip(given, below, strict=True)]
    rows: dict[str, list[Any]] = {"track_id": ids, "uri": uris}
    texts = dict.fromkeys(("dataset", "split", "etag", *NAMES), _cell)
    readers = {"labels": _labels, "size_bytes": _size, **texts}
    rows |= {name: [read(value) for value in columns[name]] for name, read in readers.items() if name in columns}
    rated = {name.removeprefix(_RATING): columns[name] for name in columns if name.startswith(_RATING)}
    if rated:
        each = [dict(zip(rated, values, strict=True)) for values in zip(*rated.values(), strict=True)]
        rows["ratings"] = [as_ratings(_ratings(one, f"{source} row {row}")) for row, one in enumerate(each, first)]
    elif "ratings" in columns:
        rows["ratings"] = columns["ratings"]
    return rows


def _chunks(source: str, rows: int) -> Iterator[dict[str, list[Any]]]:
    """A table's columns by name, so many rows at a time; a table without rows gives them once, empty."""
    if not source.lower().endswith(".parquet"):
        yield from _text_chunks(source, rows)
        return
    with storage.readable_parquet(source):
        names = storage.read_schema(source).names
        yield {name: [] for name in names}
        known = [name for name in names if name in MANIFEST_SCHEMA.names or name.startswith(_RATING)]
        for table in storage.iter_tables(source, rows=rows, columns=known):
            yield table.to_pydict()


def _text_chunks(source: str, rows: int) -> Iterator[dict[str, list[Any]]]:
    with storage.streamed(source) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
        lines = filter(None, csv.reader(text, delimiter="\t" if source.lower().endswith(".tsv") else ","))
        try:
            header = [name.strip() for name in next(lines, [])]
            yield {name: [] for name in header}
            done = 0
            while some := list(itertools.islice(lines, rows)):
                _refuse_ragged(source, header, some, done)
                yield {name: [line[at] for line in some] for at, name in enumerate(header)}
                done += len(some)
        except csv.Error as error:
            raise InputError(f"{source}: not a table ({error}); write it again.") from error


def _refuse_ragged(source: str, header: Sequence[str], lines: Sequence[Sequence[str]], done: int) -> None:
    for number, line in enumerate(lines, done + 1):
        if len(line) != len(header):
            raise InputError(
                f"{source} row {number}: {len(line)} cells under {len(header)} columns; "
                f"quote cells that hold the separator."
            )


def _cell(value: Any) -> str | None:
    text = "" if value is None else str(value).strip()
    return text or None


def _size(value: Any) -> int | None:
    text = _cell(value) or ""
    return int(text) if text.isdigit() else None


def _ratings(cells: Mapping[str, Any], row: str) -> dict[str, float]:
    found = {label: text for label, cell in cells.items() if (text := _cell(cell)) is not None}
    try:
        return {label: float(text) for label, text in found.items()}
    except ValueError as error:
        raise InputError(f"{row}: a rating is no number ({error}); leave it empty where it is not known.") from error


def as_ratings(ratings: Mapping[str, float] | None) -> list[dict[str, Any]] | None:
    """A song's ratings as the manifest holds them; None where there are none."""
    return [{"label": label, "rating": rating} for label, rating in ratings.items()] if ratings else None


def _labels(value: Any) -> list[str] | None:
    if isinstance(value, list):
        return [str(label) for label in value if label]
    text = _cell(value) or ""
    separator = next((mark for mark in "|;" if mark in text), ",")
    return [label.strip() for label in text.split(separator) if label.strip()] if text else None


def _resolve(uri: str | None, base: str, row: str) -> str:
    if uri is None:
        raise InputError(f"{row}: no uri; fill it in or drop the row.")
    without_credentials(uri)
    if "://" in uri and not uri.startswith(("s3://", "file://")):
        raise InputError(f"{row}: {uri} is neither a path nor s3://; copy the audio to one of these.")
    if uri.startswith(("s3://", "file://", "/", "~")):
        return storage.absolute(uri)
    scheme = "s3://" if storage.is_s3(base) else ""
    return scheme + posixpath.normpath(f"{base.removeprefix('s3://')}/{uri}")
