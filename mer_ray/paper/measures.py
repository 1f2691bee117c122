"""Our figures beside the paper's: means over seeds, intervals over songs, and the differences between models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import numpy as np

from mer_ray.evaluation.metrics import RESAMPLES
from mer_ray.evaluation.predictions import read_predictions
from mer_ray.evaluation.ratings import CORRELATION
from mer_ray.learning.scoring import Scores, precision_recall_f1
from mer_ray.paper.tables import PAIRS, THIRDS, Cell, Comparison, Training, short
from mer_ray.paper.trials import Outcome

Outcomes = Mapping[str, Sequence[Outcome]]
"""What came of each training by its name, one outcome a seed."""


@dataclass(frozen=True)
class Measured:
    """Our macro F1 for a cell, beside the paper's; None where not run.

    Attributes:
        ours: the mean over the seeds.
        deviation: over the seeds; None for a single one.
        low: with ``high`` the 95 % interval of that mean over other songs of the kind.
        seeds: the figure of each seed.
        chance: what random labels score on these songs.
        songs: how many were scored.
    """

    training: str
    test: str
    level: str
    paper: float | None
    ours: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: Sequence[float] = ()
    chance: float | None = None
    songs: int | None = None


@dataclass(frozen=True)
class Difference:
    """How much more one model scores than another on the same songs, beside the paper's difference; None if not run.

    Attributes:
        ours: the mean over the seeds; a seed of one is held against the same seed of the other.
        deviation: of that over the seeds; None for a single one.
        low: with ``high`` the 95 % interval over songs, both models on the same resamples.
        verdict: ``higher`` or ``lower`` where songs and seeds both tell the two apart, else ``not told apart``;
            one seed tells nothing of what another training would give, and gets ``one seed``.
    """

    this: str
    other: str
    test: str
    level: str
    paper: float | None
    ours: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    songs: int | None = None
    verdict: str = "not run"


@dataclass(frozen=True)
class Choice:
    """λ of one pair of datasets, chosen on their validation songs.

    Attributes:
        pair: the datasets it learns from.
        validation: by λ, the mean over the seeds of the song-level macro F1, meaned over the two datasets.
        deviation: of it over the seeds; None for a single one.
        regularization: by λ, what the regularizer measured in the last epoch, mean over the seeds.
        chosen: the λ of the highest validation figure, the smaller of equals; None where not run.
        test: zero-shot on the dataset left out, at the chosen λ; no other λ was looked at.
    """

    pair: str
    validation: dict[float, float]
    deviation: dict[float, float | None]
    regularization: dict[float, float]
    chosen: float | None
    test: Measured | None


def measure(cell: Cell, found: Outcomes) -> Measured:
    """Our figure for a cell, as far as its model was trained and its dataset given."""
    runs = [one for one in found.get(cell.training.name, ()) if cell.test in one.tested]
    nothing = Measured(cell.training.name, cell.test, cell.level, cell.paper)
    if not runs:
        return nothing
    levels = [one.tested[cell.test] for one in runs]
    seeds = [float(own[cell.level]["macro_f1"]) for own in levels]
    return Measured(
        **vars(nothing)
        | _spread(seeds, [_resampled(one.folder, cell.test, cell.level) for one in runs])
        | {
            "seeds": seeds,
            "chance": float(levels[0]["random"]["macro_f1"]),
            "songs": int(levels[0][cell.level]["songs"]),
        }
    )


def compare(asked: Comparison, found: Outcomes) -> Difference:
    """The difference between two models on the songs that both were scored on, seed by seed."""
    this, other = asked.this, asked.other
    nothing = Difference(this.training.name, other.training.name, this.test, this.level, asked.paper)
    by_seed = [{one.seed: one for one in found.get(cell.training.name, ())} for cell in (this, other)]
    runs = [(by_seed[0][seed], by_seed[1][seed]) for seed in sorted(by_seed[0].keys() & by_seed[1].keys())]
    if not runs or any(this.test not in one.tested for pair in runs for one in pair):
        return nothing
    common = frozenset.intersection(*(_songs(one.folder, this.test) for pair in runs for one in pair))
    asked_of = this.test, this.level, common
    plain = [_macro_f1(a.folder, *asked_of) - _macro_f1(b.folder, *asked_of) for a, b in runs]
    resampled = [_resampled(a.folder, *asked_of) - _resampled(b.folder, *asked_of) for a, b in runs]
    found_apart = Difference(**vars(nothing) | _spread(plain, resampled) | {"songs": len(common)})
    return replace(found_apart, verdict=_verdict(found_apart, len(runs)))


def choose(pair: Sequence[str], models: Mapping[float, Training], found: Outcomes) -> Choice:
    """λ by validation songs, and what the model at that λ does on the dataset left out."""
    runs = {weight: found[model.name] for weight, model in models.items() if model.name in found}
    figures = {weight: [_validated(one, pair) for one in own] for weight, own in runs.items()}
    means = {weight: fmean(own) for weight, own in figures.items()}
    chosen = max(means, key=lambda weight: (means[weight], -weight)) if means else None
    third = THIRDS[PAIRS.index(tuple(pair))]
    at = None if chosen is None else Cell(models[chosen], third, "song_vote", None)
    return Choice(
        pair=short(pair),
        validation=means,
        deviation={weight: stdev(own) if len(own) > 1 else None for weight, own in figures.items()},
        regularization={weight: fmean(one.regularization for one in own) for weight, own in runs.items()},
        chosen=chosen,
        test=None if at is None else measure(at, found),
    )


def soft_truth(found: Outcomes) -> dict[str, dict[str, list[float]]]:
    """By training and rated dataset, each seed's rank correlation of song scores with listeners' ratings."""
    ratings: dict[str, dict[str, list[float]]] = {}
    for name, runs in found.items():
        for dataset in runs[0].tested:
            each = [one.tested[dataset]["song_mean"].get(CORRELATION) for one in runs]
            if known := [float(value) for value in each if value is not None]:
                ratings.setdefault(name, {})[dataset] = known
    return ratings


def _validated(outcome: Outcome, names: Sequence[str]) -> float:
    """The song-level macro F1 on validation songs, meaned over the datasets trained on."""
    metrics = outcome.validated or {}
    return fmean(float(metrics[name]["song_vote"]["macro_f1"]) for name in names)


def _spread(seeds: Sequence[float], resampled: Sequence[Scores]) -> dict[str, Any]:
    """The mean over seeds, its deviation over them, and its interval over songs: what seeds gave, and resamples [R]."""
    low, high = np.percentile(np.mean(resampled, axis=0), [2.5, 97.5])
    deviation = stdev(seeds) if len(seeds) > 1 else None
    return {"ours": fmean(seeds), "deviation": deviation, "low": float(low), "high": float(high)}


def _verdict(one: Difference, seeds: int) -> str:
    if one.ours is None or one.low is None or one.high is None or one.deviation is None:
        return "one seed"
    apart = (one.low > 0 or one.high < 0) and abs(one.ours) > 2 * one.deviation / seeds**0.5
    return ("higher" if one.ours > 0 else "lower") if apart else "not told apart"


@lru_cache(maxsize=4096)
def _resampled(folder: str, dataset: str, level: str, only: frozenset[str] | None = None) -> Scores:
    """[RESAMPLES] macro F1; as wide as the evaluation's own interval, which resamples by the same seed."""
    return read_predictions(folder, dataset, level, only).resampled(RESAMPLES, 0)


def _macro_f1(folder: str, dataset: str, level: str, only: frozenset[str]) -> float:
    found = read_predictions(folder, dataset, level, only)
    return float(precision_recall_f1(found.predicted_NL, found.truth_NL)[2].mean())


def _songs(folder: str, dataset: str) -> frozenset[str]:
    return frozenset(read_predictions(folder, dataset, "song_vote").track_ids)
