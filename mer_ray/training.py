"""The Ray Train run: from manifests and a feature store to a model directory."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from mer_ray import __version__, storage
from mer_ray.annotations import TRAIN, VALIDATION, Annotations
from mer_ray.catalog import read_manifest
from mer_ray.errors import InputError
from mer_ray.features import Store, Windows, open_stores, read_windows
from mer_ray.fingerprints import differences, text_sha256, weights_sha256
from mer_ray.labels import Clusters, Phrases, cluster_labels, embed_labels, label_model, read_labels
from mer_ray.learner import Learner, LearnOptions, ValidationSet
from mer_ray.lock import RunLock
from mer_ray.model import Model
from mer_ray.progress import EVERY_SECONDS, clock
from mer_ray.projector import Projector, ProjectorShape
from mer_ray.report import model_card
from mer_ray.runs import as_json, connect, read_json
from mer_ray.sampling import TrainingSet
from mer_ray.settings import TrainSettings

CHECKPOINT_SECONDS = 20.0
"""A checkpoint holds four times the projector; writing one each short epoch would cost more than it saves."""
BACKGROUND_SONGS = 10_000
RETRIES = 3

READINGS = ("targets", "lambda_", "regularizer", "margin", "positive", "negatives", "bandwidth", "standardize")
_NOT_RESULTS = {"model", "workers", "gpus", "settings", "train", "features", "label_text"}


@dataclass(frozen=True)
class LabelSpace:
    """The words of all datasets trained on together.

    Attributes:
        words: [L] sorted, each once.
        phrases: what stands for each word.
        embeddings: [L, E].
        clusters: their grouping; each word its own if the targets are labels and none is needed.
    """

    words: tuple[str, ...]
    phrases: Phrases
    embeddings: NDArray[np.float32]
    clusters: Clusters

    @classmethod
    def build(cls, settings: TrainSettings, datasets: Sequence[Annotations]) -> LabelSpace:
        """Embed and cluster the union of the datasets' vocabularies (paper §3.4)."""
        words = tuple(sorted({word for one in datasets for word in one.vocabulary}))
        given = read_labels(settings.label_text) if settings.label_text else {}
        phrases = {word: given.get(word, (word,)) for word in words}
        embeddings = embed_labels(words, model=settings.label_model, phrases=phrases)
        if settings.targets == "labels" and settings.lambda_ == 0:
            clusters = Clusters(np.arange(len(words)), embeddings, 0.0)
        else:
            clusters = cluster_labels(embeddings, settings.bandwidth)
        return cls(words, phrases, embeddings, clusters)

    def targets(self, kind: str, words: Sequence[str]) -> NDArray[np.float32]:
        """[l, E] the point each of these words draws songs to."""
        at = [self.words.index(word) for word in words]
        return self.clusters.centers[self.clusters.assignments[at]] if kind == "clusters" else self.embeddings[at]

    def describe(self) -> dict[str, Any]:
        """The label space as plain values, for ``labels.json``."""
        groups = [
            [word for word, cluster in zip(self.words, self.clusters.assignments, strict=True) if cluster == at]
            for at in range(len(self.clusters.centers))
        ]
        return {
            "words": list(self.words),
            "phrases": {word: list(texts) for word, texts in self.phrases.items()},
            "clusters": groups,
            "bandwidth": self.clusters.bandwidth,
        }


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train a model, or go on with one that was interrupted.

    Returns:
        The model's ``metrics.json``.

    Raises:
        InputError: manifests, features or settings that do not fit.
    """
    datasets = [Annotations.from_manifest(read_manifest(uri), uri, settings.seed) for uri in settings.train]
    stores = open_stores(settings.features)
    space = LabelSpace.build(settings, datasets)
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
    device = "cuda" if settings.gpus else "cpu"
    learner, notes = _learner(settings, config["space"], ProjectorShape(**config["shape"]), device)
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
    _report(learner, learner.history[-1], notes)


def _report(learner: Learner, metrics: dict[str, float], notes: _Notes | None = None) -> None:
    import ray.train

    if learner.workers.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder))
        if notes is not None:
            background = _background(learner.best_projector(), notes.windows)
            save_file({"songs": torch.from_numpy(background)}, Path(folder) / "background.safetensors")
            (Path(folder) / "notes.json").write_text(json.dumps({"absent": notes.absent, "songs": notes.songs}))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


@dataclass(frozen=True)
class _Notes:
    """What the worker saw of the data: the training windows, and who was asked for but absent."""

    windows: list[Windows]
    absent: dict[str, dict[str, int]]
    songs: dict[str, int]


def _learner(settings: TrainSettings, space: LabelSpace, shape: ProjectorShape, device: str) -> tuple[Learner, _Notes]:
    stores = open_stores(settings.features)
    sets, validation, notes = [], [], _Notes([], {}, {})
    for uri in settings.train:
        dataset = Annotations.from_manifest(read_manifest(uri), uri, settings.seed)
        train_windows, train_truth = _windows(stores, dataset, TRAIN, notes)
        notes.windows.append(train_windows)
        sets.append(_training_set(settings, space, dataset, train_windows, train_truth))
        windows, truth = _windows(stores, dataset, VALIDATION, notes)
        embeddings = space.targets("labels", dataset.vocabulary)
        validation.append(ValidationSet(windows.features, truth[windows.songs], embeddings, dataset.k))
    torch.manual_seed(settings.seed)
    projector = Projector(shape)
    if settings.standardize:
        projector.set_feature_scale(*_feature_scale([one.features_ND for one in sets]))
    names = LearnOptions.__dataclass_fields__
    options = LearnOptions(**{name: getattr(settings, name) for name in names})
    return Learner(projector, sets, validation, options, device=device), notes


def _windows(
    stores: Sequence[Store], dataset: Annotations, split: str, notes: _Notes
) -> tuple[Windows, NDArray[np.bool_]]:
    """A split's windows and the truth of the songs that have any."""
    rows = dataset.where(split)
    ids = [dataset.track_ids[row] for row in rows]
    windows = read_windows(stores, ids)
    if not windows.track_ids:
        raise InputError(
            f"manifest of {dataset.dataset}: none of its {len(ids)} {split} songs has features in "
            f"{', '.join(store.uri for store in stores)}; extract them first."
        )
    for reason in windows.absent.values():
        counts = notes.absent.setdefault(f"{dataset.dataset} {split}", {})
        counts[reason] = counts.get(reason, 0) + 1
    notes.songs[f"{dataset.dataset} {split}"] = len(windows.track_ids)
    at = dict(zip(ids, rows, strict=True))
    return windows, dataset.truth[[at[track_id] for track_id in windows.track_ids]]


