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
SPLITS = TRAIN, VALIDATION, TEST = "train", "validation", "test"

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

    ``seeded`` is :func:`drawn_split`; ``ordered`` takes the first songs for training, the next for validation, the
    last for test, at least one each unless there are fewer than three.
    """
    if rule == "seeded":
        return [drawn_split(track_id, seed) for track_id in ids], f"hashed:{seed}"
    held_out = max(1, math.floor(len(ids) / 10 + 0.5)) if len(ids) > 2 else 0
    return [TRAIN] * (len(ids) - 2 * held_out) + [VALIDATION] * held_out + [TEST] * held_out, rule


def drawn_split(track_id: str, seed: int, validation: float = 0.1, test: float = 0.1) -> str:
    """The split of one song by a hash of its id and the seed: no other song, no order and no count has a say in it.

    So a song stays where it is when others are added or taken away, and a small manifest may get no song of a split.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{seed}/{track_id}".encode()).digest()[:8]) / 2**64
    return TEST if drawn < test else VALIDATION if drawn < test + validation else TRAIN


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
