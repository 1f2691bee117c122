"""A training without a cluster: its data and learner, its epochs, and the model directory it ends in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save, save_file

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.features import Windows, open_stores
from mer_ray.learning.card import model_card
from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, read_checkpoint
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.settings import TrainSettings
from mer_ray.words.labelspace import LabelSpace

STATE = "state.safetensors"
"""A checkpoint's file."""
BACKGROUND_SONGS = 10_000


def read_annotations(settings: TrainSettings) -> list[Annotations]:
    """The labelled songs of every training manifest."""
    return [Annotations.read(uri, settings.seed) for uri in settings.train]


def prepare(settings: TrainSettings, space: LabelSpace, shape: ProjectorShape) -> tuple[Learner, Corpus]:
    """Read the data and build the learner; the same on every worker."""
    stores, datasets = open_stores(settings.features), read_annotations(settings)
    corpus = Corpus.load(stores, datasets, space, settings)
    return build_learner(settings, corpus, shape), corpus


def build_learner(settings: TrainSettings, corpus: Corpus, shape: ProjectorShape) -> Learner:
    """A learner at its first epoch; the same for the same settings and corpus."""
    torch.manual_seed(settings.seed)
    projector = Projector(shape)
    if settings.standardize:
        projector.set_feature_scale(*corpus.feature_scale())
    return Learner(projector, corpus.sets, corpus.validation, settings, device="cuda" if settings.gpus else "cpu")


def run_epochs(
    settings: TrainSettings, learner: Learner, note: Callable[[dict[str, Any]], None], save: Callable[[], None]
) -> None:
    """Train to the last epoch; the first worker notes each, and all save now and then."""
    saved = time.monotonic()
    while learner.next_epoch < settings.epochs:
        learner.run_epoch()
        if learner.workers.rank == 0:
            note({**learner.history[-1], "best": learner.best})
        if learner.workers.from_first(time.monotonic() - saved) > settings.checkpoint_seconds:
            save()
            saved = time.monotonic()


def save_final(folder: Path, learner: Learner, corpus: Corpus) -> None:
    """Write the last checkpoint and what else the model directory needs of a training."""
    learner.save(folder / STATE)
    background = _background(learner, corpus.windows)
    save_file({"songs": torch.from_numpy(background)}, folder / "background.safetensors")
    (folder / "notes.json").write_text(json.dumps({"absent": corpus.absent, "songs": corpus.songs}))


def write_model(
    uri: str, config: dict[str, Any], space: LabelSpace, datasets: Sequence[Annotations], final: Path
) -> dict[str, Any]:
    """Assemble the model directory from what :func:`save_final` left in a local folder; returns its metrics."""
    tensors, state = read_checkpoint(final / STATE)
    notes = json.loads((final / "notes.json").read_text())
    projector = Projector(ProjectorShape(**config["projector"]))
    projector.load_state_dict(tensors["best"])
    background = load_file(final / "background.safetensors")["songs"].numpy()
    labels = {**space.describe(), "datasets": {one.dataset: list(one.vocabulary) for one in datasets}}
    metrics = {"best": state["best"], "epochs": len(state["history"]), **notes, "history": state["history"]}
    storage.write_bytes(storage.join(uri, "last.safetensors"), save(tensors["last"]))
    storage.write_bytes(storage.join(uri, "metrics.json"), storage.as_json(metrics))
    storage.write_bytes(storage.join(uri, "README.md"), model_card(config, labels, metrics).encode())
    Model(projector.eval(), config, labels, background, space.space).save(uri)
    return metrics


def _background(learner: Learner, sets: Sequence[Windows]) -> NDArray[np.float32]:
    """Mean unit projection of the training songs, evenly thinned to a bound."""
    projector = learner.best_projector().to(learner.device)
    songs = np.concatenate(
        [windows.song_means(project(projector, windows.features, windows.counts, learner.device)) for windows in sets]
    )
    keep = np.linspace(0, len(songs) - 1, min(len(songs), BACKGROUND_SONGS)).astype(int)
    return songs[keep]
