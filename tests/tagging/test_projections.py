"""Projected windows are kept beside the store, and read again only as long as they are right."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.features import window_arrays
from mer_ray.learning.model import Model
from mer_ray.tagging.projections import FOLDER, Projections, collect, song_vectors
from tests.learning.test_model import ENCODER, small_model
from tests.support.s3 import S3Server, forget_servers
from tests.tagging.test_ranking import SONGS, songs_table, windows


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of a folder for a store."""
    if request.param == "local":
        return str(tmp_path / "features")
    server: S3Server = request.getfixturevalue("s3")
    forget_servers()
    return f"s3://{server.bucket}/projections-{time.monotonic_ns()}"


def write_part(store: str, songs: dict[str, NDArray[np.float16]]) -> str:
    uri = storage.join(store, "part-0.parquet")
    storage.write_table(uri, songs_table(songs))
    return uri


def read(store: str, part: str, model: Model | None = None, *, keep: bool = True) -> pa.Table:
    projections = Projections(store, ENCODER, model or small_model(), keep)
    return pa.concat_tables(projections.songs(part, windows=True))


def no_projector() -> Model:
    """The same model, whose projector cannot be called."""

    def refuse(*_: object) -> NDArray[np.float32]:
        raise AssertionError("the projector ran again")

    model = small_model()
    model.project = refuse  # type: ignore[method-assign]
    return model


def test_what_is_kept_is_what_the_model_projects(store: str) -> None:
    part = write_part(store, SONGS)
    fresh, first, again = read(store, part, keep=False), read(store, part), read(store, part, no_projector())
    assert first.equals(fresh)
    assert again.equals(fresh)
    places, there = song_vectors(again)
    assert there.tolist() == [len(song) > 0 for song in SONGS.values()]
    flat, counts = window_arrays(again["windows"])
    assert counts.tolist() == [len(song) for song in SONGS.values()]
    expected = small_model().project(SONGS["a"])
    np.testing.assert_allclose(flat[:3], expected, atol=1e-3)
    np.testing.assert_allclose(places[0], expected.mean(axis=0), atol=1e-6)
    assert not places[1].any()


def test_nothing_is_written_where_nothing_is_to_be_kept(store: str) -> None:
    read(store, write_part(store, SONGS), keep=False)
    assert storage.names(store) == ["part-0.parquet"]


def test_a_part_that_was_written_anew_is_projected_anew(store: str) -> None:
    read(store, write_part(store, SONGS))
    other = {name: windows(len(song), 77) for name, song in SONGS.items()}
    part = write_part(store, other)
    assert read(store, part).equals(read(store, part, keep=False))


def test_what_is_kept_for_parts_that_are_gone_or_were_written_anew_is_collected(store: str) -> None:
    part = write_part(store, SONGS)
    read(store, part)
    write_part(store, {name: windows(len(song), 77) for name, song in SONGS.items()})
    now = read(store, part)
    gone = storage.join(store, "part-1.parquet")
    storage.write_table(gone, songs_table(SONGS))
    read(store, gone)
    assert collect(store) == 1
    storage.remove(gone)
    assert collect(store) == 1
    assert collect(store) == 0
    assert read(store, part, no_projector()).equals(now)


def test_another_model_has_its_own(store: str) -> None:
    part, other = write_part(store, SONGS), small_model()
    read(store, part)
    with_other = small_model()
    with_other.projector.output.bias.data += 0.1
    assert not read(store, part, with_other).equals(read(store, part))
    assert len(storage.names(storage.join(store, FOLDER))) == 2
    assert read(store, part).equals(read(store, part, other, keep=False))


def test_only_the_songs_that_are_asked_for(store: str) -> None:
    part = write_part(store, SONGS)
    for keep in (True, False):
        projections = Projections(store, ENCODER, small_model(), keep)
        picked = pa.concat_tables(projections.songs(part, pa.array(["c", "bad"])))
        assert picked["track_id"].to_pylist() == ["bad", "c"]
        assert "windows" not in picked.column_names


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_torn_file_is_made_again(tmp_path: Path, left: int) -> None:
    store = str(tmp_path)
    part = write_part(store, SONGS)
    whole = read(store, part)
    (kept,) = tmp_path.glob(f"{FOLDER}/*/*.arrow")
    kept.write_bytes(kept.read_bytes()[:left])
    assert read(store, part).equals(whole)


def test_a_kept_file_says_what_made_it(tmp_path: Path) -> None:
    table = read(str(tmp_path), write_part(str(tmp_path), SONGS))
    assert table.schema.metadata[b"mer_ray.model"].decode() == small_model().digest
    assert b"mer_ray.encoder" in table.schema.metadata
