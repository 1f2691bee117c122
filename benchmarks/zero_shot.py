"""Words never trained on: the presets at the values they ship, and steps away. DEAM to PMEmo, Emotify.

python -m benchmarks.zero_shot --data data/ --output zero_shot/ [--seeds 3] [--draws 10] [--threads 2] [--only best …]

``--data`` holds ``circumplex/`` (deam.parquet, pmemo.parquet, features/), ``emotify_tagger_features/`` (a feature
store) and ``emotify.parquet`` (jobs/catalog.py --dataset emotify). Each seed draws weights, order and Emotify's
folds; each draw leaves other three labels of Emotify out. ``held out`` takes the tested words out of the thesaurus
first, as entries and as synonyms, for the axes and the centre too. Test songs are never trained on. A row takes a
minute or two at the narrow projector of ``best`` and an hour at the paper's. The table grows in ``zero_shot.md`` of
the output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import flags
from mer_ray.catalog.annotations import Annotations
from mer_ray.commandline import parse
from mer_ray.evaluation.metrics import evaluate_scores
from mer_ray.features import Store, open_stores
from mer_ray.learning.corpus import Corpus, labelled_windows
from mer_ray.learning.projector import project
from mer_ray.learning.scoring import LabelScale
from mer_ray.learning.settings import TrainSettings
from mer_ray.learning.training import build_learner, label_space, projector_shape
from mer_ray.pages import table
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import load_thesaurus

# Eight words cannot be clustered sensibly: the paper's baseline 1, each word its own target and cluster.
PAPER = ["--preset", "paper", "--targets", "labels"]
SOFTMAX = ["--loss", "contrastive", "--lambda", "0"]
BEFORE = ["--clip-norm", "0", "--stop-patience", "0", "--select-on", "windows", "--ranking", "cosine"]
ROWS = {
    "best": [],
    "best, λ = 0": ["--lambda", "0"],
    "best, softmax": SOFTMAX,
    "softmax, as in 0.2.0": [*SOFTMAX, *BEFORE],
    "best, T = 0.1": ["--temperature", "0.1"],
    "best, T = 0.2": ["--temperature", "0.2"],
    "best, twice as wide": ["--width", "192"],
    "best, twice the step": ["--affect", "1"],
    "best, half the step": ["--affect", "0.25"],
    "paper": PAPER,
    "paper, λ = 2.5": [*PAPER, "--lambda", "2.5"],
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
Row = dict[str, list[float]]
"""By column the figures, one a seed or draw."""


@dataclass(frozen=True)
class Trial:
    """One of TESTS with one seed: what is trained on, tested on, and not to be known of words."""

    test: str
    seed: int
    stores: Sequence[Store]
    train: Annotations
    tested: Annotations
    unknown: Collection[str] = ()


def main() -> None:
    """Measure the rows, and print and write the table as it grows."""
    sizes = {"seeds": 3, "draws": 10, "threads": torch.get_num_threads()}
    asked = flags(__doc__, data=None, output=None, only=list(ROWS), tests=list(TESTS), **sizes)
    torch.set_num_threads(asked.threads)
    asked.output.mkdir(parents=True, exist_ok=True)
    trials = [one for one in _trials(asked.data, asked.seeds, asked.draws) if one.test in asked.tests]
    measured: dict[str, Row] = {}
    for name in asked.only:
        measured[name] = {f"{test}: {figure}": [] for test in asked.tests for figure in TESTS[test]}
        for trial in trials:
            figures = _measure(trial, ROWS[name])
            for figure in TESTS[trial.test]:
                measured[name][f"{trial.test}: {figure}"].append(figures[figure])
        (asked.output / "zero_shot.md").write_text(_table(measured))
        print(_table(measured).splitlines()[-1], flush=True)
    print("\n" + _table(measured))


def _trials(data: Path, seeds: int, draws: int) -> Iterator[Trial]:
    circle = open_stores([str(data / "circumplex" / "features")])
    gems = open_stores([str(data / "emotify_tagger_features")])
    sources = ("circumplex/deam", "circumplex/pmemo", "emotify")
    deam, pmemo, emotify = (Annotations.read(str(data / f"{source}.parquet"), 0) for source in sources)
    windows, rows = labelled_windows(gems, emotify, emotify.where("all"), "all")
    emotify = _some(emotify, np.array(rows), windows.track_ids)
    for seed in range(seeds):
        yield Trial("PMEmo", seed, circle, deam, pmemo)
        yield Trial("held out", seed, circle, deam, pmemo, pmemo.vocabulary)
        parted = _parted(emotify, np.random.default_rng(seed).permutation(len(rows)), 5)
        yield Trial("Emotify", seed, gems, parted, parted)
    for draw in range(draws):
        generator = np.random.default_rng(100 + draw)
        out = np.sort(generator.choice(len(emotify.vocabulary), 3, replace=False))
        known = np.setdiff1d(np.arange(len(emotify.vocabulary)), out)
        parted = _parted(emotify, generator.permutation(len(rows)), 3)
        tested = replace(_only(parted, out), k=1)
        train = _only(parted, known)
        some = np.flatnonzero(train.truth.any(1))
        train = _some(train, some, [train.track_ids[at] for at in some])
        yield Trial("3 left out", draw, gems, train, tested, tested.vocabulary)


def _parted(songs: Annotations, order: NDArray[np.int64], folds: int) -> Annotations:
    """The songs with a drawn split: one part in so many for testing, a tenth of the rest for validation."""
    splits = np.full(len(order), "train", dtype="<U10")
    tests = len(order) // folds
    splits[order[:tests]] = "test"
    splits[order[tests : tests + (len(order) - tests) // 10]] = "validation"
    return replace(songs, splits=splits)


def _some(songs: Annotations, rows: NDArray[np.int64], track_ids: list[str]) -> Annotations:
    """Some songs alone."""
    uris = [songs.uris[row] for row in rows]
    return replace(songs, track_ids=track_ids, uris=uris, truth=songs.truth[rows], splits=songs.splits[rows])


def _only(songs: Annotations, labels: NDArray[np.int64]) -> Annotations:
    """Some labels alone."""
    return replace(songs, vocabulary=tuple(songs.vocabulary[at] for at in labels), truth=songs.truth[:, labels])


def _measure(trial: Trial, row: Sequence[str]) -> dict[str, float]:
    """FIGURES of songs by mean score."""
    train, test = trial.train, trial.tested
    settings = parse(TrainSettings, ["--train=-", "--features=-", "--model=-", f"--seed={trial.seed}", *row])
    space = label_space(settings, [train], load_thesaurus().without(trial.unknown))
    corpus = Corpus.load(trial.stores, [train], space, settings)
    shape = projector_shape(settings, trial.stores[0].dim, space.embeddings.shape[1])
    learner = build_learner(settings, corpus, shape)
    while not learner.finished:
        learner.run_epoch()
    windows, rows = labelled_windows(trial.stores, test, test.where("test"), "test")
    background, songs = (
        one.song_means(project(learner.best_projector(), one.features, one.counts))
        for one in (corpus.windows[0], windows)
    )
    words = space.space
    embeddings = words.embed([words.read(Word.of(word)) for word in test.vocabulary])
    cosines = LabelScale(embeddings, songs, "cosine").scores(songs)
    scores = [
        cosines,
        (cosines - cosines.mean(0)) / cosines.std(0),
        LabelScale(embeddings, songs, "standardized").scores(songs),
        LabelScale(embeddings, background, "standardized").scores(songs),
    ]
    levels = [evaluate_scores(one, test.truth[rows], test.vocabulary, test.k).metrics for one in scores]
    return dict(zip(FIGURES, [*(level["macro_f1"] for level in levels), levels[2]["roc_auc"]], strict=True))


def _table(measured: dict[str, Row]) -> str:
    columns = [*next(iter(measured.values()))]
    rows = [
        [name, *(f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in row.values())]
        for name, row in measured.items()
    ]
    return table(["", *columns], rows)


if __name__ == "__main__":
    main()
