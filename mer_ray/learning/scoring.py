"""The one score of a word for a song: what chooses an epoch, what is evaluated, what is written as tags.

And how well words chosen by it match the truth (paper §4.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.learning.settings import Ranking

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]

FLOOR = 0.75
"""A standardized score that earns a word its place on a song. Of words never seen, PMEmo's after training on DEAM,
0.75 gives one-word lists the best F1 of 0 to 1.5, and costs two words a song 0.003 of it (benchmarks/floor.py)."""
MARGIN = 0.4
"""What a word of known truth scores above the floor where as many training songs reach it as had it: at 0 a song of
two words loses 0.04 of F1 to words just missed, at 0.5 nothing."""
YARDSTICK_LEAST = 100
"""With fewer songs than this a catalogue says little about a word; a model's training songs measure instead."""
YARDSTICK_SONGS = 10_000
"""At most so many songs measure the words; their mean and deviation are known to one percent."""


def measured_by_catalog(asked: str, songs: int) -> bool:
    """Whether so many songs are their own yardstick; ``asked`` is ``auto``, ``catalog`` or ``model``."""
    return asked == "catalog" or (asked == "auto" and songs >= YARDSTICK_LEAST)


def lots(ids: Iterable[str]) -> NDArray[np.uint64]:
    """[songs] what decides which of many songs measure: nothing to do with how a catalogue is sorted, and the same in
    each that holds a song."""
    drawn = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) for name in ids)
    return np.fromiter(drawn, np.uint64)


def yardstick_songs(lots_S: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The songs that measure, by their :func:`lots`: all, or :data:`YARDSTICK_SONGS` of more; ascending."""
    if len(lots_S) <= YARDSTICK_SONGS:
        return np.arange(len(lots_S))
    return np.sort(np.argpartition(lots_S, YARDSTICK_SONGS)[:YARDSTICK_SONGS])


def floor_of(ranking: Ranking) -> float | None:
    """The score from which a word earns its place; None by cosine, where the k best are taken (paper §3.5)."""
    return FLOOR if ranking == "standardized" else None


class LabelScale:
    """How each label's cosines spread over a yardstick of songs.

    A word near everything (or far from everything) in the sentence space would be given to every
    song (or to none). Measured against its own mean and deviation over many songs, a score means
    the same for every word. So does a song: what all songs of a yardstick share says nothing of any of
    them, and is taken away before its cosines, as the words' own centre is from the words.

    Where truth is known, a word keeps how common it is: its scores are moved so that where as large a share of the
    training songs stands as had the word, it scores :data:`FLOOR` + :data:`MARGIN`.

    Attributes:
        floor: as :func:`floor_of` has it.
    """

    def __init__(
        self,
        labels_LE: NDArray[np.float32],
        yardstick_SE: NDArray[np.floating[Any]],
        ranking: Ranking,
        priors_L: NDArray[np.floating[Any]] | None = None,
        training_SE: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Measure unit label embeddings on the mean unit projection of each yardstick song.

        Args:
            labels_LE: [L, E].
            yardstick_SE: [S, E]; the songs that percentiles are of.
            ranking: ``cosine`` measures nothing.
            priors_L: the share of training songs that have each word, nan for one never seen; without, none is known.
            training_SE: training songs. With them the yardstick's songs count as far as they differ from these by more
                than chance does: songs of the same kind are measured by what is known of the kind.
        """
        standardized = ranking == "standardized"
        songs_SE = np.asarray(yardstick_SE, np.float32)
        trained_SE = songs_SE if training_SE is None else np.asarray(training_SE, np.float32)
        weight = 1.0
        if training_SE is not None and standardized:
            weight = strangeness(songs_SE, trained_SE.mean(0), float(trained_SE.var(0).sum()), len(trained_SE))
        self.floor = floor_of(ranking)
        self._labels_LE = labels_LE
        self._center_E = _blend(weight, songs_SE.mean(0), trained_SE.mean(0)) if standardized else None
        cosines_SL = self._cosines(songs_SE)
        self._sorted_LS = np.sort(cosines_SL.T, axis=1)
        self._zero_L, self._unit_L = np.zeros(len(labels_LE), np.float32), np.ones(len(labels_LE), np.float32)
        if standardized:
            of_training_SL = cosines_SL if training_SE is None else self._cosines(trained_SE)
            self._zero_L = _blend(weight, cosines_SL.mean(0), of_training_SL.mean(0))
            variance_L = _blend(weight, cosines_SL.var(0), of_training_SL.var(0))
            self._unit_L = np.maximum(np.sqrt(variance_L), 1e-6)
            if priors_L is not None:
                self._zero_L = self._zero_L + self._unit_L * self._common(trained_SE, priors_L)

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

    def _common(self, trained_SE: NDArray[np.float32], priors_L: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """[L] what each word's score is lowered by; 0 where its prior is not known."""
        lowered_L, known = np.zeros(len(priors_L), np.float32), np.flatnonzero(~np.isnan(priors_L))
        if len(known):
            scores_SK = LabelScale(self._labels_LE[known], trained_SE, "standardized").scores(trained_SE)
            reached = [np.quantile(scores_S, 1 - priors_L[at]) for scores_S, at in zip(scores_SK.T, known, strict=True)]
            lowered_L[known] = np.array(reached) - FLOOR - MARGIN
        return lowered_L

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


def strangeness(songs_SE: NDArray[np.floating[Any]], mean_E: NDArray[np.float32], variance: float, count: int) -> float:
    """How much of the distance of songs from others is more than chance, 0 to 1, had all been drawn from one kind.

    ``mean_E`` and ``variance``, summed over E, are of the others, ``count`` songs. This is the positive part of James
    and Stein's estimate.
    """
    apart = float(((songs_SE.mean(0) - mean_E) ** 2).sum())
    by_chance = variance * (1 / len(songs_SE) + 1 / count)
    return max(0.0, 1 - by_chance / apart) if apart > 0 else 0.0


def _blend(weight: float, songs: NDArray[np.float32], trained: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(weight * songs + (1 - weight) * trained, np.float32)


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
