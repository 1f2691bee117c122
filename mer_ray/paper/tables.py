"""The paper's experiments: which models its tables need, and what it printed in each cell (paper §5, Tables 2 to 6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mer_ray.learning.settings import Experiment

JAMENDO, CAL500, EMOTIFY = "jamendo", "cal500", "emotify"
DATASETS = (JAMENDO, CAL500, EMOTIFY)
PAIRS = ((JAMENDO, CAL500), (CAL500, EMOTIFY), (EMOTIFY, JAMENDO))
THIRDS = (EMOTIFY, JAMENDO, CAL500)
"""The dataset that each pair leaves out."""
SHORT = {JAMENDO: "MTG", CAL500: "CAL", EMOTIFY: "EMO"}
LAMBDAS = (0.0, 0.5, 1.0, 2.5, 5.0)
"""The weights of the sweep that Table 5 speaks of; the paper does not print it."""
PAPER_LAMBDAS = (2.5, 2.5, 1.0)
"""Those that Table 5 states for the pairs, and with which we fill Table 4 as well."""

LevelName = Literal["window", "song_vote"]
Targets = Literal["labels", "clusters"]


@dataclass(frozen=True)
class Training:
    """One model to train: on which datasets, towards what, how regularized."""

    datasets: tuple[str, ...]
    targets: Targets
    lambda_: float = 0.0
    regularizer: Literal["negative", "positive"] = "negative"

    @property
    def experiment(self) -> Experiment:
        """Which of the paper's three kinds of runs it is."""
        if self.lambda_:
            return "regularized"
        return "baseline1" if self.targets == "labels" else "baseline2"

    @property
    def name(self) -> str:
        """A folder name that says all of it."""
        parts = [short(self.datasets), self.targets]
        if self.lambda_:
            parts += [self.regularizer, f"{self.lambda_:g}"]
        return "-".join(parts)


@dataclass(frozen=True)
class Cell:
    """One figure of a table: a training, tested on a dataset at one level; ``paper`` is what it printed."""

    training: Training
    test: str
    level: LevelName
    paper: float | None


@dataclass(frozen=True)
class Table:
    """A table of macro F1 in the paper's layout."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Cell, ...]]
    note: str = ""

    def trainings(self, given: Collection[str] = DATASETS) -> list[Training]:
        """The models that fill a cell of it, each once, where these datasets are there to train on and to test."""
        cells = (cell for cells in self.rows.values() for cell in cells)
        return list(dict.fromkeys(one.training for one in cells if {one.test, *one.training.datasets} <= set(given)))


@dataclass(frozen=True)
class Comparison:
    """Two models on one dataset at one level, by the difference of their figures, the better one first if it works."""

    this: Cell
    other: Cell

    @property
    def paper(self) -> float | None:
        """The difference of the figures that the paper printed."""
        if self.this.paper is None or self.other.paper is None:
            return None
        return self.this.paper - self.other.paper


@dataclass(frozen=True)
class Differences:
    """A table of comparisons; each row says what is compared."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Comparison, ...]]


BASELINE_1, BASELINE_2, REGULARIZED = "baseline 1 (labels)", "baseline 2 (clusters)", "regularized"
TESTED = tuple(SHORT.values())


def short(datasets: Sequence[str]) -> str:
    """Their names in a table."""
    return "+".join(SHORT[dataset] for dataset in datasets)


TRANSFERS = tuple(f"{short(pair)} → {SHORT[third]}" for pair, third in zip(PAIRS, THIRDS, strict=True))


