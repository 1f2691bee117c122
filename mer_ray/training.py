"""The Ray Train run: from manifests and a feature store to a model directory."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save, save_file

from mer_ray import __version__, storage
from mer_ray.annotations import Annotations
from mer_ray.catalog import read_manifest
from mer_ray.corpus import Corpus
from mer_ray.errors import InputError
from mer_ray.features import Store, Windows, open_stores
from mer_ray.fingerprints import differences, text_sha256, weights_sha256
from mer_ray.labels import label_model, read_labels
from mer_ray.labelspace import LabelSpace
from mer_ray.learner import Learner, LearnOptions
from mer_ray.lock import RunLock
from mer_ray.model import Model
from mer_ray.progress import EpochLines
from mer_ray.projector import Projector, ProjectorShape, project
from mer_ray.report import model_card
from mer_ray.runs import as_json, connect, read_json
from mer_ray.settings import TrainSettings

CHECKPOINT_SECONDS = 20.0
"""A checkpoint holds four times the projector; writing one each short epoch would cost more than it saves."""
BACKGROUND_SONGS = 10_000
RETRIES = 3

READINGS = (
    *("preset", "targets", "lambda_", "regularizer", "margin", "positive", "negatives", "bandwidth"),
    *("standardize", "context", "positions"),
)
_NOT_RESULTS = {"model", "workers", "gpus", "settings", "train", "features", "label_text"}


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train a model, or go on with one that was interrupted.

    Returns:
        The model's ``metrics.json``.

    Raises:
        InputError: manifests, features or settings that do not fit.
    """
    if settings.positions and settings.context != "track":
        raise InputError("--positions: a single window has no order; add --context track or leave it out.")
    datasets = read_annotations(settings)
    stores = open_stores(settings.features)
    phrases = read_labels(settings.label_text) if settings.label_text else None
    clustered = settings.targets == "clusters" or settings.lambda_ > 0
    space = LabelSpace.build(
        [one.vocabulary for one in datasets],
        phrases=phrases,
        model=settings.label_model,
        bandwidth=settings.bandwidth if clustered else None,
    )
    config = _config(settings, datasets, stores, space)
    with _exclusive(settings.model):
        finished = _begin(settings.model, config["fingerprint"])
        if finished is not None:
            print(f"train: {settings.model} is trained already; nothing to do")
            return finished
        print(
            f"train: {', '.join(one.dataset for one in datasets)}; {len(space.words)} words in "
            f"{len(space.clusters.centers)} clusters; D = {stores[0].dim}; {settings.workers} workers",
            flush=True,
        )
        final = _fit(settings, {"settings": settings.model_dump(), "space": space, "shape": config["projector"]})
        metrics = _write_model(settings.model, config, space, datasets, final)
        storage.remove_folder(storage.join(settings.model, "_run", "train"))
        return metrics


def fit_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train

    settings = TrainSettings.model_construct(**config["settings"])
    stores = open_stores(settings.features)
    corpus = Corpus.load(
        stores,
        read_annotations(settings),
        config["space"],
        targets=settings.targets,
        context=settings.context,
    )
    learner = build_learner(settings, corpus, ProjectorShape(**config["shape"]))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore(Path(folder))
    saved = time.monotonic()
    while learner.next_epoch < settings.epochs:
        metrics = learner.run_epoch()
        if learner.workers.rank == 0:
            _note_progress(settings, learner)
        if learner.workers.from_first(time.monotonic() - saved) > CHECKPOINT_SECONDS:
            _report(learner, metrics)
            saved = time.monotonic()
    _report(learner, learner.history[-1], corpus)


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


def _report(learner: Learner, metrics: dict[str, float], corpus: Corpus | None = None) -> None:
    import ray.train

    if learner.workers.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder))
        if corpus is not None:
            background = _background(learner.best_projector(), corpus.windows)
            save_file({"songs": torch.from_numpy(background)}, Path(folder) / "background.safetensors")
            (Path(folder) / "notes.json").write_text(json.dumps({"absent": corpus.absent, "songs": corpus.songs}))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _background(projector: Projector, sets: Sequence[Windows]) -> NDArray[np.float32]:
    """Mean unit projection of the training songs, evenly thinned to a bound."""
    songs = np.concatenate(
        [windows.song_means(project(projector, windows.features, windows.counts)) for windows in sets]
    )
    keep = np.linspace(0, len(songs) - 1, min(len(songs), BACKGROUND_SONGS)).astype(int)
    return songs[keep]


