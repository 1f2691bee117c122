"""Words never trained on, one step at a time from the paper's recipe to the best: DEAM to PMEmo, and Emotify.

python -m benchmarks.zero_shot --data data/ --output zero_shot/ [--seeds 3] [--draws 10] [--only paper …]

``--data`` holds ``circumplex/`` (deam.parquet, pmemo.parquet, features/), ``emotify_tagger_features/`` (a feature
store) and ``emotify.parquet`` (jobs/catalog.py --dataset emotify). Each seed draws weights, order and Emotify's
folds; each draw leaves other three labels of Emotify out. ``held out`` takes the tested words out of the thesaurus
first, as entries and as synonyms, for the axes and the centre too. Test songs are never trained on. A row takes a
minute with the projector of the defaults, and half an hour with the paper's (``--hidden 768 --epochs 30 --lr 2e-4``).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mer_ray.catalog.annotations import Annotations
from mer_ray.commandline import parse
from mer_ray.evaluation.metrics import evaluate_scores
from mer_ray.features import Store, open_stores
from mer_ray.learning.corpus import Corpus, labelled_windows
from mer_ray.learning.projector import ProjectorShape, project
from mer_ray.learning.settings import TrainSettings
from mer_ray.learning.training import build_learner, word_space
from mer_ray.pages import table
from mer_ray.tagging.ranking import LabelScale
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import load_thesaurus

# Eight words cannot be clustered sensibly: the paper's baseline 1, each word its own target and cluster.
PAPER, BEST = ["--preset", "paper", "--targets", "labels"], ["--preset", "best"]
SOFTMAX = [*PAPER, "--loss", "contrastive"]
WORDS = [*SOFTMAX, "--label-text", "thesaurus"]
ROWS = {
    "paper": PAPER,
    "paper, λ = 2.5": [*PAPER, "--lambda", "2.5"],
    "softmax over the labels": SOFTMAX,
    "+ thesaurus": WORDS,
    "+ centre": [*WORDS, "--center-labels"],
    "+ axes of affect": [*WORDS, "--center-labels", "--affect", "0.5"],
    "best (+ T = 0.2)": BEST,
    "best, twice the step": [*BEST, "--affect", "1"],
    "best, half the step": [*BEST, "--affect", "0.25"],
    "best, λ = 1": [*BEST, "--lambda", "1"],
    "best, triplets": [*BEST, "--loss", "triplet"],
}
FIGURES = ("F1, cosine", "F1, songs not centred", "F1, catalogue", "F1, model", "ROC-AUC")
"""Of one test: macro F1 by bare cosine; standardized over the tested songs, from the origin and from their centre;
standardized over the training songs; ROC-AUC of the third."""
TESTS = {
    "PMEmo": FIGURES,
    "held out": (FIGURES[2], FIGURES[4]),
    "Emotify": (FIGURES[0], FIGURES[2], FIGURES[4]),
    "3 left out": (FIGURES[4],),
}
COLUMNS = [f"{test}: {figure}" for test, figures in TESTS.items() for figure in figures]
SHOWN = ("PMEmo: F1, catalogue", "PMEmo: ROC-AUC", "held out: ROC-AUC", "Emotify: F1, catalogue", "3 left out: ROC-AUC")


class Bench:
    """The data and the size of the run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        data = Path(arguments.data)
        self.circle = open_stores([str(data / "circumplex" / "features")])
        self.gems = open_stores([str(data / "emotify_tagger_features")])
        self.deam = _songs(data / "circumplex" / "deam.parquet")
        self.pmemo = _songs(data / "circumplex" / "pmemo.parquet")
        self.emotify = _with_features(_songs(data / "emotify.parquet"), self.gems)
        self.arguments = arguments

    def row(self, flags: Sequence[str]) -> dict[str, list[float]]:
        """Every column's figures, one a seed or draw."""
        found: dict[str, list[float]] = {name: [] for name in COLUMNS}

        def note(test: str, figures: dict[str, float]) -> None:
            for name in TESTS[test]:
                found[f"{test}: {name}"].append(figures[name])

        for seed in range(self.arguments.seeds):
            note("PMEmo", self._across(flags, seed, held_out=False))
            note("held out", self._across(flags, seed, held_out=True))
            note("Emotify", self._within(flags, seed))
        for draw in range(self.arguments.draws):
            note("3 left out", self._left_out(flags, draw))
        return found

    def _across(self, flags: Sequence[str], seed: int, held_out: bool) -> dict[str, float]:
        words = self.pmemo.vocabulary if held_out else ()
        return self._measure(flags, seed, self.circle, self.deam, self.pmemo, words)

    def _within(self, flags: Sequence[str], seed: int) -> dict[str, float]:
        songs = np.random.default_rng(seed).permutation(len(self.emotify.track_ids))
        return self._measure(flags, seed, self.gems, *_parted(self.emotify, songs, 5), ())

    def _left_out(self, flags: Sequence[str], draw: int) -> dict[str, float]:
        generator = np.random.default_rng(100 + draw)
        out = np.sort(generator.choice(len(self.emotify.vocabulary), 3, replace=False))
        known = np.setdiff1d(np.arange(len(self.emotify.vocabulary)), out)
        train, test = _parted(self.emotify, generator.permutation(len(self.emotify.track_ids)), 3)
        words = [self.emotify.vocabulary[at] for at in out]
        return self._measure(flags, draw, self.gems, _only(train, known), _only(test, out, k=1), words)

    def _measure(
        self,
        flags: Sequence[str],
        seed: int,
        stores: Sequence[Store],
        train: Annotations,
        test: Annotations,
        unknown: Collection[str],
    ) -> dict[str, float]:
        """FIGURES of songs by mean score."""
        needed = ["--train", "-", "--features", "-", "--model", "-", "--epochs", str(self.arguments.epochs)]
        settings = parse(TrainSettings, [*needed, "--seed", str(seed), "--lr", str(self.arguments.lr), *flags])
        words = word_space(settings, load_thesaurus().without(unknown))
        space = LabelSpace.build([train.vocabulary], words, "none")
        corpus = Corpus.load(stores, [train], space, settings)
        shape = ProjectorShape(stores[0].dim, space.embeddings.shape[1], hidden_dim=self.arguments.hidden)
        learner = build_learner(settings, corpus, shape)
        for _ in range(settings.epochs):
            learner.run_epoch()
        projector = learner.best_projector()
        known = corpus.windows[0]
        background = known.song_means(project(projector, known.features, known.counts))
        windows, rows = labelled_windows(stores, test, test.where("test"), "test")
        songs = windows.song_means(project(projector, windows.features, windows.counts))
        embeddings = space.space.embed([space.space.read(Word.of(word)) for word in test.vocabulary])
        cosines = LabelScale(embeddings, songs, "cosine").scores(songs)
        scores = [
            cosines,
            (cosines - cosines.mean(0)) / cosines.std(0),
            LabelScale(embeddings, songs, "standardized").scores(songs),
            LabelScale(embeddings, background, "standardized").scores(songs),
        ]
        levels = [evaluate_scores(one, test.truth[rows], test.vocabulary, test.k).metrics for one in scores]
        figures = [*(level["macro_f1"] for level in levels), levels[2]["roc_auc"]]
        return dict(zip(FIGURES, figures, strict=True))


