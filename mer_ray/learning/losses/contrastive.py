"""A softmax over all labels at once (ours; after InfoNCE, van den Oord et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import PositiveFloat

from mer_ray.learning.losses import Batch, unit
from mer_ray.settings import READING, Part, Presets

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Part):
    """What the contrastive loss is read with."""

    presets: ClassVar[Presets] = {"best": {"temperature": 0.2}}

    temperature: Annotated[PositiveFloat, READING] = 0.1
    """Divides the cosines in the contrastive loss."""


def loss(batch: Batch, settings: Settings) -> Tensor:
    """The cross-entropy of a batch; nothing is drawn."""
    rows = batch.projected_BE, batch.truth_BL, batch.wrong_BL, batch.targets_LE
    return contrastive_loss(*rows, settings.temperature)


def contrastive_loss(
    projected_BE: Tensor, truth_BL: Tensor, wrong_BL: Tensor, targets_LE: Tensor, temperature: float = 0.1
) -> Tensor:
    """Mean cross-entropy of a softmax over right and wrong labels, a song's true labels sharing the truth evenly.

    Unlike a triplet it weighs every wrong label of a segment at once, and never stops drawing the truth
    above the nearest of them. 0 for an empty batch.
    """
    logits_BL = unit(projected_BE) @ unit(targets_LE).T / temperature
    weights_BL = truth_BL.float() / truth_BL.sum(1, keepdim=True).clamp(min=1)
    shares_BL = logits_BL.masked_fill(~(truth_BL | wrong_BL), float("-inf")).log_softmax(dim=1)
    return -(weights_BL * shares_BL.masked_fill(~truth_BL, 0.0)).sum() / max(1, len(projected_BE))
