"""How well ranked labels match the truth: macro F1 at k and its company (paper §4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.learning.scoring import Scores, Truth, macro_f1, precision_recall_f1, top_k_mask

RANDOM_DRAWS = 20
RESAMPLES = 1000
AREA_RESAMPLES = 200


@dataclass(frozen=True)
class Level:
    """Metrics of one way of predicting, and the same per label, with its ``support``.

    ``roc_auc`` and ``pr_auc`` are means over the labels that some songs have and some lack.
    """

    metrics: dict[str, float]
    per_label: dict[str, dict[str, float]]


def evaluate_scores(
    scores_NL: Scores, truth_NL: Truth, labels: tuple[str, ...], k: int, floor: float | None = None
) -> Level:
    """Score n predictions, each with its own truth, when each is given its k best of L labels that reach the floor."""
    precision, recall, f1 = precision_recall_f1(top_k_mask(scores_NL, k, floor), truth_NL)
    roc, pr = _areas(scores_NL, truth_NL)
    columns = {"f1": f1, "precision": precision, "recall": recall, "roc_auc": roc, "pr_auc": pr}
    columns["support"] = truth_NL.sum(0)
    metrics = {
        "macro_f1": float(f1.mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "roc_auc": _nanmean(roc),
        "pr_auc": _nanmean(pr),
        "k": k,
    }
    rows = np.column_stack([*columns.values()]).astype(float).tolist()
    return Level(
        metrics, {label: dict(zip(columns, row, strict=True)) for label, row in zip(labels, rows, strict=True)}
    )


def evaluate_songs(
    window_scores_NL: Scores,
    songs_N: NDArray[np.int64],
    truth_SL: Truth,
    labels: tuple[str, ...],
    k: int,
    frequencies_L: Scores,
    seed: int = 0,
    *,
    song_scores_SL: Scores | None = None,
    floor: float | None = None,
    ridge_SL: Scores | None = None,
    track_ids: Sequence[str] | None = None,
    clusters: Sequence[Sequence[str]] = (),
) -> dict[str, Level]:
    """Every level of one dataset, with its plain yardsticks.

    ``song_mean`` ranks the scores that tags are written by, k labels a song; ``song`` is what is written: of these
    labels those that reach the floor. Both, ``window`` and ``song_vote`` carry 95 % intervals over the songs
    (``macro_f1_low``, ``_high``, ``roc_auc_low``, …; per label ``f1_low``, …), all levels ``cluster_macro_f1``: the
    same truth scored over clusters of labels (METHOD.md row 18), nan if none are given.

    Args:
        window_scores_NL: scores of the windows.
        songs_N: each window's song, 0 to S - 1; every song has a window.
        truth_SL: of the songs.
        labels: the L labels.
        k: labels given to each window and song.
        frequencies_L: how often each label occurs where the baseline may look.
        seed: of the random baseline and of the intervals.
        song_scores_SL: scores of the songs' mean vectors; the mean over their windows if not given, which is the same
            by cosine.
        floor: the score that earns a label its place on a song.
        ridge_SL: scores of a ridge regression that was trained on the same labels (METHOD.md §6), if there is one.
        track_ids: the S songs' names. With them the order in which songs come, from one process
            or joined from several, changes no digit of the result.
        clusters: groups of labels that together hold each of the labels once.
    """
    if track_ids is not None:
        order_S = np.array(sorted(range(len(track_ids)), key=track_ids.__getitem__), np.int64)
        songs_N, truth_SL = np.argsort(order_S)[songs_N], truth_SL[order_S]
        song_scores_SL, ridge_SL = (None if each is None else each[order_S] for each in (song_scores_SL, ridge_SL))
    songs, levels = len(truth_SL), dict[str, Level]()
    if song_scores_SL is None:
        song_scores_SL = _means(window_scores_NL, songs_N, songs)
    groups = [[labels.index(label) for label in cluster] for cluster in clusters]
    multiplicities_RS = resample(songs, RESAMPLES, seed)
    for name, (scores_ML, songs_M, least) in _predictions(window_scores_NL, song_scores_SL, songs_N, k, floor).items():
        levels[name] = evaluate_scores(scores_ML, truth_SL[songs_M], labels, k, least)
        predicted_ML = top_k_mask(scores_ML, k, least)
        _add_intervals(levels[name], scores_ML, predicted_ML, truth_SL[songs_M], songs_M, multiplicities_RS)
    generator = np.random.default_rng(seed)
    known = truth_SL, labels, k, groups
    draws = [_song_level(generator.random(truth_SL.shape), *known) for _ in range(RANDOM_DRAWS)]
    if ridge_SL is not None:
        levels["ridge"] = _song_level(ridge_SL, *known)
    levels["random"] = _mean_level(draws)
    levels["frequent"] = _song_level(np.tile(frequencies_L, (songs, 1)), *known)
    window_clusters_NC, song_clusters_SC, truth_SC = (
        _best_of(values, groups) for values in (window_scores_NL, song_scores_SL, truth_SL)
    )
    for name, (scores_MC, songs_M, least) in _predictions(
        window_clusters_NC, song_clusters_SC, songs_N, k, floor
    ).items():
        levels[name].metrics["cluster_macro_f1"] = _cluster_f1(scores_MC, truth_SC[songs_M], k, least)
    for level in levels.values():
        level.metrics["songs"] = songs
    return levels


def _predictions(
    window_scores_NL: Scores, song_scores_SL: Scores, songs_N: NDArray[np.int64], k: int, floor: float | None
) -> dict[str, tuple[Scores, NDArray[np.int64], float | None]]:
    """Each level's scores, the song of each of their rows, and the floor they must reach."""
    songs_S = np.arange(len(song_scores_SL))
    return {
        "window": (window_scores_NL, songs_N, None),
        "song_vote": (vote_scores(window_scores_NL, songs_N, len(songs_S), k), songs_S, None),
        "song_mean": (song_scores_SL, songs_S, None),
        "song": (song_scores_SL, songs_S, floor),
    }


