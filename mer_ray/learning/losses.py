"""Alignment by cosine triplets and its regularization (paper §3.3.4, §3.4)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Literal["triplet", "contrastive"]
Regularizer = Literal["negative", "positive", "reference"]
EPSILON = 1e-8


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine similarity over the last axis; 0, with gradient 0, for a zero vector."""
    return (_unit(left) * _unit(right)).sum(-1)


def positive_targets(
    truth_BL: Tensor, targets_LE: Tensor, *, sample: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    """The point each segment is drawn to.

    Args:
        truth_BL: [b, L] bool, the labels of each segment's song; at least one each.
        targets_LE: [L, E] embedding (or cluster centre) of each label.
        sample: draw one true label instead of the mean of all.
        generator: source of the draw.

    Returns:
        [b, E].
    """
    if sample:
        return targets_LE[_draw_label(truth_BL, generator)]
    weights_BL = truth_BL.float()
    return weights_BL @ targets_LE / weights_BL.sum(1, keepdim=True).clamp(min=1)


def negative_targets(
    truth_BL: Tensor, targets_LE: Tensor, *, count: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of ``count`` distinct wrong labels drawn for each segment.

    Args:
        truth_BL: [b, L] bool.
        targets_LE: [L, E].
        count: wrong labels a segment (1 in the paper, 5 in the published code); fewer where a
            song leaves fewer.
        generator: source of the draw.

    Returns:
        [b, E] means, and [b] bool: False where a song has every label and so no wrong one, whatever stands there.
    """
    keys_BL = torch.rand(truth_BL.shape, generator=generator).masked_fill(truth_BL, -1.0)
    if count == 1:  # the paper's; a fourth of the time
        key_B, drawn_B = keys_BL.max(dim=1)
        return targets_LE.index_select(0, drawn_B), key_B >= 0
    keys_BN, drawn_BN = keys_BL.topk(min(count, truth_BL.shape[1]), dim=1)
    weights_BN = (keys_BN >= 0).to(targets_LE.dtype)
    sums_BE = F.embedding_bag(drawn_BN, targets_LE, mode="sum", per_sample_weights=weights_BN)
    return sums_BE / weights_BN.sum(1, keepdim=True).clamp(min=1), keys_BN[:, 0] >= 0


def triplet_loss(
    projected_BE: Tensor, positive_BE: Tensor, negative_BE: Tensor, usable_B: Tensor, margin: float = 1.0
) -> Tensor:
    """Mean of max(0, cos(x, negative) - cos(x, positive) + margin).

    The paper prints the two cosines the other way round, which would push the truth away; this
    is the sign of the published code. Segments without a wrong label do not count.

    Args:
        projected_BE: [b, E] projected segments.
        positive_BE: [b, E] their true targets.
        negative_BE: [b, E] their wrong targets.
        usable_B: [b] bool.
        margin: the margin (1.0 in the published code).

    Returns:
        Scalar; 0 when no segment counts.
    """
    losses_B = F.relu(cosine(projected_BE, negative_BE) - cosine(projected_BE, positive_BE) + margin)
    return (losses_B * usable_B).sum() / usable_B.sum().clamp(min=1)


def contrastive_loss(projected_BE: Tensor, truth_BL: Tensor, targets_LE: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean cross-entropy of a softmax over all labels, with a song's true labels sharing the truth evenly.

    Unlike a triplet it weighs every wrong label of a segment at once, and never stops drawing the truth
    above the nearest of them (ours; after InfoNCE, van den Oord et al. 2018).

    Args:
        projected_BE: [b, E] projected segments.
        truth_BL: [b, L] bool, at least one true label each.
        targets_LE: [L, E] the point each label draws to.
        temperature: divides the cosines.

    Returns:
        Scalar; 0 for an empty batch.
    """
    logits_BL = _unit(projected_BE) @ _unit(targets_LE).T / temperature
    weights_BL = truth_BL.float() / truth_BL.sum(1, keepdim=True).clamp(min=1)
    return -(weights_BL * F.log_softmax(logits_BL, dim=1)).sum() / max(1, len(projected_BE))


def draw_clusters(truth_BL: Tensor, assignments_L: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The cluster of each segment: that of one of its labels, drawn at random. [b] int64."""
    return assignments_L[_draw_label(truth_BL, generator)]


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
    unit_BE = _unit(projected_BE)
    cosine_BB = unit_BE @ unit_BE.T
    same_BB = clusters_B[:, None] == clusters_B[None, :]
    if form == "positive":
        pairs_BB = same_BB & ~torch.eye(len(clusters_B), dtype=torch.bool, device=same_BB.device)
        return _masked_mean(1 - cosine_BB, pairs_BB)
    if form == "negative":
        return _masked_mean(cosine_BB, ~same_BB)
    others_B = (~same_BB).sum(1)
    mean_B = (cosine_BB * ~same_BB).sum(1) / others_B.clamp(min=1)
    return _masked_mean(F.relu(mean_B + 1), others_B > 0)


def _draw_label(truth_BL: Tensor, generator: torch.Generator | None) -> Tensor:
    """One true label of each row, all equally likely: [b] int64 (torch.multinomial takes three times as long)."""
    return torch.rand(truth_BL.shape, generator=generator).masked_fill(~truth_BL, -1.0).max(dim=1)[1]


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors; a zero vector stays zero, and an infinite norm keeps 1 / eps out of its gradient."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.masked_fill(norms < EPSILON, torch.inf)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
