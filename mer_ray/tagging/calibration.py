"""What a percentile is worth where truth is known: the share of its tags that are right, and of which songs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.learning.scoring import strangeness
from mer_ray.learning.settings import Ranking

CALIBRATION = "calibration.json"
"""Its file in the directory of an evaluation."""
BINS = 20
_NORMAL = 1.96
_COUNTS = ("pairs", "right", "given_pairs", "given_right")


@dataclass(frozen=True)
class Reliability:
    """How many pairs of song and word lie in each bin of percentiles, [B], and how many of them are true."""

    pairs: NDArray[np.int64]
    right: NDArray[np.int64]
    edges: ClassVar[NDArray[np.float64]] = np.arange(BINS) / BINS
    """[B] where each bin begins, itself in it, as a threshold there has it; the last ends at 1."""

    @classmethod
    def measure(cls, percentiles_SL: NDArray[np.float32], truth_SL: NDArray[np.bool_]) -> Self:
        """Count the pairs of songs and words, or some of them as a list, in bins of equal width."""
        bins = cls.bins_of(percentiles_SL)
        return cls(np.bincount(bins.ravel(), minlength=BINS), np.bincount(bins[truth_SL], minlength=BINS))

    @classmethod
    def bins_of(cls, percentiles: NDArray[np.float32]) -> NDArray[np.int64]:
        """The bin of each percentile."""
        edges = cls.edges.astype(percentiles.dtype)
        return np.maximum(np.searchsorted(edges, percentiles, side="right") - 1, 0)

    @property
    def share(self) -> NDArray[np.float64]:
        """[B] share of a bin's pairs that are true; nan for an empty bin."""
        return _share(self.right, self.pairs)

    @property
    def chance(self) -> float:
        """The share of all pairs that are true."""
        return float(self.right.sum() / max(1, self.pairs.sum()))

    @property
    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[B] and [B]: Wilson's interval of 95 % for the share of each bin; 0 and 1 for an empty bin."""
        pairs, square = np.maximum(self.pairs, 1e-9), _NORMAL**2
        share = self.right / pairs
        middle = (share + square / (2 * pairs)) / (1 + square / pairs)
        half = _NORMAL / (1 + square / pairs) * np.sqrt(share * (1 - share) / pairs + square / (4 * pairs**2))
        return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)

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


