"""Soft truth: how well the order that scores put songs in is the order of their listeners' ratings.

A label that most listeners hear in a song, and one that a few do, are the same to F1 and to ROC-AUC. Spearman's rank
correlation tells them apart, wants no threshold, and is 0 for scores that know nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mer_ray.evaluation.metrics import AREA_RESAMPLES, Level
from mer_ray.learning.scoring import Scores

CORRELATION = "rating_correlation"
FEWEST = 3
"""Songs with ratings; two are always in the same or in the opposite order."""


def rank_correlations(scores_SL: Scores, ratings_SL: Scores) -> Scores:
    """Spearman's rank correlation of each label over the songs that have a rating of it: [L].

    nan where fewer than :data:`FEWEST` songs have one, or all are scored or rated the same.
    """
    everyone_1S = np.arange(len(scores_SL))[None]
    return _resampled(scores_SL, ratings_SL, everyone_1S)[:, 0]


def add_rank_correlations(
    level: Level, scores_SL: Scores, ratings_SL: Scores, track_ids: Sequence[str], seed: int
) -> None:
    """Add the mean over the labels to a level of song scores, with its 95 % interval over songs, and each label's own.

    Args:
        level: gets ``rating_correlation``, ``_low`` and ``_high``; every label its own.
        scores_SL: what the level scores S songs.
        ratings_SL: of the same songs and labels; nan where there is none.
        track_ids: the songs' names; the order they come in changes nothing.
        seed: of the resamples.
    """
    order_S = np.array(sorted(range(len(track_ids)), key=track_ids.__getitem__), np.int64)
    scores_SL, ratings_SL = scores_SL[order_S], ratings_SL[order_S]
    draws_RS = np.random.default_rng((seed, 2)).integers(0, len(order_S), (AREA_RESAMPLES, len(order_S)))
    own_L = rank_correlations(scores_SL, ratings_SL)
    known_L = np.isfinite(own_L)
    means_R = np.array([_mean(of_R) for of_R in _resampled(scores_SL, ratings_SL, draws_RS)[known_L].T])
    finite_R = means_R[np.isfinite(means_R)]
    low, high = np.percentile(finite_R, [2.5, 97.5]) if len(finite_R) else (np.nan, np.nan)
    level.metrics[CORRELATION] = _mean(own_L)
    level.metrics[f"{CORRELATION}_low"], level.metrics[f"{CORRELATION}_high"] = float(low), float(high)
    for values, own in zip(level.per_label.values(), own_L.tolist(), strict=True):
        values[CORRELATION] = own


def _resampled(scores_SL: Scores, ratings_SL: Scores, draws_RS: NDArray[np.int64]) -> Scores:
    """[L, R] correlations over each draw of songs."""
    from scipy.stats import rankdata

    found = np.full((scores_SL.shape[1], len(draws_RS)), np.nan)
    for at, ratings_S in enumerate(ratings_SL.T):
        rated_S = np.isfinite(ratings_S)
        if rated_S.sum() < FEWEST:
            continue
        held = np.where(rated_S, scores_SL[:, at], np.nan)[draws_RS], ratings_S[draws_RS]
        policy = "propagate" if rated_S.all() else "omit"
        found[at] = _pearson(*(rankdata(values_RS, axis=1, nan_policy=policy) for values_RS in held))
    return found


def _pearson(left_RS: Scores, right_RS: Scores) -> Scores:
    """[R] row by row; nan where a side does not vary."""
    left_RS, right_RS = (values - np.nanmean(values, axis=1, keepdims=True) for values in (left_RS, right_RS))
    lengths_R = np.sqrt(np.nansum(left_RS**2, axis=1) * np.nansum(right_RS**2, axis=1))
    found_R = np.full(len(left_RS), np.nan)
    np.divide(np.nansum(left_RS * right_RS, axis=1), lengths_R, out=found_R, where=lengths_R > 0)
    return found_R


def _mean(values: Scores) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
