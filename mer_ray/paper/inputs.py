"""What a reproduction is made of: the datasets given, and which of their songs have features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import SPLITS
from mer_ray.errors import InputError
from mer_ray.features import Store, open_stores
from mer_ray.fingerprints import text_sha256
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS
from mer_ray.songs import read_columns


@dataclass(frozen=True)
class Given:
    """A dataset as it can be used: its truth, and of its songs those with features, by id with their seconds."""

    annotations: Annotations
    features: Mapping[str, float]

    @property
    def state(self) -> str:
        """Says how many songs have features, and which, with their splits and truth, by a digest."""
        one = self.annotations
        labels = [[one.vocabulary[at] for at in truth_L.nonzero()[0]] for truth_L in one.truth]
        rows = [
            (track_id, self.features[track_id], str(split), own)
            for track_id, split, own in zip(one.track_ids, one.splits, labels, strict=True)
            if track_id in self.features
        ]
        digest = text_sha256(json.dumps([sorted(rows), one.vocabulary, one.k]))
        return f"{len(rows):,} of {len(one.track_ids):,} songs with features ({digest[:12]})"

    def counts(self) -> str:
        """The songs that can be used, by split, and how many of the manifest lack features."""
        one = self.annotations
        used = [
            str(split) for track_id, split in zip(one.track_ids, one.splits, strict=True) if track_id in self.features
        ]
        lacking = len(one.track_ids) - len(used)
        text = ", ".join(f"{used.count(split):,} {split}" for split in SPLITS)
        return f"{text}; {lacking:,} of {len(one.track_ids):,} have no features" if lacking else text


def read_inputs(settings: ReproduceSettings) -> dict[str, Given]:
    """The given datasets, in the order of the tables.

    Raises:
        InputError: there is none, a manifest is of another dataset or states no splits where several seeds are
            asked for, or a split of it has no song with features.
    """
    uris = {name: uri for name in DATASETS if (uri := getattr(settings, name)) is not None}
    if not uris:
        raise InputError("reproduce: no dataset is given; give --jamendo, --cal500 or --emotify a manifest.")
    found = {name: Annotations.read(uri, settings.seed) for name, uri in uris.items()}
    for name, one in found.items():
        if one.dataset != name:
            raise InputError(
                f"--{name} {uris[name]}: a manifest of {one.dataset}; make it with jobs/catalog.py --dataset {name}."
            )
        if settings.seeds > 1 and not one.splits_stated:
            raise InputError(
                f"--{name} {uris[name]}: states no splits, so that each seed would test other songs; "
                f"make it with jobs/catalog.py --dataset {name}."
            )
    stores = open_stores(settings.features)
    extracted = _extracted(stores, [track_id for one in found.values() for track_id in one.track_ids])
    given = {}
    for name, one in found.items():
        own = {track_id: extracted[track_id] for track_id in one.track_ids if track_id in extracted}
        for split in SPLITS:
            if not any(one.track_ids[row] in own for row in one.where(split)):
                raise InputError(
                    f"--{name} {uris[name]}: none of its {len(one.where(split)):,} {split} songs has features in "
                    f"{', '.join(settings.features)}; extract them first, or leave --{name} out."
                )
        given[name] = Given(one, own)
    return given


def _extracted(stores: Sequence[Store], track_ids: Sequence[str]) -> dict[str, float]:
    """The seconds of each of these songs that has features."""
    wanted = pa.array(track_ids, pa.string())
    seconds: dict[str, float] = {}
    for store in stores:
        for _, part in read_columns(store.parts, ["track_id", "status", "duration_s"]):
            good = pc.and_(pc.equal(part["status"], "ok"), pc.is_in(part["track_id"], value_set=wanted))
            rows = part.filter(good)
            seconds.update(zip(rows["track_id"].to_pylist(), rows["duration_s"].to_pylist(), strict=True))
    return seconds
