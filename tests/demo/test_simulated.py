"""The simulated world is the same every time, and what was planted in it can be found again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import vocabularies
from mer_ray.catalog.manifest import read_manifest
from mer_ray.demo.simulated import DATASETS, MOODS, main, simulate_manifests, simulate_store
from mer_ray.errors import InputError
from mer_ray.features import Store, read_windows
from mer_ray.words.embedding import embed_labels, unit

World = dict[str, pa.Table]
Features = NDArray[np.float32]


@pytest.fixture(scope="module")
def world() -> World:
    return simulate_manifests(0)


@pytest.fixture(scope="module")
def features(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Features]:
    """Each dataset's [songs, D] mean features, in the order of its manifest."""
    folder = str(tmp_path_factory.mktemp("simulated"))
    simulate_store(list(world.values()), folder)
    return {name: song_features(folder, table) for name, table in world.items()}


def song_features(folder: str, table: pa.Table) -> Features:
    found = read_windows([Store.open(folder)], table["track_id"].to_pylist())
    assert not found.absent
    return found.song_means(found.features)


def truth(table: pa.Table) -> Annotations:
    return Annotations.from_manifest(table, "simulated", 0)


def mean_labels(table: pa.Table) -> Features:
    """[songs, E]: the mean embedding of each song's labels."""
    known = truth(table)
    shares = known.truth / known.truth.sum(1, keepdims=True)
    return np.asarray(shares @ embed_labels(known.vocabulary), np.float32)


