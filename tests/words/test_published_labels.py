"""Embeddings and clusters of labels, in the form the reference publishes them, are taken as they are or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_ray.errors import InputError
from mer_ray.words.published import CENTERS, read_label_clusters, read_label_embeddings

WORDS = ["calm", "happy", "sad"]
AXES = np.eye(3, dtype=np.float32)


def embeddings(path: Path, labels: list[str], vectors: NDArray[np.floating]) -> str:
    np.savez(path, labels=np.array(labels), text_features=vectors)
    return str(path)


def clusters(folder: Path, groups: dict[str, int], centers: dict[int, NDArray[np.floating]] | None = None) -> str:
    (folder / "label_map.json").write_text(json.dumps(groups))
    if centers is not None:
        np.savez(folder / CENTERS, labels=np.array([*centers]), text_features=np.stack([*centers.values()]))
    return str(folder / "label_map.json")


def test_each_label_has_its_published_vector_at_length_one(tmp_path: Path) -> None:
    found = read_label_embeddings([embeddings(tmp_path / "a.npz", WORDS, 2 * AXES)], 3)
    assert {label: vector.tolist() for label, vector in found.items()} == dict(zip(WORDS, AXES.tolist(), strict=True))


def test_a_word_of_two_files_lies_between_its_two_vectors(tmp_path: Path) -> None:
    files = [
        embeddings(tmp_path / f"{name}.npz", ["happy"], AXES[at : at + 1]) for name, at in (("jamendo", 0), ("cal", 1))
    ]
    assert read_label_embeddings(files, 3)["happy"] == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_labels_share_the_clusters_and_centres_that_were_published(tmp_path: Path) -> None:
    path = clusters(tmp_path, {"happy": 7, "calm": 2, "sad": 7, "epic": 0}, {0: AXES[0], 2: AXES[1], 7: 3 * AXES[2]})
    assignments, centers = read_label_clusters(path, WORDS, AXES)
    assert assignments.tolist() == [0, 1, 1]
    assert centers.tolist() == [AXES[1].tolist(), AXES[2].tolist()]


def test_without_published_centres_a_cluster_lies_at_the_mean_of_its_labels(tmp_path: Path) -> None:
    _, centers = read_label_clusters(clusters(tmp_path, {"happy": 1, "calm": 0, "sad": 1}), WORDS, AXES)
    assert centers[1] == pytest.approx([0, 0.5**0.5, 0.5**0.5])


def test_a_label_without_a_cluster_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no cluster for the label 'happy' \(did you mean 'hapy'\?\)"):
        read_label_clusters(clusters(tmp_path, {"hapy": 1, "calm": 0, "sad": 1}), WORDS, AXES)


def test_a_cluster_without_a_centre_is_named(tmp_path: Path) -> None:
    path = clusters(tmp_path, {"happy": 1, "calm": 0, "sad": 4}, {0: AXES[0], 1: AXES[1]})
    with pytest.raises(InputError, match=r"cluster_centers.npz: no centre of cluster 4"):
        read_label_clusters(path, WORDS, AXES)


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vectors of 3 numbers where the label model gives 384"):
        read_label_embeddings([embeddings(tmp_path / "a.npz", WORDS, AXES)], 384)
    path = clusters(tmp_path, {"happy": 1, "calm": 0, "sad": 1}, {0: AXES[0, :2], 1: AXES[1, :2]})
    with pytest.raises(InputError, match=r"cluster_centers.npz: vectors of 2 numbers"):
        read_label_clusters(path, WORDS, AXES)


@pytest.mark.parametrize(
    ("labels", "vectors", "why"),
    [
        (WORDS, np.where(AXES == 1, np.nan, AXES), "the vector of 'calm' is not finite"),
        (WORDS[:2], AXES, r"\[2\] labels for \[3, 3\] numbers"),
        ([1, 2, 3], AXES, "expected 'labels'"),
        (WORDS, AXES.astype(int), "expected 'labels'"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused_by_name(
    tmp_path: Path, labels: list[str], vectors: NDArray[np.floating], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        read_label_embeddings([embeddings(tmp_path / "a.npz", labels, vectors)], 3)


@pytest.mark.parametrize("content", ["[1, 2]", '{"calm": "one"}', '{"calm": true}', "calm: 1"])
def test_what_is_no_map_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "label_map.json").write_text(content)
    with pytest.raises(InputError, match="not a map of labels to clusters"):
        read_label_clusters(str(tmp_path / "label_map.json"), WORDS, AXES)
    with pytest.raises(InputError, match="not found"):
        read_label_clusters(str(tmp_path / "absent.json"), WORDS, AXES)
