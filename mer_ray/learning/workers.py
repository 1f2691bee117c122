"""The processes that train together.

Each step's batch is shared among them, and the loss is that of the whole batch: projections are gathered,
every worker computes the same loss, and the gradients of their own shares add up to the gradient one worker
would have had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor


class Workers:
    """The processes that train together; alone if torch.distributed is not running."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1
        self._sums: list[Any] = []

    def shares(self, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Every worker's part of a batch."""
        return np.array_split(indices, self.size)

    def gather(self, own_BE: Tensor, counts: Sequence[int]) -> Tensor:
        """All workers' rows, ``counts`` of each, in the order of the batch; gradients flow into this worker's own."""
        if self.size == 1:
            return own_BE
        padded = own_BE.new_zeros(max(counts), own_BE.shape[1])
        padded[: len(own_BE)] = own_BE.detach()
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        rows = [piece[:count] for piece, count in zip(pieces, counts, strict=True)]
        rows[self.rank] = own_BE
        return torch.cat(rows)

    def share_gradients(self, parameters: Iterable[Tensor]) -> None:
        """From now on sum each parameter's gradient over the workers, as soon as a backward pass has it.

        Every worker must do the same passes: sums are matched by their order.
        """
        if self.size > 1:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(
                    lambda one: self._sums.append(dist.all_reduce(one.grad, async_op=True))
                )

    def finish_gradients(self) -> None:
        """Wait until the gradients of the last backward pass are those of all workers."""
        while self._sums:
            self._sums.pop().wait()

    def from_first(self, value: float) -> float:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        box = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(box, src=0)
        return float(box)
