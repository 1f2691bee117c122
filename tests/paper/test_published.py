"""Arrays that the reference published become a store and a manifest, song by song, or are refused in a sentence."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import draw_splits
from mer_ray.errors import InputError
from mer_ray.features import Store, read_windows
from mer_ray.paper import array_songs
from mer_ray.paper.array_index import read_index
from mer_ray.paper.published import PublishedFiles, import_published
from tests.support import ROOT

Row = tuple[str, float, float]
INDEX = [("track_id", "U32"), ("start", "f4"), ("end", "f4")]


def index_rows(songs: int, windows: int = 2) -> list[Row]:
    return [(str(song), 10.0 * at, 10.0 * at + 10) for song in range(songs) for at in range(windows)]


def states_of(rows: Sequence[Row]) -> NDArray[np.float32]:
    """[n, 13, 768] that say where they come from: hash of the key, then start, then the layer."""
    states = np.zeros((len(rows), 13, 768), np.float32)
    for at, (key, start, _) in enumerate(rows):
        states[at, :, 0] = sum(key.encode())
        states[at, :, 1] = start
        states[at, :, 2] = np.arange(13)
    return states


def files(
    folder: Path, rows: Sequence[Row], labels: dict[str, Any] | None = None, name: str = "a", stem: str = "labels"
) -> PublishedFiles:
    np.save(folder / f"{name}_source.npy", states_of(rows))
    np.save(folder / f"{name}_index.npy", np.array(list(rows), dtype=INDEX))
    if labels is not None:
        (folder / f"{stem}.json").write_text(json.dumps(labels))
    paths = (str(folder / f"{name}_{kind}.npy") for kind in ("source", "index"))
    return PublishedFiles(*paths, None if labels is None else str(folder / f"{stem}.json"))


def cal500(songs: int) -> dict[str, Any]:
    return {
        str(n): {"path": f"CAL500_32kps_wav/band-song_{n}.wav", "mood/theme": ["happy", "sad"][n % 2 :]}
        for n in range(songs)
    }


def windows_of(store: Path, track_id: str) -> NDArray[np.float16]:
    return read_windows([Store.open(str(store))], [track_id]).features


def test_every_song_gets_the_chosen_layers_of_its_windows(tmp_path: Path) -> None:
    import_published([files(tmp_path, index_rows(5), cal500(5))], str(tmp_path / "f"), dataset="cal500", layers=(6, 12))
    store = Store.open(str(tmp_path / "f"))
    assert store.dim == 2 * 768
    assert store.encoder["pooling"] == "first"
    assert store.encoder["layers"] == [6, 12]
    assert store.encoder["weights_sha256"] is None
    assert store.encoder["licence"] == "CC-BY-NC-4.0"
    found = windows_of(tmp_path / "f", "cal500/band-song_3").reshape(2, 2, 768)
    assert found[:, :, 0].tolist() == [[ord("3")] * 2] * 2
    assert found[:, :, 1].tolist() == [[0, 0], [10, 10]]
    assert found[:, :, 2].tolist() == [[6, 12], [6, 12]]


def test_a_frame_axis_changes_nothing(tmp_path: Path) -> None:
    one = files(tmp_path, index_rows(3))
    import_published([one], str(tmp_path / "three"))
    np.save(one.source, np.load(one.source)[:, None])
    import_published([one], str(tmp_path / "four"))
    assert (windows_of(tmp_path / "three", "1") == windows_of(tmp_path / "four", "1")).all()


def test_shuffled_and_repeated_windows_come_back_in_the_order_of_time(tmp_path: Path) -> None:
    rows = index_rows(4, windows=5)
    mixed = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))] + rows[7:9]
    _, summary = import_published([files(tmp_path, mixed)], str(tmp_path / "f"))
    assert summary["audio_seconds"] == 4 * 5 * 10
    for key in "0123":
        found = windows_of(tmp_path / "f", key)
        assert found[:, 1].tolist() == [0, 10, 20, 30, 40]
        assert set(found[:, 0].tolist()) == {ord(key)}


def test_parts_are_whole_songs_of_bounded_size_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_songs, "WINDOWS_PER_PART", 4)
    one = files(tmp_path, index_rows(7))
    for folder in ("f", "g"):
        import_published([one], str(tmp_path / folder))
    first, second = (sorted(path.name for path in (tmp_path / name).glob("part-*")) for name in "fg")
    assert len(first) == 4
    assert first == second


def test_a_second_run_adds_nothing_and_a_killed_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_songs, "WINDOWS_PER_PART", 4)
    one = files(tmp_path, index_rows(7))
    manifest, _ = import_published([one], str(tmp_path / "f"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "f").glob("part-*")}
    next(iter((tmp_path / "f").glob("part-*"))).unlink()
    again, summary = import_published([one], str(tmp_path / "f"))
    assert 0 < summary["this_run"]["songs_done"] <= 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "f").glob("part-*")} == before
    assert again.equals(manifest)
    assert import_published([one], str(tmp_path / "f"))[1]["this_run"]["songs_done"] == 0


def test_a_song_that_float16_cannot_hold_is_a_failed_row(tmp_path: Path) -> None:
    one = files(tmp_path, index_rows(3))
    states = np.load(one.source)
    states[2, 6, 5] = 1e6
    np.save(one.source, states)
    _, summary = import_published([one], str(tmp_path / "f"))
    assert (summary["ok"], summary["error_classes"]) == (2, {"not_finite": 1})
    assert read_windows([Store.open(str(tmp_path / "f"))], ["0", "1"]).absent == {"1": "failed: not_finite"}
    told = storage.read_table(str(tmp_path / "f" / "_run" / "failures.parquet"))["error"].to_pylist()
    assert told == [f"{one.source}#1: window 1 of 2 holds 1e+06, which float16 cannot hold; scale the features"]


def test_two_datasets_share_a_store(tmp_path: Path) -> None:
    emotify = {f"{n},rock": {"path": f"/x/rock/{n - 100}.wav", "mood/theme": ["power"]} for n in (101, 102)}
    rows = [("101,rock", 0.0, 10.0), ("102,rock", 0.0, 10.0)]
    import_published([files(tmp_path, index_rows(2), cal500(2))], str(tmp_path / "f"), dataset="cal500")
    other = files(tmp_path, rows, emotify, "b", "emotify")
    manifest, _ = import_published([other], str(tmp_path / "f"), dataset="emotify")
    assert manifest["track_id"].to_pylist() == ["emotify/101", "emotify/102"]
    asked = ["cal500/band-song_0", "cal500/band-song_1", "emotify/101", "emotify/102"]
    assert not read_windows([Store.open(str(tmp_path / "f"))], asked).absent


def test_the_seeded_split_is_the_catalogues_and_the_ordered_one_follows_storage(tmp_path: Path) -> None:
    rows = [("b", 0.0, 10.0), *index_rows(10, 1), ("a", 0.0, 10.0)]
    one = files(tmp_path, rows)
    seeded, _ = import_published([one], str(tmp_path / "f"), seed=4)
    found = dict(zip(seeded["track_id"].to_pylist(), seeded["split"].to_pylist(), strict=True))
    assert [*found.values()] == draw_splits([*found], "seeded", 4)[0]
    ordered, _ = import_published([one], str(tmp_path / "f"), split="ordered")
    assert ordered["track_id"].to_pylist() == ["b", *map(str, range(10)), "a"]
    assert ordered["split"].to_pylist() == ["train"] * 10 + ["validation", "test"]
    assert json.loads(ordered.schema.metadata[b"mer_ray.catalog"])["split"] == "ordered"


def test_jamendos_arrays_keep_the_splits_in_their_names(tmp_path: Path) -> None:
    arrays = []
    for at, (name, stem) in enumerate([("mtg_train", "train"), ("mtg_val", "validation"), ("mtg_test", "test")]):
        labels = {str(at): {"path": f"00/{at}.mp3", "mood/theme": ["calm"], "duration": 20.0}}
        arrays.append(files(tmp_path, [(str(at), 0.0, 10.0)], labels, name, f"jamendo-{stem}"))
    manifest, _ = import_published(arrays, str(tmp_path / "f"), dataset="jamendo")
    assert manifest["track_id"].to_pylist() == ["jamendo/0", "jamendo/1", "jamendo/2"]
    assert manifest["split"].to_pylist() == ["train", "validation", "test"]
    with pytest.raises(InputError, match="jamendo/0: stands in the given files more than once"):
        import_published([arrays[0], arrays[0]], str(tmp_path / "f"), dataset="jamendo")


@pytest.mark.parametrize(
    "index",
    [
        np.array([("7", 0.0), ("7", 10.0), ("8", 0.0)], [("track_id", "S8"), ("time", "f8")]),
        np.array([(7, 0, 10), (7, 10, 20), (8, 0, 10)], [("track_id", "i8"), ("start", "i4"), ("end", "i4")]),
        np.array([("7", "0.0", "10.0"), ("7", "10.0", "20.0"), ("8", "0.0", "10.0")]),
        np.array([("7",), ("7",), ("8",)], [("track_id", "U4")]),
    ],
    ids=["bytes", "numbers", "text", "no times"],
)
def test_an_index_is_read_in_each_form(tmp_path: Path, index: NDArray[Any]) -> None:
    np.save(tmp_path / "i.npy", index)
    keys, rows = read_index(str(tmp_path / "i.npy"), 3, "a.npy")
    assert keys == ["7", "8"]
    assert [row.tolist() for row in rows] == [[0, 1], [2]]


def broken(tmp_path: Path, what: str) -> PublishedFiles:
    one = files(tmp_path, index_rows(3), cal500(3))
    arrays: dict[str, NDArray[Any]] = {
        "12 states": np.zeros((6, 12, 768), np.float32),
        "two frames": np.zeros((6, 2, 13, 768), np.float32),
        "integers": np.zeros((6, 13, 768), np.int16),
        "empty": np.zeros((0, 13, 768), np.float32),
        "shorter": np.zeros((5, 13, 768), np.float32),
        "objects": np.array([{"a": 1}] * 6, dtype=object),
    }
    if what in arrays:
        np.save(one.source, arrays[what], allow_pickle=True)
    elif what == "object index":
        np.save(one.index, np.array(index_rows(3), dtype=object), allow_pickle=True)
    elif what == "numeric index":
        np.save(one.index, np.zeros((6, 3)))
    elif what == "timeless index":
        np.save(one.index, np.array([["a", "b"]] * 6))
    elif what == "torn":
        Path(one.source).write_bytes(Path(one.source).read_bytes()[:-100])
    elif what == "not labels":
        Path(str(one.labels)).write_text('{"0": ["happy"]}')
    elif what == "labels of others":
        Path(str(one.labels)).write_text(json.dumps(cal500(2)))
    else:
        Path(getattr(one, what)).unlink()
    return one


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("12 states", r"float32 of shape \[6, 12, 768\]; expected floats"),
        ("two frames", r"shape \[6, 2, 13, 768\]"),
        ("integers", "int16 of shape"),
        ("empty", "n at least 1"),
        ("shorter", "6 rows for the 5 windows of .*a_source.npy"),
        ("objects", "a_source.npy: not a plain .npy array"),
        ("object index", "a_index.npy: not a plain .npy array"),
        ("numeric index", "a row a window with 'track_id'"),
        ("timeless index", "the second column holds no times"),
        ("torn", "not a plain .npy array"),
        ("not labels", "labels.json: not a label file of cal500"),
        ("labels of others", "labels.json: no track '2' of .*a_index.npy"),
        ("source", "a_source.npy: not found"),
        ("index", "a_index.npy: not found"),
        ("labels", "labels.json: not found"),
    ],
)
def test_what_is_not_the_references_is_refused_by_name(tmp_path: Path, what: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        import_published([broken(tmp_path, what)], str(tmp_path / "f"), dataset="cal500")
    assert not (tmp_path / "f").exists()


def test_a_dataset_without_labels_or_another_layer_set_is_refused(tmp_path: Path) -> None:
    one = files(tmp_path, index_rows(2))
    with pytest.raises(InputError, match="add its label file"):
        import_published([one], str(tmp_path / "f"), dataset="cal500")
    with pytest.raises(InputError, match="layers 3,13: the arrays hold 0 to 12"):
        import_published([one], str(tmp_path / "f"), layers=(3, 13))
    import_published([one], str(tmp_path / "f"))
    with pytest.raises(InputError, match="layers is"):
        import_published([one], str(tmp_path / "f"), layers=(3,))


def run_job(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "import_features.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_job_makes_a_store_and_a_manifest_to_train_from(tmp_path: Path) -> None:
    one = files(tmp_path, index_rows(20), cal500(20))
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
    result = run_job(*flags, "--labels", one.labels, "--dataset", "cal500")
    assert result.returncode == 0, result.stderr
    assert "20 of 20 songs added" in result.stdout
    assert "18 train, 1 validation, 1 test" in result.stdout
    found = Annotations.read(str(tmp_path / "m.parquet"), 0)
    assert (found.dataset, found.vocabulary, len(found.track_ids)) == ("cal500", ("happy", "sad"), 20)
    wrong = run_job(*flags, "--index", one.index)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --source, --index: ")
