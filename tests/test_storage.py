"""Local files and S3 objects behave the same."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.errors import InputError, StorageError
from mer_ray.features import Store
from mer_ray.runs.lock import RunLock
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.words.lists import read_labels
from tests.support.s3 import S3Server, seaweed_server


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweed_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_root(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield f"s3://{seaweed.bucket}/{abs(hash(request.node.name))}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        uri: str = request.getfixturevalue("s3_root")
        return uri
    return str(tmp_path / "root")


def small_table() -> pa.Table:
    return pa.table({"track_id": [f"t{n}" for n in range(10)], "x": pa.array(np.arange(10))})


def test_what_was_written_is_read_back_and_can_be_replaced(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"first")
    assert storage.exists(uri)
    storage.write_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"second"


def test_a_large_object_comes_back_whole(root: str) -> None:
    data = np.random.default_rng(0).bytes(12_000_000)
    storage.write_bytes(storage.join(root, "large.bin"), data)
    assert storage.read_bytes(storage.join(root, "large.bin")) == data


def test_reading_what_is_not_there_is_a_file_not_found_error(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "none.bin"))


def test_creating_succeeds_once_and_leaves_the_first_content(root: str) -> None:
    uri = storage.join(root, "new", "lock")
    assert storage.swap(uri, b"mine", None)
    assert storage.swap(uri, b"yours", None) is None
    assert storage.read_bytes(uri) == b"mine"


def test_removing_is_quiet_about_what_is_gone_already(root: str) -> None:
    uri = storage.join(root, "x.bin")
    storage.write_bytes(uri, b"x")
    storage.remove(uri)
    assert not storage.exists(uri)
    storage.remove(uri)


def test_removing_a_folder_takes_everything_below_it_and_nothing_beside_it(root: str) -> None:
    for name in ("f/a", "f/deep/er/b", "f2/c"):
        storage.write_bytes(storage.join(root, name), b"x")
    storage.remove_folder(storage.join(root, "f"))
    assert not storage.exists(storage.join(root, "f/a"))
    assert not storage.exists(storage.join(root, "f/deep/er/b"))
    assert storage.exists(storage.join(root, "f2/c"))
    storage.remove_folder(storage.join(root, "f"))


def test_a_table_comes_back_whole_in_columns_and_in_slices(root: str) -> None:
    uri = storage.join(root, "t.parquet")
    storage.write_table(uri, small_table())
    assert storage.read_table(uri).equals(small_table())
    assert storage.read_table(uri, ["x"]).column_names == ["x"]
    slices = list(storage.iter_tables(uri, rows=4, columns=["track_id"]))
    assert [len(piece) for piece in slices] == [4, 4, 2]
    assert pa.concat_tables(slices).equals(small_table().select(["track_id"]))


def test_pyarrow_reads_a_uri_through_the_same_filesystem(root: str) -> None:
    uri = storage.join(root, "t.parquet")
    storage.write_table(uri, small_table())
    path = storage.filesystem(uri)[1]
    assert pq.read_table(path, filesystem=storage.arrow_filesystem(uri)).equals(small_table())


def test_a_listing_sees_what_was_written_a_moment_ago(root: str) -> None:
    fs, path = storage.filesystem(root)
    for number in range(3):
        storage.write_bytes(storage.join(root, f"{number}"), b"x")
        assert len(fs.ls(path, detail=False)) == number + 1


def test_an_output_directory_runs_locks_resumes_and_finishes(root: str) -> None:
    manifest = pa.table({"track_id": ["a"], "uri": ["u"]})
    with SongsDirectory(root, "extract") as output:
        output.begin({"x": 1}, {}, manifest)
        with pytest.raises(InputError, match="in use by the extract run"):
            RunLock(storage.join(root, "_run"), "tag").acquire()
        assert len(output.pending(manifest, retry_failed=False)) == 1
        storage.write_bytes(output.file("yardstick"), b"y")
        assert storage.read_bytes(storage.join(output.uri, "_run", "yardstick")) == b"y"
    assert not storage.exists(storage.join(root, "_run", "lock"))


def test_a_place_without_a_store_is_told_so_in_one_sentence(root: str) -> None:
    with pytest.raises(InputError, match=r"no part-\*\.parquet there"):
        Store.open(storage.join(root, "none"))


def test_words_are_read_from_either_place_and_a_folder_of_them_is_refused(root: str) -> None:
    storage.write_bytes(storage.join(root, "words", "w.txt"), b"calm\nsad\n")
    assert [word.label for word in read_labels(storage.join(root, "words", "w.txt"))] == ["calm", "sad"]
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        read_labels(storage.join(root, "words"))


def test_a_local_write_leaves_no_temporary_behind(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a.bin"), b"x")
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_failed_local_write_keeps_the_old_content_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "a.bin")
    storage.write_bytes(uri, b"old")

    def killed(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(OSError, match="disk full"):
        storage.write_bytes(uri, b"new and longer")
    assert storage.read_bytes(uri) == b"old"


def test_only_hidden_temporaries_of_killed_writers_are_removed(tmp_path: Path) -> None:
    for name in (".a.parquet.12.tmp", "a.parquet", ".keep", "b.tmp"):
        (tmp_path / name).write_bytes(b"x")
    storage.remove_temporaries(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".keep", "a.parquet", "b.tmp"]
    storage.remove_temporaries(str(tmp_path / "none"))


def test_local_paths_are_made_absolute_and_s3_uris_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/b/") == f"{tmp_path}/a/b"
    assert storage.absolute(f"file://{tmp_path}/c") == f"{tmp_path}/c"
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"
    assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert storage.filesystem("s3://bucket/a/")[1] == "bucket/a"
    assert storage.is_folder(str(tmp_path))
    assert not storage.is_folder("s3://bucket/a")


def test_the_s3_server_rejects_a_wrong_secret(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(storage.join(s3_root, "x"), b"x")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="run the same command again"):
        storage.read_bytes(storage.join(s3_root, "x"))


def test_the_s3_server_sets_nothing_and_is_gone_afterwards(tmp_path: Path) -> None:
    before = dict(os.environ)
    with seaweed_server(tmp_path / "second", bucket="other") as server:
        assert dict(os.environ) == before
        fs = fsspec.filesystem(
            "s3",
            key=server.access_key,
            secret=server.secret_key,
            endpoint_url=server.endpoint,
            skip_instance_cache=True,
        )
        fs.pipe_file("other/x", b"x")
        assert fs.cat_file("other/x") == b"x"
    host, port = server.endpoint.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 1).close()


@pytest.mark.parametrize("content", ["", "{torn", "[1]"])
def test_a_torn_json_file_reads_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert storage.read_json(str(tmp_path / "x.json")) is None
    assert storage.read_json(str(tmp_path / "none.json")) is None
