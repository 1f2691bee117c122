"""Words that mean nearly the same are grouped, and a grouping that says nothing is refused."""

import numpy as np
import pytest

from mer_ray.catalog.datasets import vocabularies
from mer_ray.errors import InputError
from mer_ray.words import cluster_labels, embed_labels


def words_of(*datasets: str) -> list[str]:
    return list(dict.fromkeys(word for name in datasets for word in vocabularies()[name]))


@pytest.mark.parametrize(
    ("datasets", "clusters", "bandwidths"),
    [
        (("cal500", "gems"), 22, (0.825, 0.875)),
        (("jamendo", "gems"), 55, (0.875, 0.875)),
        (("jamendo", "cal500"), 59, (0.8, 0.8)),
        (("jamendo", "cal500", "gems"), 64, (0.8, 0.8)),
    ],
)
def test_auto_bandwidth_finds_the_known_number_of_clusters(
    datasets: tuple[str, ...], clusters: int, bandwidths: tuple[float, float]
) -> None:
    embeddings = embed_labels(words_of(*datasets))
    found = cluster_labels(embeddings)
    assert found.centers.shape == (clusters, 384)
    assert bandwidths[0] <= found.bandwidth <= bandwidths[1]
    assert sorted(set(found.assignments.tolist())) == list(range(clusters))
    np.testing.assert_allclose(np.linalg.norm(found.centers, axis=1), 1, atol=1e-5)
    nearest = (embeddings @ found.centers.T).argmax(axis=1)
    assert (nearest == found.assignments).all()


def test_clusters_group_what_is_near_and_never_more_than_a_quarter_of_the_words() -> None:
    words = words_of("cal500", "gems")
    embeddings = embed_labels(words)
    assignments = cluster_labels(embeddings).assignments
    same = np.equal.outer(assignments, assignments) & ~np.eye(len(words), dtype=bool)
    cosines = embeddings @ embeddings.T
    assert cosines[same].mean() > cosines[~same & ~np.eye(len(words), dtype=bool)].mean() + 0.2
    assert np.bincount(assignments).max() <= len(words) / 4


@pytest.mark.parametrize("bandwidth", ["quantile:0.03", "quantile:0.04", 0, "0.01", "100", 1e9, "-1", "nan"])
def test_a_degenerate_bandwidth_is_an_error_never_an_answer(bandwidth: str | float) -> None:
    refused_bandwidth(words_of("gems"), bandwidth, "into one" if str(bandwidth) in ("100", "1000000000.0") else "not")


@pytest.mark.parametrize("bandwidth", ["wide", "quantile:", "quantile:x", "quantile:2", "quantile:-0.1"])
def test_a_bandwidth_that_is_none_is_refused(bandwidth: str) -> None:
    refused_bandwidth(words_of("gems"), bandwidth, "give auto, quantile:q")


@pytest.mark.parametrize(
    ("words", "bandwidth"),
    [
        (["happy"], "auto"),
        (["happy", "joyful"], "auto"),
        (["happy", "tax return"], "auto"),
        (vocabularies()["gems"], "reference:0.03"),
    ],
)
def test_words_that_no_bandwidth_groups_are_each_a_cluster_of_its_own(words: list[str], bandwidth: str) -> None:
    embeddings = embed_labels(words)
    found = cluster_labels(embeddings, bandwidth)
    assert found.bandwidth == 0
    assert found.assignments.tolist() == list(range(len(words)))
    np.testing.assert_array_equal(found.centers, embeddings)


def test_a_given_bandwidth_or_quantile_is_followed() -> None:
    embeddings = embed_labels(words_of("cal500", "gems"))
    assert cluster_labels(embeddings, 0.85).bandwidth == 0.85
    assert len(cluster_labels(embeddings, "0.85").centers) == 22
    assert len(cluster_labels(embeddings, "quantile:0.1").centers) < 26


def refused_bandwidth(words: list[str], bandwidth: str | float, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        cluster_labels(embed_labels(words), bandwidth)
    assert str(bandwidth) in str(caught.value)
    assert "\n" not in str(caught.value)
