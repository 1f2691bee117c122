"""The training of a projector, step by step: plain torch, on one process or several."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mer_ray.errors import InputError
from mer_ray.learning import losses
from mer_ray.learning.projector import Projector, pieces, song_vectors
from mer_ray.learning.sampling import TrainingSet, Workers, epoch_batches, stream_seed, thinned
from mer_ray.learning.scoring import LabelScale, macro_f1, measured_by_catalog
from mer_ray.learning.settings import Regularizer, TrainSettings

ORDER, DRAWS, DROPOUT, VALIDATION = 0, 1, 2, 3
YARDSTICK_SONGS = 500
"""Training songs, evenly thinned, that few validation songs are measured against in each epoch."""


@dataclass(frozen=True)
class ValidationSet:
    """Windows of songs not trained on, the [l, E] embeddings of their dataset's words, and how many a song is given.

    ``truth_Sl`` is the songs' truth over these words, ``priors_l`` the share of training songs that have each.
    """

    windows: TrainingSet
    truth_Sl: NDArray[np.bool_]
    labels_lE: NDArray[np.float32]
    k: int
    priors_l: NDArray[np.float32] | None = None


class Learner:
    """A projector in training, with everything needed to go on from a checkpoint bit for bit."""

    def __init__(
        self,
        projector: Projector,
        sets: Sequence[TrainingSet],
        validation: Sequence[ValidationSet],
        recipe: TrainSettings,
    ) -> None:
        self.device = "cuda" if recipe.gpus else "cpu"
        self.projector = projector.to(self.device)
        self.workers = Workers()
        self.history: list[dict[str, float]] = []
        self.best = {"epoch": -1.0, "macro_f1": -1.0}
        self._best_weights = _copy(projector)
        self.recipe, self._sets, self._validation = recipe, sets, validation
        self._step = 0
        self._loss = losses.DOOR.find(recipe.loss)[0].loss
        self.workers.share_gradients(self.projector.parameters())
        self._optimizer = torch.optim.AdamW(
            projector.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer,
            mode="max",
            factor=recipe.plateau_factor,
            patience=recipe.plateau_patience,
            cooldown=recipe.plateau_cooldown,
            min_lr=recipe.min_lr,
        )

    @property
    def next_epoch(self) -> int:
        """The epoch to run next."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or for long enough none was better, nor had a lower validation loss.

        Of few validation songs the macro F1 goes up and down while there is still much to learn.
        """
        told = [line.get("validation_loss", math.inf) for line in self.history]  # before 0.3 it was not written down
        lowest = int(np.argmin(told)) if told else 0
        behind = self.next_epoch - 1 - max(self.best["epoch"], lowest)
        return self.next_epoch >= self.recipe.epochs or 0 < self.recipe.stop_patience <= behind

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, validate, and move the learning rate; returns the epoch's line of the history."""
        epoch, seed = self.next_epoch, self.recipe.seed
        torch.manual_seed(stream_seed(seed, DROPOUT, epoch, self.workers.rank))
        self.projector.train()
        draws = max(self._sets, key=len).draws_of(self.recipe.batch_size)
        sizes = [len(one) for one in self._sets]
        batches = epoch_batches(sizes, draws, stream_seed(seed, ORDER), epoch, self.recipe.cycle)
        sums = np.zeros(3)
        for step, indices in enumerate(batches):
            self._step = step
            sums += self.step(indices, torch.Generator().manual_seed(stream_seed(seed, DRAWS, epoch, step)))
        means = dict(zip(("loss", "align", "regularization"), (sums / (step + 1)).tolist(), strict=True))
        score, loss = map(self.workers.from_first, self.validate() if self.workers.rank == 0 else (0.0, 0.0))
        lr = float(self._optimizer.param_groups[0]["lr"])
        self._schedule.step(score)
        if self._better(score, loss):
            self.best = {"epoch": epoch, "macro_f1": score, "validation_loss": loss}
            self._best_weights = _copy(self.projector)
        found = {"validation_loss": loss, "macro_f1": score, "lr": lr}
        self.history.append({"epoch": float(epoch), **means, **found})
        return self.history[-1]

    def _better(self, score: float, loss: float) -> bool:
        if self.recipe.keep == "loss":
            return self.best["epoch"] < 0 or loss < self.best["validation_loss"]
        return score > self.best["macro_f1"]

    def step(self, indices: Sequence[NDArray[np.int64]], generator: torch.Generator) -> tuple[float, float, float]:
        """Learn from one batch (see :meth:`batch_loss`); returns loss, alignment and regularization.

        Raises:
            InputError: the loss is no number.
        """
        self._optimizer.zero_grad(set_to_none=True)
        align, regularization = self.batch_loss(indices, generator)
        loss = align + self.recipe.lambda_ * regularization
        values = loss.item(), align.item(), regularization.item()
        if not math.isfinite(values[0]):
            raise InputError(self._no_number(values[0], indices))
        loss.backward()
        self.workers.finish_gradients()
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.projector.parameters(), self.recipe.clip_norm)
        self._optimizer.step()
        return values

    def batch_loss(self, indices: Sequence[NDArray[np.int64]], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Alignment summed over the datasets, and regularization over their joint batch.

        ``indices`` are per dataset what is drawn for the whole batch, windows or songs; ``generator`` is the same on
        every worker.
        """
        align = torch.zeros((), device=self.device)
        gathered, clusters = [], []
        for one, picked in zip(self._sets, indices, strict=True):
            if not len(picked):  # without cycling, a smaller set that is through
                continue
            counts = [len(one.windows_of(share)) for share in self.workers.shares(picked)]
            projected_BE = self.workers.gather(self._project_own(one, picked), counts)
            batch = losses.Batch(projected_BE, one.songs_N[one.windows_of(picked)], one, generator)
            align = align + self._alignment(batch)
            gathered.append(projected_BE)
            clusters.append(batch.draw_clusters())
        return align, alignment_regularization(torch.cat(gathered), torch.cat(clusters), self.recipe.regularizer)

    def validate(self) -> tuple[float, float]:
        """Macro F1 and loss of validation songs; nothing is learned from them but schedule, epoch kept and stop.

        The wrong labels drawn for the loss are the same in every epoch.

        Raises:
            InputError: the loss is no number.
        """
        self.projector.eval()
        chosen = self._validation[:1] if self.recipe.select_over == "first" else self._validation
        scores, lost = zip(*map(self._validate_one, chosen), strict=True)
        loss = float(np.sum(lost))
        if not math.isfinite(loss):
            raise InputError(
                f"--loss {self.recipe.loss}: is {loss} on validation songs in epoch {self.next_epoch + 1}; "
                "mend it if it is yours, or lower --lr."
            )
        return float(np.mean(scores)), loss

    def _validate_one(self, one: ValidationSet) -> tuple[float, float]:
        """Macro F1 and mean loss of one dataset, some thousand windows at a time."""
        generator = torch.Generator().manual_seed(stream_seed(self.recipe.seed, VALIDATION))
        songs_N, cosines, lost, by_window = one.windows.songs_N, [], 0.0, self.recipe.select_on == "windows"
        sums_SE = torch.zeros(len(one.truth_Sl), self.projector.shape.output_dim)
        counts = None if one.windows.counts_S is None else one.windows.counts_S.numpy()
        for first, projected_BE in pieces(self.projector, one.windows.features_ND.numpy(), counts, self.device):
            songs_B = songs_N[first : first + len(projected_BE)]
            batch = losses.Batch(torch.from_numpy(projected_BE), songs_B, one.windows, generator)
            lost += self._alignment(batch).item() * len(songs_B)
            sums_SE.index_add_(0, songs_B, batch.projected_BE)
            if by_window:
                cosines.append(projected_BE @ one.labels_lE.T)
        loss = lost / len(songs_N)
        if by_window:
            return macro_f1(np.concatenate(cosines), one.truth_Sl[songs_N.numpy()], one.k), loss
        songs_SE = (sums_SE / torch.from_numpy(one.windows.counts)[:, None]).numpy()
        scale = self._scale(one, songs_SE)
        return macro_f1(scale.scores(songs_SE), one.truth_Sl, one.k, scale.floor), loss

    def _scale(self, one: ValidationSet, songs_SE: NDArray[np.float32]) -> LabelScale:
        """What songs are measured by, as where they are tagged: themselves, or training songs alone if they are few."""
        if self.recipe.ranking == "cosine":
            return LabelScale(one.labels_lE, songs_SE, "cosine")
        trained_SE = np.concatenate(
            [
                song_vectors(self.projector, own.features_ND.numpy(), own.counts, songs, self.device)
                for own, songs in thinned(self._sets, YARDSTICK_SONGS)
            ]
        )
        yardstick_SE = songs_SE if measured_by_catalog("auto", len(songs_SE)) else trained_SE
        return LabelScale(one.labels_lE, yardstick_SE, self.recipe.ranking, one.priors_l, trained_SE)

    def _no_number(self, value: float, indices: Sequence[NDArray[np.int64]]) -> str:
        """The sentence for a loss that is no number: where it was, and which windows had the largest features."""
        largest: list[tuple[float, str]] = []
        for one, picked in zip(self._sets, indices, strict=True):
            if len(picked):
                sizes_B, at_B = one.features_of(picked).float().abs().amax(1).topk(min(3, len(picked)))
                windows = one.windows_of(picked)[at_B.numpy()]
                largest += zip(sizes_B.tolist(), map(one.name_of, windows.tolist()), strict=True)
        named = ", ".join(f"{name} ({size:.3g})" for size, name in sorted(largest, reverse=True)[:3])
        return (
            f"--loss {self.recipe.loss}: is {value} in step {self._step + 1} of epoch {self.next_epoch + 1}; the "
            f"windows with the largest features there: {named}. Lower --lr, give --clip-norm, or mend the loss if it "
            "is yours."
        )

    def best_projector(self) -> Projector:
        """The projector of the best epoch, in evaluation mode on the CPU."""
        projector = Projector(self.projector.shape)
        projector.load_state_dict(self._best_weights)
        return projector.eval()

    def save(self, path: Path) -> None:
        """Write a checkpoint, one safetensors file: tensors, and the rest as JSON in its metadata."""
        optimizer = self._optimizer.state_dict()
        groups = {"last": self.projector.state_dict(), "best": self._best_weights}
        groups |= {f"optimizer.{at}": state for at, state in optimizer["state"].items()}
        tensors = {f"{group}.{name}": value for group, state in groups.items() for name, value in state.items()}
        plain = {"history": self.history, "best": self.best, "schedule": self._schedule.state_dict()}
        plain["param_groups"] = optimizer["param_groups"]
        save_file(tensors, path, metadata={"state": json.dumps(plain)})

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint that :meth:`save` wrote."""
        groups, plain = read_checkpoint(path)
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
        share = self.workers.shares(picked)[self.workers.rank]
        # A worker without rows, at the end of an epoch, projects others' and leaves them out: its pass is the others'.
        rows = share if len(share) else picked[:1]
        counts = None if one.counts_S is None else one.counts_S[rows]
        projected: Tensor = self.projector(one.features_of(rows).to(self.device), counts)
        return projected if len(share) else projected[:0]

    def _alignment(self, batch: losses.Batch) -> Tensor:
        value = self._loss(batch, self.recipe.part("loss"))
        if not isinstance(value, Tensor) or value.ndim:
            shape = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"--loss {self.recipe.loss}: gives {shape}; have it return a tensor of one number.")
        return value


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors of a checkpoint by group (``last``, ``best``, ``optimizer``), and its plain state."""
    groups: dict[str, dict[str, Tensor]] = {"last": {}, "best": {}, "optimizer": {}}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            group, rest = name.split(".", 1)
            groups[group][rest] = file.get_tensor(name)
        return groups, json.loads(file.metadata()["state"])


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
    unit_BE = losses.unit(projected_BE)
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


def _copy(projector: Projector) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in projector.state_dict().items()}
