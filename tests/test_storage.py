"""Local files and S3 objects behave the same."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.commandline import parse
from mer_ray.errors import InputError, StorageError
from mer_ray.features import Store
from mer_ray.runs.lock import RunLock
from mer_ray.runs.settings import StatusSettings
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.words.lists import read_labels
from tests.support.s3 import S3Server, forget_servers, seaweed_server


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweed_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_root(seaweed: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    forget_servers()
    yield f"s3://{seaweed.bucket}/{abs(hash(request.node.name))}"
    forget_servers()


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
        assert len(output.pending()) == 1
        storage.write_bytes(output.file("yardstick"), b"y")
        assert storage.read_bytes(storage.join(output.uri, "_run", "yardstick")) == b"y"
    assert not storage.exists(storage.join(root, "_run", "lock"))


def test_a_place_without_a_store_is_told_so_in_one_sentence(root: str) -> None:
    with pytest.raises(InputError, match=r"no part-\*\.parquet there"):
        Store.open(storage.join(root, "none"))


def test_words_are_read_from_either_place_and_a_folder_of_them_is_refused(root: str) -> None:
    storage.write_bytes(storage.join(root, "words", "w.txt"), b"calm\nsad\n")
    assert [word.label for word in read_labels(storage.join(root, "words", "w.txt"))] == ["calm", "sad"]
    with pytest.raises(InputError, match="not a text file"):
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
    forget_servers()
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


@pytest.mark.parametrize("uri", ["gs://b/x", "s3a://b/x", "S3://b/x", "az://c/x", "hdfs://n/x", "https://h/x"])
def test_other_schemes_are_refused_by_name_and_make_no_local_folder(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = rf"^{uri}: {uri.partition('://')[0]}:// is not served; give a local path, or s3:// for what speaks S3\.$"
    with pytest.raises(InputError, match=said):
        storage.write_bytes(uri, b"x")
    with pytest.raises(InputError, match=said):
        parse(StatusSettings, ["--run", uri])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "file://music/a", "file://"])
def test_a_uri_that_names_no_place_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="names no place; give s3://BUCKET/PREFIX, a path, or file:///PATH"):
        storage.absolute(uri)


def test_a_path_may_hold_what_looks_like_a_scheme(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/gs:/x", b"x")
    assert storage.read_bytes(f"{tmp_path}/gs:/x") == b"x"


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_is_a_file_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"a song")
    with pytest.raises(
        StorageError, match=r"cannot be written \(a file stands where a folder is needed\); choose another"
    ):
        SongsDirectory(str(tmp_path / name), "extract").__enter__()
    assert (tmp_path / "file").read_bytes() == b"a song"


def test_a_file_over_a_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").mkdir()
    with pytest.raises(StorageError, match=r"manifest.parquet: cannot be written \(a folder stands there"):
        storage.write_table(str(tmp_path / "manifest.parquet"), small_table())
    assert os.listdir(tmp_path) == ["manifest.parquet"]


@pytest.mark.parametrize(
    ("code", "cause", "mend"),
    [
        (errno.ENOSPC, "the disk is full", "make room there and run the same command again"),
        (errno.EROFS, "the filesystem is read-only", "choose a place that can be written to"),
        (errno.EACCES, "permission denied", "give the permission and run the same command again"),
    ],
)
def test_what_waiting_does_not_mend_is_said_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cause: str, mend: str
) -> None:
    def refused(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(str(tmp_path / "x"), b"x")
    assert f"/x: cannot be written ({cause}" in str(caught.value)
    assert mend in str(caught.value)
    assert "answers" not in str(caught.value)
    assert os.listdir(tmp_path) == [], "what is half-written takes up room"


def test_a_swap_writes_only_over_what_was_seen(root: str) -> None:
    uri = storage.join(root, "one", "lock")
    first = storage.swap(uri, b"first", None)
    assert first
    second = storage.swap(uri, b"second", first)
    assert second not in (None, first)
    assert storage.swap(uri, b"late", first) is None
    seen = storage.look(uri)
    assert seen is not None
    assert (seen.data, seen.version) == (b"second", second)
    storage.discard(uri, first)
    assert storage.exists(uri)
    storage.discard(uri, str(second))
    assert storage.look(uri) is None
    assert storage.swap(uri, b"over nothing", second) is None


def test_a_storage_that_minds_conditions_is_known_to(root: str) -> None:
    uri = storage.join(root, "probe")
    storage.write_bytes(uri, b"x")
    assert storage.swaps_hold(uri, b"x")


def test_the_age_of_a_file_is_told_by_its_storage(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, right = storage.join(root, "aged"), time.time
    storage.write_bytes(uri, b"x")
    monkeypatch.setattr(time, "time", lambda: right() + 300)
    seen = storage.look(uri, touch=True)
    assert seen is not None
    assert seen.age_s < 60


def test_a_move_of_what_is_gone_fails_and_leaves_the_place_alone(root: str) -> None:
    storage.write_bytes(storage.join(root, "a"), b"new")
    storage.move(storage.join(root, "a"), storage.join(root, "b"))
    assert storage.read_bytes(storage.join(root, "b")) == b"new"
    with pytest.raises(FileNotFoundError):
        storage.move(storage.join(root, "a"), storage.join(root, "b"))
    assert [entry.name for entry in storage.entries(root)] == ["b"]
    assert storage.entries(storage.join(root, "none")) == []
    assert storage.entries(storage.join(root, "b")) == [] or storage.is_s3(root)


@pytest.mark.parametrize("content", ["", "{torn", "[1]"])
def test_a_torn_json_file_reads_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert storage.read_json(str(tmp_path / "x.json")) is None
    assert storage.read_json(str(tmp_path / "none.json")) is None