def _training_set(
    settings: TrainSettings, space: LabelSpace, dataset: Annotations, windows: Windows, truth: NDArray[np.bool_]
) -> TrainingSet:
    clusters = space.clusters.assignments[[space.words.index(word) for word in dataset.vocabulary]]
    return TrainingSet(
        name=dataset.dataset,
        features_ND=torch.from_numpy(windows.features),
        songs_N=torch.from_numpy(windows.songs),
        truth_SL=torch.from_numpy(truth),
        targets_LE=torch.from_numpy(space.targets(settings.targets, dataset.vocabulary)),
        clusters_L=torch.from_numpy(clusters),
    )


def _feature_scale(features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each dimension over all training windows, in float64 and bounded memory."""
    count = sum(len(one) for one in features)
    chunks = [chunk.double() for one in features for chunk in one.split(8192)]
    mean = torch.stack([chunk.sum(0) for chunk in chunks]).sum(0) / count
    variance = torch.stack([((chunk - mean) ** 2).sum(0) for chunk in chunks]).sum(0) / count
    return mean.float(), variance.sqrt().float()


def _background(projector: Projector, sets: Sequence[Windows]) -> NDArray[np.float32]:
    """Mean unit projection of the training songs, evenly thinned to a bound."""
    model = Model(projector, {}, {}, np.zeros((0, 0), np.float32))
    songs = np.concatenate([windows.song_means(model.project(windows.features)) for windows in sets])
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
    with _progress_lines(settings):
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
    shape = ProjectorShape(stores[0].dim, space.embeddings.shape[1], dropout=settings.dropout)
    chosen = settings.model_dump(exclude=_NOT_RESULTS)
    readings = {name.rstrip("_"): chosen[name] for name in READINGS}
    truth = [(one.track_ids, one.vocabulary, one.truth.tolist(), one.splits.tolist()) for one in datasets]
    label_encoder = {"name": settings.label_model, "weights_sha256": weights_sha256(label_model(settings.label_model))}
    return {
        "version": __version__,
        "projector": asdict(shape),
        "encoder": {**stores[0].encoder, "dim": stores[0].dim},
        "label_model": label_encoder,
        "readings": {**readings, "context": "segment", "label_text": "phrases" if settings.label_text else "plain"},
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
    storage.write_bytes(storage.join(uri, "last.safetensors"), _tensor_bytes(last))
    storage.write_bytes(storage.join(uri, "metrics.json"), as_json(metrics))
    model = Model(projector.eval(), config, labels, background)
    storage.write_bytes(storage.join(uri, "README.md"), model_card(config, labels, metrics).encode())
    model.save(uri)
    return metrics


def _tensor_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors)


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


@contextmanager
def _progress_lines(settings: TrainSettings) -> Iterator[None]:
    """Print where the workers are every few seconds, from what the first of them notes down."""
    stop, started = threading.Event(), time.monotonic()
    first: list[float] = []

    def line() -> None:
        noted = read_json(storage.join(settings.model, "_run", "progress.json"))
        if noted is None:
            return
        done = noted["epoch"] + 1
        first.append(done)
        fresh = done - first[0]
        left = f", {clock((time.monotonic() - started) / fresh * (settings.epochs - done))} left" if fresh else ""
        best = f"best {noted['best']['macro_f1']:.3f} in epoch {noted['best']['epoch'] + 1:.0f}"
        print(
            f"train: epoch {done:.0f} of {settings.epochs}, loss {noted['loss']:.4f}, "
            f"validation macro F1 {noted['macro_f1']:.3f} ({best}){left}",
            flush=True,
        )

    def tick() -> None:
        while not stop.wait(EVERY_SECONDS):
            line()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        line()
