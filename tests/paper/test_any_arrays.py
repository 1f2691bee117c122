"""Arrays of any encoder become a store that trains like any other; what is wrong with one is said by song."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import Store, read_windows
from mer_ray.paper.any_arrays import ArrayEncoder, ArrayFiles, import_arrays
from tests.paper.test_published import run_job

CLAP = ArrayEncoder("laion/clap", "Apache-2.0", "mean", 5.0)
KEYS = ["b", "a", "b", "a", "c"]
STARTS = [5.0, 0.0, 0.0, 5.0, 0.0]


def windows(*shape: int) -> NDArray[np.float32]:
    """[5, …] each window holding its row's number."""
    return np.broadcast_to(np.arange(5, dtype=np.float32).reshape(5, *[1] * len(shape)), (5, *shape)).copy()


def with_index(folder: Path, array: NDArray[Any]) -> ArrayFiles:
    np.save(folder / "all.npy", array)
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("track_id", "start"), *zip(KEYS, STARTS, strict=True)])
    return ArrayFiles(str(folder / "all.npy"), str(folder / "index.csv"))


def stored(folder: Path, *ids: str) -> NDArray[np.float16]:
    return read_windows([Store.open(str(folder / "f"))], ids).features


def failures(folder: Path) -> list[tuple[str, str]]:
    table = storage.read_table(str(folder / "f" / "_run" / "failures.parquet"))
    return list(zip(table["error_class"].to_pylist(), table["error"].to_pylist(), strict=True))


def test_an_array_of_windows_is_dealt_to_its_songs_in_the_order_of_time(tmp_path: Path) -> None:
    manifest, summary = import_arrays([with_index(tmp_path, windows(6))], str(tmp_path / "f"), CLAP)
    assert manifest["track_id"].to_pylist() == ["b", "a", "c"]
    assert stored(tmp_path, "a", "b", "c")[:, 0].tolist() == [1, 3, 2, 0, 4]
    assert summary["audio_seconds"] == 25


def test_the_store_says_what_made_it(tmp_path: Path) -> None:
    import_arrays([with_index(tmp_path, windows(6))], str(tmp_path / "f"), CLAP)
    store = Store.open(str(tmp_path / "f"))
    told = {name: store.encoder[name] for name in ("name", "licence", "pooling", "window_seconds", "weights_sha256")}
    assert told == {
        "name": "laion/clap",
        "licence": "Apache-2.0",
        "pooling": "mean",
        "window_seconds": 5.0,
        "weights_sha256": None,
    }
    assert store.dim == 6
    other = ArrayEncoder("laion/clap", "Apache-2.0", "max", 5.0)
    with pytest.raises(InputError, match="pooling is 'mean' there, 'max' asked"):
        import_arrays([with_index(tmp_path, windows(6))], str(tmp_path / "f"), other)


@pytest.mark.parametrize(
    ("layers", "kept", "names"),
    [((), [0, 1, 2, 3], [0, 1, 2, 3]), ((1, 3), [1, 3], [1, 3]), ((3, 6, 9, 12), [0, 1, 2, 3], [3, 6, 9, 12])],
    ids=["all", "chosen", "named"],
)
def test_layers_are_chosen_by_place_or_all_named(
    tmp_path: Path, layers: tuple[int, ...], kept: list[int], names: list[int]
) -> None:
    array = windows(4, 2)
    array[:, :, 1] = np.arange(4)
    encoder = ArrayEncoder("laion/clap", "Apache-2.0", "mean", 5.0, layers)
    import_arrays([with_index(tmp_path, array)], str(tmp_path / "f"), encoder)
    assert Store.open(str(tmp_path / "f")).encoder["layers"] == names
    assert stored(tmp_path, "c").reshape(-1, 2)[:, 1].tolist() == kept
    with pytest.raises(InputError, match=r"--layers 1,4: .* holds 4 layers; choose among 0 to 3, or name all 4"):
        import_arrays([with_index(tmp_path, array)], str(tmp_path / "g"), ArrayEncoder("x", "y", "z", 1.0, (1, 4)))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_songs_may_have_an_array_each(tmp_path: Path, packed: bool) -> None:
    songs = {"rock/1": np.ones((3, 4)), "rock/2": 2 * np.ones((1, 4)), "pop": 3 * np.ones(4)}
    source = tmp_path / "arrays"
    if packed:
        source = tmp_path / "arrays.npz"
        np.savez(source, **songs)
    for key, array in {} if packed else songs.items():
        (source / key).parent.mkdir(parents=True, exist_ok=True)
        np.save(source / f"{key}.npy", array)
    import_arrays([ArrayFiles(str(source))], str(tmp_path / "f"), CLAP)
    assert stored(tmp_path, *songs)[:, 0].tolist() == [1, 1, 1, 2, 3]


