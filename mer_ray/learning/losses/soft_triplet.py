"""Cosine triplets with a soft margin over the smooth hardest wrong label (after Hermans et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import PositiveFloat

from mer_ray.learning.losses import Batch, unit
from mer_ray.settings import READING, Part

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Part):
    """What the soft triplet loss is read with."""

    temperature: Annotated[PositiveFloat, READING] = 0.15
    """Divides the cosines; the lower, the harder the hardest wrong label, and the sharper the margin."""


def loss(batch: Batch, settings: Settings) -> Tensor:
    """The triplets of a batch with each of its true labels; nothing is drawn."""
    rows = batch.projected_BE, batch.truth_BL, batch.wrong_BL, batch.targets_LE
    return soft_triplet_loss(*rows, settings.temperature)


def soft_triplet_loss(
    projected_BE: Tensor, truth_BL: Tensor, wrong_BL: Tensor, targets_LE: Tensor, temperature: float = 0.15
) -> Tensor:
    """Mean over a window's true labels, then over windows, of softplus(hardest wrong - true), cosines over temperature.

    The hardest wrong label is smooth, a logsumexp over them, so that all near it are pushed away as well; the soft
    margin draws on where a hinge would be satisfied. Windows without a wrong label do not count; 0 if none does.
    """
    from torch.nn.functional import softplus

    cosines_BL = unit(projected_BE) @ unit(targets_LE).T / temperature
    usable_B = wrong_BL.any(1) & truth_BL.any(1)
    cosines_BL, truth_BL, wrong_BL = cosines_BL[usable_B], truth_BL[usable_B], wrong_BL[usable_B]
    hardest_B = cosines_BL.masked_fill(~wrong_BL, float("-inf")).logsumexp(1)
    losses_BL = softplus(hardest_B[:, None] - cosines_BL)
    per_window_B = (losses_BL * truth_BL).sum(1) / truth_BL.sum(1)
    return per_window_B.sum() / max(1, len(per_window_B))
