"""Cosine triplets with a margin (paper §3.3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from mer_ray.learning.losses import Batch, cosine
from mer_ray.settings import READING, Part, Presets

if TYPE_CHECKING:
    from torch import Tensor


class Settings(Part):
    """What the triplet loss is read with."""

    presets: ClassVar[Presets] = {"reference": {"negatives": 5, "negative": "cluster"}}

    margin: Annotated[float, Field(ge=0), READING] = 1.0
    """Margin of the triplet loss."""
    positive: Annotated[Literal["mean", "sample"], READING] = "mean"
    """A song's true target: the mean of its labels, or one drawn at random each step."""
    negatives: Annotated[PositiveInt, READING] = 1
    """Wrong labels averaged into the negative (1 in the paper, 5 in the published code)."""
    negative: Annotated[Literal["label", "cluster"], READING] = "label"
    """With --targets clusters, draw wrong labels, or whole clusters however many labels they hold (the published
    code); never the true one's either way."""


def loss(batch: Batch, settings: Settings) -> Tensor:
    """The triplets of a batch with its true targets and wrong labels that are drawn for it."""
    positive_BE = batch.draw_right() if settings.positive == "sample" else batch.mean_BE
    negative_BE, usable_B = batch.draw_wrong(settings.negatives, distinct=settings.negative == "cluster")
    return triplet_loss(batch.projected_BE, positive_BE, negative_BE, usable_B, settings.margin)


def triplet_loss(
    projected_BE: Tensor, positive_BE: Tensor, negative_BE: Tensor, usable_B: Tensor, margin: float = 1.0
) -> Tensor:
    """Mean of max(0, cos(x, negative) - cos(x, positive) + margin) over the usable; 0 when none is.

    The paper prints the two cosines the other way round, which would push the truth away; this
    is the sign of the published code. Segments without a wrong label do not count.
    """
    losses_B = (cosine(projected_BE, negative_BE) - cosine(projected_BE, positive_BE) + margin).relu()
    return (losses_B * usable_B).sum() / usable_B.sum().clamp(min=1)
