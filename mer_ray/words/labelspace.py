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
from mer_ray.words.wordspace import WordSpace

_BANDWIDTHS = tuple(round(0.5 + 0.025 * step, 3) for step in range(21))
_LARGEST_CLUSTER = 0.25


class Clusters(NamedTuple):
    """The cluster of each of n labels, [n] of 0 to k - 1; the clusters' centres, [k, E] unit vectors."""

    assignments: NDArray[np.int64]
    centers: NDArray[np.float32]
    bandwidth: float


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
    def build(cls, vocabularies: Sequence[Sequence[str]], space: WordSpace, bandwidth: str) -> LabelSpace:
        """Embed and cluster the union of several datasets' labels; ``none`` leaves each a cluster of its own."""
        labels = sorted({label for vocabulary in vocabularies for label in vocabulary})
        words = tuple(space.read(Word.of(label)) for label in labels)
        embeddings = space.embed(words)
        alone = Clusters(np.arange(len(words)), embeddings, 0.0)
        return cls(words, embeddings, alone if bandwidth == "none" else cluster_labels(embeddings, bandwidth), space)

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
        bandwidth: a number; ``quantile:q`` for scikit-learn's estimate; or ``auto``: of the
            bandwidths 0.5 to 1.0, drop those that leave every label alone or put more than a
            quarter of them together, and keep the best mean cosine silhouette (the smallest
            bandwidth on a tie).

    Raises:
        InputError: a degenerate outcome (every label alone, or all together).
    """
    from sklearn.cluster import estimate_bandwidth

    if bandwidth == "auto":
        return _best_clusters(embeddings)
    try:
        if isinstance(bandwidth, str) and bandwidth.startswith("quantile:"):
            value = float(estimate_bandwidth(embeddings, quantile=float(bandwidth.removeprefix("quantile:"))))
        else:
            value = float(bandwidth)
    except ValueError as error:
        raise InputError(
            f"bandwidth {bandwidth}: not one; give auto, quantile:q with q from 0 to 1, or a number from 0.5 to 1.0."
        ) from error
    clusters = _mean_shift(embeddings, value) if value > 1e-6 else None
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
    if best is None:
        raise InputError(
            f"bandwidth auto: no bandwidth from 0.5 to 1.0 groups these {len(embeddings)} labels sensibly; "
            "give --bandwidth a number, or none to leave each word a cluster of its own."
        )
    return best[1]


def _mean_shift(embeddings: NDArray[np.float32], bandwidth: float) -> Clusters:
    from sklearn.cluster import MeanShift
    from threadpoolctl import threadpool_limits

    # Some thousand tiny matrix products: more threads than one only wait for each other.
    with threadpool_limits(1):
        fitted = MeanShift(bandwidth=bandwidth).fit(embeddings)
    return Clusters(fitted.labels_.astype(np.int64), unit(fitted.cluster_centers_), bandwidth)
