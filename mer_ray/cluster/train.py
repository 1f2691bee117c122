"""The Ray Train run: from manifests and a feature store to a model directory."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.sources import read_manifest
from mer_ray.cluster.session import connect
from mer_ray.cluster.unpromised import quiet_training
from mer_ray.errors import InputError
from mer_ray.features import Windows, open_stores
from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, LearnOptions
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.recipe import STATE, begin, describe, read_words, write_model
from mer_ray.learning.settings import TrainSettings
from mer_ray.runs.lock import RunLock
from mer_ray.runs.progress import EpochLines
from mer_ray.storage import as_json, read_json
from mer_ray.words.labelspace import LabelSpace

BACKGROUND_SONGS = 10_000
RETRIES = 3


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train a model, or go on with one that was interrupted.

    Returns:
        The model's ``metrics.json``.

    Raises:
        InputError: manifests, features or settings that do not fit.
    """
    datasets = read_annotations(settings)
    stores = open_stores(settings.features)
    clustered = settings.targets == "clusters" or settings.lambda_ > 0
    space = LabelSpace.build(
        [one.vocabulary for one in datasets],
        reading=read_words(settings),
        bandwidth=settings.bandwidth if clustered else None,
    )
    config = describe(settings, datasets, stores, space)
    with _exclusive(settings.model), tempfile.TemporaryDirectory(prefix="mer-ray-") as folder:
        finished = begin(settings.model, config["fingerprint"])
        if finished is not None:
            print(f"train: {settings.model} is trained already; nothing to do")
            storage.remove_folder(storage.join(settings.model, "_run", "train"))  # killed just before it did
            return finished
        print(
            f"train: {', '.join(one.dataset for one in datasets)}; {len(space.words)} words in "
            f"{len(space.clusters.centers)} clusters; D = {stores[0].dim}; "
            f"{settings.workers or 'no'} worker{'s' * (settings.workers != 1)}",
            flush=True,
        )
        fit = _fit if settings.workers else _fit_here
        fit(settings, {"settings": settings.model_dump(), "space": space, "shape": config["projector"]}, Path(folder))
        metrics = write_model(settings.model, config, space, datasets, Path(folder))
        storage.remove_folder(storage.join(settings.model, "_run", "train"))
        return metrics


def fit_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train

    torch.set_num_threads(_threads())
    settings, learner, corpus = _prepare(config)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore(Path(folder) / STATE)
    _run_epochs(settings, learner, lambda: _report(learner))
    _report(learner, corpus)


def _threads() -> int:
    """This worker's share of its node. One CPU is reserved, so that training never waits for a node to be empty."""
    import ray
    import ray.train

    here = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(cpus) // ray.train.get_context().get_local_world_size())


def _prepare(config: dict[str, Any]) -> tuple[TrainSettings, Learner, Corpus]:
    """Read the data and build the learner; the same on every worker."""
    settings = TrainSettings.model_construct(**config["settings"])
    stores, datasets = open_stores(settings.features), read_annotations(settings)
    corpus = Corpus.load(stores, datasets, config["space"], targets=settings.targets, context=settings.context)
    return settings, build_learner(settings, corpus, ProjectorShape(**config["shape"])), corpus


def _run_epochs(settings: TrainSettings, learner: Learner, save: Callable[[], None]) -> None:
    """Train to the last epoch, noting progress, and save now and then."""
    saved = time.monotonic()
    while learner.next_epoch < settings.epochs:
        learner.run_epoch()
        if learner.workers.rank == 0:
            line = {**learner.history[-1], "best": learner.best}
            storage.write_bytes(storage.join(settings.model, "_run", "progress.json"), as_json(line))
        if learner.workers.from_first(time.monotonic() - saved) > settings.checkpoint_seconds:
            save()
            saved = time.monotonic()


def read_annotations(settings: TrainSettings) -> list[Annotations]:
    """The labelled songs of every training manifest."""
    return [Annotations.from_manifest(read_manifest(uri), uri, settings.seed) for uri in settings.train]


