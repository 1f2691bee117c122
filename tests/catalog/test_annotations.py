"""A manifest's truth: its labels as an array, its splits stated or drawn, and how many labels a song is given."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import TEST, TRAIN, VALIDATION
from mer_ray.errors import InputError

SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("labels", pa.list_(pa.string())),
    ]
)


def manifest(labels: list[list[str] | None], **columns: Any) -> pa.Table:
    rows = [
        {"track_id": f"s/{at}", "uri": f"/music/{at}.mp3", "labels": one}
        | {name: values if isinstance(values, str) else values[at] for name, values in columns.items()}
        for at, one in enumerate(labels)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read(table: pa.Table, seed: int = 0, name: str = "s3://lists/mine.parquet") -> Annotations:
    return Annotations.from_manifest(table, name, seed)


def members(annotations: Annotations, split: str) -> set[str]:
    return {annotations.track_ids[at] for at in annotations.where(split)}


def test_truth_has_a_row_a_labelled_song_and_a_column_a_label_in_alphabetical_order() -> None:
    read_in = read(manifest([["sad", "calm"], ["joy"], None, [], ["sad"]], dataset="mine"))
    assert read_in.dataset == "mine"
    assert read_in.vocabulary == ("calm", "joy", "sad")
    assert read_in.track_ids == ["s/0", "s/1", "s/4"]
    assert read_in.truth.tolist() == [[True, False, True], [False, True, False], [False, False, True]]


@pytest.mark.parametrize("labels", [[], [None, None], [[], None]])
def test_a_manifest_without_labels_is_an_error_that_names_it(labels: list[Any]) -> None:
    with pytest.raises(InputError, match=r"s3://lists/mine\.parquet.*labels"):
        read(manifest(labels))


def test_a_manifest_of_several_datasets_is_an_error_that_names_them() -> None:
    with pytest.raises(InputError, match="cal500, emotify"):
        read(manifest([["sad"], ["joy"]], dataset=["emotify", "cal500"]))


def test_a_manifest_that_states_no_dataset_is_called_by_its_file() -> None:
    assert read(manifest([["sad"]])).dataset == "mine"


def test_a_manifest_without_splits_is_split_by_the_seed() -> None:
    table = manifest([["sad"]] * 50)
    drawn = read(table, seed=1)
    assert len(members(drawn, TRAIN)) > 30
    assert members(drawn, VALIDATION)
    assert members(drawn, TEST)
    assert members(read(table, seed=1), TEST) == members(drawn, TEST)
    assert members(read(table, seed=2), TEST) != members(drawn, TEST)
    everyone = members(drawn, TRAIN) | members(drawn, VALIDATION) | members(drawn, TEST)
    assert everyone == members(drawn, "all") == set(drawn.track_ids)


def test_a_songs_split_depends_on_its_own_id_and_the_seed_alone() -> None:
    table = manifest([["sad"]] * 500)
    whole = dict(zip((one := read(table)).track_ids, one.splits, strict=True))
    changed = {
        "grown": pa.concat_tables([table, manifest([["sad"]] * 501).slice(500)]),
        "reordered": table.take(pa.array(np.random.default_rng(0).permutation(500))),
        "cut": table.slice(100, 37),
    }
    for name, other in changed.items():
        found = read(other)
        moved = [
            one for one, split in zip(found.track_ids, found.splits, strict=True) if whole.get(one, split) != split
        ]
        assert not moved, name


def test_splits_that_a_manifest_states_are_kept_whatever_the_seed() -> None:
    stated = [TRAIN, VALIDATION, TEST, TRAIN, TEST]
    for seed in range(3):
        assert read(manifest([["sad"]] * 5, split=stated), seed).splits.tolist() == stated


@pytest.mark.parametrize("seed", range(4))
def test_validation_songs_that_a_manifest_lacks_are_drawn_from_its_training_songs_alone(seed: int) -> None:
    stated = [TRAIN] * 30 + [TEST] * 20
    drawn = read(manifest([["sad"]] * 50, split=stated), seed)
    assert members(drawn, TEST) == {f"s/{at}" for at in range(30, 50)}
    assert 0 < len(members(drawn, VALIDATION)) < 10
    assert members(drawn, VALIDATION) | members(drawn, TRAIN) == {f"s/{at}" for at in range(30)}
    assert members(drawn, VALIDATION).isdisjoint(members(drawn, TRAIN))


def test_the_validation_songs_drawn_depend_on_the_seed() -> None:
    table = manifest([["sad"]] * 50, split=[TRAIN] * 30 + [TEST] * 20)
    assert members(read(table, 1), VALIDATION) == members(read(table, 1), VALIDATION)
    assert len({frozenset(members(read(table, seed), VALIDATION)) for seed in range(5)}) > 1


def test_songs_without_a_split_among_others_with_one_are_training_songs() -> None:
    read_in = read(manifest([["sad"]] * 3, split=[None, VALIDATION, TEST]))
    assert read_in.splits.tolist() == [TRAIN, VALIDATION, TEST]


def test_a_manifest_of_test_songs_alone_stays_one() -> None:
    assert read(manifest([["sad"]] * 12, split=TEST)).splits.tolist() == [TEST] * 12


def test_unlabelled_songs_have_no_say_in_the_split() -> None:
    labels: list[list[str] | None] = [["sad"]] * 20
    assert np.array_equal(read(manifest([*labels, None, None])).splits, read(manifest(labels)).splits)


@pytest.mark.parametrize(("dataset", "k"), [("jamendo", 2), ("cal500", 4), ("emotify", 3)])
def test_a_dataset_of_the_paper_has_the_papers_k(dataset: str, k: int) -> None:
    assert read(manifest([list("abcdef")] * 3, dataset=dataset)).k == k


@pytest.mark.parametrize(
    ("labels", "k"), [(["a", "ab", "ab"], 2), (["a", "a", "ab"], 1), (["abc", "ab"], 3), (["abcd", "a", "abcd"], 3)]
)
def test_any_other_datasets_k_is_its_average_number_of_labels_a_song(labels: list[str], k: int) -> None:
    assert read(manifest([list(one) for one in labels])).k == k


def test_k_is_never_more_than_there_are_labels() -> None:
    assert read(manifest([["a"], ["b"]], dataset="cal500")).k == 2
