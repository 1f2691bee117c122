"""What a word must score to earn its place on a song, and how right tags are expected to be: DEAM, then PMEmo.

python -m benchmarks.floor --data data/ [--seeds 3]

``--data`` holds ``circumplex/`` (deam.parquet, pmemo.parquet, features/). DEAM is split 70/10/20 by song; a narrow
projector is trained on it (a minute a seed), its own test songs are tagged with words of known truth, PMEmo's with its
own words, never seen. ``FLOOR`` and ``MARGIN`` of mer_ray/learning/scoring.py were chosen by these tables.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from mer_ray.features import open_stores
from mer_ray.learning.corpus import Corpus, labelled_windows
from mer_ray.learning.projector import Projector, project
from mer_ray.learning.scoring import FLOOR, LabelScale, precision_recall_f1, top_k_mask
from mer_ray.learning.settings import Ranking, TrainSettings
from mer_ray.learning.training import build_learner, label_space, projector_shape
from mer_ray.pages import table
from mer_ray.tagging.calibration import Calibration, Reliability, expected_and_found
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import Word, read_labels

FLOORS = (-100.0, 0.0, 0.5, 0.75, 1.0, 1.25)
NARROW = ["--width=96", "--heads=8", "--epochs=15", "--lr=1e-3"]


@dataclass(frozen=True)
class Songs:
    """Some songs' vectors and truth, and their dataset's words."""

    vectors_SE: NDArray[np.float32]
    truth_SL: NDArray[np.bool_]
    labels_LE: NDArray[np.float32]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One training: its training songs, how common its words are, and the songs to tag."""

    training_SE: NDArray[np.float32]
    priors_L: NDArray[np.float32]
    held_out: Songs
    own: Songs
    strange: Songs
    many_LE: NDArray[np.float32]

    def scale(self, songs: Songs, *, known: bool, ranking: Ranking = "standardized") -> LabelScale:
        """The songs as their own yardstick, as where a catalogue is tagged."""
        priors_L = self.priors_L if known else None
        return LabelScale(songs.labels_LE, songs.vectors_SE, ranking, priors_L, self.training_SE)


def main() -> None:
    """Print the tables."""
    asked = flags(__doc__, data=Path("data"), seeds=3)
    torch.set_num_threads(1)
    trials = list(_trials(asked.data / "circumplex", asked.seeds))
    print("DEAM's own test songs, words of known truth, two a song: F1, ROC-AUC\n")
    rows = [[name, *_mean([_in_domain(trial, name) for trial in trials])] for name in IN_DOMAIN]
    print(table(["scored", "F1", "ROC-AUC"], rows))
    print("PMEmo, words never seen: F1 of lists of one word; of two words a song; songs with 0, 1, 2, 3 of 8, of 30\n")
    rows = [[f"{floor:g}", *_mean([_never_seen(trial, floor) for trial in trials])] for floor in FLOORS]
    print(
        table(
            ["floor", "one word", "two words", *[f"{n} of 8" for n in range(4)], *[f"{n} of 30" for n in range(4)]],
            rows,
        )
    )
    for trial in trials:
        print(f"DEAM: {_expected(trial, trial.own)}\nPMEmo: {_expected(trial, trial.strange)}")


IN_DOMAIN = ("cosine", "standardized, no priors", "song_mean", "song")


def _in_domain(trial: Trial, name: str) -> list[float]:
    ranking: Ranking = "cosine" if name == "cosine" else "standardized"
    scale = trial.scale(trial.own, known=name.startswith("song"), ranking=ranking)
    floor = FLOOR if name == "song" else None
    own = trial.own
    level = evaluate_scores(scale.scores(own.vectors_SE), own.truth_SL, own.words, 2, floor).metrics
    return [level["macro_f1"], level["roc_auc"]]


def _never_seen(trial: Trial, floor: float) -> list[float]:
    songs = trial.strange
    scores_SL = trial.scale(songs, known=False).scores(songs.vectors_SE)
    alone, two = (precision_recall_f1(top_k_mask(scores_SL, k, floor), songs.truth_SL)[2].mean() for k in (8, 2))
    many = replace(songs, labels_LE=np.vstack([songs.labels_LE, trial.many_LE]))
    many_scores = trial.scale(many, known=False).scores(songs.vectors_SE)
    shares = [_shares(scores, floor) for scores in (scores_SL, many_scores)]
    return [alone, two, *shares[0], *shares[1]]


