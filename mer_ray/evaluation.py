"""How well ranked labels match the truth: macro F1 at k and its company (paper §4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]

RANDOM_DRAWS = 20


@dataclass(frozen=True)
class Level:
    """Metrics of one way of predicting.

    Attributes:
        metrics: ``macro_f1``, ``macro_precision``, ``macro_recall``, ``roc_auc``, ``pr_auc``,
            ``k``, ``songs``; the two areas are means over labels that some songs have and some lack.
        per_label: the same per label, with its ``support``.
    """

    metrics: dict[str, float]
    per_label: dict[str, dict[str, float]]


def top_k_mask(scores_NL: Scores, k: int) -> Truth:
    """[n, L] bool: each row's k best labels; ties go to the earlier label."""
    order = np.argsort(-scores_NL, axis=1, kind="stable")[:, :k]
    mask = np.zeros(scores_NL.shape, bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask


def precision_recall_f1(predicted_NL: Truth, truth_NL: Truth) -> tuple[Scores, Scores, Scores]:
    """Per label [L] each; 0 where nothing was predicted or nothing is true."""
    hits = (predicted_NL & truth_NL).sum(0).astype(float)
    precision = hits / np.maximum(predicted_NL.sum(0), 1)
    recall = hits / np.maximum(truth_NL.sum(0), 1)
    f1 = 2 * hits / np.maximum(predicted_NL.sum(0) + truth_NL.sum(0), 1)
    return precision, recall, f1


def macro_f1(scores_NL: Scores, truth_NL: Truth, k: int) -> float:
    """Mean F1 over all labels when each row is given its k best."""
    return float(precision_recall_f1(top_k_mask(scores_NL, k), truth_NL)[2].mean())


def evaluate_scores(scores_NL: Scores, truth_NL: Truth, labels: tuple[str, ...], k: int) -> Level:
    """Score n predictions, each with its own truth.

    Args:
        scores_NL: [n, L], higher is likelier.
        truth_NL: [n, L] bool.
        labels: the L labels.
        k: labels given to each.
    """
    precision, recall, f1 = precision_recall_f1(top_k_mask(scores_NL, k), truth_NL)
    roc, pr = _areas(scores_NL, truth_NL)
    columns = {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "roc_auc": roc,
        "pr_auc": pr,
        "support": truth_NL.sum(0),
    }
    metrics = {
        "macro_f1": float(f1.mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "roc_auc": _nanmean(roc),
        "pr_auc": _nanmean(pr),
        "k": k,
    }
    per_label = {
        label: {name: float(column[at]) for name, column in columns.items()} for at, label in enumerate(labels)
    }
    return Level(metrics, per_label)


def evaluate_songs(
    window_scores_NL: Scores,
    songs_N: NDArray[np.int64],
    truth_SL: Truth,
    labels: tuple[str, ...],
    k: int,
    frequencies_L: Scores,
    seed: int = 0,
) -> dict[str, Level]:
    """Every level of one dataset, with both baselines.

    Args:
        window_scores_NL: [n, L] scores of the windows.
        songs_N: [n] each window's song, 0 to S - 1; every song has a window.
        truth_SL: [S, L].
        labels: the L labels.
        k: labels given to each window and song.
        frequencies_L: [L] how often each label occurs where the baseline may look.
        seed: of the random baseline.
    """
    songs = len(truth_SL)
    counts_S1 = np.bincount(songs_N, minlength=songs)[:, None]
    levels = {
        "window": evaluate_scores(window_scores_NL, truth_SL[songs_N], labels, k),
        "song_vote": evaluate_scores(vote_scores(window_scores_NL, songs_N, songs, k), truth_SL, labels, k),
        "song_mean": evaluate_scores(_sums(window_scores_NL, songs_N, songs) / counts_S1, truth_SL, labels, k),
        "random": _random_level(truth_SL, labels, k, seed),
        "frequent": evaluate_scores(np.tile(frequencies_L, (songs, 1)), truth_SL, labels, k),
    }
    for level in levels.values():
        level.metrics["songs"] = songs
    return levels


def vote_scores(window_scores_NL: Scores, songs_N: NDArray[np.int64], songs: int, k: int) -> Scores:
    """Majority vote of the windows' top k (paper §4.3): [songs, L], ordered by votes, then mean score."""
    counts_S1 = np.bincount(songs_N, minlength=songs)[:, None]
    votes_SL = _sums(top_k_mask(window_scores_NL, k).astype(float), songs_N, songs)
    mean_SL = _sums(window_scores_NL, songs_N, songs) / counts_S1
    tie_break_SL = 1 / (1 + np.exp(-mean_SL))
    return (votes_SL + tie_break_SL) / (counts_S1 + 1)


def _random_level(truth_SL: Truth, labels: tuple[str, ...], k: int, seed: int) -> Level:
    """The mean over several random rankings; what knowing nothing scores."""
    generator = np.random.default_rng(seed)
    draws = [evaluate_scores(generator.random(truth_SL.shape), truth_SL, labels, k) for _ in range(RANDOM_DRAWS)]
    metrics = {name: _nanmean([draw.metrics[name] for draw in draws]) for name in draws[0].metrics}
    per_label = {
        label: {name: _nanmean([draw.per_label[label][name] for draw in draws]) for name in draws[0].per_label[label]}
        for label in labels
    }
    return Level(metrics, per_label)


def _areas(scores_NL: Scores, truth_NL: Truth) -> tuple[Scores, Scores]:
    """ROC-AUC and average precision per label [L]; nan for a label that all rows or none have."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    roc, pr = np.full(truth_NL.shape[1], np.nan), np.full(truth_NL.shape[1], np.nan)
    for at in range(truth_NL.shape[1]):
        if 0 < truth_NL[:, at].sum() < len(truth_NL):
            roc[at] = roc_auc_score(truth_NL[:, at], scores_NL[:, at])
            pr[at] = average_precision_score(truth_NL[:, at], scores_NL[:, at])
    return roc, pr


def _sums(values_NL: Scores, songs_N: NDArray[np.int64], songs: int) -> Scores:
    sums = np.zeros((songs, values_NL.shape[1]))
    np.add.at(sums, songs_N, values_NL)
    return sums


def _nanmean(values: Any) -> float:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")