def test_a_value_that_is_no_number_or_too_large_is_named_by_song_and_window(tmp_path: Path) -> None:
    array = windows(6)
    array[3, 2], array[4, 5] = np.inf, 7e4
    _, summary = import_arrays([with_index(tmp_path, array)], str(tmp_path / "f"), CLAP)
    assert (summary["ok"], summary["failed"]) == (1, 2)
    place = tmp_path / "all.npy"
    assert failures(tmp_path) == [
        ("not_finite", f"{place}#a: window 2 of 2 holds inf"),
        ("not_finite", f"{place}#c: window 1 of 1 holds 70000, which float16 cannot hold; scale the features"),
    ]


def test_a_song_of_another_shape_or_a_torn_file_is_a_failed_row(tmp_path: Path) -> None:
    for key, width in (("a", 4), ("b", 5), ("c", 4)):
        np.save(tmp_path / f"{key}.npy", np.ones((2, width)))
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-8])
    _, summary = import_arrays([ArrayFiles(str(tmp_path))], str(tmp_path / "f"), CLAP)
    assert (summary["ok"], summary["error_classes"]) == (1, {"malformed": 2})
    told = [error for _, error in failures(tmp_path)]
    assert "b.npy: float64 of shape [2, 5], where the others are floats ['windows', 4]" in told[0]
    assert "c.npy: not plain numpy arrays" in told[1]


def test_labels_and_an_index_as_a_table_go_with_any_array(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", windows(6))
    pa.parquet.write_table(pa.table({"track_id": ["101,rock"] * 5}), tmp_path / "index.parquet")
    (tmp_path / "labels.json").write_text(json.dumps({"101,rock": {"path": "x.wav", "mood/theme": ["power"]}}))
    files = ArrayFiles(*(str(tmp_path / name) for name in ("all.npy", "index.parquet", "labels.json")))
    manifest, _ = import_arrays([files], str(tmp_path / "f"), CLAP, dataset="emotify")
    assert manifest.to_pylist()[0]["track_id"] == "emotify/101"
    assert manifest.to_pylist()[0]["labels"] == ["power"]
    assert stored(tmp_path, "emotify/101")[:, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("no index", "whose its windows are is not said; give its index"),
        ("integers", r"int64 of shape \[2, 6\]; expected floats"),
        ("flat", r"shape \[5\]; with an index it is"),
        ("short index", "4 rows for the 5 windows"),
        ("no ids", "expected a row a window with 'track_id'"),
        ("empty folder", "no array in it"),
        ("nothing", "neither a folder nor an array"),
        ("no labels", "--dataset cal500 needs the songs' names"),
    ],
)
def test_what_cannot_be_dealt_to_songs_is_refused_by_name(tmp_path: Path, what: str, why: str) -> None:
    files, dataset = with_index(tmp_path, windows(6)), "none"
    if what == "no index":
        files = ArrayFiles(files.source)
    elif what == "integers":
        np.save(files.source, np.ones((5, 6), np.int64))
    elif what == "flat":
        np.save(files.source, np.ones(5))
    elif what == "short index":
        (tmp_path / "index.csv").write_text("track_id\n" + "a\n" * 4)
    elif what == "no ids":
        (tmp_path / "index.csv").write_text("song\n" + "a\n" * 5)
    elif what == "no labels":
        dataset = "cal500"
    else:
        (tmp_path / "empty").mkdir()
        files = ArrayFiles(str(tmp_path / ("empty" if what == "empty folder" else "absent")))
    with pytest.raises(InputError, match=why):
        import_arrays([files], str(tmp_path / "f"), CLAP, dataset=dataset)
    assert not (tmp_path / "f").exists()


def test_the_job_imports_any_encoders_arrays_and_says_what_failed(tmp_path: Path) -> None:
    array = windows(6)
    array[4, 0] = np.nan
    one = with_index(tmp_path, array)
    flags = (
        "--source",
        one.source,
        "--index",
        one.index,
        "--features",
        tmp_path / "f",
        "--manifest",
        tmp_path / "m.parquet",
    )
    result = run_job(*flags, "--encoder", "laion/clap", "--pooling", "mean", "--licence", "Apache-2.0")
    assert result.returncode == 0, result.stderr
    assert "2 ok, 1 failed" in result.stdout
    assert "#c: window 1 of 1 holds nan; all of them are in" in result.stdout
    wrong = run_job(*flags, "--pooling", "mean")
    assert wrong.returncode == 2
    assert "--pooling: of the reference's arrays it is known; name what made yours with --encoder." in wrong.stderr
