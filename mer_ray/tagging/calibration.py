"""What a percentile is worth where truth is known: the share of its tags that are right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError

BINS = 20


@dataclass(frozen=True)
class Reliability:
    """How many pairs of song and word lie in each bin of percentiles, [B], and how many of them are true."""

    pairs: NDArray[np.int64]
    right: NDArray[np.int64]
    edges: ClassVar[NDArray[np.float64]] = np.arange(BINS) / BINS
    """[B] where each bin begins; the last ends at 1."""

    @classmethod
    def measure(cls, percentiles_SL: NDArray[np.float32], truth_SL: NDArray[np.bool_]) -> Reliability:
        """Count the pairs of songs and words in bins of equal width."""
        bins = np.clip(np.ceil(percentiles_SL * BINS - 1e-6).astype(int) - 1, 0, BINS - 1)
        return cls(np.bincount(bins.ravel(), minlength=BINS), np.bincount(bins[truth_SL], minlength=BINS))

    @property
    def share(self) -> NDArray[np.float64]:
        """[B] share of a bin's pairs that are true; nan for an empty bin."""
        return _share(self.right, self.pairs)

    @property
    def precision(self) -> NDArray[np.float64]:
        """[B] share that is true from each edge up: the precision of a threshold there."""
        return _share(np.cumsum(self.right[::-1])[::-1], np.cumsum(self.pairs[::-1])[::-1])

    def percentile_for(self, precision: float) -> float | None:
        """The lowest edge from which on every threshold keeps this precision; None if even the highest does not."""
        misses = np.flatnonzero(np.nan_to_num(self.precision) < precision)
        first = int(misses[-1]) + 1 if len(misses) else 0
        return float(self.edges[first]) if first < BINS else None


def _share(right: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(pairs > 0, right / np.maximum(pairs, 1), np.nan)


def as_plain(model: str, measured: Mapping[str, Reliability]) -> dict[str, Any]:
    """``calibration.json`` of an evaluation: the model's digest, and per dataset edges, pairs and right ones."""
    datasets = {
        name: {key: getattr(one, key).tolist() for key in ("edges", "pairs", "right")} for name, one in measured.items()
    }
    return {"model": model, "datasets": datasets}


def percentile_of(evaluation: str, model: str, precision: float) -> float:
    """The percentile from which an evaluation expects this precision, over all its datasets.

    Raises:
        InputError: no evaluation there, one of another model, or no percentile is that precise.
    """
    uri = storage.join(evaluation, "calibration.json")
    try:
        found = json.loads(storage.read_bytes(uri))
        counts = list(found["datasets"].values())
        pooled = Reliability(*(np.sum([one[key] for one in counts], axis=0) for key in ("pairs", "right")))
        digest = found["model"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"--calibration {evaluation}: no calibration.json of an evaluation there; make one with jobs/evaluate.py."
        ) from error
    if digest != model:
        raise InputError(f"--calibration {evaluation}: of another model; evaluate this one with jobs/evaluate.py.")
    percentile = pooled.percentile_for(precision)
    if percentile is None:
        raise InputError(
            f"--min-precision {precision:g}: the evaluation found {np.nan_to_num(pooled.precision[-1]):.2f} at the "
            "highest percentiles; ask for no more."
        )
    return percentile
