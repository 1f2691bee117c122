"""What draws songs to their words: one file a loss; a module outside the tree serves as well.

A loss is ``loss(batch, settings)``, a number with a gradient; ``settings`` is the file's own ``Settings``.
Nothing here imports torch: the command line asks a loss for its settings alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mer_ray.doors import Door

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mer_ray.learning.sampling import TrainingSet

DOOR = Door("mer_ray.learning.losses", "loss", needs="loss")
EPSILON = 1e-8


@dataclass(frozen=True)
class Batch:
    """What a loss sees of one dataset in one step: b windows, the L labels of the dataset, E dimensions.

    All tensors it gives are where the projections are. Draws are made on the CPU, the same on every worker.

    Attributes:
        projected_BE: [b, E] the projected windows, of all workers; not normalised.
        songs_B: [b] each window's song, a row of the dataset's truth.
        dataset: what they were drawn from.
        generator: of all draws, on the CPU.
    """

    projected_BE: Tensor
    songs_B: Tensor
    dataset: TrainingSet
    generator: torch.Generator

    @cached_property
    def truth_BL(self) -> Tensor:
        """[b, L] bool: the labels of each window's song, at least one."""
        return self.dataset.truth_SL[self.songs_B].to(self.projected_BE.device)

    @cached_property
    def wrong_BL(self) -> Tensor:
        """[b, L] bool: the labels that each window is told from; none that shares its point with a true one."""
        return self._wrong().to(self.projected_BE.device)

    @cached_property
    def targets_LE(self) -> Tensor:
        """[L, E] the point each label draws to: its embedding, or its cluster's centre."""
        return self.dataset.targets_LE.to(self.projected_BE.device)

    @property
    def mean_BE(self) -> Tensor:
        """[b, E] the mean target of each window's labels."""
        from mer_ray.learning.sampling import mean_targets

        truth_BL = self.dataset.truth_SL[self.songs_B]
        return mean_targets(truth_BL, self.dataset.targets_LE).to(self.projected_BE.device)

    def draw_right(self) -> Tensor:
        """[b, E] the target of one of each window's labels, drawn at random."""
        return self._of_one_label(self.dataset.targets_LE)

    def draw_clusters(self) -> Tensor:
        """[b] the cluster of one of each window's labels, drawn at random."""
        return self._of_one_label(self.dataset.clusters_L)

    def draw_wrong(self, count: int, *, distinct: bool = False) -> tuple[Tensor, Tensor]:
        """[b, E] the mean target of so many wrong labels, and [b] bool: False where a song has no wrong label.

        ``distinct`` draws among the points that wrong labels have, however many share one.
        """
        from mer_ray.learning.sampling import negative_targets

        wrong_BL, device = self._wrong(), self.projected_BE.device
        if distinct and self.dataset.first_L is not None:
            wrong_BL = wrong_BL & self.dataset.first_L
        drawn = negative_targets(wrong_BL, self.dataset.targets_LE, count=count, generator=self.generator)
        return drawn[0].to(device), drawn[1].to(device)

    def _wrong(self) -> Tensor:
        truth_BL, alike_LL = self.dataset.truth_SL[self.songs_B], self.dataset.alike_LL
        return ~truth_BL if alike_LL is None else truth_BL.float() @ alike_LL.float() == 0

    def _of_one_label(self, values: Tensor) -> Tensor:
        from mer_ray.learning.sampling import draw_label

        drawn_B = draw_label(self.dataset.truth_SL[self.songs_B], self.generator)
        return values[drawn_B].to(self.projected_BE.device)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine similarity over the last axis; 0, with gradient 0, for a zero vector."""
    return (unit(left) * unit(right)).sum(-1)


def unit(vectors: Tensor) -> Tensor:
    """Unit vectors; a zero vector stays zero, and an infinite norm keeps 1 / eps out of its gradient."""
    norms: Tensor = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms.masked_fill(norms < EPSILON, float("inf"))
