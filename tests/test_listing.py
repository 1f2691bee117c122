"""Files below a folder or prefix are listed in a stream: all of them, once, in the order of their paths."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import botocore.parsers
import pytest
from botocore.utils import parse_timestamp

from benchmarks.listing import Bucket, listed
from mer_ray import storage
from mer_ray.errors import StorageError
from mer_ray.storage import listing
from mer_ray.storage.access import time_told
from tests.support.faults import Fault, FaultyProxy
from tests.support.s3 import S3Server, forget_servers


def paths(uri: str, **how: object) -> list[str]:
    return [file.path for files in storage.files_below(uri, **how) for file in files]  # type: ignore[arg-type]


@pytest.fixture
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_KEYS", 3)
    monkeypatch.setattr(listing, "PAGES", 2)


def tree(seed: int) -> list[str]:
    """Keys of folders large and small, deep and flat, with names that sort before and after a slash."""
    draw = random.Random(seed)
    names = ["a", "a!", "a.b", "a0", "B", "é", "中", "x y", "~"]
    keys = {"/".join(draw.choices(names, k=draw.randint(1, 4))) + f"{draw.randint(0, 30)}.mp3" for _ in range(300)}
    return sorted(
        keys | {f"large/{n // 20:02d}/{n:03d}.mp3" for n in range(200)} | {f"flat/{n:03d}" for n in range(50)}
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("short_pages")
def test_keys_of_a_storage_that_lists_in_order_come_in_order(seed: int) -> None:
    keys = tree(seed)
    asked = [f"in/{key}" for key in keys]
    everything = sorted([*asked, "i", "in", "in!", "ina/x", "z/y"])
    bucket = Bucket(everything.__getitem__, len(everything))
    with listed(bucket):
        assert paths("s3://bucket/in/") == keys
        assert paths("s3://bucket") == everything
        assert paths("s3://bucket/nowhere") == []


@pytest.mark.usefixtures("short_pages")
def test_folders_of_many_keys_are_taken_apart_and_small_ones_are_listed_together() -> None:
    small = [f"{n:04d}/a.mp3" for n in range(300)]
    large = [f"{n // 30}/{n:04d}.mp3" for n in range(300)]
    for keys, requests in ((small, 100), (large, 2 + 4 + 10 * 10)):
        bucket = Bucket(keys.__getitem__, 300)
        with listed(bucket):
            assert paths("s3://bucket") == keys
        assert bucket.requests == requests


@pytest.mark.usefixtures("short_pages")
def test_no_more_is_asked_for_than_a_few_prefixes_hold_while_nobody_reads() -> None:
    keys = [f"{n // 100:03d}/{n:05d}.mp3" for n in range(20_000)]
    bucket = Bucket(keys.__getitem__, len(keys))
    with listed(bucket):
        stream = storage.files_below("s3://bucket")
        first = next(stream)
        assert [file.path for file in first] == keys[: len(first)]
        assert bucket.requests < 10 + 2 * listing.AHEAD * listing.PAGES
        stream.close()


@pytest.fixture
def music(s3: S3Server) -> Iterator[str]:
    uri = f"s3://{s3.bucket}/listed"
    for key in [*tree(0)[::8], ".hidden/a.mp3", "b/_run/c.mp3"]:
        storage.write_bytes(f"{uri}/{key}", key.encode())
    yield uri
    storage.remove_folder(uri)


@pytest.mark.usefixtures("short_pages")
def test_every_object_of_a_real_server_is_listed_once_with_size_and_etag(music: str) -> None:
    fs, root = storage.filesystem(music)
    there = {path[len(root) + 1 :]: info for path, info in fs.find(root, detail=True).items()}
    found = [file for files in storage.files_below(music) for file in files]
    assert len(found) == len(there)
    for file in found:
        assert (file.size, f'"{file.etag}"') == (there[file.path]["size"], there[file.path]["ETag"])


@pytest.mark.usefixtures("short_pages")
def test_a_listing_survives_answers_that_fail(music: str, faults: FaultyProxy) -> None:
    before = paths(music)
    faults.inject(Fault("503", path="list-type=2", share=0.3, times=2))
    assert paths(music) == before
    assert faults.injected["503"]


def test_a_refused_listing_is_the_storages_fault(music: str, faults: FaultyProxy) -> None:
    faults.inject(Fault("403", path="list-type=2"))
    with pytest.raises(StorageError, match="listed: cannot be read"):
        paths(music)


@pytest.mark.parametrize(
    "told",
    ["2026-01-01T01:02:03.000Z", "2026-01-01T01:02:03Z", "Thu, 01 Jan 2026 01:02:03 GMT", 1767229323, "1767229323"],
)
def test_times_are_read_as_botocore_reads_them(told: object) -> None:
    assert time_told(told) == parse_timestamp(told)


def test_the_client_reads_times_so(music: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_servers()
    seen = []
    monkeypatch.setattr(botocore.parsers, "DEFAULT_TIMESTAMP_PARSER", lambda told: seen.append(told) or time_told(told))
    assert len(storage.entries(f"{music}/flat")) == len([1 for told in seen if "T" in told])
    forget_servers()


def test_whether_anything_is_below_a_folder_or_prefix(music: str, tmp_path: Path) -> None:
    assert storage.is_below(music)
    assert not storage.is_below(f"{music}/nowhere")
    assert not storage.is_below("s3://no-such-bucket/music")
    assert storage.is_below(str(tmp_path))
    assert not storage.is_below(str(tmp_path / "nowhere"))


def test_local_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for key in tree(1):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone.mp3").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert paths(str(tmp_path)) == sorted([*tree(1), "gone.mp3", "itself"])
    sizes = {file.path: file.size for files in storage.files_below(str(tmp_path)) for file in files}
    assert sizes["gone.mp3"] is None
    assert sizes["flat/000"] == 0


def test_folders_that_are_passed_over_are_not_looked_into(tmp_path: Path) -> None:
    for name in ("a/x", "skip/y", "b/skip/z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.mp3").touch()
    assert paths(str(tmp_path), passed_over=lambda name: name == "skip") == ["a/x/1.mp3"]
