"""The songs of a store lie in one file that is as they are, whatever becomes of the store or of the file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import lots
from mer_ray.tagging import index
from mer_ray.tagging.index import batch_vectors, collect_kept, rows_at, song_batches
from mer_ray.tagging.projections import FOLDER, Projections
from tests.learning.test_model import ENCODER, small_model
from tests.support.s3 import S3Server, forget_servers
from tests.tagging.test_ranking import songs_table, windows

Songs = dict[str, NDArray[np.float16]]


def songs(prefix: str, count: int, seed: int = 0) -> Songs:
    """Of one, two or no windows; a song without has failed."""
    return {f"{prefix}{at}": windows(at % 3, seed + at) for at in range(1, count + 1)}


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a store of two parts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    uri = str(tmp_path / "features")
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        forget_servers()
        uri = f"s3://{server.bucket}/index-{time.monotonic_ns()}"
    write_part(uri, "a", songs("a", 7))
    write_part(uri, "b", songs("b", 5, 50))
    return uri


def write_part(store: str, name: str, content: Songs) -> None:
    storage.write_table(part_uri(store, name), songs_table(content))


def part_uri(store: str, name: str) -> str:
    return storage.join(store, f"part-{name}.parquet")


def read(store: str, *, keep: bool = True, model: Model | None = None) -> pa.Table:
    return pa.Table.from_batches(song_batches(Projections(store, ENCODER, model or small_model(), keep)))


def check(table: pa.Table, *parts: Songs) -> None:
    """Each row is the song as the model projects it."""
    there = {name: song for part in parts for name, song in part.items() if len(song)}
    assert table["track_id"].to_pylist() == list(there)
    assert table["uri"].to_pylist() == [f"/m/{name}" for name in there]
    assert table["duration_s"].to_pylist() == [10.0 * len(song) for song in there.values()]
    assert table["lot"].to_pylist() == lots(there).tolist()
    expected = np.stack([small_model().project(song).mean(0) for song in there.values()])
    vectors = np.concatenate([batch_vectors(batch) for batch in table.to_batches()])
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


def kept(store: str) -> list[str]:
    """The indexes that lie beside a store."""
    found = [storage.join(store, FOLDER, model) for model in storage.names(storage.join(store, FOLDER))]
    return [storage.join(folder, name) for folder in found for name in storage.names(folder) if "songs" in name]


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of parts whose projections are read, as it happens."""
    seen: list[str] = []
    own = Projections.songs

    def songs(self: Projections, part: str) -> object:
        seen.append(part.rpartition("/")[2])
        return own(self, part)

    monkeypatch.setattr(Projections, "songs", songs)
    return seen


@pytest.mark.parametrize("keep", [True, False])
def test_it_holds_every_song_that_could_be_read_as_the_model_projects_it(store: str, keep: bool) -> None:
    check(read(store, keep=keep), songs("a", 7), songs("b", 5, 50))
    assert len(kept(store)) == keep


def test_what_is_there_is_read_and_nothing_is_projected(store: str, projected: list[str]) -> None:
    first = read(store)
    del projected[:]
    assert read(store).equals(first)
    assert read(store, keep=False).equals(first)
    assert not projected


def test_nothing_is_written_where_nothing_is_to_be_kept(store: str, tmp_path: Path) -> None:
    read(store, keep=False)
    assert storage.names(store) == ["part-a.parquet", "part-b.parquet"]
    assert not (tmp_path / "cache").exists()


def test_of_parts_that_joined_changed_or_went_only_the_new_ones_are_projected(store: str, projected: list[str]) -> None:
    read(store)
    (before,) = kept(store)
    del projected[:]
    write_part(store, "0", songs("n", 4, 90))
    check(read(store), songs("n", 4, 90), songs("a", 7), songs("b", 5, 50))
    assert projected == ["part-0.parquet"]
    write_part(store, "a", songs("a", 7, 200))
    check(read(store), songs("n", 4, 90), songs("a", 7, 200), songs("b", 5, 50))
    assert projected == ["part-0.parquet", "part-a.parquet"]
    storage.remove(part_uri(store, "0"))
    check(read(store), songs("a", 7, 200), songs("b", 5, 50))
    assert projected == ["part-0.parquet", "part-a.parquet"]
    assert len(kept(store)) == 1
    assert kept(store) != [before]


