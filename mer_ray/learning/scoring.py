"""The one score of a word for a song: what chooses an epoch, what is evaluated, what is written as tags.

And how well words chosen by it match the truth (paper §4.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.learning.settings import Ranking

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]

FLOOR = 1.0
"""A standardized score that earns a word its place on a song: a deviation above what songs have on average."""
YARDSTICK_LEAST = 100
"""With fewer songs than this a catalogue says little about a word; a model's training songs measure instead."""


def measured_by_catalog(asked: str, songs: int) -> bool:
    """Whether so many songs are their own yardstick; ``asked`` is ``auto``, ``catalog`` or ``model``."""
    return asked == "catalog" or (asked == "auto" and songs >= YARDSTICK_LEAST)


class LabelScale:
    """How each label's cosines spread over a yardstick of songs.

    A word near everything (or far from everything) in the sentence space would be given to every
    song (or to none). Measured against its own mean and deviation over many songs, a score means
    the same for every word. So does a song: what all songs of a yardstick share says nothing of any of
    them, and is taken away before its cosines, as the words' own centre is from the words.

    Where truth is known, a word keeps how common it is: its scores are moved so that as large a share of the
    yardstick reaches :data:`FLOOR` as of the training songs had the word.

    Attributes:
        floor: the score from which a word earns its place; None by cosine, where the k best are taken.
    """

    def __init__(
        self,
        labels_LE: NDArray[np.float32],
        yardstick_SE: NDArray[np.floating[Any]],
        ranking: Ranking,
        priors_L: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Measure unit label embeddings on the mean unit projection of each yardstick song.

        ``priors_L`` is the share of training songs that have each word, nan for a word never seen; none is known if
        it is not given.
        """
        standardized = ranking == "standardized"
        songs_SE = np.asarray(yardstick_SE, np.float32)
        self.floor = FLOOR if standardized else None
        self._labels_LE = labels_LE
        self._center_E = songs_SE.mean(0) if standardized else None
        cosines_SL = self._cosines(songs_SE)
        self._sorted_LS = np.sort(cosines_SL.T, axis=1)
        self._zero_L = cosines_SL.mean(0) if standardized else np.zeros(len(labels_LE), np.float32)
        self._unit_L = np.maximum(cosines_SL.std(0), 1e-6) if standardized else np.ones(len(labels_LE), np.float32)
        if standardized and priors_L is not None:
            self._zero_L = np.where(np.isnan(priors_L), self._zero_L, self._reached(priors_L) - FLOOR * self._unit_L)

    def scores(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every label for windows or songs: [n, E] to [n, L], higher is better."""
        scores: NDArray[np.float32] = (self._cosines(vectors_NE) - self._zero_L) / self._unit_L
        return scores

    def percentiles(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, L] share of the yardstick whose cosine with the label is not above this one's, 0 to 1."""
        cosines_NL = self._cosines(vectors_NE)
        songs = self._sorted_LS.shape[1]
        ranks = [np.searchsorted(row, cosines_NL[:, at], side="right") for at, row in enumerate(self._sorted_LS)]
        return (np.stack(ranks, axis=1) / songs).astype(np.float32)

    def _reached(self, priors_L: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """[L] the cosine with each label that this share of the yardstick reaches."""
        shares_L = np.nan_to_num(1 - priors_L)
        reached = [np.quantile(row, share) for row, share in zip(self._sorted_LS, shares_L, strict=True)]
        return np.array(reached, np.float32)

    def _cosines(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        cosines_NL: NDArray[np.float32] = vectors_NE @ self._labels_LE.T
        if self._center_E is None:
            return cosines_NL
        # (v - c) · l / |v - c| without a copy of the vectors: it takes half the time.
        center_E = self._center_E
        squares_N = np.einsum("ne,ne->n", vectors_NE, vectors_NE) - 2 * (vectors_NE @ center_E) + center_E @ center_E
        lengths_N = np.sqrt(np.maximum(squares_N, 1e-12))
        centred_NL: NDArray[np.float32] = (cosines_NL - self._labels_LE @ center_E) / lengths_N[:, None]
        return centred_NL


def top_k_mask(scores_NL: Scores, k: int, floor: float | None = None) -> Truth:
    """[n, L] bool: each row's k best labels, ties to the earlier one; of these, those whose score reaches the floor."""
    order = np.argsort(-scores_NL, axis=1, kind="stable")[:, :k]
    mask = np.zeros(scores_NL.shape, bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask if floor is None else mask & (scores_NL >= floor)


def precision_recall_f1(predicted_NL: Truth, truth_NL: Truth) -> tuple[Scores, Scores, Scores]:
    """Per label [L] each; 0 where nothing was predicted or nothing is true."""
    hits = (predicted_NL & truth_NL).sum(0).astype(float)
    precision = hits / np.maximum(predicted_NL.sum(0), 1)
    recall = hits / np.maximum(truth_NL.sum(0), 1)
    f1 = 2 * hits / np.maximum(predicted_NL.sum(0) + truth_NL.sum(0), 1)
    return precision, recall, f1


def macro_f1(scores_NL: Scores, truth_NL: Truth, k: int, floor: float | None = None) -> float:
    """Mean F1 over all labels when each row is given its k best that reach the floor."""
    return float(precision_recall_f1(top_k_mask(scores_NL, k, floor), truth_NL)[2].mean())
