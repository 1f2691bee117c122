"""The label space of a training: the words of all its datasets, embedded and clustered (paper §3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mer_ray.words.clusters import Clusters, cluster_labels
from mer_ray.words.lists import Word
from mer_ray.words.wordspace import WordSpace

Targets = Literal["labels", "clusters"]


@dataclass(frozen=True)
class LabelSpace:
    """The words of all datasets trained on together.

    Attributes:
        words: [L] sorted, each once, with what stands for them.
        embeddings: [L, E] unit vectors.
        clusters: their grouping.
        space: how these words, and any others, become vectors.
    """

    words: tuple[Word, ...]
    embeddings: NDArray[np.float32]
    clusters: Clusters
    space: WordSpace

    @classmethod
    def build(
        cls,
        vocabularies: Sequence[Sequence[str]],
        *,
        space: WordSpace | None = None,
        bandwidth: str | float | None = "auto",
    ) -> LabelSpace:
        """Embed and cluster the union of several vocabularies.

        Args:
            vocabularies: the datasets' labels.
            space: how words become vectors; as they stand if not given.
            bandwidth: of the clusters; None or ``none`` leaves each word a cluster of its own.
        """
        labels = sorted({label for vocabulary in vocabularies for label in vocabulary})
        space = space or WordSpace()
        words = tuple(space.read(Word.of(label)) for label in labels)
        embeddings = space.embed(words)
        if bandwidth in (None, "none"):
            clusters = Clusters(np.arange(len(words)), embeddings, 0.0)
        else:
            clusters = cluster_labels(embeddings, bandwidth)
        return cls(words, embeddings, clusters, space)

    def targets(self, kind: Targets, words: Sequence[str]) -> NDArray[np.float32]:
        """[l, E] the point each of these words draws songs to: its own embedding or its cluster's centre."""
        at = self._rows(words)
        return self.clusters.centers[self.clusters.assignments[at]] if kind == "clusters" else self.embeddings[at]

    def cluster_of(self, words: Sequence[str]) -> NDArray[np.int64]:
        """[l] the cluster of each of these words."""
        return self.clusters.assignments[self._rows(words)]

    def describe(self) -> dict[str, Any]:
        """The label space as plain values, for ``labels.json``."""
        groups = [
            [word.label for word, cluster in zip(self.words, self.clusters.assignments, strict=True) if cluster == at]
            for at in range(len(self.clusters.centers))
        ]
        return {
            "words": [word.label for word in self.words],
            "phrases": {word.label: list(word.phrases) for word in self.words},
            "clusters": groups,
            "bandwidth": self.clusters.bandwidth,
            "reading": self.space.describe(),
        }

    def _rows(self, words: Sequence[str]) -> list[int]:
        row = {word.label: at for at, word in enumerate(self.words)}
        return [row[word] for word in words]
