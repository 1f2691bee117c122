"""A simulated world to rehearse in: songs whose labels and features are drawn, with no music behind them.

python -m mer_ray.demo.simulated --output simulated/ [--songs 400 500 400] [--dim 64] [--seed 0]

**Labels** (:func:`simulate_manifests`). Each song draws a point of emotion, a unit vector near the embedding
of a random word of :data:`MOODS`, and is given the words of its dataset that lie nearest to the point, plus
noise. The datasets share the moods and hardly a word, so what is learnt on two must carry to the third if
the method works at all.

**Features** (:func:`simulate_store`). For a song with labels l and a window w of it,

    features = P (mean of the embeddings of l + song noise + window noise)

with one fixed random matrix P for the whole store. What the labels' embeddings say is linearly there, up
to the noise and to what D dimensions hold of 384. So a number measured here checks the code and the planted
structure; it says nothing about music. The store's encoder is named ``simulated``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.datasets import draw_splits, vocabularies
from mer_ray.catalog.manifest import make_manifest
from mer_ray.errors import InputError
from mer_ray.features import store_table
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.songs import Identity
from mer_ray.words.embedding import embed_labels, unit

DATASETS = {"jamendo": "jamendo", "cal500": "cal500", "emotify": "gems"}
"""Each simulated dataset and its vocabulary."""

LABEL_COUNTS = {"jamendo": ((1, 0.53), (2, 0.28), (3, 0.19)), "cal500": ((4, 0.5), (5, 0.5)), "emotify": ((3, 1.0),)}
"""How many labels a song has, with what probability; Jamendo's as in its official split-0, 3 and more as 3."""

# fmt: off
MOODS = (
    "joy", "delight", "playfulness", "excitement", "triumph", "pride", "hope", "optimism", "fondness", "affection",
    "desire", "gentleness", "serenity", "peace", "relaxation", "sleepiness", "contemplation", "wonder", "awe",
    "mystery", "reminiscence", "longing", "loneliness", "melancholy", "grief", "despair", "fear", "suspense",
    "anxiety", "anger", "aggression", "strength", "determination", "courage", "drive", "energy", "celebration",
    "freedom", "dreaminess", "darkness", "gravity", "reverence", "humour", "weirdness", "coolness", "warmth",
    "speed", "festivity", "childlike innocence", "vastness",
)
# fmt: on
"""A general lexicon of moods, none of them a word of a dataset."""

POINT_NOISE = 0.4
"""Length of the noise around the mood a song has drawn (the mood's own vector has length 1)."""
CHOICE_NOISE = 0.3
"""Deviation of the listeners' noise on a word's nearness, in deviations of that word's nearness."""

SONGS_PER_PART = 256
WINDOW_SECONDS = 10.0


def simulate_manifests(seed: int, sizes: tuple[int, int, int] = (400, 500, 400)) -> dict[str, pa.Table]:
    """Manifests of a simulated MTG-Jamendo, CAL500 and Emotify, split 80/10/10 by song.

    Nearness is standardized word by word, so that every word is about as frequent as the others.

    Returns:
        ``jamendo``, ``cal500`` and ``emotify``, each a table of :data:`mer_ray.catalog.manifest.MANIFEST_SCHEMA`.
    """
    worlds = enumerate(zip(DATASETS, sizes, strict=True))
    return {name: _manifest(name, size, np.random.default_rng([seed, at])) for at, (name, size) in worlds}


def simulate_store(
    manifests: Sequence[pa.Table],
    uri: str,
    *,
    dim: int = 64,
    windows: int = 3,
    song_noise: float = 0.5,
    window_noise: float = 0.5,
    seed: int = 0,
) -> dict[str, Any]:
    """Write simulated features of songs to a store, which keeps those it holds; returns its summary.

    A song's features depend on its id, its labels and these settings, up to rounding on nothing else.

    Args:
        manifests: real ones or :func:`simulate_manifests`'; every song needs labels, ids are unique over all.
        uri: folder or ``s3://`` prefix.
        dim: D.
        windows: windows of each song.
        song_noise: expected length of the noise vector of each song; a label's embedding has length 1.
        window_noise: the same of each window.
        seed: of the matrix and the noise.

    Raises:
        InputError: a song without labels, or a store begun with other settings.
    """
    columns = ["track_id", "uri", "labels"]
    songs = pa.concat_tables([table.select(columns).replace_schema_metadata() for table in manifests])
    bare = [row["track_id"] for row in songs.to_pylist() if not row["labels"]]
    if bare:
        raise InputError(f"track {bare[0]}: has no labels to simulate features of; leave such songs out.")
    words = sorted({word for row in songs["labels"].to_pylist() for word in row})
    embeddings = dict(zip(words, _embedded(tuple(words)), strict=True))
    width = len(next(iter(embeddings.values())))
    matrix = np.random.default_rng([seed, dim]).normal(size=(width, dim))
    settings = {"dim": dim, "windows": windows, "song_noise": song_noise, "window_noise": window_noise, "seed": seed}
    with SongsDirectory(uri, "simulate") as output:
        output.begin({"name": "simulated", **settings}, settings, songs)
        pending = songs.filter(pc.is_in(songs["track_id"], value_set=output.pending()["track_id"].combine_chunks()))
        told = {"status": "ok", "duration_s": windows * WINDOW_SECONDS, "truncated": False, "bad_packets": 0}
        for start in range(0, len(pending), SONGS_PER_PART):
            part = pending.slice(start, SONGS_PER_PART).to_pylist()
            means = np.stack([np.mean([embeddings[word] for word in song["labels"]], axis=0) for song in part])
            noise = _noise([song["track_id"] for song in part], seed, windows, width, song_noise, window_noise)
            rows = [{"track_id": song["track_id"], "uri": song["uri"], **told} for song in part]
            commit(uri, store_table(rows, [*((means[:, None] + noise) @ matrix)], simulated_identity(dim, seed)))
        return output.finish(songs_done=len(pending))


