"""Projected windows times labels to ranked tags (paper §3.5, and scores that compare between words)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mer_ray.features import window_arrays
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import LabelScale, measured_by_catalog
from mer_ray.learning.settings import Ranking
from mer_ray.songs import STATUS_COLUMNS, STATUS_FIELDS, Identity, metadata
from mer_ray.tagging.calibration import Calibration
from mer_ray.tagging.contract import CALIBRATED_TYPE, TAGS_TYPE, TIMELINE_TYPE, words_digest
from mer_ray.tagging.projections import song_vectors, vector_column
from mer_ray.words.embedding import unit
from mer_ray.words.lists import Word

FEW = 8
"""Up to so many of the best labels are found one after another, in a quarter of the time of sorting all."""


class Tag(NamedTuple):
    """One word for a song; ``percentile`` is the share of yardstick songs it suits no better."""

    label: str
    score: float
    percentile: float


def measured_against(by_catalog: bool, alone: bool) -> str:
    """What a yardstick consists of, for a reader and for a calibration to fit."""
    if not by_catalog:
        return "the model's training songs"
    return "the songs themselves" if alone else "the songs themselves beside the model's training songs"


@dataclass
class Tagger:
    """Ranks any list of words for songs.

    Attributes:
        model: what projects songs and reads words.
        yardstick: [S, E] songs that the words are measured on; the model's training songs if not given.
        alone: whether these songs measure alone, or beside the training songs as far as they differ from them.
    """

    model: Model
    yardstick: NDArray[np.float32] | None = None
    alone: bool = False

    @classmethod
    def against(cls, model: Model, asked: str, songs_SE: NDArray[np.float32]) -> Tagger:
        """A tagger measured by a catalogue's songs or the model's, as :func:`measured_by_catalog` says."""
        return cls(model, songs_SE, asked == "catalog") if measured_by_catalog(asked, len(songs_SE)) else cls(model)

    @classmethod
    def load(cls, model: str | PathLike[str]) -> Tagger:
        """A tagger from a model directory (local or ``s3://``), or from a model that ships by its name."""
        return cls(Model.load(model))

    @property
    def measured(self) -> str:
        """The songs that measure, for a reader."""
        return measured_against(self.yardstick is not None, self.alone)

    def scale(self, words: Sequence[Word], ranking: Ranking | None = None) -> LabelScale:
        """Measure a list of words once, to score many songs with it; by the model's own ranking if none is given."""
        training = None if self.alone else self.model.background
        yardstick = self.model.background if self.yardstick is None else self.yardstick
        own = ranking or self.model.ranking
        return LabelScale(self.model.embed(words), yardstick, own, self.model.priors(words), training)

    def rank(
        self,
        features: NDArray[np.floating[Any]],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        k: int = 3,
        ranking: Ranking | None = None,
        threshold: float | None = None,
    ) -> list[Tag]:
        """The k best of these words that earn their place on a song, from the [w, D] features of its windows.

        Words may have phrases. Another ``threshold`` than the ranking's own (:func:`floor_of`) can be given.
        """
        asked = labels if isinstance(labels, Mapping) else dict.fromkeys(labels, ())
        scale = self.scale([Word.of(label, *phrases) for label, phrases in asked.items()], ranking)
        vector_1E = self.model.project(features).mean(axis=0)[None]
        scores_1L, percentiles_1L = scale.scores(vector_1E), scale.percentiles(vector_1E)
        order_1K, kept_1K = Choice(k, scale.floor if threshold is None else threshold).best(scores_1L)
        names = list(asked)
        return [Tag(names[at], float(scores_1L[0, at]), float(percentiles_1L[0, at])) for at in order_1K[kept_1K]]


@dataclass(frozen=True)
class Choice:
    """Which tags a song or a window gets: at most k, whose scores and percentiles reach the thresholds."""

    k: int | None = None
    threshold: float | None = None
    min_percentile: float | None = None

    def best(
        self, scores_NL: NDArray[np.float32], percentiles_NL: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The columns of n songs or windows, [n, k], best first, of equal ones the first; and whether they reach the
        thresholds, [n, k]. Percentiles are looked at for ``min_percentile`` alone.
        """
        order_NK = _best_first(scores_NL, self.k)
        kept_NK = np.ones(order_NK.shape, bool)
        for values_NL, least in ((scores_NL, self.threshold), (percentiles_NL, self.min_percentile)):
            if values_NL is not None and least is not None:
                kept_NK &= np.take_along_axis(values_NL, order_NK, axis=1) >= least
        return order_NK, kept_NK


def _best_first(scores_NL: NDArray[np.float32], k: int | None) -> NDArray[np.int64]:
    """[n, k] columns of the highest scores, of equal ones the first; all if k is None."""
    n, labels = scores_NL.shape
    if k is None or k > FEW:
        return np.argsort(-scores_NL, axis=1, kind="stable")[:, :k]
    left_NL, order_NK = scores_NL.copy(), np.empty((n, min(k, labels)), np.int64)
    for at in range(order_NK.shape[1]):
        order_NK[:, at] = left_NL.argmax(axis=1)
        left_NL[np.arange(n), order_NK[:, at]] = -np.inf
    return order_NK


@dataclass(frozen=True)
class TagOptions:
    """What to write for each song: its tags, with ``timeline`` each window's, with ``embedding`` its unit vector."""

    words: tuple[Word, ...]
    choice: Choice = Choice(k=3)
    ranking: Ranking = "standardized"
    timeline: bool = False
    embedding: bool = False
    calibration: Calibration | None = None

    @property
    def tags_type(self) -> pa.DataType:
        """The type of the column of tags."""
        return TAGS_TYPE if self.calibration is None else CALIBRATED_TYPE


class SongTagger:
    """Tags whole tables of projected songs, without a loop over them."""

    def __init__(self, scale: LabelScale, options: TagOptions, encoder: Identity, model: Model) -> None:
        """Take the measured words of ``options``; the store's encoder and the model are named in the output."""
        self._scale = scale
        self._options = options
        self._labels = pa.array([word.label for word in options.words], pa.string())
        self._window_seconds = float(encoder.get("window_seconds") or 0.0)
        self.schema = tags_schema(options, encoder, model)

    def tag(self, songs: pa.Table) -> pa.Table:
        """Projected songs (:func:`mer_ray.tagging.projections.projected_schema`) to rows of tags.

        Failed songs keep their status and get no tags. ``windows`` are needed for a timeline alone.
        """
        vectors_SE, there_S = song_vectors(songs)
        columns = [*(songs[name].combine_chunks() for name in STATUS_COLUMNS), self._tags(vectors_SE, there_S)]
        if self._options.timeline:
            columns.append(self._timeline(*window_arrays(songs["windows"])))
        if self._options.embedding:
            columns.append(vector_column(unit(vectors_SE).astype(np.float16), there_S))
        return pa.table(columns, schema=self.schema)

    def _tags(self, vectors_SE: NDArray[np.float32], there_S: NDArray[np.bool_]) -> pa.Array:
        scores_SL, percentiles_SL = self._scale.scores(vectors_SE), self._scale.percentiles(vectors_SE)
        order_SK, kept_SK = self._options.choice.best(scores_SL, percentiles_SL)
        kept_SK &= there_S[:, None]
        of_words = [scores_SL, percentiles_SL]
        if self._options.calibration is not None:
            names = [word.label for word in self._options.words]
            of_words += self._options.calibration.expected(names, percentiles_SL, self._options.choice.k)
        values = [np.take_along_axis(each, order_SK, axis=1)[kept_SK] for each in of_words]
        tags = [self._labels.take(pa.array(order_SK[kept_SK])), *map(pa.array, values)]
        fields = list(self._options.tags_type.value_type)
        return _lists(kept_SK.sum(axis=1), pa.StructArray.from_arrays(tags, fields=fields))

    def _timeline(self, windows_NE: NDArray[np.float16], counts_S: NDArray[np.int64]) -> pa.Array:
        options = self._options
        vectors_NE = torch.from_numpy(windows_NE.copy()).float().numpy()  # four times as fast as numpy's astype
        scores_NL = self._scale.scores(vectors_NE)
        percentiles_NL = None if options.choice.min_percentile is None else self._scale.percentiles(vectors_NE)
        order_NK, kept_NK = options.choice.best(scores_NL, percentiles_NL)
        tags = _lists(kept_NK.sum(axis=1), self._labels.take(pa.array(order_NK[kept_NK])))
        firsts_N = np.repeat(np.cumsum(counts_S) - counts_S, counts_S)
        starts_N = (np.arange(len(firsts_N)) - firsts_N) * self._window_seconds
        moments = [pa.array(starts_N, pa.float32()), tags]
        return _lists(counts_S, pa.StructArray.from_arrays(moments, fields=list(TIMELINE_TYPE.value_type)))


def _lists(counts: NDArray[np.int64], values: pa.Array) -> pa.Array:
    """Values as lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int32()), values)


def tags_schema(options: TagOptions, encoder: Identity, model: Model) -> pa.Schema:
    """The schema of a tags part, with its provenance."""
    fields = [*STATUS_FIELDS, pa.field("tags", options.tags_type)]
    if options.timeline:
        fields.append(pa.field("timeline", TIMELINE_TYPE))
    if options.embedding:
        fields.append(pa.field("embedding", pa.list_(pa.float16(), model.projector.shape.output_dim)))
    words = {"words": len(options.words), "words_sha256": words_digest(options.words)}
    asked = {**words, **asdict(options.choice), "ranking": options.ranking}
    return pa.schema(
        fields,
        metadata=metadata(encoder, **{"mer_ray.model": model.digest, "mer_ray.tags": json.dumps(asked)}),
    )
