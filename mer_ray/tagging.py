"""Projected windows times labels to ranked tags (paper §3.5, and scores that compare between words)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray.features import STATUS_COLUMNS, STATUS_FIELDS, Identity, metadata, window_arrays
from mer_ray.labels import Phrases, unit
from mer_ray.model import Model

Ranking = Literal["standardized", "cosine"]


class Tag(NamedTuple):
    """One word for a song; ``percentile`` is the share of yardstick songs it suits no better."""

    label: str
    score: float
    percentile: float


class LabelScale:
    """How each label's cosines spread over a yardstick of songs.

    A word near everything (or far from everything) in the sentence space would be given to every
    song (or to none). Measured against its own mean and deviation over many songs, a score means
    the same for every word. So does a song: what all songs of a yardstick share says nothing of any of
    them, and is taken away before its cosines, as the words' own centre is from the words.
    """

    def __init__(
        self, labels_LE: NDArray[np.float32], yardstick_SE: NDArray[np.floating[Any]], ranking: Ranking
    ) -> None:
        """Measure the labels.

        Args:
            labels_LE: [L, E] unit label embeddings.
            yardstick_SE: [S, E] mean unit projection of each yardstick song.
            ranking: ``standardized`` or ``cosine``.
        """
        self._labels_LE = labels_LE
        standardized = ranking == "standardized"
        songs_SE = np.asarray(yardstick_SE, np.float32)
        self._center_E = songs_SE.mean(0) if standardized else None
        cosines_SL = self._cosines(songs_SE)
        self._sorted_LS = np.sort(cosines_SL.T, axis=1)
        self._mean_L = cosines_SL.mean(0) if standardized else np.zeros(len(labels_LE), np.float32)
        self._std_L = np.maximum(cosines_SL.std(0), 1e-6) if standardized else np.ones(len(labels_LE), np.float32)

    def scores(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """Score every label for windows or songs: [n, E] to [n, L], higher is better."""
        scores: NDArray[np.float32] = (self._cosines(vectors_NE) - self._mean_L) / self._std_L
        return scores

    def percentiles(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, L] share of the yardstick whose cosine with the label is not above this one's, 0 to 1."""
        cosines_NL = self._cosines(vectors_NE)
        songs = self._sorted_LS.shape[1]
        ranks = [np.searchsorted(row, cosines_NL[:, at], side="right") for at, row in enumerate(self._sorted_LS)]
        return (np.stack(ranks, axis=1) / songs).astype(np.float32)

    def _cosines(self, vectors_NE: NDArray[np.float32]) -> NDArray[np.float32]:
        centred_NE = vectors_NE if self._center_E is None else unit(vectors_NE - self._center_E)
        cosines_NL: NDArray[np.float32] = centred_NE @ self._labels_LE.T
        return cosines_NL


@dataclass
class Tagger:
    """Ranks any list of words for songs.

    Attributes:
        model: the trained model.
        yardstick: [S, E] songs against which scores are measured; the model's own background if
            no catalogue's is given.
    """

    model: Model
    yardstick: NDArray[np.float32] | None = None

    @classmethod
    def load(cls, model: str | PathLike[str]) -> Tagger:
        """A tagger from a model directory (local or ``s3://``)."""
        return cls(Model.load(model))

    def with_yardstick(self, songs_SE: NDArray[np.float32]) -> Tagger:
        """The same tagger, measuring its words against these songs."""
        return Tagger(self.model, songs_SE)

    def scale(self, labels: Phrases, ranking: Ranking = "standardized") -> LabelScale:
        """Measure a list of labels once, to score many songs with it."""
        yardstick = self.model.background if self.yardstick is None else self.yardstick
        return LabelScale(self.model.embed(labels), yardstick, ranking)

    def rank(
        self,
        features: NDArray[np.floating[Any]],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        k: int = 3,
        ranking: Ranking = "standardized",
    ) -> list[Tag]:
        """The k best of these words for one song.

        Args:
            features: [w, D] features of the song's windows, at least one.
            labels: words, or words with their phrases.
            k: how many tags.
            ranking: what the score is (see :class:`LabelScale`).
        """
        pairs = labels.items() if isinstance(labels, Mapping) else ((label, (label,)) for label in labels)
        phrases: Phrases = {label: tuple(texts) for label, texts in pairs}
        vector_1E = song_vector(self.model.project(features))[None]
        scale = self.scale(phrases, ranking)
        return best_tags(list(phrases), scale.scores(vector_1E)[0], scale.percentiles(vector_1E)[0], k=k)


def song_vector(projected_WE: NDArray[np.float32]) -> NDArray[np.float32]:
    """A song's place: the mean of its windows' unit vectors, so that its cosines are their mean. [E]."""
    mean: NDArray[np.float32] = projected_WE.mean(axis=0)
    return mean