def zero_shot_auc(world: World, features: dict[str, Features], test: str) -> float:
    """Song-level macro ROC-AUC on one dataset of a ridge regression from the other two to label embeddings."""
    others = [name for name in world if name != test]
    inputs = np.concatenate([features[name] for name in others])
    targets = np.concatenate([mean_labels(world[name]) for name in others])
    center, mean = inputs.mean(0), targets.mean(0)
    gram = (inputs - center).T @ (inputs - center) + 10 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, (inputs - center).T @ (targets - mean))
    known = truth(world[test])
    scores = unit((features[test] - center) @ weights + mean) @ embed_labels(known.vocabulary).T
    return float(roc_auc_score(known.truth, scores, average="macro"))


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world: World) -> None:
    again, other = simulate_manifests(0), simulate_manifests(1)
    for name, table in world.items():
        assert table.equals(again[name])
        assert not table["labels"].equals(other[name]["labels"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_word_of_every_dataset_occurs(seed: int) -> None:
    for name, table in simulate_manifests(seed).items():
        assert set(truth(table).vocabulary) == set(vocabularies()[DATASETS[name]])


def test_songs_have_as_many_labels_as_in_the_real_datasets(world: World) -> None:
    counts = {name: {len(set(row)) for row in table["labels"].to_pylist()} for name, table in world.items()}
    assert counts == {"jamendo": {1, 2, 3}, "cal500": {4, 5}, "emotify": {3}}
    assert {name: truth(table).k for name, table in world.items()} == {"jamendo": 2, "cal500": 4, "emotify": 3}


def test_manifests_are_split_by_song_and_read_back(world: World, tmp_path: Path) -> None:
    for name, table in world.items():
        assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
        assert len(set(table["track_id"].to_pylist())) == len(table)
        pq.write_table(table, tmp_path / f"{name}.parquet")
        assert read_manifest(str(tmp_path / f"{name}.parquet")).equals(table)


@pytest.mark.parametrize("dim", [50, 100])
def test_a_store_has_the_dimensions_and_windows_asked_for(world: World, tmp_path: Path, dim: int) -> None:
    small = world["emotify"].slice(0, 7)
    summary = simulate_store([small], str(tmp_path / "f"), dim=dim, windows=4)
    store = Store.open(str(tmp_path / "f"))
    found = read_windows([store], small["track_id"].to_pylist())
    assert (store.dim, found.features.shape, found.features.dtype) == (dim, (28, dim), np.float16)
    assert (store.encoder["name"], store.encoder["licence"]) == ("simulated", "none")
    assert summary["ok"] == 7


def test_a_songs_features_are_the_same_whatever_else_is_in_the_store(world: World, tmp_path: Path) -> None:
    some, more = world["emotify"].slice(3, 5), world["jamendo"].slice(0, 9)
    simulate_store([some], str(tmp_path / "a"), seed=5)
    simulate_store([more, some], str(tmp_path / "b"), seed=5)
    simulate_store([some], str(tmp_path / "c"), seed=6)
    simulate_store([some, more], str(tmp_path / "a"), seed=5)
    one, same, other = (song_features(str(tmp_path / name), some) for name in "abc")
    np.testing.assert_allclose(one, same, atol=2e-3)
    assert not np.allclose(one, other, atol=0.1)


def test_a_store_is_not_gone_on_with_under_other_settings(world: World, tmp_path: Path) -> None:
    small = world["emotify"].slice(0, 3)
    simulate_store([small], str(tmp_path / "f"))
    with pytest.raises(InputError, match="seed is 0 there, 1 asked"):
        simulate_store([small], str(tmp_path / "f"), seed=1)


def test_a_song_without_labels_is_refused(world: World, tmp_path: Path) -> None:
    bare = world["emotify"].slice(0, 1).set_column(4, "labels", pa.array([None], pa.list_(pa.string())))
    with pytest.raises(InputError, match="emotify/1: has no labels"):
        simulate_store([bare], str(tmp_path / "f"))


@pytest.mark.parametrize("name", list(DATASETS))
def test_songs_that_share_labels_lie_nearer_than_others(world: World, features: dict[str, Features], name: str) -> None:
    known = truth(world[name])
    directions = unit(features[name] - features[name].mean(0))
    near = directions @ directions.T
    shared = known.truth.astype(int) @ known.truth.T.astype(int)
    apart = ~np.eye(len(near), dtype=bool)
    assert near[(shared > 0) & apart].mean() > near[(shared == 0) & apart].mean() + 0.1


def test_what_is_learnt_on_two_datasets_carries_to_the_words_of_the_third(
    world: World, features: dict[str, Features]
) -> None:
    assert zero_shot_auc(world, features, "emotify") > 0.85
    assert zero_shot_auc(world, features, "cal500") > 0.75
    assert zero_shot_auc(world, features, "jamendo") > 0.8


def test_nothing_carries_when_features_are_dealt_to_the_wrong_songs(
    world: World, features: dict[str, Features]
) -> None:
    rng = np.random.default_rng(0)
    dealt = {**features, "emotify": rng.permutation(features["emotify"])}
    assert abs(zero_shot_auc(world, dealt, "emotify") - 0.5) < 0.05


def test_noise_makes_it_harder(world: World, features: dict[str, Features], tmp_path: Path) -> None:
    simulate_store(list(world.values()), str(tmp_path / "f"), song_noise=3.0)
    noisy = {name: song_features(str(tmp_path / "f"), table) for name, table in world.items()}
    assert 0.5 < zero_shot_auc(world, noisy, "emotify") < zero_shot_auc(world, features, "emotify") - 0.05


def test_no_mood_is_a_word_of_a_dataset() -> None:
    assert len(set(MOODS)) == len(MOODS)
    assert not set(MOODS) & {word for words in vocabularies().values() for word in words}


def test_the_command_writes_a_whole_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--output", str(tmp_path), "--songs", "60", "20", "10", "--dim", "32", "--seed", "3"])
    assert "90 songs that are no music, D = 32" in capsys.readouterr().out
    tables = {name: read_manifest(str(tmp_path / f"{name}.parquet")) for name in DATASETS}
    assert [len(table) for table in tables.values()] == [60, 20, 10]
    assert tables["jamendo"].equals(simulate_manifests(3, (60, 20, 10))["jamendo"])
    assert Store.open(str(tmp_path / "features")).dim == 32


def test_the_command_explains_itself() -> None:
    command = [sys.executable, "-m", "mer_ray.demo.simulated", "--help"]
    assert (
        "no music behind them" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    )
