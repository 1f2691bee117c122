"""The paper's tables from one's own datasets: train what they need, test it, lay ours beside the paper's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import SPLITS
from mer_ray.cluster.session import side_by_side
from mer_ray.cluster.train import train
from mer_ray.errors import InputError
from mer_ray.evaluation.assessment import assess
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.features import open_stores
from mer_ray.learning.settings import TrainSettings
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS, Cell, Table, Training, paper_tables
from mer_ray.runs.progress import clock
from mer_ray.settings import READING, marked
from mer_ray.storage import as_json, read_json

FIGURE = "figure2"
_ROLES = ("targets", "lambda_", "regularizer")


@dataclass(frozen=True)
class Measured:
    """Our figure for a cell, with its 95 % interval over songs, beside the paper's; None where not run.

    ``spread`` is the mean cosine between training segments of different clusters in the last epoch, what
    negative regularization lowers.
    """

    ours: float | None
    low: float | None
    high: float | None
    paper: float | None
    chance: float | None
    spread: float | None
    training: str
    test: str
    level: str


Results = dict[str, dict[str, list[Measured]]]
Metrics = dict[str, Any]


class Task(NamedTuple):
    """A training and its test."""

    name: str
    fit: TrainSettings
    test: EvaluateSettings


def reproduce(settings: ReproduceSettings) -> tuple[list[Table], Results]:
    """Train, test and tabulate; what an earlier run has finished is not done again.

    Raises:
        InputError: no dataset is given, or a manifest, store or finished model does not fit.
    """
    given = list(datasets(settings))
    open_stores(settings.features)
    tables = [table for table in paper_tables() if not settings.only or table.name in settings.only]
    trainings = list(dict.fromkeys(one for table in tables for one in table.trainings()))
    possible = [one for one in trainings if set(one.datasets) <= set(given)]
    print(f"reproduce: {len(possible)} of {len(trainings)} models to train or find, on {', '.join(given)}", flush=True)
    metrics = _run_all([_task(settings, one, given) for one in possible], settings.at_once)
    results = {
        table.name: {row: [_measure(cell, metrics) for cell in cells] for row, cells in table.rows.items()}
        for table in tables
    }
    plain = {name: {row: [*map(vars, cells)] for row, cells in rows.items()} for name, rows in results.items()}
    storage.write_bytes(storage.join(settings.output, "results.json"), as_json({**plain, "facts": facts(settings)}))
    return tables, results


def datasets(settings: ReproduceSettings) -> dict[str, Annotations]:
    """The given datasets, in the order of the tables.

    Raises:
        InputError: there is none, or a manifest is of another dataset.
    """
    given = {name: uri for name in DATASETS if (uri := getattr(settings, name)) is not None}
    if not given:
        raise InputError("reproduce: no dataset is given; give --jamendo, --cal500 or --emotify a manifest.")
    found = {name: Annotations.read(uri, settings.seed) for name, uri in given.items()}
    for name, one in found.items():
        if one.dataset != name:
            raise InputError(
                f"--{name} {given[name]}: a manifest of {one.dataset}; make it with jobs/catalog.py --dataset {name}."
            )
    return found


def facts(settings: ReproduceSettings) -> dict[str, str]:
    """What every figure rests on: encoder, songs, readings."""
    store = open_stores(settings.features)[0]
    recipe, given = settings.resolved(), datasets(settings)
    songs = {
        name: ", ".join(f"{len(given[name].where(split)):,} {split}" for split in SPLITS)
        if name in given
        else "not given"
        for name in DATASETS
    }
    readings = [f"{name} = {recipe[name]}" for name in marked(settings, READING) if name not in _ROLES]
    return {
        "encoder": f"{store.encoder.get('name')}, D = {store.dim}, licence {store.encoder.get('licence')}",
        "songs": "; ".join(f"{name} {counts}" for name, counts in songs.items()),
        "readings": ", ".join([*readings, f"regularizer = {settings.regularizer} where the table does not say"]),
        "training": f"{settings.epochs} epochs, batch {settings.batch_size}, lr {settings.lr:g}, seed {settings.seed}",
        "interval": "95 %, bootstrap over test songs; it does not cover the chance of training (one seed)",
    }


def _run_all(tasks: list[Task], at_once: int | None) -> dict[str, Metrics]:
    """Metrics of every training on every given dataset, by training."""
    started = time.monotonic()
    metrics, refused = {}, []
    for done, (name, found) in enumerate(side_by_side(run_training, tasks, at_once) if tasks else (), 1):
        if isinstance(found, str):
            refused.append(f"{name}: {found}")
        else:
            metrics[name] = found
        gone = time.monotonic() - started
        left = clock(gone / done * (len(tasks) - done))
        print(f"reproduce: {done} of {len(tasks)} models, {name}, {clock(gone)} gone, {left} left", flush=True)
    if refused:
        raise InputError(f"reproduce: {len(refused)} of {len(tasks)} models could not be made, first {refused[0]}")
    return metrics


def _task(settings: ReproduceSettings, training: Training, given: Sequence[str]) -> Task:
    folder = storage.join(settings.output, "runs", training.name)
    shared: dict[str, Any] = {"features": settings.features, "model": storage.join(folder, "model")}
    fit = settings.training(
        regularizer="positive" if training.regularizer == "positive" else settings.regularizer,
        train=[getattr(settings, name) for name in training.datasets],
        targets=training.targets,
        lambda_=training.lambda_,
        workers=0,
        gpus=0,
        **shared,
    )
    test = [getattr(settings, name) for name in given]
    output = storage.join(folder, "evaluation")
    return Task(
        training.name, fit, EvaluateSettings.model_construct(test=test, output=output, ranking="cosine", **shared)
    )


def run_training(task: Task) -> tuple[str, Metrics | str]:
    """Train one model and test it; a user's mistake comes back as its sentence.

    A test on other datasets than last time is done again, a training never.
    """
    test = task.test
    try:
        trained = train(task.fit)
        tested = read_json(storage.join(test.output, "settings.json"))
        if tested is None or tested.get("test") != test.test:
            assess(test)
    except InputError as error:
        return task.name, str(error)
    metrics = read_json(storage.join(test.output, "metrics.json")) or {}
    return task.name, {**metrics, "spread": trained["history"][-1]["regularization"]}


def _measure(cell: Cell, metrics: dict[str, Metrics]) -> Measured:
    found = metrics.get(cell.training.name, {})
    levels = found.get(cell.test, {})
    ours = levels.get(cell.level, {})
    low, high = ours.get("macro_f1_low"), ours.get("macro_f1_high")
    chance, spread = levels.get("random", {}).get("macro_f1"), found.get("spread")
    asked = cell.training.name, cell.test, cell.level
    return Measured(ours.get("macro_f1"), low, high, cell.paper, chance, spread, *asked)
