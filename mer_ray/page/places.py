"""Where songs lie by valence and arousal, and which suit each word best and worst: from their vectors and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.learning.model import Model
from mer_ray.runs.directory import run_file
from mer_ray.tagging.projections import Projections, song_vectors
from mer_ray.tagging.ranking import Tagger
from mer_ray.tagging.tagged import Tagged
from mer_ray.words.embedding import unit
from mer_ray.words.lists import Word

EXTREMES = 10
"""Songs shown that a word suits best, and as many that it suits worst."""
EDGE = 0.98
"""The share of songs, and the word farthest out, that a map's axis holds between -1 and 1."""


@dataclass(frozen=True)
class Places:
    """Of S songs and W words.

    Attributes:
        songs: [S, 2] valence and arousal, scaled so that most lie between -1 and 1.
        words: [W, 2] the same of the words, on a scale of their own.
        best: [W, n] songs that suit each word best, the best first.
        worst: [W, n] those that suit it worst, the worst first.
        percentiles: [S, W] the share of the yardstick's songs that each word suits no better.
    """

    songs: NDArray[np.float32]
    words: NDArray[np.float32]
    best: NDArray[np.int64]
    worst: NDArray[np.int64]
    percentiles: NDArray[np.float32]


class Sources(NamedTuple):
    """What the vectors of songs and words come from; ``keep`` as in :class:`Projections`."""

    model: Model
    store: Store | None = None
    keep: bool = True


def find_sources(tagged: Tagged, features: str | None, model: str | None) -> Sources:
    """The model and the store that tags were made from; no store is needed where the tags hold the songs' vectors.

    Raises:
        InputError: they are not there, or are others.
    """
    uri = model or tagged.settings.get("model")
    if uri is None:
        raise InputError(f"tags {tagged.uri}: nothing says which model made them; give --model.")
    loaded = Model.load(str(uri))
    if loaded.digest != tagged.model_digest:
        raise InputError(f"model {uri}: not the one that made the tags; give --model.")
    if "embedding" in tagged.schema.names:
        return Sources(loaded)
    where = features or tagged.settings.get("features")
    if where is None:
        raise InputError(f"tags {tagged.uri}: without vectors of the songs; give --features.")
    store = Store.open(str(where))
    loaded.check_features(store)
    return Sources(loaded, store, tagged.settings.get("keep_projections", True))


def find_places(tagged: Tagged, sources: Sources, songs: pa.Table, words: Sequence[Word]) -> Places:
    """Lay out songs (rows of the tags, by id) and words.

    Raises:
        InputError: the store no longer holds one of the songs.
    """
    model, vectors_SE = sources.model, _vectors(sources, songs)
    tagger = _tagger(tagged, model, vectors_SE)
    # Of unit length, as tags hold them: the same map whether the vectors come from there or from the store.
    center_E = unit(model.background if tagger.yardstick is None else tagger.yardstick).mean(0)
    axes_E2 = model.space.affect_axes()[:, :2]
    scale = tagger.scale(words, tagged.asked.get("ranking"))
    scores_SW = scale.scores(vectors_SE)
    order_SW = np.argsort(-scores_SW, axis=0, kind="stable")
    return Places(
        _within(unit(unit(vectors_SE) - center_E) @ axes_E2),
        _within(model.embed(words) @ axes_E2, 1.0),
        order_SW[:EXTREMES].T,
        order_SW[::-1][:EXTREMES].T,
        scale.percentiles(vectors_SE),
    )


def _vectors(sources: Sources, songs: pa.Table) -> NDArray[np.float32]:
    """[S, E] each song's vector."""
    if sources.store is None:
        column = songs["embedding"].combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(songs), -1).astype(np.float32)
    ids, store = songs["track_id"].combine_chunks(), sources.store
    projections = Projections(store.uri, store.encoder, sources.model, sources.keep)
    found = [table.select(["track_id", "vector"]) for part in store.parts for table in projections.songs(part, ids)]
    rows = pa.concat_tables(found).sort_by("track_id")
    if not rows["track_id"].combine_chunks().equals(ids):
        raise InputError(f"features {store.uri}: some songs of the tags are no longer there; tag them again.")
    return song_vectors(rows)[0]


def _tagger(tagged: Tagged, model: Model, vectors_SE: NDArray[np.float32]) -> Tagger:
    """With the songs that measured the words; these songs where that is lost."""
    frozen = run_file(tagged.uri, "yardstick.safetensors")
    if not storage.exists(frozen):
        return Tagger(model, vectors_SE, alone=True)
    kept = load_arrays(storage.read_bytes(frozen))
    return Tagger(model, kept["songs"].astype(np.float32), alone="blended" not in kept)


def _within(places_N2: NDArray[np.float32], share: float = EDGE) -> NDArray[np.float32]:
    """Each axis scaled so that this share of the places lies between -1 and 1."""
    if not len(places_N2):
        return places_N2
    return np.asarray(places_N2 / np.maximum(np.quantile(np.abs(places_N2), share, axis=0), 1e-6), np.float32)