class Expected(NamedTuple):
    """How right tags are expected to be: the share, and between what it lies; nan for words never measured."""

    share: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """What an evaluation found of the songs that its model had not seen.

    Attributes:
        reliability: over all words and songs.
        given: over the words that songs were given, ``k`` at most: being among a song's best says more of a word than
            its percentile alone.
        k: None if the evaluation gave the songs of its datasets different numbers of words.
        words: that were measured.
        songs: how many.
        mean: [E] of the songs' vectors.
        variance: of the songs' vectors, summed over E.
        yardsticks: what the percentiles were measured against.
        strange: how far the songs it is asked about differ from these by more than chance, 0 to 1.
    """

    reliability: Reliability
    given: Reliability
    k: int | None
    words: frozenset[str]
    songs: int
    mean: NDArray[np.float32]
    variance: float
    yardsticks: frozenset[str]
    strange: float = 0.0

    @classmethod
    def read(cls, evaluation: str, model: str, ranking: Ranking) -> Self:
        """The calibration in the directory of an evaluation, for tags by this model and ranking.

        Raises:
            InputError: there is none, or it is of another model or ranking, or of songs that the model has seen.
        """
        uri, evaluate = storage.join(evaluation, CALIBRATION), "evaluate this one with jobs/evaluate.py"
        try:
            found = json.loads(storage.read_bytes(uri))
            parts, digest, by = list(found["datasets"].items()), found["model"], found.get("ranking")
            if digest != model:
                raise InputError(f"--calibration {evaluation}: of another model; {evaluate}.")
            if by is None:
                raise InputError(
                    f"--calibration {evaluation}: made before 0.3, says neither its songs nor its ranking; {evaluate}."
                )
            if by != ranking:
                raise InputError(
                    f"--calibration {evaluation}: of the ranking {by}, tags are ranked {ranking}; give --ranking {by}."
                )
            for name, part in parts:
                if part["seen"]:
                    raise InputError(
                        f"--calibration {evaluation}: {name} is of {part['seen']}, which promise nothing of others; "
                        "evaluate on songs it does not know."
                    )
            return cls._pooled([part for _, part in parts])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"--calibration {evaluation}: no calibration.json of an evaluation there; make one with "
                "jobs/evaluate.py."
            ) from error

    @classmethod
    def _pooled(cls, parts: Sequence[dict[str, Any]]) -> Self:
        counts = np.array([part["songs"] for part in parts], float)
        means_DE = np.array([part["mean"] for part in parts], np.float32)
        mean_E = np.average(means_DE, axis=0, weights=counts).astype(np.float32)
        spread = np.array([part["variance"] for part in parts]) + ((means_DE - mean_E) ** 2).sum(1)
        counted = {key: np.sum([part[key] for part in parts], axis=0) for key in _COUNTS}
        of_all, of_given = (Reliability(*(counted[key] for key in keys)) for keys in (_COUNTS[:2], _COUNTS[2:]))
        given = {int(part["k"]) for part in parts}
        words = frozenset(word for part in parts for word in part["words"])
        yardsticks = frozenset(part["yardstick"] for part in parts)
        variance = float(np.average(spread, weights=counts))
        k = given.pop() if len(given) == 1 else None
        return cls(of_all, of_given, k, words, int(counts.sum()), mean_E, variance, yardsticks)

    def percentile_of(self, precision: float) -> float:
        """The percentile from which on this precision is expected.

        Raises:
            InputError: no percentile is that precise.
        """
        percentile = self.reliability.percentile_for(precision)
        if percentile is None:
            raise InputError(
                f"--min-precision {precision:g}: the evaluation found "
                f"{np.nan_to_num(self.reliability.precision[-1]):.2f} at the highest percentiles; ask for no more."
            )
        return percentile

    def check_words(self, words: Iterable[str]) -> None:
        """Raise InputError, naming them, for words whose truth the evaluation did not have."""
        unknown = sorted(set(words) - self.words)
        if unknown:
            raise InputError(
                f"--min-precision: the evaluation did not measure {', '.join(unknown[:5])}"
                f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}; leave these words out, or evaluate on "
                "songs whose truth has them."
            )

    def check_yardstick(self, measured: str) -> None:
        """Raise InputError if tags are measured against something else: their percentiles are other ones."""
        other = self.yardsticks - {measured}
        if other:
            raise InputError(
                f"--calibration: its percentiles are against {min(other)}, those of the tags against {measured}; give "
                "evaluate and tag the same --yardstick."
            )

    def of(self, songs_SE: NDArray[np.floating[Any]]) -> Calibration:
        """The same for these songs, [S, E], as far as they are like the calibrated ones."""
        return replace(self, strange=strangeness(songs_SE, self.mean, self.variance, self.songs))

    def expected(self, words: Sequence[str], percentiles_NL: NDArray[np.float32], k: int | None) -> Expected:
        """[n, L] how right each word is expected to be at its percentile, if it is given to a song among ``k`` at most.

        Of another ``k`` than the calibrated one no more is known than the share of all words at that percentile.
        The interval is that of the share among the calibrated songs. As far as the songs are strange it opens towards
        what alone is sure of such: that a word is right no less than by chance, and at most always.
        """
        counted = self.given if k is not None and k == self.k else self.reliability
        low_B, high_B = counted.interval
        low_B = low_B - self.strange * np.maximum(low_B - self.reliability.chance, 0)
        high_B = high_B + self.strange * (1 - high_B)
        bins_NL = Reliability.bins_of(percentiles_NL)
        measured_L = np.array([word in self.words for word in words])
        values = (np.where(measured_L, of_B[bins_NL], np.nan) for of_B in (counted.share, low_B, high_B))
        return Expected(*(value.astype(np.float32) for value in values))


def expected_and_found(expected: Expected, given_NL: NDArray[np.bool_], truth_NL: NDArray[np.bool_]) -> str:
    """What a calibration promised of the tags that were given, and how many of them are true, for a reader."""
    known_NL = given_NL & np.isfinite(expected.share)
    if not known_NL.any():
        return "none of the tags' words was calibrated"
    share, low, high = (float(values[known_NL].mean()) for values in expected)
    found, count = float(truth_NL[known_NL].mean()), int(known_NL.sum())
    return f"of {count:,} tags {share:.3f} [{low:.3f}, {high:.3f}] expected right, {found:.3f} found"


def as_plain(measured: Reliability, given: Reliability, songs_SE: NDArray[np.float32], **told: Any) -> dict[str, Any]:
    """One dataset of ``calibration.json``, with what is ``told``: ``split``, ``seen``, ``yardstick``, ``words``, ``k``.

    Of songs that the model has seen it holds no counts.
    """
    told = {**told, "songs": len(songs_SE)}
    if told["seen"]:
        return told
    counted = (measured.pairs, measured.right, given.pairs, given.right)
    counts = {key: values.tolist() for key, values in zip(_COUNTS, counted, strict=True)}
    spread = {"mean": songs_SE.mean(0).tolist(), "variance": float(songs_SE.var(0).sum())}
    return {**told, "edges": measured.edges.tolist(), **counts, **spread}


def calibration_file(model: str, ranking: Ranking, datasets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """``calibration.json``: what was measured, of which model, by which ranking."""
    return {"model": model, "ranking": ranking, "datasets": dict(datasets)}
