"""Songs whose labels are known: a manifest's truth as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray.catalog.datasets import TRAIN, VALIDATION, drawn_split, top_k
from mer_ray.catalog.manifest import READINGS, read_manifest
from mer_ray.errors import InputError
from mer_ray.songs import stored_json


@dataclass(frozen=True)
class Annotations:
    """The labelled songs of one dataset.

    Attributes:
        dataset: its name.
        vocabulary: the L labels that occur in it, sorted.
        track_ids: the S songs that have labels.
        uris: where the manifest says their audio is.
        truth: [S, L] bool.
        splits: [S] train, validation or test.
        splits_stated: whether the manifest states them; if not, they were drawn by the seed.
        k: labels a song is given in evaluation (paper §4.3).
        readings: how splits and truth were read, as the manifest states it.
        ratings: [S, L] how strongly listeners heard each label, nan where it is not known; None where no song has any.
    """

    dataset: str
    vocabulary: tuple[str, ...]
    track_ids: list[str]
    uris: list[str]
    truth: NDArray[np.bool_]
    splits: NDArray[np.str_]
    splits_stated: bool
    k: int
    readings: dict[str, str]
    ratings: NDArray[np.float32] | None = None

    @classmethod
    def from_manifest(cls, manifest: pa.Table, name: str, seed: int) -> Annotations:
        """The truth of a manifest; ``name`` is its URI, and the dataset's name if it states none.

        ``seed`` is of the split by song, used for a manifest without one; the manifest's own splits are kept.

        Raises:
            InputError: no song in it has a label, or it mixes datasets.
        """
        columns = ["track_id", "uri", "dataset", "split", "labels", *({"ratings"} & {*manifest.column_names})]
        rows = [row for row in manifest.select(columns).to_pylist() if row["labels"]]
        if not rows:
            raise InputError(f"manifest {name}: no song in it has labels; make it with jobs/catalog.py --dataset.")
        datasets = sorted({row["dataset"] or "" for row in rows})
        if len(datasets) > 1:
            raise InputError(f"manifest {name}: mixes the datasets {', '.join(datasets)}; give one manifest each.")
        dataset = datasets[0] or name.rsplit("/", 1)[-1].removesuffix(".parquet")
        vocabulary = tuple(sorted({label for row in rows for label in row["labels"]}))
        column = {label: at for at, label in enumerate(vocabulary)}
        truth = np.zeros((len(rows), len(vocabulary)), bool)
        for truth_L, row in zip(truth, rows, strict=True):
            truth_L[[column[label] for label in row["labels"]]] = True
        readings = stored_json(manifest.schema, READINGS)
        k = int(readings["k"]) if "k" in readings else top_k(dataset, [len(row["labels"]) for row in rows])
        return cls(
            dataset=dataset,
            vocabulary=vocabulary,
            track_ids=[row["track_id"] for row in rows],
            uris=[row["uri"] for row in rows],
            truth=truth,
            splits=_splits([row["track_id"] for row in rows], [row["split"] for row in rows], seed),
            splits_stated=any(row["split"] for row in rows),
            k=min(k, len(vocabulary)),
            readings=readings,
            ratings=_ratings([row.get("ratings") or () for row in rows], column),
        )

    @classmethod
    def read(cls, uri: str, seed: int) -> Annotations:
        """The same of the manifest at a URI."""
        return cls.from_manifest(read_manifest(uri), uri, seed)

    def where(self, split: str) -> NDArray[np.int64]:
        """Indices of the songs of one split, or of every song for ``all``."""
        chosen = np.ones(len(self.splits), bool) if split == "all" else self.splits == split
        return np.flatnonzero(chosen)


def _ratings(rows: Sequence[Sequence[dict[str, Any]]], column: dict[str, int]) -> NDArray[np.float32] | None:
    """[S, L]; a rating of a label that no song has is left out, as the label itself is."""
    if not any(rows):
        return None
    ratings_SL = np.full((len(rows), len(column)), np.nan, np.float32)
    for ratings_L, row in zip(ratings_SL, rows, strict=True):
        for one in row:
            if one["label"] in column:
                ratings_L[column[one["label"]]] = one["rating"]
    return ratings_SL


def _splits(track_ids: list[str], stated: list[str | None], seed: int) -> NDArray[np.str_]:
    """The manifest's splits; where it states none, or no validation songs, each song's own draw."""
    splits = np.array([split or TRAIN for split in stated], "<U10")
    if not any(stated):
        return np.array([drawn_split(track_id, seed) for track_id in track_ids], "<U10")
    if VALIDATION not in splits:
        for at in np.flatnonzero(splits == TRAIN):
            splits[at] = drawn_split(track_ids[at], seed, test=0.0)
    return splits
