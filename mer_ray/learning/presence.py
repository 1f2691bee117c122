"""Which labelled songs have features, known from their ids alone: before a window is read and a worker started."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import TRAIN, VALIDATION
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.fingerprints import text_sha256
from mer_ray.songs import read_columns


def songs_present(stores: Sequence[Store], datasets: Sequence[Annotations]) -> str:
    """How many of the songs to train and to select on have features, and a digest of which: a training's fingerprint.

    Raises:
        InputError: a dataset has no song to train on, or none to select on, that has any.
    """
    readable = set[str]()
    for store in stores:
        for _, table in read_columns(store.parts, ["track_id", "status"]):
            readable.update(table["track_id"].filter(pc.equal(table["status"], "ok")).to_pylist())
    asked, present = 0, list[str]()
    for dataset in datasets:
        for split in (TRAIN, VALIDATION):
            ids = [dataset.track_ids[row] for row in dataset.where(split)]
            found = [track_id for track_id in ids if track_id in readable]
            if not found:
                raise InputError(nothing_present(dataset, ids, split, stores))
            asked, present = asked + len(ids), present + found
    return f"{len(present):,} of {asked:,} ({text_sha256(chr(0).join(sorted(present)))[:12]})"


def nothing_present(dataset: Annotations, ids: Sequence[str], split: str, stores: Sequence[Store]) -> str:
    """The sentence for songs of which none has features: whether there are none, none was read, or the ids differ."""
    where = ", ".join(store.uri for store in stores)
    if not ids:
        return (
            f"manifest of {dataset.dataset}: none of its {len(dataset.track_ids):,} songs is a {split} song; state a "
            "split for each of them in the manifest, or draw others with --seed."
        )
    wanted, example = set(ids), ""
    for store in stores:
        for _, table in read_columns(store.parts, ["track_id", "status"]):
            held = table["track_id"].to_pylist()
            if not wanted.isdisjoint(held):
                return (
                    f"manifest of {dataset.dataset}: its {len(ids):,} {split} songs failed in {where}, as far as they "
                    "are there; look at them with jobs/status.py, or extract the others."
                )
            example = example or next(iter(held), "")
    return (
        f"manifest of {dataset.dataset}: none of its {len(ids):,} {split} songs has features in {where}: its ids are "
        f"like {ids[0]!r}, the store's like {example!r}; extract these songs, or give the manifest that the store was "
        "made from."
    )
