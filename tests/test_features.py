"""The feature store reads back what was put in, song by song, with and without our code."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mer_ray import __version__
from mer_ray.errors import InputError
from mer_ray.features import Store, features_column, open_stores, read_windows, store_schema, window_arrays
from mer_ray.songs import STATUS_COLUMNS, STATUS_FIELDS, part_uris
from tests.learning.test_model import ENCODER as OTHER_ENCODER

DIM = 6
ENCODER: dict[str, Any] = {**OTHER_ENCODER, "dim": DIM}


def track(windows: int, seed: int, dim: int = DIM) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(size=(windows, dim)).astype(np.float16)


def songs_table(songs: dict[str, NDArray[np.float16]], encoder: dict[str, Any] = ENCODER, dim: int = DIM) -> pa.Table:
    """Rows of a store; a song without windows has failed."""
    rows = [
        {
            "track_id": name,
            "uri": f"/music/{name}",
            "status": "ok" if len(windows) else "failed",
            "error_class": None if len(windows) else "not_audio",
            "error": None if len(windows) else "no audio in it",
            "duration_s": 10.0 * len(windows),
            "truncated": False,
            "bad_packets": 0,
        }
        for name, windows in songs.items()
    ]
    status = pa.Table.from_pylist(rows, schema=pa.schema(STATUS_FIELDS))
    return pa.table([*status.columns, features_column(list(songs.values()), dim)], schema=store_schema(encoder, dim))


def write_store(folder: Path, *parts: pa.Table) -> str:
    folder.mkdir(parents=True)
    for number, part in enumerate(parts):
        pq.write_table(part, folder / f"part-{number}.parquet")
    (folder / "_run").mkdir()
    (folder / "_run" / "manifest.parquet").write_bytes(b"not for readers")
    (folder / "_SUCCESS").touch()
    return str(folder)


def test_songs_windows_come_back_as_they_went_in_with_empty_songs_between() -> None:
    tracks = [track(0, 0), track(3, 1), track(0, 2), track(1, 3), track(0, 4)]
    column = features_column(tracks, DIM)
    assert column.type == pa.list_(pa.list_(pa.float16(), DIM))
    flat, counts = window_arrays(column)
    assert counts.tolist() == [0, 3, 0, 1, 0]
    assert flat.dtype == np.float16
    np.testing.assert_array_equal(flat, np.concatenate(tracks))


def test_no_songs_or_only_failed_ones_make_an_empty_array() -> None:
    for tracks in ([], [track(0, 0), track(0, 1)]):
        flat, counts = window_arrays(features_column(tracks, DIM))
        assert flat.shape == (0, DIM)
        assert counts.tolist() == [0] * len(tracks)


def test_slices_chunks_filters_and_nulls_are_read_right() -> None:
    tracks = [track(2, 0), track(0, 1), track(1, 2), track(3, 3)]
    column = features_column(tracks, DIM)
    flat, counts = window_arrays(column[1:3])
    assert counts.tolist() == [0, 1]
    np.testing.assert_array_equal(flat, tracks[2])
    flat, counts = window_arrays(pa.chunked_array([column[:1], column[2:]]))
    assert counts.tolist() == [2, 1, 3]
    np.testing.assert_array_equal(flat, np.concatenate([tracks[0], tracks[2], tracks[3]]))
    flat, counts = window_arrays(column.filter(pa.array([False, True, False, True])))
    assert counts.tolist() == [0, 3]
    np.testing.assert_array_equal(flat, tracks[3])
    with_null = pa.array([tracks[0].tolist(), None, tracks[2].tolist()], column.type)
    flat, counts = window_arrays(with_null)
    assert counts.tolist() == [2, 0, 1]
    np.testing.assert_array_equal(flat, np.concatenate([tracks[0], tracks[2]]))


def test_float32_features_are_rounded_to_half_precision() -> None:
    values = np.array([[1.0001, 65504, -1e-3, 0, 2, 3]], np.float32)
    flat, _ = window_arrays(features_column([values], DIM))
    np.testing.assert_array_equal(flat, values.astype(np.float16))


def test_the_schema_says_what_made_the_store(tmp_path: Path) -> None:
    uri = write_store(tmp_path / "store", songs_table({"a": track(1, 0)}))
    schema = pq.read_schema(part_uris(uri)[0])
    assert schema.names == [*STATUS_COLUMNS, "features"]
    assert json.loads(schema.metadata[b"mer_ray.encoder"]) == ENCODER
    assert schema.metadata[b"mer_ray.schema"] == b"1"
    assert schema.metadata[b"mer_ray.version"] == __version__.encode()


@pytest.mark.parametrize("dim", [1, 48, 3072])
def test_d_is_read_from_the_schema(tmp_path: Path, dim: int) -> None:
    table = songs_table({"a": track(2, 0, dim)}, {**ENCODER, "dim": None}, dim)
    store = Store.open(write_store(tmp_path / "store", table))
    assert store.dim == dim
    assert store.encoder["name"] == "tiny"
    assert read_windows([store], ["a"]).features.shape == (2, dim)


def test_a_place_without_parts_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"no part-\*.parquet there; make them with jobs/extract.py"):
            Store.open(str(folder))


def test_parts_of_other_origin_or_schema_are_refused_naming_what_is_missing(tmp_path: Path) -> None:
    good = songs_table({"a": track(1, 0)})
    bare = write_store(tmp_path / "bare", good.replace_schema_metadata(None))
    with pytest.raises(InputError, match=r"not a feature store \(lacks mer_ray.encoder\)"):
        Store.open(bare)
    tags = write_store(tmp_path / "tags", good.drop_columns(["features"]))
    with pytest.raises(InputError, match=r"not a feature store \(lacks features\)"):
        Store.open(tags)
    newer = {**good.schema.metadata, b"mer_ray.schema": b"2"}
    with pytest.raises(InputError, match="schema 2, this version reads 1"):
        Store.open(write_store(tmp_path / "newer", good.replace_schema_metadata(newer)))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "part-0.parquet").write_bytes(b"PAR1 no footer")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        Store.open(str(tmp_path / "torn"))


def test_windows_are_read_in_the_order_asked_for_with_reasons_for_absent_songs(tmp_path: Path) -> None:
    tracks = {name: track(count, at) for at, (name, count) in enumerate({"a": 2, "b": 1, "c": 3, "d": 1}.items())}
    empty = track(0, 0)
    one = write_store(
        tmp_path / "one",
        songs_table({"a": tracks["a"], "bad": empty, "late": empty}),
        songs_table({"b": tracks["b"], "unasked": track(5, 9)}),
    )
    two = write_store(
        tmp_path / "two", songs_table({"d": tracks["d"], "c": tracks["c"], "late": track(1, 8), "a2": empty})
    )
    read = read_windows(open_stores([one, two]), ["d", "gone", "c", "bad", "a", "late", "b"])
    assert read.track_ids == ["d", "c", "a", "late", "b"]
    assert read.songs.tolist() == [0, 1, 1, 1, 2, 2, 3, 4]
    expected = np.concatenate([tracks["d"], tracks["c"], tracks["a"], track(1, 8), tracks["b"]])
    np.testing.assert_array_equal(read.features, expected)
    assert read.absent == {"gone": "not in the feature store", "bad": "failed: not_audio"}


def test_song_means_are_the_means_of_each_songs_windows(tmp_path: Path) -> None:
    tracks = {"a": track(2, 0), "b": track(3, 1)}
    read = read_windows([Store.open(write_store(tmp_path / "s", songs_table(tracks)))], ["b", "a"])
    means = read.song_means(read.features.astype(np.float32))
    np.testing.assert_allclose(means[0], tracks["b"].astype(np.float32).mean(0), rtol=1e-5)
    np.testing.assert_allclose(means[1], tracks["a"].astype(np.float32).mean(0), rtol=1e-5)


def test_asking_for_no_song_there_gives_no_windows(tmp_path: Path) -> None:
    read = read_windows([Store.open(write_store(tmp_path / "s", songs_table({"a": track(2, 0)})))], ["x"])
    assert read.features.shape == (0, DIM)
    assert read.track_ids == []


def test_a_torn_part_is_named_when_windows_are_read(tmp_path: Path) -> None:
    uri = write_store(tmp_path / "s", songs_table({"a": track(2, 0)}), songs_table({"b": track(2, 1)}))
    store = Store.open(uri)
    part = tmp_path / "s" / "part-1.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-1\.parquet: not a readable Parquet file"):
        read_windows([store], ["a"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": [3]}, "layers"),
        ({"pooling": "first"}, "pooling"),
        ({"weights_sha256": "b" * 64}, "sha256 of the weights"),
    ],
)
def test_stores_of_different_encoders_are_not_read_together(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    one = write_store(tmp_path / "one", songs_table({"a": track(1, 0)}))
    two = write_store(tmp_path / "two", songs_table({"b": track(1, 0)}, {**ENCODER, **change}))
    with pytest.raises(InputError, match=f"two: not of the same encoder as .*one: .*{named}"):
        open_stores([one, two])
    assert len(open_stores([one, one])) == 2


def test_stores_of_different_d_are_not_read_together_but_another_dtype_is_fine(tmp_path: Path) -> None:
    one = write_store(tmp_path / "one", songs_table({"a": track(1, 0)}))
    wide = write_store(tmp_path / "wide", songs_table({"b": track(1, 0, 8)}, ENCODER, 8))
    half = write_store(tmp_path / "half", songs_table({"b": track(1, 0)}, {**ENCODER, "dtype": "bfloat16"}))
    with pytest.raises(InputError, match="dim is 8 there, 6 asked"):
        open_stores([one, wide])
    assert len(open_stores([one, half])) == 2


def test_pandas_and_duckdb_read_a_store_alone_and_pass_over_its_run_files(tmp_path: Path) -> None:
    tracks = {"a": track(2, 0), "bad": track(0, 0), "b": track(1, 1)}
    table = songs_table(tracks)
    uri = write_store(tmp_path / "store", table.slice(0, 2), table.slice(2))
    frame = pd.read_parquet(uri).set_index("track_id")
    assert frame["status"].to_dict() == {"a": "ok", "bad": "failed", "b": "ok"}
    np.testing.assert_array_equal(np.stack(frame.loc["a", "features"]), tracks["a"])
    rows = duckdb.sql(f"select track_id, len(features), features from '{uri}/*.parquet' order by track_id").fetchall()
    assert [(row[0], row[1]) for row in rows] == [("a", 2), ("b", 1), ("bad", 0)]
    np.testing.assert_allclose(np.array(rows[0][2]), tracks["a"].astype(np.float64))
