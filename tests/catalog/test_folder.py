"""A manifest may be a folder of files, written and read in a stream, and is whole or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mer_ray import storage
from mer_ray.catalog import repeats
from mer_ray.catalog.folder import MARK, songs_of_files, write_folder
from mer_ray.catalog.manifest import READINGS, make_manifest, read_manifest
from mer_ray.catalog.names import names_of
from mer_ray.catalog.repeats import Repeats, refuse_repeated
from mer_ray.catalog.sources import load_catalog, manifest_batches, maybe_same
from mer_ray.errors import InputError, StorageError
from mer_ray.songs import stored_json
from tests.support.s3 import S3Server


def songs(*ids: str, **more: list[object]) -> pa.Table:
    return make_manifest({"track_id": list(ids), "uri": [f"/m/{name}" for name in ids], **more}, "here", {"split": "x"})


def batches(sizes: list[int]) -> Iterator[pa.Table]:
    done = 0
    for size in sizes:
        yield songs(*(f"{n:03d}.mp3" for n in range(done, done + size)))
        done += size


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_folder_comes_back_as_it_was_written_whatever_the_sizes(place: str, tmp_path: Path, s3: S3Server) -> None:
    uri = {"local": str(tmp_path / "m"), "s3": f"s3://{s3.bucket}/manifests/m"}[place]
    assert write_folder(uri, batches([7, 1, 12, 3]), "here", rows_a_file=5) == [5, 5, 5, 5, 3]
    assert storage.names(uri) == [MARK, *(f"songs-{n:05d}.parquet" for n in range(5))]
    expected = pa.concat_tables(batches([23]))
    assert load_catalog(uri).equals(expected)
    assert read_manifest(uri).equals(expected)
    assert stored_json(read_manifest(uri).schema, READINGS) == {"split": "x"}
    read = list(manifest_batches(uri, rows=2))
    assert max(map(len, read)) == 2
    assert pa.concat_tables(read).equals(expected)
    storage.remove_folder(uri)


def test_the_same_songs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_folder(str(tmp_path / name), batches([7, 8]), "here", rows_a_file=5)
    for name in storage.names(str(tmp_path / "one")):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_a_killed_listing_left_is_no_manifest_and_a_rerun_begins_anew(tmp_path: Path) -> None:
    def killed() -> Iterator[pa.Table]:
        yield from batches([5, 5, 5])
        raise KeyboardInterrupt

    uri = str(tmp_path / "m")
    write_folder(uri, batches([40]), "here", rows_a_file=5)
    with pytest.raises(KeyboardInterrupt):
        write_folder(uri, killed(), "here", rows_a_file=5)
    assert storage.names(uri)
    assert songs_of_files(uri) is None
    with pytest.raises(InputError, match=r"no songs found, but Parquet files without _manifest\.json"):
        load_catalog(uri)
    (tmp_path / "m" / ".songs-00001.parquet.7-7.tmp").touch()
    write_folder(uri, batches([6]), "here", rows_a_file=5)
    assert storage.names(uri) == [MARK, "songs-00000.parquet", "songs-00001.parquet"]
    assert len(load_catalog(uri)) == 6


def test_a_source_that_cannot_be_read_leaves_an_earlier_manifest_as_it_was(tmp_path: Path) -> None:
    uri = str(tmp_path / "m")
    write_folder(uri, batches([6]), "here")
    with pytest.raises(InputError, match="nowhere: not found"):
        write_folder(uri, manifest_batches(str(tmp_path / "nowhere")), "here")
    assert len(load_catalog(uri)) == 6


def test_a_manifest_is_not_written_over_itself(tmp_path: Path) -> None:
    uri = str(tmp_path / "m")
    write_folder(uri, batches([6]), "here", rows_a_file=2)
    with pytest.raises(InputError, match="is the source as well"):
        write_folder(uri, manifest_batches(uri, rows=2), f"{uri}/", rows_a_file=2)
    assert len(load_catalog(uri)) == 6


def test_a_folder_that_holds_anything_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").touch()
    with pytest.raises(
        InputError, match=r"music: holds a\.mp3, which is no part of a manifest; choose an empty folder"
    ):
        write_folder(str(tmp_path / "music"), batches([6]), "here")
    assert storage.names(str(tmp_path / "music")) == ["a.mp3"]
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_folder(str(tmp_path / "music" / "a.mp3"), batches([6]), "here")


def test_a_folder_of_music_with_tables_beside_it_is_music(tmp_path: Path) -> None:
    write_folder(str(tmp_path), batches([6]), "here")
    (tmp_path / MARK).write_text('{"songs": 6}')
    (tmp_path / "a.mp3").touch()
    assert load_catalog(str(tmp_path))["track_id"].to_pylist() == ["a.mp3"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: (m / "songs-00001.parquet").unlink(), r"songs-00001\.parquet: not found"),
        (lambda m: (m / "songs-00001.parquet").write_bytes(b"x"), r"songs-00001\.parquet: not a Parquet file"),
        (lambda m: pq.write_table(songs("a"), m / "songs-00001.parquet"), "holds 1 songs, not 2; make .*/m anew"),
        (lambda m: (m / MARK).write_text('{"mer_ray.manifest": 2}'), "m: a manifest in a form not known here"),
        (lambda m: (m / MARK).write_text('{"mer_ray.manifest": 1, "rows": [1e99]}'), "in a form not known here"),
    ],
)
def test_a_folder_that_was_spoilt_is_refused_by_name(tmp_path: Path, spoil: object, told: str) -> None:
    write_folder(str(tmp_path / "m"), batches([7]), "here", rows_a_file=5)
    spoil(tmp_path / "m")  # type: ignore[operator]
    for read in (load_catalog, read_manifest):
        with pytest.raises(InputError, match=told):
            read(str(tmp_path / "m"))


def test_an_id_in_two_batches_is_refused_by_name_and_leaves_no_manifest(tmp_path: Path) -> None:
    uri = str(tmp_path / "m")
    with pytest.raises(InputError, match=r"music: track_id '003\.mp3' stands more than once; give each song its own"):
        write_folder(uri, [*batches([9]), songs("a", "003.mp3")], "music", rows_a_file=4)
    assert songs_of_files(uri) is None


def test_ids_whose_hashes_collide_are_compared_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_hashes", lambda texts: np.array([len(text) for text in texts.to_pylist()], np.int64))
    monkeypatch.setattr(repeats, "_TOGETHER", 1)

    def check(*parts: list[str]) -> None:
        ids, seen = [pa.chunked_array([part]) for part in parts], Repeats()
        for each in ids:
            seen.add(each)
        refuse_repeated("here", seen, lambda: ids)

    check(["a", "b", "cc"], ["d", "ee", "fff"])
    with pytest.raises(InputError, match="track_id 'ee' stands more than once"):
        check(["a", "b", "cc", "ee"], ["d", "ee", "fff"])


def test_repeats_are_those_of_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0).integers(0, 3000, 4000)
    parts = [pa.chunked_array([pa.array([*map(str, part), None])]) for part in np.array_split(draw, 7)]
    seen = Repeats()
    for part in parts:
        seen.add(part)
    found = {text for part in parts for text in part.filter(pa.array(repeats.among(part, seen.hashes()))).to_pylist()}
    values, counts = np.unique(draw, return_counts=True)
    assert found == {str(value) for value in values[counts > 1]}


def test_songs_that_may_be_the_same_are_found_across_files(tmp_path: Path) -> None:
    tables = [
        songs("a", "b", size_bytes=[7, None]),
        songs("c", "d", "e", size_bytes=[8, 7, 0]),
        songs("f", size_bytes=[0]),
    ]
    assert maybe_same(lambda: tables)["track_id"].to_pylist() == ["a", "d"]


def test_a_folder_says_what_songs_are_called(tmp_path: Path) -> None:
    write_folder(str(tmp_path), [songs("a", title=["Rain"]), songs("b", title=["Snow"])], "here", rows_a_file=1)
    ids = pa.chunked_array([["b", "x", "a"]])
    assert names_of(ids, str(tmp_path))["title"].to_pylist() == ["Snow", None, "Rain"]
