"""The songs of a feature store that are nearest to a phrase."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import LabelScale, measured_by_catalog
from mer_ray.tagging.projections import Projections, song_vectors
from mer_ray.tagging.settings import SearchSettings
from mer_ray.words.lists import Word

SCHEMA = pa.schema(
    [("track_id", pa.string()), ("uri", pa.string()), ("score", pa.float32()), ("percentile", pa.float32())]
)


def search(settings: SearchSettings) -> tuple[pa.Table, str]:
    """Rank a store's songs for a phrase, keeping one vector a song in memory (1.5 kB).

    Returns:
        The best k songs, best first, and what their scores were measured against.

    Raises:
        InputError: store and model do not fit, or the store has no song that could be read.
    """
    model, store = Model.load(settings.model), Store.open(settings.features)
    model.check_features(store)
    query_1E = model.embed([Word.of(settings.query)])
    songs, vectors_SE = _readable(Projections(store.uri, store.encoder, model, settings.keep_projections), store.parts)
    if not len(songs):
        raise InputError(f"features {settings.features}: none of its songs could be read; see its failures.")
    catalog = measured_by_catalog(settings.yardstick, len(songs))
    scale = LabelScale(query_1E, vectors_SE if catalog else model.background, "standardized")
    scores_S = scale.scores(vectors_SE)[:, 0]
    best = np.argsort(-scores_S, kind="stable")[: settings.k]
    found = songs.take(pa.array(best))
    percentiles = scale.percentiles(vectors_SE)[best, 0]
    table = pa.table([found["track_id"], found["uri"], scores_S[best], percentiles], schema=SCHEMA)
    against = (
        f"the store's {len(songs):,} songs" if catalog else f"the model's {len(model.background):,} training songs"
    )
    return table, against


def check_output(uri: str | None) -> None:
    """Raise InputError for a file that is neither Parquet nor CSV, before the work is done."""
    if uri is not None and not uri.endswith((".csv", ".parquet")):
        raise InputError(f"--output {uri}: neither .parquet nor .csv; end the name with one of them.")


def write_found(uri: str, table: pa.Table) -> None:
    """Write the table: CSV if the name ends so, else Parquet."""
    file = io.BytesIO()
    if uri.endswith(".csv"):
        pyarrow.csv.write_csv(table, file)
    else:
        pq.write_table(table, file)
    storage.write_bytes(uri, file.getvalue())


def _readable(projections: Projections, parts: list[str]) -> tuple[pa.Table, NDArray[np.float32]]:
    """The songs that could be read, and their vectors, [S, E]."""
    tables = [songs.select(["track_id", "uri", "vector"]) for part in parts for songs in projections.songs(part)]
    songs = pa.concat_tables(tables)
    songs = songs.filter(songs["vector"].is_valid())
    return songs, song_vectors(songs)[0]
