"""The training of a projector, step by step: plain torch, on one process or several.

Several workers share each step's batch, and the loss is that of the whole batch: projections are
gathered, every worker computes the same loss, and the gradients of their own shares add up to the
gradient one worker would have had.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mer_ray.evaluation.metrics import macro_f1
from mer_ray.learning import losses
from mer_ray.learning.projector import Projector, project
from mer_ray.learning.sampling import TrainingSet, epoch_batches, stream_seed

ORDER, DRAWS, DROPOUT = 0, 1, 2


@dataclass(frozen=True)
class LearnOptions:
    """How to train; see the settings of the same names."""

    epochs: int
    batch_size: int
    lr: float
    min_lr: float
    plateau_factor: float
    plateau_patience: int
    plateau_cooldown: int
    margin: float
    lambda_: float
    regularizer: losses.Regularizer
    positive: str
    negatives: int
    seed: int
    loss: losses.Loss = "triplet"
    temperature: float = 0.1


@dataclass(frozen=True)
class ValidationSet:
    """Windows of songs not trained on: [n, D] features, [S] windows a song, [n, L] truth, [L, E] label embeddings."""

    features_ND: NDArray[np.float16]
    truth_NL: NDArray[np.bool_]
    labels_LE: NDArray[np.float32]
    k: int
    counts_S: NDArray[np.int64] | None = None


class Workers:
    """The processes that train together; alone if torch.distributed is not running."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1
        self._sums: list[Any] = []

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This worker's part of a batch."""
        return self.shares(indices)[self.rank]

    def shares(self, indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Every worker's part of a batch."""
        return np.array_split(indices, self.size)

    def gather(self, own_BE: Tensor, counts: Sequence[int]) -> Tensor:
        """All workers' rows in the order of the batch; gradients flow into this worker's own.

        Args:
            own_BE: [counts[rank], E].
            counts: rows of each worker.
        """
        if self.size == 1:
            return own_BE
        padded = own_BE.new_zeros(max(counts), own_BE.shape[1])
        padded[: len(own_BE)] = own_BE.detach()
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        rows = [
            own_BE if at == self.rank else piece[:count]
            for at, (piece, count) in enumerate(zip(pieces, counts, strict=True))
        ]
        return torch.cat(rows)

    def share_gradients(self, parameters: Iterable[Tensor]) -> None:
        """From now on sum each parameter's gradient over the workers, as soon as a backward pass has it.

        Every worker must do the same passes: sums are matched by their order.
        """
        if self.size > 1:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._begin_sum)

    def finish_gradients(self) -> None:
        """Wait until the gradients of the last backward pass are those of all workers."""
        while self._sums:
            self._sums.pop().wait()

    def _begin_sum(self, parameter: Tensor) -> None:
        self._sums.append(dist.all_reduce(parameter.grad, async_op=True))

    def from_first(self, value: float) -> float:
        """The first worker's value, on every worker."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        box = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(box, src=0)
        return float(box)


class Learner:
    """A projector in training, with everything needed to go on from a checkpoint bit for bit."""

    def __init__(
        self,
        projector: Projector,
        sets: Sequence[TrainingSet],
        validation: Sequence[ValidationSet],
        options: LearnOptions,
        workers: Workers | None = None,
        device: str = "cpu",
    ) -> None:
        self.projector = projector.to(device)
        self.workers = workers or Workers()
        self.history: list[dict[str, float]] = []
        self.best = {"epoch": -1.0, "macro_f1": -1.0}
        self._best_weights = _copy(projector)
        self._sets = sets
        self._validation = validation
        self._options = options
        self.device = device
        self.workers.share_gradients(self.projector.parameters())
        self._optimizer = torch.optim.AdamW(projector.parameters(), lr=options.lr, fused=True)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer,
            mode="max",
            factor=options.plateau_factor,
            patience=options.plateau_patience,
            cooldown=options.plateau_cooldown,
            min_lr=options.min_lr,
        )

    @property
    def next_epoch(self) -> int:
        """The epoch to run next."""
        return len(self.history)

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, validate, and move the learning rate.

        Returns:
            ``epoch``, ``loss``, ``align``, ``regularization``, ``macro_f1`` (validation windows of
            the first dataset), ``lr``.
        """
        epoch, options = self.next_epoch, self._options
        torch.manual_seed(stream_seed(options.seed, DROPOUT, epoch, self.workers.rank))
        self.projector.train()
        order_seed = stream_seed(options.seed, ORDER)
        sums = np.zeros(3)
        largest = max(self._sets, key=len)
        draws = largest.draws_of(options.batch_size)
        batches = epoch_batches([len(one) for one in self._sets], draws, order_seed, epoch)
        for step, indices in enumerate(batches):
            generator = torch.Generator().manual_seed(stream_seed(options.seed, DRAWS, epoch, step))
            sums += self.step(indices, generator)
        loss_mean, align_mean, regularization_mean = sums / (step + 1)
        score = self.workers.from_first(self.validate() if self.workers.rank == 0 else 0.0)
        metrics = {
            "epoch": epoch,
            "loss": loss_mean,
            "align": align_mean,
            "regularization": regularization_mean,
            "macro_f1": score,
            "lr": self._optimizer.param_groups[0]["lr"],
        }
        self._schedule.step(score)
        if score > self.best["macro_f1"]:
            self.best = {"epoch": epoch, "macro_f1": score}
            self._best_weights = _copy(self.projector)
        self.history.append({name: float(value) for name, value in metrics.items()})
        return self.history[-1]

    def step(self, indices: Sequence[NDArray[np.int64]], generator: torch.Generator) -> tuple[float, float, float]:
        """Learn from one batch (see :meth:`batch_loss`); returns loss, alignment and regularization."""
        self._optimizer.zero_grad(set_to_none=True)
        align, regularization = self.batch_loss(indices, generator)
        loss = align + self._options.lambda_ * regularization
        loss.backward()
        self.workers.finish_gradients()
        self._optimizer.step()
        return loss.item(), align.item(), regularization.item()

    def batch_loss(self, indices: Sequence[NDArray[np.int64]], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Alignment summed over the datasets, and regularization over their joint batch.

        Args:
            indices: per dataset what is drawn for the whole batch, windows or songs.
            generator: of the draws, the same on every worker.
        """
        own = [self._project_own(one, picked) for one, picked in zip(self._sets, indices, strict=True)]
        gathered = [
            self.workers.gather(rows, [len(one.windows_of(share)) for share in self.workers.shares(picked)])
            for one, rows, picked in zip(self._sets, own, indices, strict=True)
        ]
        align = torch.zeros((), device=self.device)
        clusters = []
        for one, picked, projected_BE in zip(self._sets, indices, gathered, strict=True):
            songs_B = one.songs_N[one.windows_of(picked)]
            truth_BL = one.truth_SL[songs_B]
            align = align + self._alignment(one, songs_B, truth_BL, projected_BE, generator)
            clusters.append(losses.draw_clusters(truth_BL, one.clusters_L, generator))
        joint_BE, clusters_B = torch.cat(gathered), torch.cat(clusters).to(self.device)
        return align, losses.alignment_regularization(joint_BE, clusters_B, self._options.regularizer)

    def validate(self) -> float:
        """Macro F1 of the first dataset's validation windows; nothing is learned from it but the schedule."""
        self.projector.eval()
        first = self._validation[0]
        projected_NE = project(self.projector, first.features_ND, first.counts_S, self.device)
        return macro_f1(projected_NE @ first.labels_LE.T, first.truth_NL, first.k)

    def best_projector(self) -> Projector:
        """The projector of the best epoch, in evaluation mode on the CPU."""
        projector = Projector(self.projector.shape)
        projector.load_state_dict(self._best_weights)
        return projector.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint, one safetensors file: tensors, and the rest as JSON in its metadata."""
        tensors = {f"last.{name}": value for name, value in _copy(self.projector).items()}
        tensors |= {f"best.{name}": value for name, value in self._best_weights.items()}
        for at, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{at}.{name}": value.detach().cpu().clone() for name, value in state.items()}
        plain = {"history": self.history, "best": self.best, "schedule": self._schedule.state_dict()}
        plain["param_groups"] = self._optimizer.state_dict()["param_groups"]
        save_file(tensors, path, metadata={"state": json.dumps(plain)})

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that :meth:`save` wrote."""
        tensors, plain = read_checkpoint(path)
        groups: dict[str, dict[str, Any]] = {"last": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = value
        self.projector.load_state_dict(groups["last"])
        self._best_weights = groups["best"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            at, key = name.split(".", 1)
            state.setdefault(int(at), {})[key] = value
        self._optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})
        self._schedule.load_state_dict(plain["schedule"])
        self.history, self.best = plain["history"], plain["best"]

    def _project_own(self, one: TrainingSet, picked: NDArray[np.int64]) -> Tensor:
        share = self.workers.share(picked)
        # A worker without rows, at the end of an epoch, projects others' and leaves them out: its pass is the others'.
        rows = share if len(share) else picked[:1]
        counts = None if one.counts_S is None else one.counts_S[rows]
        projected: Tensor = self.projector(one.features_of(rows).to(self.device), counts)
        return projected if len(share) else projected[:0]

    def _alignment(
        self, one: TrainingSet, songs_B: Tensor, truth_BL: Tensor, projected_BE: Tensor, generator: torch.Generator
    ) -> Tensor:
        if self._options.loss == "triplet":
            return self._triplet(one, songs_B, truth_BL, projected_BE, generator)
        truth_BL, targets_LE = truth_BL.to(self.device), one.targets_LE.to(self.device)
        return losses.contrastive_loss(projected_BE, truth_BL, targets_LE, self._options.temperature)

    def _triplet(
        self, one: TrainingSet, songs_B: Tensor, truth_BL: Tensor, projected_BE: Tensor, generator: torch.Generator
    ) -> Tensor:
        options = self._options
        if options.positive == "sample":
            positive_BE = losses.positive_targets(truth_BL, one.targets_LE, sample=True, generator=generator)
        else:
            positive_BE = one.positive_means.index_select(0, songs_B)
        negative_BE, usable_B = losses.negative_targets(
            truth_BL, one.targets_LE, count=options.negatives, generator=generator
        )
        positive_BE, negative_BE = positive_BE.to(self.device), negative_BE.to(self.device)
        usable_B = usable_B.to(self.device)
        return losses.triplet_loss(projected_BE, positive_BE, negative_BE, usable_B, options.margin)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint (``last.*``, ``best.*``, ``optimizer.*``) and its plain state."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["state"])  # noqa: SIM118


def _copy(projector: Projector) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in projector.state_dict().items()}
