"""A model, a feature store and tags as the jobs write them, of songs drawn at random, without a Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mer_ray import storage
from mer_ray.features import store_table
from mer_ray.runs.directory import SETTINGS, run_file
from mer_ray.songs import part_name
from mer_ray.tagging.contract import WORDS, words_file
from mer_ray.tagging.projections import Projections
from mer_ray.tagging.ranking import Choice, SongTagger, Tagger, TagOptions
from mer_ray.words.lists import Word
from tests.learning.test_model import DIM, ENCODER, small_model

MOODS = ("calm", "happy", "sad", "angry", "dreamy", "epic")
LICENCE = {"licence": "Apache-2.0 (untrained)"}


def tagged_catalogue(
    folder: Path,
    songs: Sequence[str],
    failed: Sequence[str] = (),
    *,
    words: Sequence[str] = MOODS,
    timeline: bool = True,
    embedding: bool = False,
    music: Path | None = None,
) -> Path:
    """Write ``model``, ``features`` and ``tags`` below a folder; returns the tags.

    A song's audio is said to lie below ``music``, by its id.
    """
    model, rng = small_model(), np.random.default_rng(0)
    encoder = {**ENCODER, **LICENCE}
    music = music or folder / "music"
    rows = [{"track_id": name, "uri": str(music / name), "status": "ok", "duration_s": 20.0} for name in songs]
    rows += [
        {"track_id": name, "uri": str(music / name), "status": "failed", "error_class": "silent", "error": "is silent"}
        for name in failed
    ]
    tracks = [rng.normal(size=(2, DIM)).astype(np.float16) for _ in songs] + [np.zeros((0, DIM))] * len(failed)
    store = store_table(rows, tracks, encoder)
    model.save(str(folder / "model"))
    asked = tuple(Word.of(word) for word in words)
    options = TagOptions(asked, Choice(k=2), timeline=timeline, embedding=embedding)
    tagger = SongTagger(Tagger(model).scale(asked), options, encoder, model)
    projected = Projections(str(folder / "features"), encoder, model).project(store)
    for name, table in (("features", store), ("tags", tagger.tag(projected))):
        storage.write_table(str(folder / name / part_name(table["track_id"])), table)
    settings = {name: str(folder / name) for name in ("features", "model")}
    storage.write_bytes(run_file(str(folder / "tags"), SETTINGS), storage.as_json({"job": "tag", "settings": settings}))
    storage.write_bytes(run_file(str(folder / "tags"), WORDS), words_file(asked))
    return folder / "tags"


def read_column(uri: Path, name: str) -> pa.ChunkedArray:
    """A column of all parts of a directory."""
    return pq.read_table(sorted(uri.glob("part-*.parquet")), columns=[name])[name]