def vote_scores(window_scores_NL: Scores, songs_N: NDArray[np.int64], songs: int, k: int) -> Scores:
    """Majority vote of the windows' top k (paper §4.3): [songs, L], ordered by votes, then mean score."""
    counts_S1 = np.bincount(songs_N, minlength=songs)[:, None]
    votes_SL = _sums(top_k_mask(window_scores_NL, k).astype(float), songs_N, songs)
    tie_break_SL = 1 / (1 + np.exp(-_means(window_scores_NL, songs_N, songs)))
    return (votes_SL + tie_break_SL) / (counts_S1 + 1)


def resample(songs: int, times: int, seed: int) -> Scores:
    """[times, songs]: how often each song is drawn in each bootstrap resample of all songs."""
    draws_RS = np.random.default_rng((seed, 1)).integers(0, songs, (times, songs))
    flat = (draws_RS + songs * np.arange(times)[:, None]).reshape(-1)
    return np.bincount(flat, minlength=times * songs).reshape(times, songs).astype(float)


def resampled_f1(predicted_NL: Truth, truth_NL: Truth, songs_N: NDArray[np.int64], multiplicities_RS: Scores) -> Scores:
    """F1 of each label in each resample of the songs, every song with all its rows: [R, L].

    A label whose few songs are all missing from a resample keeps there the F1 of the whole sample: a zero
    would say that the label became hard, and would draw the macro mean below its own estimate.

    ``songs_N`` is each row's song, ``multiplicities_RS`` as :func:`resample` draws them.
    """
    songs = multiplicities_RS.shape[1]
    hits_SL = _sums((predicted_NL & truth_NL).astype(float), songs_N, songs)
    given_SL = _sums(predicted_NL.astype(float) + truth_NL, songs_N, songs)
    f1_RL = 2 * (multiplicities_RS @ hits_SL) / np.maximum(multiplicities_RS @ given_SL, 1)
    lost_RL = multiplicities_RS @ _sums(truth_NL.astype(float), songs_N, songs) == 0
    return np.where(lost_RL, 2 * hits_SL.sum(0) / np.maximum(given_SL.sum(0), 1), f1_RL)


def resampled_roc_auc(
    scores_NL: Scores, truth_NL: Truth, songs_N: NDArray[np.int64], multiplicities_RS: Scores
) -> Scores:
    """Macro ROC-AUC in each resample, over the labels that some rows of it have and some lack: [R].

    A label's positives are laid out in order of score; each negative then adds its song's
    multiplicity to all positives above it, and half of it to those it ties with.
    """
    from scipy.sparse import csr_array

    multiplicities_SR = np.ascontiguousarray(multiplicities_RS.T)
    songs, resamples = multiplicities_SR.shape

    def totals(steps: NDArray[np.int64], of: NDArray[np.int64], height: int) -> Scores:
        ones = np.ones(len(steps))
        return csr_array((ones, (steps, of)), shape=(height, songs)) @ multiplicities_SR

    areas_LR = np.full((truth_NL.shape[1], resamples), np.nan)
    for at, truth_N in enumerate(truth_NL.T):
        if truth_N.all() or not truth_N.any():
            continue
        steps, own_step = np.unique(scores_NL[truth_N, at], return_inverse=True)
        lacking, of = scores_NL[~truth_N, at], songs_N[~truth_N]
        below, not_above = (np.searchsorted(steps, lacking, side=side) for side in ("left", "right"))
        halves = totals(np.r_[below, not_above], np.r_[of, of], len(steps) + 1)
        positives_VR = totals(own_step, songs_N[truth_N], len(steps))
        wins_R = (positives_VR * np.cumsum(halves, axis=0)[:-1]).sum(0) / 2
        pairs_R = positives_VR.sum(0) * halves.sum(0) / 2
        np.divide(wins_R, pairs_R, out=areas_LR[at], where=pairs_R > 0)
    return np.array([_nanmean(areas_L) for areas_L in areas_LR.T])


