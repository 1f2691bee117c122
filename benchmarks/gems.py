"""The model that ships, ``gems``: made from Emotify's songs and their listeners' votes, and measured before it is kept.

python -m benchmarks.gems --emotify DIR --features URI [--output mer_ray/models/gems]

``make gems EMOTIFY=DIR`` extracts the features first. DIR holds ``data.csv`` and ``emotifymusic/``. Of each genre 20
songs are never learned from. What is left out further, and of what, stands in the model's card beside each figure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.gems_card import card
from benchmarks.measure import flags
from mer_ray import __version__, models, storage
from mer_ray.catalog.datasets.emotify import K, read
from mer_ray.evaluation.metrics import Level, evaluate_scores
from mer_ray.features import Store, Windows, read_windows, song_means
from mer_ray.fingerprints import weights_sha256
from mer_ray.learning.linear import linear_projector
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import LabelScale, measured_by_catalog
from mer_ray.learning.seen import SEEN
from mer_ray.settings import Part
from mer_ray.words.embedding import label_model
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import MOODS, Word
from mer_ray.words.thesaurus import load_thesaurus
from mer_ray.words.wordspace import WordSpace

NAME = "gems"
AFFECT = 0.5
"""As the preset ``best`` has it."""
READINGS = {
    **{"label_text": "thesaurus", "center_labels": True, "affect": AFFECT},
    **{"loss": "ridge", "ranking": "standardized"},
}
TEST = {
    "classical": (3, 5, 8, 22, 30, 31, 34, 39, 47, 50, 52, 56, 64, 65, 68, 73, 79, 81, 86, 92),
    "rock": (3, 11, 17, 18, 28, 42, 44, 47, 48, 53, 54, 55, 58, 59, 73, 74, 77, 90, 92, 94),
    "electronic": (18, 29, 36, 37, 44, 48, 51, 56, 61, 64, 67, 71, 75, 77, 78, 82, 89, 91, 97, 99),
    "pop": (8, 13, 24, 28, 34, 39, 45, 51, 52, 58, 59, 69, 71, 73, 78, 86, 87, 97, 98, 99),
}
"""Songs of each genre, as their audio is numbered, that are never learned from."""
SEEN_SCHEMA = pa.schema([(name, pa.string()) for name in ("split", "dataset", "track_id", "uri")])
SUMS = "SHA256SUMS"
FOLDS = 5
BY_WORD = ("f1", "roc_auc", "best_tenth")
DRAWS = 20
"""Of three words to be left out."""
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Songs:
    """The S songs that have features, with what their listeners said.

    ``ratings_SL`` is the share of a song's listeners who chose each of L words, ``truth_SL`` whether it is among the
    three most chosen, ``tested_S`` whether the song is never learned from.
    """

    windows: Windows
    means_SD: NDArray[np.float32]
    genres_S: NDArray[np.str_]
    tested_S: NDArray[np.bool_]
    ratings_SL: NDArray[np.float64]
    truth_SL: NDArray[np.bool_]
    words: tuple[str, ...]

    @classmethod
    def read(cls, emotify: str, store: Store) -> Songs:
        """Songs of a folder of Emotify and of a store."""
        songs = {song.track_id: song for song in read(emotify, Part())}
        windows = read_windows([store], list(songs))
        there = [songs[track_id] for track_id in windows.track_ids]
        words = tuple(sorted({label for song in there for label in song.labels}))
        places = [song.path.removesuffix(".mp3").split("/")[-2:] for song in there]
        return cls(
            windows,
            windows.song_means(windows.features),
            np.array([genre for genre, _ in places]),
            np.array([int(number) in TEST[genre] for genre, number in places]),
            np.array([[(song.ratings or {})[word] for word in words] for song in there]),
            np.array([[word in song.labels for word in words] for song in there]),
            words,
        )

    def windows_of(self, rows: Rows) -> tuple[NDArray[np.float16], Rows]:
        """Windows of some songs side by side, and how many each has."""
        ends = np.cumsum(self.windows.counts)
        starts = ends - self.windows.counts
        picked = [self.windows.features[starts[row] : ends[row]] for row in rows]
        return np.concatenate(picked), self.windows.counts[rows]


def main() -> None:
    """Make the model, measure it, and write both."""
    shipped = Path(models.__file__).parent / NAME
    asked = flags(__doc__, emotify=Path("emotify"), features="features", output=shipped)
    store = Store.open(asked.features)
    songs = Songs.read(str(asked.emotify), store)
    space = best_space()
    model = fit(songs, np.flatnonzero(~songs.tested_S), songs.words, space, store)
    measured = measure(songs, space, store)
    write(str(asked.output), model, songs, measured)
    print(card(model, measured))


def best_space() -> WordSpace:
    """Words as the preset ``best`` reads them."""
    lexicon = load_thesaurus()
    return WordSpace(thesaurus=lexicon).measured(lexicon, center=True, affect=AFFECT)


def fit(songs: Songs, rows: Rows, words: Sequence[str], space: WordSpace, store: Store) -> Model:
    """A model of some songs and some of their words."""
    labels = LabelSpace.build([words], space, "none")
    columns = [songs.words.index(word.label) for word in labels.words]
    projector = linear_projector(songs.means_SD[rows], songs.ratings_SL[rows][:, columns], labels.embeddings)
    shares = songs.truth_SL[rows][:, columns].mean(axis=0)
    config = {
        "version": __version__,
        "projector": asdict(projector.shape),
        "encoder": {**store.encoder, "dim": store.dim},
        "label_model": {"name": space.model, "weights_sha256": weights_sha256(label_model(space.model))},
        "readings": READINGS,
        "settings": READINGS,
        "datasets": ["emotify"],
    }
    known = {
        **labels.describe(),
        "datasets": {"emotify": list(words)},
        "priors": {word.label: float(share) for word, share in zip(labels.words, shares, strict=True)},
    }
    model = Model(projector, config, known, labels.embeddings[:0], space)
    model.background = song_vectors(model, songs, rows)
    return model


def song_vectors(model: Model, songs: Songs, rows: Rows) -> NDArray[np.float32]:
    """[songs, E] the mean unit projection of some songs."""
    windows_ND, counts_S = songs.windows_of(rows)
    return song_means(model.project(windows_ND), counts_S)


def scored(model: Model, songs: Songs, rows: Rows, words: Sequence[str]) -> Level:
    """Some words of songs the model has not learned from, ranked as ``tag`` ranks them.

    Beside each word's metrics, ``best_tenth``: of the songs that it suits best, the share that has it.
    """
    vectors_SE = song_vectors(model, songs, rows)
    yardstick = vectors_SE if measured_by_catalog("auto", len(rows)) else model.background
    scale = LabelScale(model.embed([Word.of(word) for word in words]), yardstick, "standardized")
    columns = [songs.words.index(word) for word in words]
    scores_SL, truth_SL = scale.scores(vectors_SE), songs.truth_SL[rows][:, columns]
    level = evaluate_scores(scores_SL, truth_SL, tuple(words), K)
    best_NL = np.argsort(-scores_SL, axis=0, kind="stable")[: max(1, len(rows) // 10)]
    for word, share in zip(words, np.take_along_axis(truth_SL, best_NL, axis=0).mean(axis=0), strict=True):
        level.per_label[word]["best_tenth"] = float(share)
    return level


def measure(songs: Songs, space: WordSpace, store: Store) -> dict[str, Any]:
    """Every figure of the card: of songs, a genre and words that were left out."""
    rows_S = np.arange(len(songs.truth_SL))
    learned, tested = rows_S[~songs.tested_S], rows_S[songs.tested_S]

    def left_out(out: Rows, words: Sequence[str] = songs.words, asked: Sequence[str] = songs.words) -> Level:
        return scored(fit(songs, np.setdiff1d(rows_S, out), words, space, store), songs, out, asked)

    folds = np.array_split(np.random.default_rng(0).permutation(rows_S), FOLDS)
    drawn = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        unknown = [songs.words[at] for at in np.sort(drawn.choice(len(songs.words), K, replace=False))]
        known = [word for word in songs.words if word not in unknown]
        draws.append(left_out(drawn.choice(rows_S, len(rows_S) // 2, replace=False), known, unknown).metrics["roc_auc"])
    by_fold = [left_out(np.sort(fold)) for fold in folds]
    return {
        "songs": {"learned": len(learned), "tested": len(tested)},
        "in_domain": left_out(tested).metrics,
        "folds": {name: mean_of([one.metrics[name] for one in by_fold]) for name in ("macro_f1", "roc_auc")},
        "words": {
            word: {
                "share": float(songs.truth_SL[:, at].mean()),
                **{name: mean_of([one.per_label[word][name] for one in by_fold]) for name in BY_WORD},
            }
            for at, word in enumerate(songs.words)
        },
        "genres_left_out": {
            str(genre): left_out(rows_S[songs.genres_S == genre]).metrics for genre in np.unique(songs.genres_S)
        },
        "words_left_out": {"roc_auc": mean_of(draws), "deviation": float(np.std(draws)), "draws": DRAWS},
        "moods": carried(space, songs.words),
    }


def carried(space: WordSpace, trained: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each of the moods: which share of it (of its squared length) the trained words span, and which is nearest."""
    known_LE, moods_ME = (space.embed([space.read(Word.of(word)) for word in words]) for words in (trained, MOODS))
    basis_EL, _ = np.linalg.qr(known_LE.T)
    spanned_M = ((moods_ME @ basis_EL) ** 2).sum(axis=1)
    nearest_M = (moods_ME @ known_LE.T).argmax(axis=1)
    return {
        mood: {"carried": float(share), "nearest": trained[at]}
        for mood, share, at in zip(MOODS, spanned_M, nearest_M, strict=True)
    }


def mean_of(values: Sequence[float]) -> float:
    """Of some figures, as a plain number."""
    return float(np.mean(values))


def write(folder: str, model: Model, songs: Songs, measured: dict[str, Any]) -> None:
    """The model's directory, with the songs it learned from, its figures, its card and the digests of its files."""
    ids = [track_id for track_id, out in zip(songs.windows.track_ids, songs.tested_S, strict=True) if not out]
    columns = {
        "split": ["train"] * len(ids),
        "dataset": ["emotify"] * len(ids),
        "track_id": ids,
        "uri": [None] * len(ids),
    }
    storage.write_table(storage.join(folder, SEEN), pa.table(columns, schema=SEEN_SCHEMA))
    storage.write_bytes(storage.join(folder, "metrics.json"), storage.as_json(measured))
    storage.write_bytes(storage.join(folder, "README.md"), card(model, measured).encode())
    model.save(folder)
    files = [path for path in sorted(Path(folder).iterdir()) if path.name != SUMS and path.is_file()]
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    storage.write_bytes(storage.join(folder, SUMS), sums.encode())


if __name__ == "__main__":
    main()
