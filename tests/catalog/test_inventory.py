"""Songs that an S3 Inventory lists, in both forms of its files, on a real server."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pytest

from mer_ray import storage
from mer_ray.catalog.listing import Listing
from mer_ray.catalog.sources import build_manifest, load_catalog, manifest_batches
from mer_ray.errors import InputError
from tests.support.s3 import S3Server

KEYS = ["a/one + two.mp3", "a/über 100%.flac", 'b,c/"quoted".ogg', "b/song.mp3"]
OTHERS = ["a/cover.jpg", ".hidden/x.mp3", "a/"]
PARQUET = "message s3.inventory { required binary bucket (UTF8); required binary key (UTF8); }"
CSV = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"


def rows(bucket: str) -> list[dict[str, Any]]:
    """One row a version, as an inventory of all versions has them."""
    keys = [(key, True, False) for key in [*KEYS, *OTHERS]]
    keys += [("b/song.mp3", False, False), ("b/gone.mp3", True, True), ("b/gone.mp3", False, False)]
    return [
        {
            "bucket": bucket,
            "key": key,
            "version_id": f"v{at}",
            "is_latest": latest,
            "is_delete_marker": deleted,
            "size": None if deleted else 100 + at,
            "last_modified_date": datetime(2026, 1, 1, tzinfo=UTC),
            "e_tag": None if deleted else f"e{at}",
            "storage_class": "STANDARD",
        }
        for at, (key, latest, deleted) in enumerate(keys)
    ]


def as_csv(some: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    for row in some:
        spelled = {name: {True: "true", False: "false", None: ""}.get(value, value) for name, value in row.items()}
        writer.writerow({**spelled, "key": quote_plus(row["key"], safe="/")}.values())
    return gzip.compress(text.getvalue().encode())


def as_parquet(some: list[dict[str, Any]]) -> bytes:
    schema = pa.schema([("bucket", pa.string()), ("key", pa.string())]) if not some else None
    return storage.parquet_bytes(pa.Table.from_pylist(some, schema))


def write(s3: S3Server, form: str, some: list[dict[str, Any]], **said: object) -> str:
    """An inventory in two files below ``inventory/``; returns the place of its manifest.json."""
    root, write_rows = f"s3://{s3.bucket}", {"CSV": as_csv, "Parquet": as_parquet}.get(form, as_csv)
    keys = [f"inventory/data/{form}-{at}" for at in range(2)]
    for at, key in enumerate(keys):
        storage.write_bytes(f"{root}/{key}", write_rows(some[at * 5 : at * 5 + 5]))
    manifest = {
        "sourceBucket": "songs",
        "destinationBucket": f"arn:aws:s3:::{s3.bucket}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": form,
        "fileSchema": {"CSV": CSV, "Parquet": PARQUET}.get(form, "struct<>"),
        "files": [{"key": key, "size": 1, "MD5checksum": "0"} for key in keys],
        **said,
    }
    uri = f"{root}/inventory/2026-01-01T01-00Z/manifest.json"
    storage.write_bytes(uri, json.dumps(manifest).encode())
    return uri


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_the_latest_versions_of_songs_are_the_songs(s3: S3Server, form: str) -> None:
    listing = Listing()
    table = build_manifest(write(s3, form, rows("songs")), listing=listing)
    assert table["track_id"].to_pylist() == KEYS
    assert table["uri"].to_pylist() == [f"s3://songs/{key}" for key in KEYS]
    assert table["size_bytes"].to_pylist() == [100, 101, 102, 103]
    assert table["etag"].to_pylist() == ["e0", "e1", "e2", "e3"]
    assert listing.others == {".jpg": 1}


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_inventory_of_current_versions_with_no_more_than_keys_is_enough(s3: S3Server, form: str) -> None:
    some = [{"bucket": "songs", "key": key} for key in KEYS]
    table = load_catalog(write(s3, form, some, fileSchema="Bucket, Key" if form == "CSV" else PARQUET))
    assert table["track_id"].to_pylist() == KEYS
    assert table["size_bytes"].null_count == table["etag"].null_count == len(KEYS)


def test_it_comes_in_a_stream(s3: S3Server) -> None:
    read = list(manifest_batches(write(s3, "CSV", rows("songs")), rows=2))
    assert [len(batch) for batch in read] == [2, 2]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda s3: write(s3, "ORC", rows("x")),
            "manifest.json: its files are ORC, which is not read; have the inventory",
        ),
        (
            lambda s3: write(s3, "CSV", rows("x"), fileSchema="Bucket, Size"),
            r"no Key among its fields \(Bucket, Size\)",
        ),
        (lambda s3: write(s3, "CSV", rows("x"), fileSchema="Bucket, Key"), "CSV-0: cannot be read after row 1"),
        (lambda s3: write(s3, "CSV", rows("x"), files=[{}]), "manifest.json: not the manifest.json of an S3 Inventory"),
        (lambda s3: write(s3, "CSV", rows("x"), files=[{"key": "no"}]), "/no: not found; check the path"),
        (lambda s3: write(s3, "CSV", []), "manifest.json: no songs found"),
        (lambda s3: write(s3, "CSV", [rows("x")[0]] * 2), r"track_id 'a/one \+ two.mp3' stands more than once"),
        (lambda s3: f"s3://{s3.bucket}/absent/manifest.json", "absent/manifest.json: not found"),
    ],
)
def test_an_inventory_that_cannot_be_read_is_refused_by_name(
    s3: S3Server, spoil: Callable[[S3Server], str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        build_manifest(spoil(s3))


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"x" * 10_000)[:-20], gzip.compress(b'"x","%ff"\n')])
def test_files_that_are_damaged_are_named(s3: S3Server, data: bytes) -> None:
    uri = write(s3, "CSV", [], fileSchema="Bucket, Key")
    storage.write_bytes(f"s3://{s3.bucket}/inventory/data/CSV-0", data)
    with pytest.raises(InputError, match="CSV-0: cannot be read"):
        build_manifest(uri)


def test_audio_beside_an_inventory_is_refused(s3: S3Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --audio"):
        build_manifest(write(s3, "CSV", rows("songs")), audio=str(tmp_path))