def _shares(scores_SL: NDArray[np.float32], floor: float) -> list[float]:
    counts_S = top_k_mask(scores_SL, 3, floor).sum(1)
    return [float((counts_S == count).mean()) for count in range(4)]


def _expected(trial: Trial, songs: Songs) -> str:
    """What a calibration on DEAM's validation songs expects of three tags a song; PMEmo's words stand for DEAM's."""
    known, held = replace(songs, labels_LE=trial.own.labels_LE), trial.held_out
    measuring = trial.scale(held, known=True)
    percentiles_SL, tags_SL = measuring.percentiles(held.vectors_SE), _tags(measuring, held)
    measured = Reliability.measure(percentiles_SL, held.truth_SL)
    given = Reliability.measure(percentiles_SL[tags_SL], held.truth_SL[tags_SL])
    variance, words = float(held.vectors_SE.var(0).sum()), frozenset(trial.own.words)
    mean_E = held.vectors_SE.mean(0)
    calibration = Calibration(measured, given, 3, words, len(held.vectors_SE), mean_E, variance, frozenset())
    scale = trial.scale(known, known=True)
    given_SL = _tags(scale, known)
    calibrated = calibration.of(known.vectors_SE)
    promised = calibrated.expected(trial.own.words, scale.percentiles(known.vectors_SE), 3)
    sure_SL = given_SL & (promised.share >= 0.8)
    all_tags, sure = (expected_and_found(promised, given, known.truth_SL) for given in (given_SL, sure_SL))
    return f"strange {calibrated.strange:.2f}; {all_tags}; of these expected at 0.8 and more: {sure}"


def _tags(scale: LabelScale, songs: Songs) -> NDArray[np.bool_]:
    return top_k_mask(scale.scores(songs.vectors_SE), 3, scale.floor)


def _trials(data: Path, seeds: int) -> Iterator[Trial]:
    stores = open_stores([str(data / "features")])
    deam, pmemo = (Annotations.read(str(data / f"{name}.parquet"), 0) for name in ("deam", "pmemo"))
    for seed in range(seeds):
        splits = [drawn_split(track_id, seed, test=0.2) for track_id in deam.track_ids]
        train = replace(deam, splits=np.array(splits))
        needed = ["--train=-", "--features=-", "--model=-", f"--seed={seed}", *NARROW]
        settings = parse(TrainSettings, needed)
        space = label_space(settings, [train])
        corpus = Corpus.load(stores, [train], space, settings)
        learner = build_learner(settings, corpus, projector_shape(settings, stores[0].dim, space.embeddings.shape[1]))
        while not learner.finished:
            learner.run_epoch()
        projector = learner.best_projector()

        def songs(
            dataset: Annotations, split: str, projector: Projector = projector, space: LabelSpace = space
        ) -> Songs:
            windows, rows = labelled_windows(stores, dataset, dataset.where(split), split)
            vectors_SE = windows.song_means(project(projector, windows.features, windows.counts))
            labels_LE = space.space.embed([space.space.read(Word.of(word)) for word in dataset.vocabulary])
            return Songs(vectors_SE, dataset.truth[rows], labels_LE, dataset.vocabulary)

        priors = corpus.priors()
        # In the order of the circle, PMEmo's words and DEAM's say the same.
        strange = _in_order(songs(pmemo, "test"), CIRCLE["pmemo"], CIRCLE["deam"], deam.vocabulary)
        many = space.space.embed([space.space.read(word) for word in read_labels("jamendo")[::2][:22]])
        priors_L = np.array([priors[word] for word in deam.vocabulary], np.float32)
        trained = songs(train, "train").vectors_SE
        yield Trial(trained, priors_L, songs(train, "validation"), songs(train, "test"), strange, many)


CIRCLE = {
    "deam": ["pleased", "joyful", "excited", "angry", "miserable", "gloomy", "sleepy", "peaceful"],
    "pmemo": ["happy", "cheerful", "energetic", "aggressive", "unhappy", "melancholic", "tired", "calm"],
}


def _in_order(songs: Songs, own: list[str], others: list[str], order: tuple[str, ...]) -> Songs:
    """The songs with their words in the order of the words of another dataset that mean the same."""
    columns = [songs.words.index(own[others.index(word)]) for word in order]
    words = tuple(songs.words[column] for column in columns)
    return Songs(songs.vectors_SE, songs.truth_SL[:, columns], songs.labels_LE[columns], words)


def _mean(rows: list[list[float]]) -> list[str]:
    return [f"{value:.3f}" for value in np.mean(rows, axis=0)]


if __name__ == "__main__":
    main()
