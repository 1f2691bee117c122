"""Features on a node's disk: those of the store in the order asked for, written once, and no other weights for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mer_ray.errors import InputError
from mer_ray.features import Store, open_stores, read_windows
from mer_ray.learning.learner import Learner
from mer_ray.learning.sampling import TrainingSet
from mer_ray.learning.scratch import Scratch
from tests.learning.test_learner import OPTIONS, assert_same, learner, recipe_of
from tests.test_features import songs_table, track, write_store

SONGS = {"a": track(2, 0), "b": track(3, 1), "bad": track(0, 2), "c": track(1, 3), "d": track(4, 4)}


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    rows = [songs_table({name: SONGS[name] for name in names}) for names in (["b", "a"], ["bad", "c"], ["d"])]
    return open_stores([write_store(tmp_path / "one", *rows[:2]), write_store(tmp_path / "two", rows[2])])


def test_mapped_windows_are_those_that_are_read(stores: list[Store], tmp_path: Path) -> None:
    asked = ["d", "gone", "a", "bad", "c", "b"]
    mapped = Scratch("x", str(tmp_path)).windows("train", stores, asked)
    read = read_windows(stores, asked)
    assert isinstance(mapped.features, np.memmap)
    np.testing.assert_array_equal(mapped.features, read.features)
    np.testing.assert_array_equal(mapped.songs, read.songs)
    assert (mapped.track_ids, mapped.absent) == (read.track_ids, read.absent)


def test_a_nodes_second_worker_maps_what_the_first_wrote_and_names_can_go_before_windows(
    stores: list[Store], tmp_path: Path
) -> None:
    first = Scratch("x", str(tmp_path / "disk")).windows("train", stores, ["a", "d"])
    shutil.rmtree(tmp_path / "one")
    scratch = Scratch("x", str(tmp_path / "disk"))
    second = scratch.windows("train", stores, ["a", "d"])
    scratch.remove()
    assert not scratch.folder.exists()
    for one in (first, second):
        np.testing.assert_array_equal(one.features, np.concatenate([SONGS["a"], SONGS["d"]]))


def test_songs_without_windows_make_no_file_to_map(stores: list[Store], tmp_path: Path) -> None:
    assert Scratch("x", str(tmp_path)).windows("train", stores, ["bad"]).features.shape == (0, SONGS["a"].shape[1])


def test_a_folder_that_cannot_be_written_is_named(stores: list[Store], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"scratch .*/file/mer-ray-x: Not a directory; give --scratch another folder"):
        Scratch("x", str(tmp_path / "file")).windows("train", stores, ["a"])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e6])
def test_a_window_that_is_no_finite_number_is_refused_by_song_and_window(value: float, tmp_path: Path) -> None:
    with np.errstate(over="ignore"):
        broken = np.where(np.arange(3)[:, None] == 1, np.float16(value), track(3, 1))  # 1e6 is infinite in float16
    store = Store.open(write_store(tmp_path / "s", songs_table({"a": track(2, 0), "b": broken.astype(np.float16)})))
    for read in (read_windows, lambda *asked: Scratch("x", str(tmp_path)).windows("t", *asked)):
        with pytest.raises(InputError, match=r"song b, window 2: holds a value that is no finite number"):
            read([store], ["a", "b"])
        assert read_windows([store], ["a"]).track_ids == ["a"], "a song that is not asked for is nobody's business"


def test_a_training_from_disk_is_that_from_memory_bit_for_bit(tmp_path: Path) -> None:
    def trained(mapped: bool) -> Learner:
        one = learner(recipe_of(OPTIONS, positive="sample"), [60, 25], dropout=0.2)
        if mapped:
            one._sets = [replace(each, features_ND=on_disk(each, tmp_path)) for each in one._sets]
        for _ in range(2):
            one.run_epoch()
        return one

    assert_same(trained(mapped=True), trained(mapped=False))


def on_disk(one: TrainingSet, folder: Path) -> torch.Tensor:
    one.features_ND.numpy().tofile(folder / one.name)
    return torch.from_numpy(np.memmap(folder / one.name, np.float16, "c", shape=tuple(one.features_ND.shape)))
