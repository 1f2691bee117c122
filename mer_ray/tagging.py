"""Projected windows times labels to ranked tags (paper §3.5, and scores that compare between words)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer_ray.labels import Phrases
from mer_ray.model import Model

Ranking = Literal["standardized", "cosine"]


class Tag(NamedTuple):
    """One word for a song; ``percentile`` is the share of yardstick songs it suits no better."""

    label: str
    score: float
    percentile: float


class LabelScale:
    """How each label's cosines spread over a yardstick of songs.

    A word near everything (or far from everything) in the sentence space would be given to every
    song (or to none). Measured against its own mean and deviation over many songs, a score means
    the same for every word.
    """

    def __init__(self, labels_LE: NDArray[np.float32], yardstick_SE: NDArray[np.floating[Any]], ranking: Ranking) -> None:
        """Measure the labels.

        Args:
            labels_LE: [L, E] unit label embeddings.
            yardstick_SE: [S, E] mean unit projection of each yardstick song.
            ranking: ``standardized`` or ``cosine``.
        """
        self._labels_LE = labels_LE
        cosines_SL = np.asarray(yardstick_SE, np.float32) @ labels_LE.T
        self._sorted_LS = np.sort(cosines_SL.T, axis=1)
        standardized = ranking == "standardized"
        self._mean_L = cosines_SL.mean(0) if standardized else np.zeros(len(labels_LE), np.float32)
        self._std_L = np.maximum(cosines_SL.std(0), 1e-6) if standardized else np.ones(len(labels_LE), np.float32)

    def scores(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every label for windows or songs: [n, E] to [n, L], higher is better."""
        scores: NDArray[np.float32] = (vectors_NE @ self._labels_LE.T - self._mean_L) / self._std_L
        return scores

    def percentiles(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, L] share of the yardstick whose cosine with the label is not above this one's, 0 to 1."""
        cosines_NL = vectors_NE @ self._labels_LE.T
        songs = self._sorted_LS.shape[1]
        ranks = [np.searchsorted(row, cosines_NL[:, at], side="right") for at, row in enumerate(self._sorted_LS)]
        return (np.stack(ranks, axis=1) / songs).astype(np.float32)


@dataclass
class Tagger:
    """Ranks any list of words for songs.

    Attributes:
        model: the trained model.
        yardstick: [S, E] songs against which scores are measured; the model's own background if
            no catalogue's is given.
    """

    model: Model
    yardstick: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, model: str) -> Tagger:
        """A tagger from a model directory (local or ``s3://``)."""
        return cls(Model.load(model))

    def scale(self, labels: Phrases, ranking: Ranking = "standardized") -> LabelScale:
        """Measure a list of labels once, to score many songs with it."""
        yardstick = self.model.background if self.yardstick is None else self.yardstick
        return LabelScale(self.model.embed(labels), yardstick, ranking)

    def rank(
        self,
        features: NDArray[np.floating[Any]],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        k: int = 3,
        ranking: Ranking = "standardized",
    ) -> list[Tag]:
        """The k best of these words for one song.

        Args:
            features: [w, D] features of the song's windows, at least one.
            labels: words, or words with their phrases.
            k: how many tags.
            ranking: what the score is (see :class:`LabelScale`).
        """
        pairs = labels.items() if isinstance(labels, Mapping) else ((label, (label,)) for label in labels)
        phrases: Phrases = {label: tuple(texts) for label, texts in pairs}
        vector_1E = song_vector(self.model.project(features))[None]
        scale = self.scale(phrases, ranking)
        return best_tags(list(phrases), scale.scores(vector_1E)[0], scale.percentiles(vector_1E)[0], k=k)


def song_vector(projected_WE: NDArray[np.float32]) -> NDArray[np.float32]:
    """A song's place: the mean of its windows' unit vectors, so that its cosines are their mean. [E]."""
    mean: NDArray[np.float32] = projected_WE.mean(axis=0)
    return mean


def best_tags(
    labels: Sequence[str],
    scores_L: NDArray[np.float32],
    percentiles_L: NDArray[np.float32],
    *,
    k: int | None = None,
    threshold: float | None = None,
) -> list[Tag]:
    """Labels in order of score: the first k, or those that reach the threshold, or both limits."""
    order = np.argsort(-scores_L, kind="stable")[:k]
    return [
        Tag(labels[at], float(scores_L[at]), float(percentiles_L[at]))
        for at in order
        if threshold is None or scores_L[at] >= threshold
    ]