def _add_intervals(
    level: Level,
    scores_NL: Scores,
    predicted_NL: Truth,
    truth_NL: Truth,
    songs_N: NDArray[np.int64],
    multiplicities_RS: Scores,
) -> None:
    """Percentile intervals of 95 %: what the metrics would be on other songs of the same kind."""
    f1_RL = resampled_f1(predicted_NL, truth_NL, songs_N, multiplicities_RS)
    level.metrics["macro_f1_low"], level.metrics["macro_f1_high"] = _interval(f1_RL.mean(1))
    areas_R = resampled_roc_auc(scores_NL, truth_NL, songs_N, multiplicities_RS[:AREA_RESAMPLES])
    level.metrics["roc_auc_low"], level.metrics["roc_auc_high"] = _interval(areas_R)
    for f1_R, values in zip(f1_RL.T, level.per_label.values(), strict=True):
        values["f1_low"], values["f1_high"] = _interval(f1_R)


def _interval(values_R: Scores) -> tuple[float, float]:
    finite = values_R[np.isfinite(values_R)]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (np.nan, np.nan)
    return float(low), float(high)


def _best_of(values_NL: Any, groups: list[list[int]]) -> Any:
    """[n, C]: a cluster scores what its best label does, and is true where one of them is."""
    return np.stack([values_NL[:, group].max(1) for group in groups], axis=1) if groups else values_NL[:, :0]


def _cluster_f1(scores_NC: Scores, truth_NC: Truth, k: int, floor: float | None = None) -> float:
    return macro_f1(scores_NC, truth_NC, k, floor) if truth_NC.shape[1] else float("nan")


def _song_level(scores_SL: Scores, truth_SL: Truth, labels: tuple[str, ...], k: int, groups: list[list[int]]) -> Level:
    level = evaluate_scores(scores_SL, truth_SL, labels, k)
    level.metrics["cluster_macro_f1"] = _cluster_f1(_best_of(scores_SL, groups), _best_of(truth_SL, groups), k)
    return level


def _mean_level(draws: list[Level]) -> Level:
    """The mean over several random rankings; what knowing nothing scores."""

    def mean(values: list[dict[str, float]]) -> dict[str, float]:
        return {name: _nanmean([one[name] for one in values]) for name in values[0]}

    per_label = {label: mean([draw.per_label[label] for draw in draws]) for label in draws[0].per_label}
    return Level(mean([draw.metrics for draw in draws]), per_label)


def _areas(scores_NL: Scores, truth_NL: Truth) -> tuple[Scores, Scores]:
    """ROC-AUC and average precision per label [L]; nan for a label that all rows or none have.

    scikit-learn's definitions, equal scores counted together, in a tenth of its time: the random baseline draws often.
    """
    rows, labels = truth_NL.shape
    roc, pr = np.full(labels, np.nan), np.full(labels, np.nan)
    for at, positives in enumerate(truth_NL.sum(0)):
        if not 0 < positives < rows:
            continue
        order = np.argsort(-scores_NL[:, at], kind="stable")
        last_of_equals = np.flatnonzero(np.diff(scores_NL[order, at], append=np.nan))
        hits, given = np.cumsum(truth_NL[order, at])[last_of_equals], last_of_equals + 1
        pr[at] = (np.diff(hits, prepend=0) * hits / given).sum() / positives
        roc[at] = np.trapezoid(np.r_[0, hits], np.r_[0, given - hits]) / (positives * (rows - positives))
    return roc, pr


def _sums(values_NL: Scores, songs_N: NDArray[np.int64], songs: int) -> Scores:
    sums = np.zeros((songs, values_NL.shape[1]))
    np.add.at(sums, songs_N, values_NL)
    return sums


def _means(values_NL: Scores, songs_N: NDArray[np.int64], songs: int) -> Scores:
    return _sums(values_NL, songs_N, songs) / np.bincount(songs_N, minlength=songs)[:, None]


def _nanmean(values: Any) -> float:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