def build_learner(settings: TrainSettings, corpus: Corpus, shape: ProjectorShape) -> Learner:
    """A learner at its first epoch; the same for the same settings and corpus."""
    torch.manual_seed(settings.seed)
    projector = Projector(shape)
    if settings.standardize:
        projector.set_feature_scale(*corpus.feature_scale())
    options = LearnOptions(**{name: getattr(settings, name) for name in LearnOptions.__dataclass_fields__})
    device = "cuda" if settings.gpus else "cpu"
    return Learner(projector, corpus.sets, corpus.validation, options, device=device)


def _report(learner: Learner, corpus: Corpus | None = None) -> None:
    """Hand Ray Train the metrics, and from the first worker a checkpoint."""
    import ray.train

    metrics = learner.history[-1]
    if learner.workers.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder), learner, corpus)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _save(folder: Path, learner: Learner, corpus: Corpus | None = None) -> None:
    """Write a checkpoint; at the end, with the corpus, also what the model directory needs of it."""
    learner.save(folder / STATE)
    if corpus is not None:
        background = _background(learner, corpus.windows)
        save_file({"songs": torch.from_numpy(background)}, folder / "background.safetensors")
        (folder / "notes.json").write_text(json.dumps({"absent": corpus.absent, "songs": corpus.songs}))


def _background(learner: Learner, sets: Sequence[Windows]) -> NDArray[np.float32]:
    """Mean unit projection of the training songs, evenly thinned to a bound."""
    projector = learner.best_projector().to(learner.device)
    songs = np.concatenate(
        [windows.song_means(project(projector, windows.features, windows.counts, learner.device)) for windows in sets]
    )
    keep = np.linspace(0, len(songs) - 1, min(len(songs), BACKGROUND_SONGS)).astype(int)
    return songs[keep]


def _fit(settings: TrainSettings, config: dict[str, Any], folder: Path) -> None:
    """Run Ray Train workers to the end and leave the final checkpoint in a local folder."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    _check_resources(settings, connect())
    store = storage.join(settings.model, "_run")
    trainer = TorchTrainer(
        fit_worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpus > 0,
            placement_strategy="PACK" if settings.gpus else "SPREAD",
        ),
        run_config=RunConfig(
            name="train",
            storage_path=storage.filesystem(store)[1],
            storage_filesystem=storage.arrow_filesystem(store) if storage.is_s3(store) else None,
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            **quiet_training(),
        ),
    )
    noted = storage.join(settings.model, "_run", "progress.json")
    with EpochLines(settings.epochs, lambda: read_json(noted)):
        trainer.fit().checkpoint.to_directory(str(folder))


def _fit_here(settings: TrainSettings, config: dict[str, Any], folder: Path) -> None:
    """The same inside this process, going on from its own checkpoints."""
    _, learner, corpus = _prepare(config)
    kept = storage.join(settings.model, "_run", "train", STATE)
    if storage.exists(kept):
        (folder / STATE).write_bytes(storage.read_bytes(kept))
        learner.restore(folder / STATE)

    def save() -> None:
        learner.save(folder / STATE)
        storage.write_bytes(kept, (folder / STATE).read_bytes())

    _run_epochs(settings, learner, save)
    _save(folder, learner, corpus)


def _check_resources(settings: TrainSettings, resources: dict[str, float]) -> None:
    for kind, asked in (("CPU", settings.workers), ("GPU", settings.gpus)):
        if asked > resources.get(kind, 0):
            raise InputError(
                f"train: {asked} {kind}s asked for, the cluster has {resources.get(kind, 0):g}; ask for fewer."
            )
    if settings.gpus not in (0, settings.workers):
        raise InputError(f"--gpus {settings.gpus}: training takes none or one a worker; ask for {settings.workers}.")


@contextmanager
def _exclusive(model: str) -> Iterator[None]:
    lock = RunLock(storage.join(model, "_run"), "train")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
