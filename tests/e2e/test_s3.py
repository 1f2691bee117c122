"""The whole way with every URI on S3, against a real server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import s3fs

from mer_ray import storage
from mer_ray.catalog.sources import scan_folder
from mer_ray.songs import part_uris
from tests.conftest import Job, done, refused
from tests.support.faults import Fault, FaultyProxy
from tests.support.s3 import S3Server


def rows(uri: str) -> pa.Table:
    """All rows below an output directory, in order of their ids."""
    return pa.concat_tables([storage.read_table(part) for part in part_uris(uri)]).sort_by("track_id")


@pytest.fixture(scope="module")
def bucket(world: Path, s3: S3Server) -> str:
    """The world's first dataset in a bucket: songs and table, less one song."""
    uri = f"s3://{s3.bucket}/world"
    files = [world / "demo-gems.tsv", *sorted((world / "demo-gems").iterdir())[1:]]
    for file in files:
        storage.write_bytes(storage.join(uri, str(file.relative_to(world))), file.read_bytes())
    return uri


def test_songs_in_a_bucket_become_tags_in_a_bucket(bucket: str, store: Path, job: Job, s3: S3Server) -> None:
    manifest, features, model, tags = (f"{bucket}-{name}" for name in ("songs.parquet", "features", "model", "tags"))
    done(job("catalog", "--source", f"{bucket}/demo-gems.tsv", "--output", manifest))
    assert "1 not_found" in done(
        job("extract", "--catalog", manifest, "--features", features, "--encoder", "descriptors")
    )
    done(job("train", "--train", manifest, "--features", features, "--model", model, "--epochs", 2))
    done(job("tag", "--features", features, "--model", model, "--labels", "gems", "--output", tags))
    local, remote = rows(str(store / "features")), rows(features)
    assert remote["track_id"].equals(local["track_id"])
    assert rows(tags)["track_id"].equals(local["track_id"])
    for here, there, status in zip(local["features"], remote["features"], remote["status"].to_pylist(), strict=True):
        if status == "ok":
            np.testing.assert_allclose(np.array(there.as_py()), np.array(here.as_py()), atol=1e-3)
    assert json.loads(storage.read_bytes(f"{tags}/_run/summary.json"))["songs"] == 30
    fs, path = storage.filesystem(f"s3://{s3.bucket}")
    written = [f"s3://{name}" for name in fs.find(path) if "/world/" not in name]
    assert len(written) > 10
    for uri in written:
        assert s3.secret_key.encode() not in storage.read_bytes(uri), f"{uri} holds the secret key"


def test_a_folder_in_a_bucket_is_a_catalogue(bucket: str, job: Job, tmp_path: Path) -> None:
    printed = done(job("catalog", "--source", f"{bucket}/demo-gems", "--output", tmp_path / "songs.parquet"))
    assert "29 songs" in printed


def test_a_bucket_that_is_not_there_is_refused(job: Job, tmp_path: Path) -> None:
    flags = ("--catalog", "s3://no-such-bucket/music", "--features", tmp_path / "features", "--encoder", "descriptors")
    assert "s3://no-such-bucket/music" in refused(job("extract", *flags))


@pytest.mark.parametrize("count", [int(os.environ.get("MER_TEST_OBJECTS", "1100"))])
def test_every_object_of_a_large_prefix_is_listed_through_faults(
    s3_server: S3Server, s3: S3Server, faults: FaultyProxy, count: int
) -> None:
    names = [f"{number % 7}/{number:05}.mp3" for number in range(count)]
    fs = s3fs.S3FileSystem(
        key=s3_server.access_key, secret=s3_server.secret_key, endpoint_url=s3_server.endpoint, skip_instance_cache=True
    )
    fs.pipe({f"{s3_server.bucket}/many/{name}": b"x" for name in names}, batch_size=32)
    faults.inject(Fault("503", path="continuation-token", times=1), Fault("truncated", path="prefix=many", times=1))
    manifest = scan_folder(f"s3://{s3.bucket}/many")
    assert faults.injected["503"] >= 1
    assert faults.injected["truncated"] >= 1
    assert manifest["track_id"].to_pylist() == sorted(names)
    assert set(manifest["size_bytes"].to_pylist()) == {1}
