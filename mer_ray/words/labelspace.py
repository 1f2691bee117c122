"""The words of a training, embedded and grouped with those that mean nearly the same (paper §3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer_ray.errors import InputError
from mer_ray.words.embedding import unit
from mer_ray.words.lists import Word
from mer_ray.words.published import read_label_clusters
from mer_ray.words.wordspace import WordSpace

_BANDWIDTHS = tuple(round(0.5 + 0.025 * step, 3) for step in range(21))
_LARGEST_CLUSTER = 0.25


class Clusters(NamedTuple):
    """The cluster of each of n labels, [n] of 0 to k - 1; the clusters' centres, [k, E] unit vectors.

    ``bandwidth`` is 0 where each label is left alone, None where the clusters were published.
    """

    assignments: NDArray[np.int64]
    centers: NDArray[np.float32]
    bandwidth: float | None


@dataclass(frozen=True)
class LabelSpace:
    """The L words of all datasets trained on together, sorted, each once; their embeddings are [L, E] unit vectors.

    ``space`` is how these words, and any others, become vectors.
    """

    words: tuple[Word, ...]
    embeddings: NDArray[np.float32]
    clusters: Clusters
    space: WordSpace

    @classmethod
    def build(
        cls, vocabularies: Sequence[Sequence[str]], space: WordSpace, bandwidth: str, published: str | None = None
    ) -> LabelSpace:
        """Embed and cluster the union of several datasets' labels.

        Args:
            vocabularies: a dataset's labels each.
            space: how they become vectors.
            bandwidth: as in :func:`cluster_labels`; ``none`` leaves each a cluster of its own.
            published: the URI of a published ``label_map.json``, whose clusters are taken as they are instead.
        """
        labels = sorted({label for vocabulary in vocabularies for label in vocabulary})
        words = tuple(space.read(Word.of(label)) for label in labels)
        embeddings = space.embed(words)
        if published is not None:
            clusters = Clusters(*read_label_clusters(published, labels, embeddings), None)
        else:
            clusters = _alone(embeddings) if bandwidth == "none" else cluster_labels(embeddings, bandwidth)
        return cls(words, embeddings, clusters, space)

    def targets(self, kind: Literal["labels", "clusters"], words: Sequence[str]) -> NDArray[np.float32]:
        """[l, E] the point each of these words draws songs to: its own embedding or its cluster's centre."""
        return self.clusters.centers[self.cluster_of(words)] if kind == "clusters" else self.embeddings[self._at(words)]

    def cluster_of(self, words: Sequence[str]) -> NDArray[np.int64]:
        """[l] the cluster of each of these words."""
        return self.clusters.assignments[self._at(words)]

    def describe(self) -> dict[str, Any]:
        """The label space as plain values, for ``labels.json``."""
        groups: list[list[str]] = [[] for _ in self.clusters.centers]
        for word, cluster in zip(self.words, self.clusters.assignments, strict=True):
            groups[cluster].append(word.label)
        return {
            "words": [word.label for word in self.words],
            "phrases": {word.label: list(word.phrases) for word in self.words},
            "clusters": groups,
            "bandwidth": self.clusters.bandwidth,
            "reading": self.space.describe(),
        }

    def _at(self, words: Sequence[str]) -> list[int]:
        row = {word.label: at for at, word in enumerate(self.words)}
        return [row[word] for word in words]


def cluster_labels(embeddings: NDArray[np.float32], bandwidth: str | float = "auto") -> Clusters:
    """Group labels that mean nearly the same by Mean Shift (paper §3.4).

    Args:
        embeddings: [n, E] unit vectors.
        bandwidth: a number; ``quantile:q`` for scikit-learn's estimate; ``reference:q`` for the
            same, and each label alone where it groups none (the published code); or ``auto``: of the
            bandwidths 0.5 to 1.0, drop those that leave every label alone or put more than a
            quarter of them together, and keep the best mean cosine silhouette (the smallest
            bandwidth on a tie); each label alone, with bandwidth 0, if none is left.

    Raises:
        InputError: a number or quantile that leaves every label alone or puts all together.
    """
    from sklearn.cluster import estimate_bandwidth

    if bandwidth == "auto":
        return _best_clusters(embeddings)
    kind, _, number = str(bandwidth).rpartition(":")
    try:
        value = float(number)
        if kind in ("quantile", "reference"):
            value = float(estimate_bandwidth(embeddings, quantile=value))
        elif kind:
            raise ValueError(kind)
    except ValueError as error:
        raise InputError(
            f"bandwidth {bandwidth}: not one; give auto, quantile:q with q from 0 to 1, or a number from 0.5 to 1.0."
        ) from error
    clusters = _mean_shift(embeddings, value) if value > 1e-6 else None
    if clusters is None and kind == "reference":
        return _alone(embeddings)
    if clusters is None or len(clusters.centers) in (1, len(embeddings)):
        raise InputError(
            f"bandwidth {bandwidth}: groups the {len(embeddings)} labels "
            f"{'into one' if clusters and len(clusters.centers) == 1 else 'not at all'}; "
            "use --bandwidth auto or a number between 0.5 and 1.0."
        )
    return clusters


def _best_clusters(embeddings: NDArray[np.float32]) -> Clusters:
    from sklearn.metrics import silhouette_score

    best: tuple[float, Clusters] | None = None
    for bandwidth in _BANDWIDTHS:
        clusters = _mean_shift(embeddings, bandwidth)
        largest = np.bincount(clusters.assignments).max()
        if len(clusters.centers) in (1, len(embeddings)) or largest > max(2, _LARGEST_CLUSTER * len(embeddings)):
            continue
        score = float(silhouette_score(embeddings, clusters.assignments, metric="cosine"))
        if best is None or score > best[0] + 1e-9:
            best = (score, clusters)
    return _alone(embeddings) if best is None else best[1]


def _alone(embeddings: NDArray[np.float32]) -> Clusters:
    return Clusters(np.arange(len(embeddings)), embeddings, 0.0)


def _mean_shift(embeddings: NDArray[np.float32], bandwidth: float) -> Clusters:
    from sklearn.cluster import MeanShift
    from threadpoolctl import threadpool_limits

    # Some thousand tiny matrix products: more threads than one only wait for each other.
    with threadpool_limits(1):
        fitted = MeanShift(bandwidth=bandwidth).fit(embeddings)
    return Clusters(fitted.labels_.astype(np.int64), unit(fitted.cluster_centers_), bandwidth)
