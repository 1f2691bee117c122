"""The paper's tables from one's own datasets: train what they need, test it, lay ours beside the paper's."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mer_ray import storage
from mer_ray.cluster.session import side_by_side
from mer_ray.errors import InputError
from mer_ray.features import Store, open_stores
from mer_ray.fingerprints import canonical
from mer_ray.learning.settings import EXPERIMENTS
from mer_ray.paper.inputs import Given, read_inputs
from mer_ray.paper.measures import Choice, Difference, Measured, Outcomes, choose, compare, measure, soft_truth
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS, Differences, Table, comparisons, paper_tables, sweep
from mer_ray.paper.trials import Outcome, Refusal, Trial, make_trial, run_trial
from mer_ray.runs.directory import SETTINGS, RunDirectory
from mer_ray.runs.progress import clock
from mer_ray.settings import OPERATIONAL, READING, marked
from mer_ray.storage import as_json

SWEEP = "sweep"
_ROLES = ("targets", "lambda_", "regularizer")
_NOT_RESULTS = ("seed", "seeds", "only", "at_once", "output", "features", "settings", "preset", *DATASETS)
"""Settings that change no figure, or that are told by what the datasets and stores hold."""
_FILES = ("clusters", "label_embeddings", "label_text")
"""Settings that name files; what is in them is in the fingerprint of each model."""


@dataclass(frozen=True)
class Reproduction:
    """All that was measured: the tables' rows and cells, differences row by row, λ of each pair, and soft truth."""

    tables: dict[str, tuple[Table, dict[str, list[Measured]]]]
    differences: list[tuple[Differences, dict[str, list[Difference]]]]
    choices: list[Choice]
    ratings: dict[str, dict[str, list[float]]]
    given: dict[str, Given]
    facts: dict[str, str]

    def plain(self) -> dict[str, Any]:
        """The same for ``results.json``: tables by name, ``differences`` by row, ``sweep``, ``ratings``, ``facts``."""

        def rows(found: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
            return {row: [vars(cell) for cell in cells] for row, cells in found.items()}

        tables = {name: rows(cells) for name, (_, cells) in self.tables.items()}
        differences = {row: cells for _, found in self.differences for row, cells in rows(found).items()}
        choices = [{**vars(one), "test": one.test and vars(one.test)} for one in self.choices]
        others = {"differences": differences, SWEEP: choices, "ratings": self.ratings, "facts": self.facts}
        return {**tables, **others}


def reproduce(settings: ReproduceSettings) -> Reproduction:
    """Train, test and tabulate; what an earlier run has finished is not done again.

    Raises:
        InputError: no dataset is given, a manifest, store or finished model does not fit, the output was begun with
            other songs or settings, or the songs with features changed meanwhile.
    """
    given = read_inputs(settings)
    store = open_stores(settings.features)[0]
    with RunDirectory(settings.output, "reproduce") as run:
        _begin(run, _fingerprint(settings, store, given))
        wanted = set(settings.only)
        targets = EXPERIMENTS[settings.preset]["regularized"]["targets"]
        tables = {name: one for name, one in paper_tables(targets).items() if not wanted or name in wanted}
        swept = sweep(targets) if not wanted or SWEEP in wanted else {}
        choosing = {model for models in swept.values() for model in models.values()}
        trainings = {*(one for table in tables.values() for one in table.trainings()), *choosing}
        of_use = [one for table in tables.values() for one in table.trainings(given)]
        possible = list(dict.fromkeys([*of_use, *(one for one in choosing if set(one.datasets) <= set(given))]))
        seeds = range(settings.seed, settings.seed + settings.seeds)
        _announce(len(possible), len(trainings), len(seeds), given)
        trials = [
            make_trial(settings, one, seed, list(given), chooses=one in choosing) for seed in seeds for one in possible
        ]
        found = _run_all(trials, settings.at_once)
        if changed := [name for name, one in read_inputs(settings).items() if one.state != given[name].state]:
            raise InputError(
                f"reproduce: songs of {', '.join(changed)} got features while this ran; when they are all there, run "
                "it with another --output."
            )
        measured = {name: (one, _rows(one.rows, found, measure)) for name, one in tables.items()}
        made = Reproduction(
            measured,
            [(one, _rows(one.rows, found, compare)) for one in comparisons(tables)],
            [choose(pair, models, found) for pair, models in swept.items()],
            soft_truth(found),
            given,
            {**_facts(settings, store, given), "songs scored": _scored(found)},
        )
        storage.write_bytes(storage.join(settings.output, "results.json"), as_json(made.plain()))
    return made


def _scored(found: Outcomes) -> str:
    """How many test songs of each dataset the figures are of."""
    counts: dict[str, set[int]] = defaultdict(set)
    for one in (one for runs in found.values() for one in runs):
        for name, levels in one.tested.items():
            counts[name].add(int(levels["song_vote"]["songs"]))
    return ", ".join(f"{name} {' or '.join(f'{count:,}' for count in sorted(own))}" for name, own in counts.items())


def _rows(rows: Mapping[str, Sequence[Any]], found: Outcomes, of: Any) -> dict[str, list[Any]]:
    return {name: [of(cell, found) for cell in cells] for name, cells in rows.items()}


def _fingerprint(settings: ReproduceSettings, store: Store, given: Mapping[str, Given]) -> dict[str, Any]:
    """What every figure of the output is made of; datasets may be added, and seeds."""
    kept = {"name", "revision", "weights_sha256", "layers", "pooling"}
    encoder = {name: value for name, value in store.encoder.items() if name in kept}
    left_out = {*_NOT_RESULTS, *_FILES, *marked(settings, OPERATIONAL)}
    recipe = {name.rstrip("_"): value for name, value in settings.resolved().items() if name not in left_out}
    return canonical({**recipe, "encoder": {**encoder, "dim": store.dim}, **{k: one.state for k, one in given.items()}})


def _begin(run: RunDirectory, fingerprint: dict[str, Any]) -> None:
    """Hold what is asked against what the output was begun with, where both say it, and write down all of it."""
    before = (run.read_json(SETTINGS) or {}).get("fingerprint", {})
    whole = {**before, **fingerprint}
    run.earlier({name: whole[name] for name in before}, holds=lambda: "")
    run.write_json(SETTINGS, {"job": "reproduce", "fingerprint": whole})


def _announce(possible: int, models: int, seeds: int, given: Mapping[str, Given]) -> None:
    print(
        f"reproduce: {possible} of {models} models{f' × {seeds} seeds' * (seeds > 1)} to train or find, on "
        f"{', '.join(given)}",
        flush=True,
    )
    for name, one in given.items():
        if len(one.features) < len(one.annotations.track_ids):
            print(f"reproduce: {name}: {one.counts()}; figures are of the others", flush=True)


def _run_all(trials: list[Trial], at_once: int | None) -> dict[str, list[Outcome]]:
    """What came of every trial, by training, in the order of the seeds."""
    started = time.monotonic()
    found: dict[str, list[Outcome]] = defaultdict(list)
    refused: list[Refusal] = []
    for done, one in enumerate(side_by_side(run_trial, trials, at_once) if trials else (), 1):
        if isinstance(one, Refusal):
            refused.append(one)
        else:
            found[one.training].append(one)
        gone = time.monotonic() - started
        left = clock(gone / done * (len(trials) - done))
        name = f"{one.training} seed {one.seed}"
        print(f"reproduce: {done} of {len(trials)} models, {name}, {clock(gone)} gone, {left} left", flush=True)
    if refused:
        first = f"{refused[0].training} seed {refused[0].seed}: {refused[0].why}"
        raise InputError(f"reproduce: {len(refused)} of {len(trials)} models could not be made, first {first}")
    return {name: sorted(own, key=lambda one: one.seed) for name, own in found.items()}


def _facts(settings: ReproduceSettings, store: Store, given: Mapping[str, Given]) -> dict[str, str]:
    """What every figure rests on: encoder, songs, readings."""
    recipe = settings.resolved()
    songs = [f"{name} {given[name].counts() if name in given else 'not given'}" for name in DATASETS]
    readings = [f"{name} = {recipe[name]}" for name in marked(settings, READING) if name not in _ROLES]
    regularized = EXPERIMENTS[settings.preset]["regularized"]
    readings += [f"regularized runs: {', '.join(f'{k} = {v}' for k, v in regularized.items() if k != 'lambda_')}"]
    last = settings.seed + settings.seeds - 1
    seeds = f"seeds {settings.seed} to {last}" if settings.seeds > 1 else f"seed {settings.seed}"
    interval = "95 %, bootstrap over test songs; it does not cover the chance of training"
    return {
        "encoder": f"{store.encoder.get('name')}, D = {store.dim}, licence {store.encoder.get('licence')}",
        "songs with features": " | ".join(songs),
        "readings": ", ".join([*readings, f"regularizer = {settings.regularizer} where the table does not say"]),
        "training": f"{settings.epochs} epochs, batch {settings.batch_size}, lr {settings.lr:g}, {seeds}",
        "interval": f"{interval}, which ± shows: the deviation over the seeds"
        if settings.seeds > 1
        else f"{interval} (one seed)",
    }
