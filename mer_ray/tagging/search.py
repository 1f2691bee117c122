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
from mer_ray.learning.scoring import LabelScale, measured_by_catalog, yardstick_songs
from mer_ray.tagging.index import batch_vectors, rows_at, song_batches
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
        batches: S songs of a store, as :func:`mer_ray.tagging.index.song_batches` has them.
        wanted: [S] whether each is searched.
        yardstick: [Y, E] songs that scores are measured against.
        against: which these are, in words.
    """

    batches: list[pa.RecordBatch]
    wanted: NDArray[np.bool_]
    yardstick: NDArray[np.float32]
    against: str


def search(settings: SearchSettings) -> tuple[pa.Table, str]:
    """Rank a store's songs for phrases and songs, some thousand at a time: 4 bytes a song and answer are in memory.

    Returns:
        Rows of SCHEMA, the best k of each answer, best first, and what their scores were measured against.

    Raises:
        InputError: store and model do not fit, there is no song to search, or no song to find others like.
    """
    model, store = Model.load(settings.model), Store.open(settings.features)
    model.check_features(store)
    searched = _searched(settings, store, model)
    words = [Word.of(text) for text in [*settings.query, *settings.not_]]
    asked_QE = model.embed(words) if words else np.zeros((0, searched.yardstick.shape[1]), np.float32)
    queries, unwanted = len(settings.query), len(settings.not_)
    found = [_like(name, searched, store, model) for name in settings.like]
    # A song's direction from the yardstick's centre, as every song is seen before it is compared.
    likes_QE = [unit((vector - searched.yardstick.mean(0))[None]) for vector in found]
    scale = LabelScale(np.concatenate([asked_QE, *likes_QE]), searched.yardstick, "standardized")
    scores_SQ = _scores(scale, searched.batches)
    malus_S = np.maximum(scores_SQ[:, queries : queries + unwanted], 0).sum(axis=1)
    columns = [*range(queries), *range(queries + unwanted, scores_SQ.shape[1])]
    answers = [
        _answer(settings, searched, scale, name, column, scores_SQ[:, column] - malus_S)
        for name, column in zip([*settings.query, *(f"like {name}" for name in settings.like)], columns, strict=True)
    ]
    table = pa.concat_tables(answers)
    for name, names in names_of(table["track_id"], settings.catalog).to_pydict().items():
        table = table.append_column(name, pa.array(names, pa.string()))
    return table.select(SCHEMA.names).cast(SCHEMA), searched.against


def _scores(scale: LabelScale, batches: Sequence[pa.RecordBatch]) -> NDArray[np.float32]:
    """[S, labels] of every song, a batch after another."""
    from threadpoolctl import threadpool_limits

    # A batch is so little that threads would wait for each other: on a busy machine twenty times as long.
    with threadpool_limits(1):
        return np.concatenate([scale.scores(batch_vectors(batch)) for batch in batches])


def _searched(settings: SearchSettings, store: Store, model: Model) -> Searched:
    batches = song_batches(Projections(store.uri, store.encoder, model, settings.keep_projections))
    wanted_S = np.ones(sum(map(len, batches)), bool)
    if settings.catalog is not None:
        ids = load_catalog(settings.catalog)["track_id"].combine_chunks()
        within = [pc.is_in(batch["track_id"], value_set=ids) for batch in batches]
        wanted_S = pa.chunked_array(within, pa.bool_()).to_numpy()
    at_N = np.flatnonzero(wanted_S)
    if not len(at_N):
        where = f" of {settings.catalog} is there and" if settings.catalog else " of its songs"
        raise InputError(f"features {settings.features}: none{where} could be read; see its failures.")
    if not measured_by_catalog(settings.yardstick, len(at_N)):
        training = f"the model's {len(model.background):,} training songs"
        return Searched(batches, wanted_S, model.background, training)
    lots_N = np.concatenate([batch["lot"].to_numpy() for batch in batches])[at_N]
    measuring_N = yardstick_songs(lots_N)
    whose = f"the {'catalogue' if settings.catalog else 'store'}'s {len(at_N):,} songs"
    if len(measuring_N) < len(at_N):
        whose = f"{len(measuring_N):,} of {whose}"
    return Searched(batches, wanted_S, song_vectors(rows_at(batches, at_N[measuring_N]))[0], whose)


def _like(name: str, searched: Searched, store: Store, model: Model) -> NDArray[np.float32]:
    """The vector of a song among those searched, or of a file that is decoded and encoded now."""
    named = pa.chunked_array([pc.equal(batch["track_id"], name) for batch in searched.batches]).to_numpy()
    at_N = np.flatnonzero(named & searched.wanted)[:1]
    if len(at_N):
        return song_vectors(rows_at(searched.batches, at_N))[0][0]
    if not storage.exists(name):
        raise InputError(f"--like {name}: neither a song of {store.uri} nor a file; check the id.")
    return song_vector(name, store.encoder, model)


def _answer(
    settings: SearchSettings,
    searched: Searched,
    scale: LabelScale,
    name: str,
    column: int,
    scores_S: NDArray[np.float32],
) -> pa.Table:
    """The best songs for one of a scale's labels."""
    best_K = _best(np.where(searched.wanted, scores_S, -np.inf), settings.k + 1)
    ids = rows_at(searched.batches, best_K)["track_id"].to_pylist()
    best_K = best_K[[name != f"like {each}" for each in ids]][: settings.k]
    found = rows_at(searched.batches, best_K)
    columns: dict[str, Any] = {
        "query": [name] * len(best_K),
        "rank": np.arange(1, len(best_K) + 1),
        **{each: found[each] for each in ("track_id", "uri", "duration_s")},
        "score": scores_S[best_K],
        "percentile": scale.percentiles(song_vectors(found)[0])[:, column],
    }
    return pa.table(columns)


def _best(scores_S: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Where the k highest scores stand, the highest first, of equal ones the first; -inf is none."""
    if len(scores_S) > k:
        least = -np.partition(-scores_S, k - 1)[k - 1]
        near_N = np.flatnonzero((scores_S >= least) & (scores_S > -np.inf))
    else:
        near_N = np.flatnonzero(scores_S > -np.inf)
    return near_N[np.argsort(-scores_S[near_N], kind="stable")][:k]


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
