"""What a training step is made of: windows of each dataset (paper §4.2), labels drawn for them, and who does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TrainingSet:
    """The labelled windows of one dataset's training songs, or of its validation songs.

    Attributes:
        name: the dataset.
        features_ND: [n, D] float16.
        songs_N: [n] each window's row in ``truth_SL``.
        truth_SL: [S, L] bool, over the dataset's own labels or those of the whole training.
        targets_LE: [L, E] the point each label draws to.
        clusters_L: [L] the cluster of each label, over all datasets.
        counts_S: [S] windows of each song, side by side and in order, if whole songs are drawn
            (``context = track``); None if windows are drawn one by one.
        alike_LL: [L, L] bool, a label's row True where the other is never wrong for its songs; None if each is
            like itself alone.
        first_L: [L] bool, True for one label of each distinct target; None if all are distinct.
        track_ids: [S] the songs' ids, for messages.
    """

    name: str
    features_ND: Tensor
    songs_N: Tensor
    truth_SL: Tensor
    targets_LE: Tensor
    clusters_L: Tensor
    counts_S: Tensor | None = None
    alike_LL: Tensor | None = None
    first_L: Tensor | None = None
    track_ids: Sequence[str] = ()

    def __len__(self) -> int:
        """How many can be drawn: windows, or songs."""
        return len(self.features_ND) if self.counts_S is None else len(self.counts_S)

    @property
    def counts(self) -> NDArray[np.int64]:
        """[S] windows of each song."""
        return np.bincount(self.songs_N.numpy(), minlength=len(self.truth_SL))

    def windows_of(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """The windows of what was drawn, in its order."""
        if self.counts_S is None:
            return drawn
        counts = self.counts_S.numpy()
        ends = np.cumsum(counts)
        pieces = [np.arange(end - count, end) for end, count in zip(ends[drawn], counts[drawn], strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *pieces])

    def name_of(self, window: int) -> str:
        """A window as a message names it: its song, and which of the song's it is."""
        song = int(self.songs_N[window])
        first = int(torch.searchsorted(self.songs_N, song))
        return f"{self.track_ids[song] if self.track_ids else song} window {window - first + 1}"

    def features_of(self, drawn: NDArray[np.int64]) -> Tensor:
        """Their features, [n, D]; plain indexing takes three times as long."""
        return self.features_ND.index_select(0, torch.from_numpy(self.windows_of(drawn)))

    def draws_of(self, windows: int) -> int:
        """How many to draw for about so many windows, at least one."""
        return max(1, round(windows * len(self) / len(self.features_ND)))


def thinned(sets: Sequence[TrainingSet], most: int) -> Iterator[tuple[TrainingSet, NDArray[np.int64]]]:
    """Evenly thinned songs of several datasets, at most so many in all: each dataset with the rows of its songs."""
    ends = np.cumsum([len(one.truth_SL) for one in sets])
    chosen = np.linspace(0, ends[-1] - 1, min(ends[-1], most)).astype(np.int64)
    for one, end in zip(sets, ends, strict=True):
        start = end - len(one.truth_SL)
        yield one, chosen[(chosen >= start) & (chosen < end)] - start


def stream_seed(*parts: int) -> int:
    """One seed from several numbers, so that every epoch and step draws its own, resumed or not."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def epoch_batches(
    sizes: Sequence[int], batch_size: int, seed: int, epoch: int, cycle: bool = True
) -> Iterator[list[NDArray[np.int64]]]:
    """What is drawn in each step of an epoch, windows or whole songs: one array of indices a dataset.

    Everything in the largest set comes once; the smaller sets are shuffled anew and begin again
    as often as it takes, or without ``cycle`` come once as well, and then not at all.
    The order depends on the seed and the epoch alone, not on the workers.
    """
    steps = -(-max(sizes) // batch_size)
    streams = []
    for at, size in enumerate(sizes):
        needed = steps * batch_size if cycle and size < max(sizes) else size
        passes = -(-needed // size)
        shuffles = [np.random.default_rng((seed, epoch, at, again)).permutation(size) for again in range(passes)]
        streams.append(np.concatenate(shuffles)[:needed])
    for step in range(steps):
        yield [stream[step * batch_size : (step + 1) * batch_size] for stream in streams]


def mean_targets(truth_BL: Tensor, targets_LE: Tensor) -> Tensor:
    """[b, E] the mean target of each segment's labels."""
    weights_BL = truth_BL.float()
    return weights_BL @ targets_LE / weights_BL.sum(1, keepdim=True).clamp(min=1)


def negative_targets(
    wrong_BL: Tensor, targets_LE: Tensor, *, count: int = 1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of ``count`` distinct wrong labels drawn for each segment; of fewer where a song leaves fewer.

    Returns:
        [b, E] means, and [b] bool: False where a segment has no wrong label, whatever stands there.
    """
    keys_BL = torch.rand(wrong_BL.shape, generator=generator).masked_fill(~wrong_BL, -1.0)
    if count == 1:  # the paper's; a fourth of the time
        key_B, drawn_B = keys_BL.max(dim=1)
        return targets_LE.index_select(0, drawn_B), key_B >= 0
    keys_BN, drawn_BN = keys_BL.topk(min(count, wrong_BL.shape[1]), dim=1)
    weights_BN = (keys_BN >= 0).to(targets_LE.dtype)
    sums_BE = F.embedding_bag(drawn_BN, targets_LE, mode="sum", per_sample_weights=weights_BN)
    return sums_BE / weights_BN.sum(1, keepdim=True).clamp(min=1), keys_BN[:, 0] >= 0


def draw_label(truth_BL: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One true label of each row, all equally likely: [b] int64 (torch.multinomial takes three times as long)."""
    return torch.rand(truth_BL.shape, generator=generator).masked_fill(~truth_BL, -1.0).max(dim=1)[1]


class Workers:
    """The processes that train together; one alone if torch.distributed is not running.

    Each step's batch is shared among them, and the loss is that of the whole batch: projections are gathered, every
    worker computes the same loss, and the gradients of their own shares add up to what one worker would have had.
    """

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

    def wait(self) -> None:
        """Until all workers are here."""
        if self.size > 1:
            dist.barrier()

    def from_first(self, value: float) -> float:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        box = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(box, src=0)
        return float(box)
