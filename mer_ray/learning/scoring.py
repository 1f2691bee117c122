"""How well ranked labels match the truth: what training watches, and evaluation builds on (paper §4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]


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
