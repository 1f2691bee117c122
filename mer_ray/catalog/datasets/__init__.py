"""Datasets of songs whose labels are known: one file each, with its reader and all that only it knows.

``--dataset deam`` is ``deam.py`` in this folder, ``--dataset my_pkg.deam`` a module anywhere on Python's path:

    def read(source, settings):             # the label files at a path or s3:// URI → list[Song]

It may also define

    K = 3                                   # labels predicted a song (paper §3.5), else the songs' average
    VOCABULARIES = {"deam": ("calm", …)}    # in this folder: word lists, for ``--labels deam``
    def audio_key(path)                     # what a song's audio is recognised by, else its path but for the extension
    class Settings(Part)                    # settings of its own; those marked READING are stated in the manifest
    def readings(source, settings)          # the same as {name: value}, where the source has a say in them
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mer_ray.doors import Door

DOOR = Door("mer_ray.catalog.datasets", "dataset", needs="read", nothing="none")
SPLITS = ("train", "validation", "test")

SplitRule = Literal["seeded", "ordered"]


@dataclass(frozen=True)
class Song:
    """A labelled song; ``path`` is its published place below the audio folder.

    Where no song states a split, they are drawn. ``ratings`` are how strongly listeners heard the labels, where known.
    """

    track_id: str
    path: str
    labels: Sequence[str]
    split: str | None = None
    ratings: Mapping[str, float] | None = None


def draw_splits(ids: Sequence[str], rule: SplitRule, seed: int) -> tuple[list[str], str]:
    """A split for each song, 80/10/10, and what the manifest calls the reading.

    ``seeded`` depends on the songs' ids and the seed alone, ``ordered`` on the order they are given in.
    """
    names = split_songs(len(ids), seed, ordered=rule == "ordered")
    rank = {track_id: at for at, track_id in enumerate(ids if rule == "ordered" else sorted(ids))}
    return [names[rank[track_id]] for track_id in ids], f"seeded:{seed}" if rule == "seeded" else rule


def split_songs(
    n: int, seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1), ordered: bool = False
) -> list[str]:
    """A split name for each of ``n`` songs; whole songs, so no song is cut across splits (paper §4.1).

    A wanted split gets at least one song, unless there are too few for all; then every song is ``train``.
    Seeded draws rank a hash of seed and position: the same on every machine and Python version.
    ``ordered`` takes the first songs for training, the next for validation, the last for test.
    """
    validation, test = (max(1, math.floor(n * part + 0.5)) if part > 0 else 0 for part in fractions[1:])
    train = n - validation - test
    if train < (1 if fractions[0] > 0 else 0):
        return ["train"] * n
    names = ["train"] * train + ["validation"] * validation + ["test"] * test
    if ordered:
        return names
    order = sorted(range(n), key=lambda index: hashlib.sha256(f"{seed}/{index}".encode()).digest())
    return [name for _, name in sorted(zip(order, names, strict=True))]


def top_k(dataset: str | None, labels_per_song: Iterable[int]) -> int:
    """How many labels to predict (paper §3.5): the dataset's K, else its mean count of labels, rounded, ≥ 1.

    ``labels_per_song`` holds one count a song. Halves round up.
    """
    if dataset in DOOR.names() and hasattr(module := DOOR.find(dataset)[0], "K"):
        return int(module.K)
    counts = list(labels_per_song)
    return max(1, math.floor(sum(counts) / len(counts) + 0.5)) if counts else 1


def vocabularies() -> dict[str, tuple[str, ...]]:
    """The datasets' lists of emotion words by name, spelled as in the datasets."""
    modules = [importlib.import_module(f"{DOOR.package}.{name}") for name in DOOR.names()]
    return {name: words for module in modules for name, words in getattr(module, "VOCABULARIES", {}).items()}
