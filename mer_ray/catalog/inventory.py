"""Songs that Amazon S3 Inventory lists: its ``manifest.json``, and the CSV or Parquet files that this names.

The form is that of the S3 user guide: CSV files are gzipped, have no header, and their keys are URL-encoded; Parquet
files name the same fields in small letters, and their keys are as they are. An inventory of current versions alone
has no field that says which are.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.listing import Listing, as_manifest
from mer_ray.errors import InputError
from mer_ray.storage import Found

_FIELDS = ("key", "islatest", "isdeletemarker", "size", "etag")
"""Of a row, as both forms spell them once underscores are left out."""


@dataclass(frozen=True)
class Inventory:
    """What an inventory's ``manifest.json`` says.

    Attributes:
        bucket: whose objects are listed.
        form: CSV or Parquet.
        fields: of a CSV file's rows, in order.
        files: where the rows are.
    """

    uri: str
    bucket: str
    form: str
    fields: list[str]
    files: list[str]

    @classmethod
    def read(cls, uri: str) -> Inventory:
        """The inventory of a ``manifest.json``.

        Raises:
            InputError: it is none, or one whose files cannot be read here.
        """
        try:
            told = json.loads(storage.read_text(uri))
            form, bucket, schema = str(told["fileFormat"]), str(told["sourceBucket"]), str(told["fileSchema"])
            place, keys = (
                str(told["destinationBucket"]).rpartition(":")[2],
                [str(each["key"]) for each in told["files"]],
            )
        except (ValueError, KeyError, TypeError) as error:
            needs = "sourceBucket, destinationBucket, fileFormat, fileSchema and files"
            raise InputError(
                f"{uri}: not the manifest.json of an S3 Inventory, which names {needs}; give that."
            ) from error
        if form not in ("CSV", "Parquet"):
            raise InputError(
                f"{uri}: its files are {form}, which is not read; have the inventory made in CSV or Parquet."
            )
        fields = [_plain(name) for name in schema.split(",")] if form == "CSV" else []
        if form == "CSV" and "key" not in fields:
            raise InputError(f"{uri}: no Key among its fields ({schema}); have the inventory made anew.")
        return cls(uri, bucket, form, fields, [f"s3://{place}/{key}" for key in keys])

    def batches(self, rows: int, listing: Listing) -> Iterator[pa.Table]:
        """A manifest of the songs among the latest versions, from so many rows at a time; ids are the keys."""
        for file in self.files:
            listing.place = file
            read = self._csv_rows(file) if self.form == "CSV" else self._parquet_rows(file, rows)
            while some := list(itertools.islice(read, rows)):
                if songs := listing.songs_among([_found(row) for row in some if _is_current(row)]):
                    yield as_manifest(f"s3://{self.bucket}", songs, self.uri)

    def _csv_rows(self, file: str) -> Iterator[dict[str, Any]]:
        number = 0
        try:
            with storage.streamed(file) as packed, gzip.GzipFile(fileobj=packed) as unpacked:
                for line in csv.reader(io.TextIOWrapper(unpacked, "utf-8", newline="")):
                    number += 1
                    row = dict(zip(self.fields, line, strict=True))
                    yield {**row, "key": unquote_plus(row["key"], errors="strict")}
        except (csv.Error, ValueError, EOFError, zlib.error) as error:
            raise InputError(f"{file}: cannot be read after row {number:,} ({error}); fetch it again.") from error

    def _parquet_rows(self, file: str, rows: int) -> Iterator[dict[str, Any]]:
        with storage.readable_parquet(file):
            columns = {name: _plain(name) for name in storage.read_schema(file).names if _plain(name) in _FIELDS}
            if "key" not in columns.values():
                raise InputError(f"{file}: no column 'key'; have the inventory made anew.")
            for table in storage.iter_tables(file, rows=rows, columns=list(columns)):
                yield from table.rename_columns([columns[name] for name in table.column_names]).to_pylist()


def _plain(field: str) -> str:
    return field.strip().lower().replace("_", "")


def _is_current(row: dict[str, Any]) -> bool:
    """Whether a row is the latest version of a file that is there; CSV spells yes and no as words."""
    latest, deleted = str(row.get("islatest")).lower(), str(row.get("isdeletemarker")).lower()
    return latest != "false" and deleted != "true" and not row["key"].endswith("/")


def _found(row: dict[str, Any]) -> Found:
    size, etag = str(row.get("size")), row.get("etag")
    return Found(row["key"], int(size) if size.isdigit() else None, str(etag).strip('"') if etag else None)
