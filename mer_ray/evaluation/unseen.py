"""Which songs of a dataset are scored: none that the model has seen counts as one it does not know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray.catalog.annotations import Annotations
from mer_ray.catalog.datasets import TRAIN, VALIDATION
from mer_ray.errors import InputError
from mer_ray.evaluation.settings import Split
from mer_ray.learning.model import Model
from mer_ray.learning.seen import UNSEEN, how_seen

_LEFT_OUT: dict[Split, tuple[str, ...]] = {
    "train": (),
    "validation": (TRAIN,),
    "test": (TRAIN, VALIDATION),
    "all": (TRAIN, VALIDATION),
}
"""How a model must not have seen the songs of a split."""
_TOLD = {UNSEEN: "", VALIDATION: "songs its epoch was chosen by", TRAIN: "songs it learned from"}


@dataclass(frozen=True)
class Scored:
    """The songs of a dataset that are scored.

    Attributes:
        rows: their indices in the dataset.
        left_out: songs of the split that are not, because the model has seen them.
        seen: what they are to the model, for a reader; empty where it does not know them.
        known: whether the model says which songs it has seen; one made before 0.3 does not.
    """

    rows: NDArray[np.int64]
    left_out: int = 0
    seen: str = ""
    known: bool = True


def songs_to_score(split: Split, model: Model, seen: pa.Table | None, dataset: Annotations) -> Scored:
    """The songs of a split, without those that the model learned from or was chosen by, unless they are asked for.

    Where a manifest states no splits, or no song of the one asked for, ``train`` and ``validation`` are what the model
    has seen as such, ``test`` is what it has not seen.

    Raises:
        InputError: no song is left, or a model made before 0.3 leaves it unknown.
    """
    stated = dataset.where(split) if dataset.splits_stated else np.array([], np.int64)
    if seen is None:
        return _trusted(split, model, dataset, stated)
    seen_S = how_seen(seen, dataset)
    rows = stated if len(stated) else np.flatnonzero(seen_S == split) if split in _TOLD else dataset.where("all")
    kept = rows[~np.isin(seen_S[rows], _LEFT_OUT[split])]
    if not len(kept):
        why = f"the model has seen all {len(rows):,} of them" if len(rows) else "the model has seen none of it as such"
        raise InputError(
            f"manifest of {dataset.dataset}: no {split} song to score, {why}, by track_id or audio uri; "
            "give other songs, or --split train for figures of songs it knows."
        )
    return Scored(kept, len(rows) - len(kept), _TOLD[max(seen_S[kept], key=list(_TOLD).index)])


def _trusted(split: Split, model: Model, dataset: Annotations, stated: NDArray[np.int64]) -> Scored:
    """The songs as the manifest has them, for a model that does not say which it has seen."""
    trained = dataset.dataset in model.config.get("datasets", [])
    if trained and split != "all" and not dataset.splits_stated:
        raise InputError(
            f"manifest of {dataset.dataset}: states no splits, and a model made before 0.3 does not say which songs it "
            "has seen; train it again, or give --split all for figures of songs it may know."
        )
    rows = stated if len(stated) else dataset.where("all")
    told = _TOLD.get(split, "") if len(stated) and split != "all" else "songs it may have learned from"
    return Scored(rows, seen=told if trained else "", known=False)


def describe_scored(split: Split, scored: Scored) -> str:
    """What was scored, for a reader of figures."""
    if not scored.known:
        kind = scored.seen or "as the manifest splits them"
        return f"{len(scored.rows):,} ({split}), {kind}; a model made before 0.3 does not say which songs it has seen"
    kind = f"SEEN, {scored.seen}" if scored.seen else "the model has seen none of them"
    left = f"; {scored.left_out:,} more are left out because it has" if scored.left_out else ""
    return f"{len(scored.rows):,} ({split}), {kind}{left}"