@pytest.mark.parametrize("content", ["", "torn", "noise", "another table", "another model", "other parts"])
def test_a_torn_or_foreign_file_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    store = str(tmp_path)
    write_part(store, "a", songs("a", 7))
    read(store)
    (path,) = map(Path, kept(store))
    whole = path.read_bytes()
    if content == "another table":
        storage.write_arrow(str(path), pa.schema([("x", pa.int32())]), [pa.table({"x": pa.array([1], pa.int32())})])
    elif content == "another model":
        read(store, model=small_model(1))
        (other,) = set(map(Path, kept(store))) - {path}
        path.write_bytes(other.read_bytes())
    elif content == "other parts":
        write_part(store, "b", songs("b", 5))
        read(store)
        (path,) = map(Path, kept(store))
        path.write_bytes(whole)
        check(read(store), songs("a", 7), songs("b", 5))
        return
    else:
        path.write_bytes({"": b"", "torn": whole[: len(whole) // 2], "noise": b"noise" * 1000}[content])
    check(read(store), songs("a", 7))
    assert path.read_bytes() == whole


def test_an_index_goes_with_the_parts_it_was_made_of_but_not_for_those_it_lacks(store: str) -> None:
    read(store)
    assert collect_kept(store) == 0
    write_part(store, "c", songs("c", 3))
    assert collect_kept(store) == 0
    assert len(kept(store)) == 1
    storage.remove(part_uri(store, "a"))
    assert collect_kept(store) >= 2  # the index, and the part's projections
    assert kept(store) == []
    check(read(store), songs("b", 5, 50), songs("c", 3))


def test_songs_are_in_batches_and_found_in_any_order(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BATCH", 4)
    batches = song_batches(Projections(store, ENCODER, small_model()))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    ids = pa.Table.from_batches(batches)["track_id"].to_pylist()
    assert len(ids) == 9
    order = np.array([8, 0, 3, 2, 6])
    assert rows_at(batches, order)["track_id"].to_pylist() == [ids[at] for at in order]
    assert len(rows_at(batches, order[:0])) == 0
    write_part(store, "c", songs("c", 3, 20))
    check(read(store), songs("a", 7), songs("b", 5, 50), songs("c", 3, 20))


def test_a_store_of_failed_songs_alone_has_none(store: str) -> None:
    for name in ("a", "b"):
        write_part(store, name, {"x": windows(0, 0)})
    for keep in (True, True, False):
        assert song_batches(Projections(store, ENCODER, small_model(), keep)) == []


@pytest.mark.parametrize("keep", [True, False])
def test_a_damaged_part_is_named_in_a_sentence(store: str, keep: bool) -> None:
    storage.write_bytes(part_uri(store, "b"), b"no table")
    with pytest.raises(InputError, match=r"part-b\.parquet: not a readable Parquet file; run extract again"):
        read(store, keep=keep)
    assert kept(store) == []


class TestOnS3:
    """What lies there is fetched once to a host."""

    @pytest.fixture
    def store(self, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        forget_servers()
        uri = f"s3://{s3.bucket}/index-{time.monotonic_ns()}"
        write_part(uri, "a", songs("a", 7))
        return uri

    def test_another_host_fetches_it_once(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, projected: list[str]
    ) -> None:
        first = read(store)
        del projected[:]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        assert read(store).equals(first)
        storage.remove(kept(store)[0])
        assert read(store).equals(first)
        assert not projected

    def test_what_another_host_made_anew_takes_the_place_of_what_was_fetched(
        self, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, projected: list[str]
    ) -> None:
        read(store)
        write_part(store, "a", songs("b", 5))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        read(store)
        del projected[:]
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        check(read(store), songs("b", 5))
        assert not projected
        assert len(list((tmp_path / "cache").rglob("songs-*.arrow"))) == 1

    def test_a_host_keeps_one_of_a_store(self, store: str, tmp_path: Path) -> None:
        read(store)
        write_part(store, "b", songs("b", 5))
        check(read(store), songs("a", 7), songs("b", 5))
        assert len(list((tmp_path / "cache").rglob("songs-*.arrow"))) == 1
        storage.remove(part_uri(store, "a"))
        collect_kept(store)
        assert not list((tmp_path / "cache").rglob("songs-*.arrow"))

    def test_a_torn_copy_is_made_anew(self, store: str, tmp_path: Path) -> None:
        read(store)
        (copy,) = (tmp_path / "cache").rglob("songs-*.arrow")
        copy.write_bytes(copy.read_bytes()[:-20])
        check(read(store), songs("a", 7))
