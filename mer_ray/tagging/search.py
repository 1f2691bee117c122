"""The songs of a feature store that are nearest to phrases and to other songs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.manifest import NAMES
from mer_ray.catalog.names import names_of
from mer_ray.catalog.sources import load_catalog
from mer_ray.errors import InputError
from mer_ray.features import Store
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import LabelScale, measured_by_catalog
from mer_ray.tagging.listening import song_vector
from mer_ray.tagging.playlists import playlist
from mer_ray.tagging.projections import Projections, song_vectors
from mer_ray.tagging.settings import SearchSettings
from mer_ray.words.embedding import unit
from mer_ray.words.lists import Word

SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("rank", pa.int32()),
        ("track_id", pa.string()),
        ("uri", pa.string()),
        ("score", pa.float32()),
        ("percentile", pa.float32()),
        ("duration_s", pa.float32()),
        *((name, pa.string()) for name in NAMES),
    ]
)


@dataclass(frozen=True)
class Searched:
    """The songs that are searched, and what they are measured by.

    Attributes:
        songs: ``track_id``, ``uri``, ``duration_s`` of S songs that could be read.
        vectors: [S, E] their vectors.
        yardstick: [Y, E] songs that scores are measured against.
        against: which these are, in words.
    """

    songs: pa.Table
    vectors: NDArray[np.float32]
    yardstick: NDArray[np.float32]
    against: str


def search(settings: SearchSettings) -> tuple[pa.Table, str]:
    """Rank a store's songs for phrases and songs, keeping one vector a song in memory (1.5 kB).

    Returns:
        Rows of SCHEMA, the best k of each answer, best first, and what their scores were measured against.

    Raises:
        InputError: store and model do not fit, there is no song to search, or no song to find others like.
    """
    model, store = Model.load(settings.model), Store.open(settings.features)
    model.check_features(store)
    searched = _searched(settings, store, model)
    words = [Word.of(text) for text in [*settings.query, *settings.not_]]
    asked_QE = model.embed(words) if words else np.zeros((0, searched.vectors.shape[1]), np.float32)
    queries, unwanted = len(settings.query), len(settings.not_)
    found = [_like(name, searched, store, model) for name in settings.like]
    # A song's direction from the yardstick's centre, as every song is seen before it is compared.
    likes_QE = [unit((vector - searched.yardstick.mean(0))[None]) for vector in found]
    scale = LabelScale(np.concatenate([asked_QE, *likes_QE]), searched.yardstick, "standardized")
    scores_SQ, percentiles_SQ = scale.scores(searched.vectors), scale.percentiles(searched.vectors)
    malus_S = np.maximum(scores_SQ[:, queries : queries + unwanted], 0).sum(axis=1)
    columns = [*range(queries), *range(queries + unwanted, scores_SQ.shape[1])]
    answers = [
        _answer(settings, searched, name, scores_SQ[:, column] - malus_S, percentiles_SQ[:, column])
        for name, column in zip([*settings.query, *(f"like {name}" for name in settings.like)], columns, strict=True)
    ]
    table = pa.concat_tables(answers)
    for name, names in names_of(table["track_id"], settings.catalog).to_pydict().items():
        table = table.append_column(name, pa.array(names, pa.string()))
    return table.select(SCHEMA.names).cast(SCHEMA), searched.against


def _searched(settings: SearchSettings, store: Store, model: Model) -> Searched:
    wanted = None if settings.catalog is None else load_catalog(settings.catalog)["track_id"].combine_chunks()
    projections = Projections(store.uri, store.encoder, model, settings.keep_projections)
    columns = ["track_id", "uri", "duration_s", "vector"]
    songs = pa.concat_tables(songs.select(columns) for part in store.parts for songs in projections.songs(part, wanted))
    songs = songs.filter(songs["vector"].is_valid())
    if not len(songs):
        where = f" of {settings.catalog} is there and" if settings.catalog else " of its songs"
        raise InputError(f"features {settings.features}: none{where} could be read; see its failures.")
    vectors_SE = song_vectors(songs)[0]
    if measured_by_catalog(settings.yardstick, len(songs)):
        whose = "catalogue" if settings.catalog else "store"
        return Searched(songs, vectors_SE, vectors_SE, f"the {whose}'s {len(songs):,} songs")
    training = f"the model's {len(model.background):,} training songs"
    return Searched(songs, vectors_SE, model.background, training)


def _like(name: str, searched: Searched, store: Store, model: Model) -> NDArray[np.float32]:
    """The vector of a song among those searched, or of a file that is decoded and encoded now."""
    at = pc.index(searched.songs["track_id"], name).as_py()
    if at >= 0:
        return searched.vectors[at]
    if not storage.exists(name):
        raise InputError(f"--like {name}: neither a song of {store.uri} nor a file; check the id.")
    return song_vector(name, store.encoder, model)


def _answer(
    settings: SearchSettings,
    searched: Searched,
    name: str,
    scores_S: NDArray[np.float32],
    percentiles_S: NDArray[np.float32],
) -> pa.Table:
    order = np.argsort(-scores_S, kind="stable")[: settings.k + 1]
    ids = searched.songs["track_id"]
    best = np.array([at for at in order if name != f"like {ids[int(at)]}"][: settings.k], np.int64)
    found = searched.songs.take(pa.array(best))
    columns: dict[str, Any] = {
        "query": [name] * len(best),
        "rank": np.arange(1, len(best) + 1),
        **{column: found[column] for column in ("track_id", "uri", "duration_s")},
        "score": scores_S[best],
        "percentile": percentiles_S[best],
    }
    return pa.table(columns)


def check_output(settings: SearchSettings) -> None:
    """Raise InputError for a file of another kind than those that are written, before the work is done."""
    uri, answers = settings.output, len(settings.query) + len(settings.like)
    if uri is not None and not uri.endswith((".csv", ".parquet", ".m3u8")):
        raise InputError(f"--output {uri}: none of .parquet, .csv and .m3u8; end the name with one of them.")
    if uri is not None and uri.endswith(".m3u8") and answers > 1:
        raise InputError(f"--output {uri}: one playlist of {answers} answers; give --playlists a folder.")


def write_found(uri: str, table: pa.Table) -> None:
    """Write the table: CSV, a playlist or Parquet, as the name ends."""
    file = io.BytesIO()
    if uri.endswith(".m3u8"):
        file.write(playlist(table.to_pylist(), uri))
    elif uri.endswith(".csv"):
        pyarrow.csv.write_csv(table, file)
    else:
        pq.write_table(table, file)
    storage.write_bytes(uri, file.getvalue())


def write_playlists(folder: str, table: pa.Table) -> list[str]:
    """One playlist an answer, named by its query; returns their names."""
    queries = list(dict.fromkeys(table["query"].to_pylist()))
    names = _file_names(queries)
    for query, name in zip(queries, names, strict=True):
        write_found(storage.join(folder, name), table.filter(pc.equal(table["query"], query)))
    return names


def _file_names(queries: Sequence[str]) -> list[str]:
    """Each query as a file name that any system takes; a number tells those apart that become alike."""
    names: list[str] = []
    for query in queries:
        plain = "".join(letter if letter.isalnum() or letter in " -" else "_" for letter in os.path.basename(query))
        plain = plain.strip(" _")[:80] or "answer"
        alike = sum(name.rsplit(".", 1)[0].casefold().startswith(plain.casefold()) for name in names)
        names.append(f"{plain}{f' {alike + 1}' if alike else ''}.m3u8")
    return names