def main() -> None:
    """Measure the rows, print the table as it grows, and write it with its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--hidden", type=int, default=96, help="width of the projector; 768 is the paper's")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate; 2e-4 is the paper's")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench, output = Bench(arguments), Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    measured: dict[str, dict[str, list[float]]] = {}
    for name in arguments.only:
        measured[name] = bench.row(ROWS[name])
        (output / "zero_shot.md").write_text(_table(measured))
        print(table([name, *COLUMNS], [_cells(name, measured[name])]).splitlines()[-1], flush=True)
    print("\n" + _table(measured))
    _figure(measured, output / "zero_shot.png")


def _songs(path: Path) -> Annotations:
    return Annotations.read(str(path), 0)


def _with_features(songs: Annotations, stores: Sequence[Store]) -> Annotations:
    windows, rows = labelled_windows(stores, songs, songs.where("all"), "all")
    return dataclasses.replace(
        songs, track_ids=windows.track_ids, truth=songs.truth[rows], splits=songs.splits[np.array(rows)]
    )


def _parted(songs: Annotations, order: NDArray[np.int64], folds: int) -> tuple[Annotations, Annotations]:
    """The same songs with a drawn split: one part in so many for testing, a tenth of the rest for validation."""
    splits = np.full(len(order), "train", dtype="<U10")
    tests = len(order) // folds
    splits[order[:tests]] = "test"
    splits[order[tests : tests + (len(order) - tests) // 10]] = "validation"
    parted = dataclasses.replace(songs, splits=splits)
    return parted, parted


def _only(songs: Annotations, labels: NDArray[np.int64], k: int | None = None) -> Annotations:
    """Some labels alone; songs that have none of them are left out."""
    truth = songs.truth[:, labels]
    keep = np.asarray(truth.any(1) if k is None else np.ones(len(truth), bool))
    return dataclasses.replace(
        songs,
        vocabulary=tuple(songs.vocabulary[at] for at in labels),
        track_ids=[track_id for track_id, kept in zip(songs.track_ids, keep, strict=True) if kept],
        truth=truth[keep],
        splits=songs.splits[keep],
        k=k or songs.k,
    )


def _cells(name: str, row: dict[str, list[float]]) -> list[str]:
    return [name, *(f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in row.values())]


def _table(measured: dict[str, dict[str, list[float]]]) -> str:
    return table(["", *COLUMNS], [_cells(name, row) for name, row in measured.items()])


def _figure(measured: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel a column, a bar a step, its spread over seeds or draws."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 1.2 + 0.35 * len(measured)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, column in zip(panels, SHOWN, strict=True):
        values = [row[column] for row in measured.values()]
        axes.barh(range(len(values)), [np.mean(one) for one in values], xerr=[np.std(one) for one in values])
        axes.set(xlabel=column, xlim=(0, 1), yticks=range(len(values)), yticklabels=list(measured))
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
