"""What is drawn for a segment in each step: true labels and wrong ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_targets(truth_BL: Tensor, targets_LE: Tensor) -> Tensor:
    """[b, E] the mean target of each segment's labels."""
    weights_BL = truth_BL.float()
    return weights_BL @ targets_LE / weights_BL.sum(1, keepdim=True).clamp(min=1)


def negative_targets(
    truth_BL: Tensor, targets_LE: Tensor, *, count: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of ``count`` distinct wrong labels drawn for each segment.

    Args:
        truth_BL: [b, L] bool.
        targets_LE: [L, E].
        count: wrong labels a segment; fewer where a song leaves fewer.
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


def draw_label(truth_BL: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One true label of each row, all equally likely: [b] int64 (torch.multinomial takes three times as long)."""
    return torch.rand(truth_BL.shape, generator=generator).masked_fill(~truth_BL, -1.0).max(dim=1)[1]
