"""The alignment regularization: segments of different clusters are spread (paper §3.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mer_ray.learning.losses import unit

Regularizer = Literal["negative", "positive", "reference"]


def alignment_regularization(projected_BE: Tensor, clusters_B: Tensor, form: Regularizer = "negative") -> Tensor:
    """Spread segments of different clusters, or gather those of one (paper §3.4).

    Args:
        projected_BE: [b, E] projected segments of the global batch.
        clusters_B: [b] their clusters.
        form: ``negative``: mean cosine similarity over pairs from different clusters (the paper's
            1 - D, minimised); ``positive``: mean cosine distance over pairs from one cluster
            (Table 6); ``reference``: per anchor the mean cosine with the other clusters plus one,
            not below zero, averaged over anchors (the published code).

    Returns:
        Scalar; 0 when the batch holds no such pair.
    """
    unit_BE = unit(projected_BE)
    cosine_BB = unit_BE @ unit_BE.T
    same_BB = clusters_B[:, None] == clusters_B[None, :]
    if form == "positive":
        pairs_BB = same_BB & ~torch.eye(len(clusters_B), dtype=torch.bool, device=same_BB.device)
        return _masked_mean(1 - cosine_BB, pairs_BB)
    if form == "negative":
        return _masked_mean(cosine_BB, ~same_BB)
    others_B = (~same_BB).sum(1)
    mean_B = (cosine_BB * ~same_BB).sum(1) / others_B.clamp(min=1)
    return _masked_mean((mean_B + 1).relu(), others_B > 0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