def paper_tables(targets: Targets = "clusters") -> dict[str, Table]:
    """Tables 2 to 6 with the paper's figures, by name.

    ``targets`` is what regularized models draw to: cluster centres in the paper, labels in the reference's code.
    """
    one = [Training((dataset,), "labels") for dataset in DATASETS]
    clusters = [Training(pair, "clusters") for pair in PAIRS]
    regularized = [Training(pair, targets, weight) for pair, weight in zip(PAIRS, PAPER_LAMBDAS, strict=True)]
    table_2 = [[0.105, 0.233, 0.346], [0.0175, 0.291, 0.368], [0.0193, 0.267, 0.421]]
    table_3 = [[0.123, 0.387, 0.330], [0.0174, 0.287, 0.500], [0.103, 0.222, 0.420]]
    table_4 = [[0.103, 0.320, 0.400], [0.0202, 0.272, 0.425], [0.105, 0.229, 0.379]]
    zero_shot = {
        BASELINE_1: left_out([Training(pair, "labels") for pair in PAIRS], [0.315, 0.0129, 0.252]),
        BASELINE_2: left_out(clusters, [0.346, 0.0175, 0.267]),
        REGULARIZED: left_out(regularized, [0.400, 0.0202, 0.229]),
        f"{REGULARIZED}, segments": left_out(regularized, [0.402, 0.0248, 0.262], "window"),
    }
    positive = Training(PAIRS[0], targets, PAPER_LAMBDAS[0], "positive")
    pairs = {
        "positive pairs": _on_each(positive, [0.0402, 0.206, 0.246], "window"),
        "negative pairs": _on_each(regularized[0], [0.0761, 0.320, 0.402], "window"),
    }
    stated = "λ is not stated there; Table 5's are used: 2.5, 2.5, 1."
    printed = "Baseline 2's printed figures equal cells of Table 2 (one training dataset), not of Table 3."
    return {
        "table2": Table("Table 2: baseline 1, one dataset, labels as targets", TESTED, _rows(one, table_2)),
        "table3": Table(
            "Table 3: baseline 2, two datasets, cluster centres as targets", TESTED, _rows(clusters, table_3)
        ),
        "table4": Table("Table 4: with alignment regularization", TESTED, _rows(regularized, table_4), stated),
        "table5": Table("Table 5: zero-shot, tested on the dataset left out", TRANSFERS, zero_shot, printed),
        "table6": Table(
            "Table 6: regularizing over positive or negative pairs, trained on MTG+CAL, segments", TESTED, pairs
        ),
    }


def sweep(targets: Targets = "clusters") -> dict[tuple[str, ...], dict[float, Training]]:
    """The models among which λ is chosen, by the pair of datasets they learn from and by λ."""
    return {pair: {weight: Training(pair, targets, weight) for weight in LAMBDAS} for pair in PAIRS}


def comparisons(tables: Mapping[str, Table]) -> list[Differences]:
    """What the paper's claims rest on, as far as these tables hold both sides."""
    found = []
    if "table5" in tables:
        rows = tables["table5"].rows
        order = ((BASELINE_2, BASELINE_1), (REGULARIZED, BASELINE_1), (REGULARIZED, BASELINE_2))
        against = {f"{this} against {other}": _against(rows[this], rows[other]) for this, other in order}
        found.append(Differences("Zero-shot: what clusters and regularization change", TRANSFERS, against))
    if {"table3", "table4"} <= tables.keys():
        with_, without = tables["table4"].rows, tables["table3"].rows
        against = {
            f"{name}, {REGULARIZED} against {BASELINE_2}": _against(with_[name], without[name]) for name in with_
        }
        found.append(Differences("Table 4 against Table 3: what regularization changes", TESTED, against))
    if "table6" in tables:
        rows = tables["table6"].rows
        against = {"negative pairs against positive": _against(rows["negative pairs"], rows["positive pairs"])}
        found.append(Differences("Table 6: which pairs to regularize over, segments", TESTED, against))
    return found


def left_out(
    trainings: Sequence[Training], paper: Sequence[float | None], level: LevelName = "song_vote"
) -> tuple[Cell, ...]:
    """For each pair's model its test on the dataset that the pair leaves out."""
    each = zip(trainings, THIRDS, paper, strict=True)
    return tuple(Cell(training, test, level, value) for training, test, value in each)


def _against(these: Sequence[Cell], others: Sequence[Cell]) -> tuple[Comparison, ...]:
    return tuple(map(Comparison, these, others))


def _on_each(training: Training, paper: Sequence[float], level: LevelName = "song_vote") -> tuple[Cell, ...]:
    return tuple(Cell(training, test, level, value) for test, value in zip(DATASETS, paper, strict=True))


def _rows(trainings: Sequence[Training], paper: Sequence[Sequence[float]]) -> dict[str, tuple[Cell, ...]]:
    each = zip(trainings, paper, strict=True)
    return {short(training.datasets): _on_each(training, values) for training, values in each}
