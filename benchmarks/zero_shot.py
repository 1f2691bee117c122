"""Words never trained on, and words trained on: the presets at the values they ship, steps away, and a ridge.

python -m benchmarks.zero_shot --data data/ --output zero_shot/ [--seeds 3] [--draws 10] [--threads 2] [--only best …]

``--data`` holds ``circumplex/`` (deam.parquet, pmemo.parquet, features/), ``emotify_tagger_features/`` (a feature
store) and ``emotify.parquet`` (jobs/catalog.py --dataset emotify). Each seed draws weights, order and Emotify's
folds; each draw leaves other three labels of Emotify out. ``held out`` takes the tested words out of the thesaurus
first, as entries and as synonyms, for the axes and the centre too. Test songs are never trained on. A row takes a
minute or two at the narrow projector of ``best`` and an hour at the paper's. The table grows in ``zero_shot.md`` of
the output.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import flags
from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import drawn_split
from mer_ray.commandline import parse
from mer_ray.evaluation.metrics import evaluate_scores
from mer_ray.features import Store, Windows, open_stores
from mer_ray.learning.corpus import Corpus, labelled_windows
from mer_ray.learning.projector import project
from mer_ray.learning.scoring import LabelScale, Scores, measured_by_catalog
from mer_ray.learning.settings import TrainSettings
from mer_ray.learning.training import build_learner, label_space, projector_shape
from mer_ray.pages import table
from mer_ray.words.lists import Word
from mer_ray.words.thesaurus import load_thesaurus

# Eight words cannot be clustered sensibly: the paper's baseline 1, each word its own target and cluster.
PAPER = ["--preset", "paper", "--targets", "labels"]
SOFTMAX = ["--loss", "contrastive", "--lambda", "0"]
BEFORE = ["--clip-norm", "0", "--stop-patience", "0", "--select-on", "windows", "--ranking", "cosine"]
ROWS: dict[str, list[str] | None] = {
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
    "ridge": None,
}
"""What a row sets beside the defaults; the ridge sets nothing."""
FIGURES = ("F1, cosine", "F1, catalogue", "F1, as tagged", "ROC-AUC")
"""Of one test: macro F1 of the k best words by bare cosine, by standardized score over the tested songs, and as ``tag``
writes them (priors, yardstick and floor); ROC-AUC of that score."""
TESTS = {"PMEmo": FIGURES, "held out": FIGURES[1:], "DEAM": FIGURES, "Emotify": FIGURES, "3 left out": FIGURES[3:]}
Figures = dict[str, float]
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
        own = replace(deam, splits=np.array([drawn_split(track_id, seed, test=0.2) for track_id in deam.track_ids]))
        yield Trial("DEAM", seed, circle, own, own)
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


def _measure(trial: Trial, row: Sequence[str] | None) -> Figures:
    """FIGURES of songs; the ridge, which knows words trained on alone, has no cosines."""
    settings = parse(TrainSettings, ["--train=-", "--features=-", "--model=-", f"--seed={trial.seed}", *(row or [])])
    space = label_space(settings, [trial.train], load_thesaurus().without(trial.unknown))
    corpus = Corpus.load(trial.stores, [trial.train], space, settings)
    windows, rows = labelled_windows(trial.stores, trial.tested, trial.tested.where("test"), "test")

    def figures(scores_SL: Scores, floor: float | None = None) -> tuple[float, float]:
        tested = trial.tested
        level = evaluate_scores(scores_SL, tested.truth[rows], tested.vocabulary, tested.k, floor).metrics
        return level["macro_f1"], level["roc_auc"]

    if row is None:
        return _of_ridge(trial, corpus, windows, figures)
    learner = build_learner(settings, corpus, projector_shape(settings, trial.stores[0].dim, space.embeddings.shape[1]))
    while not learner.finished:
        learner.run_epoch()
    training, songs = (
        one.song_means(project(learner.best_projector(), one.features, one.counts))
        for one in (corpus.windows[0], windows)
    )
    words, priors = trial.tested.vocabulary, corpus.priors()
    embeddings = space.space.embed([space.space.read(Word.of(word)) for word in words])
    yardstick = songs if measured_by_catalog("auto", len(songs)) else training
    priors_l = np.array([priors.get(word, np.nan) for word in words], np.float32)
    tagged = LabelScale(embeddings, yardstick, "standardized", priors_l, training)
    bare, over_catalogue = (LabelScale(embeddings, songs, ranking) for ranking in ("cosine", "standardized"))
    as_tagged = figures(tagged.scores(songs), tagged.floor)
    found = (figures(bare.scores(songs))[0], figures(over_catalogue.scores(songs))[0], *as_tagged)
    return dict(zip(FIGURES, found, strict=True))


def _of_ridge(
    trial: Trial, corpus: Corpus, windows: Windows, figures: Callable[[Scores], tuple[float, float]]
) -> Figures:
    if trial.train.vocabulary != trial.tested.vocabulary:
        return dict.fromkeys(FIGURES, float("nan"))
    (ridge,) = corpus.ridges().values()
    f1, area = figures(ridge.scores(windows.song_means(windows.features)))
    return dict(zip(FIGURES, (float("nan"), f1, f1, area), strict=True))


def _table(measured: dict[str, Row]) -> str:
    def shown(values: list[float]) -> str:
        return "" if np.isnan(values).any() else f"{np.mean(values):.3f} ± {np.std(values):.3f}"

    columns = [*next(iter(measured.values()))]
    rows = [[name, *(shown(values) for values in row.values())] for name, row in measured.items()]
    return table(["", *columns], rows)


if __name__ == "__main__":
    main()
