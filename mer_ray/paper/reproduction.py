"""The paper's tables from one's own datasets: train what they need, test it, lay ours beside the paper's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
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
    manifests = {name: uri for name in DATASETS if (uri := getattr(settings, name)) is not None}
    _check(settings, manifests)
    tables = [table for table in paper_tables() if not settings.only or table.name in settings.only]
    trainings = list(dict.fromkeys(one for table in tables for one in table.trainings()))
    possible = [one for one in trainings if set(one.datasets) <= set(manifests)]
    print(
        f"reproduce: {len(possible)} of {len(trainings)} models to train or find, on {', '.join(manifests)}", flush=True
    )
    metrics = _run_all(settings, possible, manifests)
    results = {
        table.name: {row: [_measure(cell, metrics) for cell in cells] for row, cells in table.rows.items()}
        for table in tables
    }
    plain = {
        name: {row: [vars(cell) for cell in cells] for row, cells in rows.items()} for name, rows in results.items()
    }
    storage.write_bytes(storage.join(settings.output, "results.json"), as_json({**plain, "facts": facts(settings)}))
    return tables, results


def facts(settings: ReproduceSettings) -> dict[str, str]:
    """What every figure rests on: encoder, songs, readings."""
    store = open_stores(settings.features)[0]
    recipe = settings.resolved()
    songs = []
    for name in DATASETS:
        uri = getattr(settings, name)
        if uri is None:
            songs.append(f"{name} not given")
            continue
        one = Annotations.read(uri, settings.seed)
        counts = (f"{len(one.where(split)):,} {split}" for split in ("train", "validation", "test"))
        songs.append(f"{name} {', '.join(counts)}")
    readings = [f"{name} = {recipe[name]}" for name in marked(settings, READING) if name not in _ROLES]
    return {
        "encoder": f"{store.encoder.get('name')}, D = {store.dim}, licence {store.encoder.get('licence')}",
        "songs": "; ".join(songs),
        "readings": ", ".join([*readings, f"regularizer = {settings.regularizer} where the table does not say"]),
        "training": f"{settings.epochs} epochs, batch {settings.batch_size}, lr {settings.lr:g}, seed {settings.seed}",
        "interval": "95 %, bootstrap over test songs; it does not cover the chance of training (one seed)",
    }


def _check(settings: ReproduceSettings, manifests: dict[str, str]) -> None:
    if not manifests:
        raise InputError("reproduce: no dataset is given; give --jamendo, --cal500 or --emotify a manifest.")
    open_stores(settings.features)
    for name, uri in manifests.items():
        found = Annotations.read(uri, settings.seed).dataset
        if found != name:
            raise InputError(f"--{name} {uri}: a manifest of {found}; make it with jobs/catalog.py --dataset {name}.")


def _run_all(
    settings: ReproduceSettings, trainings: Sequence[Training], manifests: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Metrics of every training on every given dataset, by training."""
    started = time.monotonic()
    tasks = [_task(settings, training, manifests) for training in trainings]
    metrics, refused = {}, []
    for done, (name, found, problem) in enumerate(_outcomes(tasks, settings.at_once), 1):
        if problem is not None:
            refused.append(f"{name}: {problem}")
        else:
            metrics[name] = found
        gone = time.monotonic() - started
        left = clock(gone / done * (len(tasks) - done))
        print(f"reproduce: {done} of {len(tasks)} models, {name}, {clock(gone)} gone, {left} left", flush=True)
    if refused:
        raise InputError(f"reproduce: {len(refused)} of {len(tasks)} models could not be made, first {refused[0]}")
    return metrics


def _outcomes(tasks: list[Task], at_once: int | None) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    yield from side_by_side(run_training, tasks, at_once) if tasks else ()


def _task(settings: ReproduceSettings, training: Training, manifests: dict[str, str]) -> Task:
    folder = storage.join(settings.output, "runs", training.name)
    fit = settings.training(
        regularizer="positive" if training.regularizer == "positive" else settings.regularizer,
        train=[manifests[name] for name in training.datasets],
        features=settings.features,
        model=storage.join(folder, "model"),
        targets=training.targets,
        lambda_=training.lambda_,
        workers=0,
        gpus=0,
    )
    test = EvaluateSettings.model_construct(
        **{**EvaluateSettings.model_construct().model_dump(), "ranking": "cosine"},
        model=storage.join(folder, "model"),
        test=list(manifests.values()),
        features=settings.features,
        output=storage.join(folder, "evaluation"),
    )
    return Task(training.name, fit, test)


def run_training(task: Task) -> tuple[str, dict[str, Any], str | None]:
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
        return task.name, {}, str(error)
    metrics = read_json(storage.join(test.output, "metrics.json")) or {}
    return task.name, {**metrics, "spread": trained["history"][-1]["regularization"]}, None


def _measure(cell: Cell, metrics: dict[str, dict[str, Any]]) -> Measured:
    levels = metrics.get(cell.training.name, {}).get(cell.test, {})
    ours, chance = levels.get(cell.level, {}), levels.get("random", {})
    return Measured(
        ours=ours.get("macro_f1"),
        low=ours.get("macro_f1_low"),
        high=ours.get("macro_f1_high"),
        paper=cell.paper,
        chance=chance.get("macro_f1"),
        spread=metrics.get(cell.training.name, {}).get("spread"),
        training=cell.training.name,
        test=cell.test,
        level=cell.level,
    )
