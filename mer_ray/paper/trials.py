"""One model of the tables at one seed: trained and tested where that was not done before, by a worker of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mer_ray import __version__, storage
from mer_ray.cluster.train import train
from mer_ray.errors import InputError
from mer_ray.evaluation.assessment import assess
from mer_ray.evaluation.predictions import PREDICTIONS
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.fingerprints import canonical
from mer_ray.learning.model import Model
from mer_ray.learning.settings import EXPERIMENTS, TrainSettings
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import PAIRS, Training
from mer_ray.storage import as_json, read_json

Metrics = dict[str, Any]
CLUSTERS_OF: dict[tuple[str, ...], str] = dict(zip(PAIRS, ("mtg_CAL500", "CAL500_emotify", "mtg_emotify"), strict=True))
"""The published folder of each pair's clusters."""
MADE_OF = "made_of.json"
"""Beside an evaluation: the digest of its model, and what was asked of which code."""


class Trial(NamedTuple):
    """A training at one seed, its test on every given dataset, and on validation songs where λ is chosen by it."""

    training: str
    seed: int
    fit: TrainSettings
    test: EvaluateSettings
    validation: EvaluateSettings | None


class Outcome(NamedTuple):
    """What came of a trial: the metrics of test and validation songs, and the regularization of the last epoch."""

    training: str
    seed: int
    folder: str
    tested: Metrics
    validated: Metrics | None
    regularization: float


class Refusal(NamedTuple):
    """A user's mistake that a trial met, in its sentence."""

    training: str
    seed: int
    why: str


def make_trial(
    settings: ReproduceSettings, training: Training, seed: int, given: Sequence[str], *, chooses: bool
) -> Trial:
    """What is to be done for a training of the tables; ``chooses`` if λ is chosen by its validation songs."""
    folder = storage.join(settings.output, "runs", training.name, f"seed-{seed}")
    shared: dict[str, Any] = {"features": settings.features, "model": storage.join(folder, "model")}
    fit = settings.training(
        **EXPERIMENTS[settings.preset][training.experiment]
        | {"targets": training.targets, "lambda_": training.lambda_, "experiment": training.experiment},
        regularizer="positive" if training.regularizer == "positive" else settings.regularizer,
        clusters=_published_clusters(settings.clusters, training),
        train=[getattr(settings, name) for name in training.datasets],
        seed=seed,
        workers=0,
        gpus=0,
        **shared,
    )

    def scored(split: str, names: Sequence[str]) -> EvaluateSettings:
        manifests, output = [getattr(settings, name) for name in names], storage.join(folder, split)
        return EvaluateSettings.model_construct(test=manifests, output=output, split=split, ranking="cosine", **shared)

    validation = scored("validation", training.datasets) if chooses else None
    return Trial(training.name, seed, fit, scored("test", given), validation)


def _published_clusters(given: str | None, training: Training) -> str | None:
    """The published map of a training's datasets; None where none is given, or nothing is clustered.

    Raises:
        InputError: there is none of them in the folder.
    """
    if given is None or training.experiment == "baseline1":
        return None
    uri = storage.join(given, CLUSTERS_OF[training.datasets], "label_map.json")
    if not storage.exists(uri):
        raise InputError(f"--clusters {given}: no {uri} there; give the folder 'clusters' of the published code.")
    return uri


def run_trial(trial: Trial) -> Outcome | Refusal:
    """Train and test what is not done yet; a user's mistake comes back as its sentence."""
    try:
        trained = train(trial.fit)
        tested = _assessed(trial.test)
        validated = None if trial.validation is None else _assessed(trial.validation)
    except InputError as error:
        return Refusal(trial.training, trial.seed, str(error))
    spread = float(trained["history"][-1]["regularization"])
    return Outcome(trial.training, trial.seed, trial.test.output, tested, validated, spread)


def _assessed(settings: EvaluateSettings) -> Metrics:
    """The metrics of an evaluation: those that are there if they are of this model, these songs and this code."""
    asked = settings.model_dump(exclude={"output", "settings"})
    made_of = canonical({**asked, "digest": Model.load(settings.model).digest, "code": __version__})
    note = storage.join(settings.output, MADE_OF)
    if read_json(note) != made_of or not storage.exists(storage.join(settings.output, PREDICTIONS)):
        storage.remove(note)
        assess(settings)
        storage.write_bytes(note, as_json(made_of))
    return read_json(storage.join(settings.output, "metrics.json")) or {}
