"""The training run: from manifests and a feature store to a model directory, by Ray Train or inside this process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.cluster.session import connect
from mer_ray.cluster.unpromised import quiet_training
from mer_ray.errors import InputError
from mer_ray.features import open_stores
from mer_ray.learning import training
from mer_ray.learning.learner import Learner
from mer_ray.learning.projector import ProjectorShape
from mer_ray.learning.settings import TrainSettings
from mer_ray.learning.tracking import Tracker
from mer_ray.runs.directory import PROGRESS, SETTINGS, RunDirectory, run_file
from mer_ray.runs.lock import check_held
from mer_ray.runs.progress import EpochLines
from mer_ray.threads import aside

RETRIES = 3
EVERY_LOSS = ("temperature", "margin", "positive", "negatives")
"""What the fingerprint of each model held before a loss had settings of its own, whatever its loss was."""


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train a model, or go on with one that was interrupted.

    Returns:
        The model's ``metrics.json``.

    Raises:
        InputError: manifests, features or settings that do not fit.
    """
    tracker = Tracker(settings)
    run = RunDirectory(settings.model, "train", "model", settings.wait)
    settings = training.as_begun(settings, (run.read_json(SETTINGS) or {}).get("fingerprint", {}))
    datasets = [Annotations.read(uri, settings.seed) for uri in settings.train]
    stores = open_stores(settings.features)
    space = training.label_space(settings, datasets)
    config = training.describe(settings, datasets, stores, space)
    with run, tracker, tempfile.TemporaryDirectory(prefix="mer-ray-") as folder:
        finished = _begin(run, config["fingerprint"])
        if finished is not None:
            print(f"train: {settings.model} is trained already; nothing to do")
            storage.remove_folder(run.file("train"))  # killed just before it did
            return finished
        print(
            f"train: {', '.join(one.dataset for one in datasets)}; {len(space.words)} words in "
            f"{len(space.clusters.centers)} clusters; D = {stores[0].dim}; "
            f"{settings.workers or 'no'} worker{'s' * (settings.workers != 1)}",
            flush=True,
        )
        if settings.clusters is None and settings.bandwidth != "none" and space.clusters.bandwidth == 0:
            print("train: no clusters among these words; each is its own", flush=True)
        tracker.begin(config)
        fit = _fit if settings.workers else _fit_here
        task = {"settings": settings, "space": space, "shape": ProjectorShape(**config["projector"])}
        fit(run, {**task, "token": run.lock.token}, Path(folder), tracker)
        run.lock.check()
        metrics = training.write_model(settings.model, config, space, datasets, Path(folder))
        tracker.follow(metrics["history"])
        storage.remove_folder(run.file("train"))
        return metrics


def fit_worker(task: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train

    def report(write: Callable[[Path], None]) -> None:
        """Hand Ray Train the metrics, and from the first worker a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if learner.workers.rank == 0:
                write(Path(folder))
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(learner.history[-1], checkpoint=kept)

    torch.set_num_threads(_threads())
    learner, corpus = training.prepare(**task)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore(Path(folder) / training.STATE)
    training.run_epochs(
        learner,
        note=partial(_note, task["settings"].model, task["token"]),
        save=lambda: report(lambda place: learner.save(place / training.STATE)),
    )
    report(lambda place: training.save_final(place, learner, corpus))


def _note(model: str, token: str, learner: Learner) -> None:
    """Keep an epoch where it is looked for while training goes on.

    Raises:
        RuntimeError: another run has taken the directory.
    """
    check_held(storage.join(model, "_run"), token)
    storage.write_bytes(storage.join(model, training.HISTORY), training.as_lines(learner.history))
    line = {**learner.history[-1], "best": learner.best}
    storage.write_bytes(run_file(model, PROGRESS), storage.as_json(line))


def _threads() -> int:
    """This worker's share of its node. One CPU is reserved, so that training never waits for a node to be empty."""
    import ray
    import ray.train

    here = ray.get_runtime_context().get_node_id()
    cpus = next(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(cpus) // ray.train.get_context().get_local_world_size())


def _fit(run: RunDirectory, task: dict[str, Any], folder: Path, tracker: Tracker) -> None:
    """Run Ray Train workers to the end and leave the final checkpoint in a local folder."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchTrainer

    settings, store = task["settings"], storage.join(run.uri, "_run")
    _check_resources(settings, connect())
    trainer = TorchTrainer(
        fit_worker,
        train_loop_config=task,
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
    try:
        with EpochLines(settings.epochs, partial(_noted, run, tracker)):
            # Ray Train takes Ctrl-C for itself where it runs in the main thread.
            aside(trainer.fit).checkpoint.to_directory(str(folder))
    except WorkerGroupError as error:
        refused = [cause for cause in error.worker_failures.values() if isinstance(cause, InputError)]
        raise refused[0] if refused else error from None


def _noted(run: RunDirectory, tracker: Tracker) -> dict[str, Any] | None:
    """The last epoch that the first worker kept; the tracker is told all."""
    noted = run.read_json(PROGRESS)
    history = storage.join(run.uri, training.HISTORY)
    if noted is not None and storage.exists(history):
        tracker.follow([json.loads(line) for line in storage.read_bytes(history).splitlines()])
    return noted


def _fit_here(run: RunDirectory, task: dict[str, Any], folder: Path, tracker: Tracker) -> None:
    """The same inside this process, going on from its own checkpoints."""
    learner, corpus = training.prepare(**task)
    kept = storage.join(run.file("train"), training.STATE)
    if storage.exists(kept):
        (folder / training.STATE).write_bytes(storage.read_bytes(kept))
        learner.restore(folder / training.STATE)

    def save() -> None:
        learner.save(folder / training.STATE)
        storage.write_bytes(kept, (folder / training.STATE).read_bytes())

    def note(learner: Learner) -> None:
        _note(run.uri, task["token"], learner)
        tracker.follow(learner.history)

    training.run_epochs(learner, note, save)
    training.save_final(folder, learner, corpus)


def _check_resources(settings: TrainSettings, resources: dict[str, float]) -> None:
    for kind, asked in (("CPU", settings.workers), ("GPU", settings.gpus)):
        if asked > resources.get(kind, 0):
            raise InputError(
                f"train: {asked} {kind}s asked for, the cluster has {resources.get(kind, 0):g}; ask for fewer."
            )
    if settings.gpus not in (0, settings.workers):
        raise InputError(f"--gpus {settings.gpus}: training takes none or one a worker; ask for {settings.workers}.")


def _begin(run: RunDirectory, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a finished model of the same settings; None if there is training to do.

    Raises:
        InputError: the directory belongs to other settings.
    """
    found = (run.read_json(SETTINGS) or {}).get("fingerprint", {})
    unsaid = {name: value for name, value in training.EARLIER.items() if found and name not in found}
    asked = {name: value for name, value in fingerprint.items() if unsaid.get(name, ...) != value}
    if found and training.SONGS not in found:  # made before 0.3, which did not say what it was made of
        asked = {name: value for name, value in asked.items() if not training.of_store(name)}
    asked = {**{name: found[name] for name in EVERY_LOSS if name in found}, **asked}
    finished = storage.exists(storage.join(run.uri, "config.json"))
    if run.earlier(asked, holds=lambda: "a model already" if finished else "") and finished:
        return storage.read_json(storage.join(run.uri, "metrics.json"))
    run.write_json(SETTINGS, {"fingerprint": asked})
    return None