def best_tags(
    labels: Sequence[str],
    scores_L: NDArray[np.float32],
    percentiles_L: NDArray[np.float32],
    *,
    k: int | None = None,
    threshold: float | None = None,
    min_percentile: float | None = None,
) -> list[Tag]:
    """Labels in order of score: the first k, or those that reach the thresholds, or all limits."""
    order = np.argsort(-scores_L, kind="stable")[:k]
    return [
        Tag(labels[at], float(scores_L[at]), float(percentiles_L[at]))
        for at in order
        if (threshold is None or scores_L[at] >= threshold)
        and (min_percentile is None or percentiles_L[at] >= min_percentile)
    ]


TIMELINE_TYPE = pa.list_(pa.struct([("start_s", pa.float32()), ("tags", pa.list_(pa.string()))]))
TAGS_TYPE = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32()), ("percentile", pa.float32())]))


@dataclass(frozen=True)
class TagOptions:
    """What to write for each song.

    Attributes:
        labels: words and their phrases.
        k: at most this many tags.
        threshold: only tags whose score reaches it.
        min_percentile: only tags whose percentile reaches it.
        ranking: what the score is.
        timeline: the tags of each window as well.
        embedding: the song's unit vector as well.
    """

    labels: Phrases
    k: int | None = 3
    threshold: float | None = None
    min_percentile: float | None = None
    ranking: Ranking = "standardized"
    timeline: bool = False
    embedding: bool = False


class SongTagger:
    """Tags whole tables of a feature store."""

    def __init__(self, tagger: Tagger, options: TagOptions, encoder: Identity) -> None:
        """Embed and measure the words once; ``encoder`` is the store's, for the output's metadata."""
        self._model = tagger.model
        self._options = options
        self._labels = list(options.labels)
        self._scale = tagger.scale(options.labels, options.ranking)
        self._window_seconds = float(encoder.get("window_seconds") or 0.0)
        self.schema = tags_schema(options, encoder, self._model)

    def tag(self, songs: pa.Table) -> pa.Table:
        """Rows of a feature store to rows of tags; failed songs keep their status and get no tags."""
        windows_NE, counts, vectors_SE = project_songs(self._model, songs)
        scores_SL, percentiles_SL = self._scale.scores(vectors_SE), self._scale.percentiles(vectors_SE)
        columns = [songs[name].combine_chunks() for name in STATUS_COLUMNS]
        tags = [
            [tag._asdict() for tag in self._best(scores, percentiles)] if count else []
            for scores, percentiles, count in zip(scores_SL, percentiles_SL, counts, strict=True)
        ]
        columns.append(pa.array(tags, TAGS_TYPE))
        if self._options.timeline:
            columns.append(pa.array(self._timelines(windows_NE, counts), TIMELINE_TYPE))
        if self._options.embedding:
            flat = pa.array(unit(vectors_SE).astype(np.float16).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors_SE.shape[1], mask=pa.array(counts == 0)))
        return pa.table(columns, schema=self.schema)

    def _best(self, scores_L: NDArray[np.float32], percentiles_L: NDArray[np.float32]) -> list[Tag]:
        options = self._options
        limits = {"threshold": options.threshold, "min_percentile": options.min_percentile}
        return best_tags(self._labels, scores_L, percentiles_L, k=options.k, **limits)

    def _timelines(self, windows_NE: NDArray[np.float32], counts: NDArray[np.int64]) -> list[list[dict[str, Any]]]:
        scores_NL, percentiles_NL = self._scale.scores(windows_NE), self._scale.percentiles(windows_NE)
        rows = [[tag.label for tag in self._best(*pair)] for pair in zip(scores_NL, percentiles_NL, strict=True)]
        ends = np.cumsum(counts)
        return [
            [{"start_s": at * self._window_seconds, "tags": tags} for at, tags in enumerate(rows[end - count : end])]
            for count, end in zip(counts, ends, strict=True)
        ]


def project_songs(model: Model, songs: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Project rows of a feature store.

    Returns:
        [n, E] unit vectors of all windows; [S] windows a song; [S, E] mean of each song's windows,
        zero for a song without any.
    """
    features_ND, counts = window_arrays(songs["features"])
    windows_NE = model.project(features_ND, counts)
    vectors_SE = np.zeros((len(counts), windows_NE.shape[1]), np.float32)
    np.add.at(vectors_SE, np.repeat(np.arange(len(counts)), counts), windows_NE)
    return windows_NE, counts, vectors_SE / np.maximum(counts, 1).astype(np.float32)[:, None]


def tags_schema(options: TagOptions, encoder: Identity, model: Model) -> pa.Schema:
    """The schema of a tags part, with its provenance."""
    fields = [*STATUS_FIELDS, pa.field("tags", TAGS_TYPE)]
    if options.timeline:
        fields.append(pa.field("timeline", TIMELINE_TYPE))
    if options.embedding:
        fields.append(pa.field("embedding", pa.list_(pa.float16(), model.projector.shape.output_dim)))
    limits = {name: getattr(options, name) for name in ("k", "threshold", "min_percentile", "ranking")}
    asked = {"labels": list(options.labels), **limits}
    return pa.schema(
        fields, metadata=metadata(encoder, **{"mer_ray.model": model.digest, "mer_ray.tags": json.dumps(asked)})
    )