def _fit(settings: TrainSettings, config: dict[str, Any]) -> Path:
    """Run the workers to the end; returns a folder with the final checkpoint."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    resources = connect()
    _check_resources(settings, resources)
    store = storage.join(settings.model, "_run")
    trainer = TorchTrainer(
        fit_worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=settings.gpus > 0),
        run_config=RunConfig(
            name="train",
            storage_path=storage.filesystem(store)[1],
            storage_filesystem=storage.arrow_filesystem(store) if storage.is_s3(store) else None,
            failure_config=FailureConfig(max_failures=RETRIES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    noted = storage.join(settings.model, "_run", "progress.json")
    with EpochLines(settings.epochs, lambda: read_json(noted)):
        result = trainer.fit()
    folder = Path(tempfile.mkdtemp(prefix="mer-ray-"))
    result.checkpoint.to_directory(str(folder))
    return folder


def _check_resources(settings: TrainSettings, resources: dict[str, float]) -> None:
    for kind, asked in (("CPU", settings.workers), ("GPU", settings.gpus)):
        if asked > resources.get(kind, 0):
            raise InputError(
                f"train: {asked} {kind}s asked for, the cluster has {resources.get(kind, 0):g}; ask for fewer."
            )
    if settings.gpus not in (0, settings.workers):
        raise InputError(f"--gpus {settings.gpus}: training takes none or one a worker; ask for {settings.workers}.")


def _config(
    settings: TrainSettings, datasets: Sequence[Annotations], stores: Sequence[Store], space: LabelSpace
) -> dict[str, Any]:
    """``config.json`` of the model to be: shape, readings, encoder, label model, and their fingerprint."""
    shape = ProjectorShape(
        stores[0].dim,
        space.embeddings.shape[1],
        dropout=settings.dropout,
        context=settings.context,
        positions=settings.positions,
    )
    chosen = settings.model_dump(exclude=_NOT_RESULTS)
    readings = {name.rstrip("_"): chosen[name] for name in READINGS}
    truth = [(one.track_ids, one.vocabulary, one.truth.tolist(), one.splits.tolist()) for one in datasets]
    label_encoder = {"name": settings.label_model, "weights_sha256": weights_sha256(label_model(settings.label_model))}
    return {
        "version": __version__,
        "projector": asdict(shape),
        "encoder": {**stores[0].encoder, "dim": stores[0].dim},
        "label_model": label_encoder,
        "readings": {**readings, "label_text": "phrases" if settings.label_text else "plain"},
        "settings": {name.rstrip("_"): value for name, value in chosen.items()},
        "datasets": [one.dataset for one in datasets],
        "fingerprint": {
            **chosen,
            "datasets": ", ".join(one.dataset for one in datasets),
            "truth": text_sha256(json.dumps(truth))[:16],
            "phrases": text_sha256(json.dumps(space.phrases))[:16],
            "encoder": f"{stores[0].encoder.get('name')}, D = {stores[0].dim}",
        },
    }


def _begin(model: str, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a finished model of the same settings; None if there is training to do.

    Raises:
        InputError: the directory belongs to other settings.
    """
    before = read_json(storage.join(model, "_run", "settings.json"))
    if before is not None:
        unlike = differences(fingerprint, before["fingerprint"])
        if unlike:
            raise InputError(f"model {model}: begun with other settings: {'; '.join(unlike)}; use another directory.")
        if storage.exists(storage.join(model, "config.json")):
            return read_json(storage.join(model, "metrics.json"))
    elif storage.exists(storage.join(model, "config.json")):
        raise InputError(f"model {model}: holds a model already; use another directory.")
    storage.write_bytes(storage.join(model, "_run", "settings.json"), as_json({"fingerprint": fingerprint}))
    return None


def _write_model(
    uri: str, config: dict[str, Any], space: LabelSpace, datasets: Sequence[Annotations], final: Path
) -> dict[str, Any]:
    tensors = load_file(final / "state.safetensors")
    state = json.loads((final / "state.json").read_text())
    notes = json.loads((final / "notes.json").read_text())
    projector = Projector(ProjectorShape(**config["projector"]))
    projector.load_state_dict({name[5:]: value for name, value in tensors.items() if name.startswith("best.")})
    background = load_file(final / "background.safetensors")["songs"].numpy()
    labels = {**space.describe(), "datasets": {one.dataset: list(one.vocabulary) for one in datasets}}
    metrics = {"best": state["best"], "epochs": len(state["history"]), **notes, "history": state["history"]}
    last = {name[5:]: value for name, value in tensors.items() if name.startswith("last.")}
    storage.write_bytes(storage.join(uri, "last.safetensors"), save(last))
    storage.write_bytes(storage.join(uri, "metrics.json"), as_json(metrics))
    model = Model(projector.eval(), config, labels, background)
    storage.write_bytes(storage.join(uri, "README.md"), model_card(config, labels, metrics).encode())
    model.save(uri)
    return metrics


def _note_progress(settings: TrainSettings, learner: Learner) -> None:
    line = {**learner.history[-1], "best": learner.best}
    storage.write_bytes(storage.join(settings.model, "_run", "progress.json"), as_json(line))


@contextmanager
def _exclusive(model: str) -> Iterator[None]:
    lock = RunLock(storage.join(model, "_run"), "train")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