def simulated_identity(dim: int, seed: int) -> Identity:
    """The identity of a store that no encoder made; its revision is the matrix, so two worlds never mix."""
    return {
        "name": "simulated",
        "revision": f"seed {seed}",
        "weights_sha256": None,
        "licence": "none",
        "layers": [],
        "pooling": "none",
        "window_seconds": WINDOW_SECONDS,
        "sample_rate": 24000,
        "dtype": "float16",
        "dim": dim,
    }


@lru_cache(maxsize=16)
def _embedded(words: tuple[str, ...]) -> NDArray[np.float32]:
    return embed_labels(words)


def _manifest(name: str, size: int, rng: np.random.Generator) -> pa.Table:
    vocabulary = vocabularies()[DATASETS[name]]
    moods = _embedded(MOODS)
    drawn = moods[rng.integers(len(moods), size=size)]
    noise = POINT_NOISE * rng.normal(size=drawn.shape) / np.sqrt(drawn.shape[-1])
    nearness = unit(drawn + noise) @ _embedded(vocabulary).T
    nearness = (nearness - nearness.mean(0)) / nearness.std(0).clip(1e-6)
    ranked = np.argsort(-(nearness + CHOICE_NOISE * rng.normal(size=nearness.shape)), axis=1)
    counts, shares = zip(*LABEL_COUNTS[name], strict=True)
    chosen = [list(row[:count]) for row, count in zip(ranked, rng.choice(counts, size=size, p=shares), strict=True)]
    _give_unused(chosen, nearness, max(counts))
    ids = [f"{name}/{number}" for number in range(1, size + 1)]
    columns = {
        "track_id": ids,
        "uri": [f"simulated/{track_id}" for track_id in ids],
        "dataset": [name] * size,
        "split": draw_splits(ids, "seeded", int(rng.integers(2**31)))[0],
        "labels": [[vocabulary[at] for at in row] for row in chosen],
    }
    return make_manifest(columns, name)


def _give_unused(chosen: list[list[int]], nearness: NDArray[np.floating[Any]], most: int) -> None:
    """Give each word that no song has to the song nearest to it among those with fewer than ``most`` words."""
    for word in sorted(set(range(nearness.shape[1])).difference(*chosen)):
        room = [song for song, words in enumerate(chosen) if len(words) < most]
        if room:
            chosen[max(room, key=lambda song: float(nearness[song, word]))].append(word)


def _noise(
    track_ids: Sequence[str], seed: int, windows: int, width: int, song: float, window: float
) -> NDArray[np.float64]:
    """[songs, windows, width]: one draw for the song, shared by its windows, and one for each window."""
    noise = np.empty((len(track_ids), windows, width))
    for at, track_id in enumerate(track_ids):
        digest = hashlib.sha256(f"{seed}/{track_id}".encode()).digest()
        drawn = np.random.default_rng(list(digest)).normal(size=(windows + 1, width)) / np.sqrt(width)
        noise[at] = song * drawn[0] + window * drawn[1:]
    return noise


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a whole simulated world to a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the three manifests and features/")
    sizes = parser.add_argument("--songs", type=int, nargs=3, help="songs of each dataset (400 500 400)")
    sizes.default, sizes.metavar = (400, 500, 400), ("JAMENDO", "CAL500", "EMOTIFY")
    parser.add_argument("--dim", type=int, default=64, help="D, the features of a window (64)")
    parser.add_argument("--windows", type=int, default=3, help="windows of each song (3)")
    parser.add_argument("--song-noise", type=float, default=0.5, help="length of each song's noise (0.5)")
    parser.add_argument("--window-noise", type=float, default=0.5, help="length of each window's noise (0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (0)")
    asked = vars(parser.parse_args(arguments))
    output, songs = asked.pop("output"), asked.pop("songs")
    manifests = simulate_manifests(asked["seed"], tuple(songs))
    for name, table in manifests.items():
        storage.write_table(str(output / f"{name}.parquet"), table)
    summary = simulate_store([*manifests.values()], str(output / "features"), **asked)
    print(f"simulated: {summary['songs']:,} songs that are no music, D = {asked['dim']}, in {output}")


if __name__ == "__main__":
    main()
