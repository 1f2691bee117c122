"""The Ray Data graphs: songs to features, features to tags.

extract:  manifest -> decode (CPU tasks) -> encode (GPU or CPU actors) -> commit -> receipts
tag:      store parts -> project, rank, commit (CPU actors) -> receipts

A row is a song from end to end, so a commit is always whole songs. The driver sees receipts alone:
one row for each committed part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import StorageError
from mer_ray.features import STATUS_COLUMNS, STATUS_FIELDS, Identity, features_column, store_schema
from mer_ray.isolation import Limits, shared_decoder
from mer_ray.plan import Plan
from mer_ray.runs import commit

if TYPE_CHECKING:
    from ray.data import Dataset

    from mer_ray.tagging import TagOptions

FAILURE_COLUMNS = ("track_id", "error_class", "error")

DECODED_SCHEMA = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("windows", pa.list_(pa.large_binary())),
        pa.field("scales", pa.list_(pa.float32())),
        pa.field("decode_s", pa.float32()),
        pa.field("fetch_retries", pa.int32()),
        pa.field("fetch_retry_s", pa.float32()),
    ]
)
"""A decoded song on its way to an encoder: int16 windows, each scaled to its own peak, so that quiet
and over-full windows lose nothing."""

COSTS = ("decode_s", "encode_s", "fetch_retries", "fetch_retry_s")
"""Columns that tell what a song cost; added up in the receipts, and in no part."""

RECEIPT_SCHEMA = pa.schema(
    [
        pa.field("part", pa.string()),
        pa.field("songs", pa.int64()),
        pa.field("audio_s", pa.float64()),
        *(pa.field(name, pa.float64()) for name in COSTS),
        pa.field("node", pa.string()),
        pa.field("failures", pa.list_(pa.struct(dict.fromkeys(FAILURE_COLUMNS, pa.string()).items()))),
    ]
)
"""What the driver learns of a committed part; its failed songs by name, so that an operator can read of them."""

COMMIT_CPUS = 0.2


def extraction(
    manifest: str, output: str, token: str, plan: Plan, decoding: dict[str, Any], encoder: dict[str, Any]
) -> Dataset:
    """The graph from a manifest of pending songs to receipts.

    Args:
        manifest: Parquet with ``track_id`` and ``uri``.
        output: the feature store.
        token: of the run, see :func:`mer_ray.runs.commit`.
        plan: pool sizes.
        decoding: arguments of :func:`decode_song`.
        encoder: arguments of :func:`mer_ray.mert.load_encoder`.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    songs = _read_parquet(manifest, ["track_id", "uri"])
    decoded = songs.repartition(target_num_rows_per_block=plan.songs_per_block).map_batches(
        decode_songs,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs=decoding,
        compute=TaskPoolStrategy(size=plan.decoders),
        num_cpus=plan.decoder_cpus,
    )
    encoded = decoded.map_batches(
        EncodeSongs,
        batch_size=plan.songs_per_block,
        batch_format="pyarrow",
        fn_constructor_args=(encoder, plan.batch_windows, plan.threads),
        compute=ActorPoolStrategy(size=plan.encoders),
        num_cpus=plan.encoder_cpus,
        num_gpus=1 if plan.gpus else None,
    )
    return encoded.map_batches(
        commit_features,
        batch_size=plan.songs_per_part,
        batch_format="pyarrow",
        fn_args=(output, token),
        num_cpus=COMMIT_CPUS,
    )


def receipts(graph: Dataset) -> Iterator[dict[str, Any]]:
    """Run a graph and yield its receipts as parts are committed.

    Raises:
        StorageError: one that ended a worker, without the worker's story.
    """
    try:
        yield from graph.iter_rows()
    except Exception as error:  # what Ray Data raises need be no error of Ray's
        refused = _storage_error(error)
        if refused is None:
            raise
        raise StorageError(str(refused).partition("\n")[0]) from None  # below it Ray adds advice of its own


def decode_songs(songs: pa.Table, **decoding: Any) -> Iterator[pa.Table]:
    """Fetch and decode songs, each into a row of DECODED_SCHEMA, failed ones too."""
    for song in songs.to_pylist():
        started = time.perf_counter()
        row = decode_song(song["uri"], **decoding)
        row |= {"track_id": song["track_id"], "uri": song["uri"], "decode_s": time.perf_counter() - started}
        yield pa.Table.from_pylist([row], schema=DECODED_SCHEMA)


def decode_song(uri: str, *, limits: Limits, **decoding: Any) -> dict[str, Any]:
    """One song's decoded columns; whatever goes wrong with it, and whatever it does to its decoder, becomes its status.

    Args:
        uri: where it lies.
        limits: its time and its decoder's memory.
        decoding: ``window_seconds``, ``keep_tail`` and ``max_seconds`` of :func:`mer_ray.audio.decode_windows`.
    """
    return shared_decoder(limits).decode(uri, **decoding)


class EncodeSongs:
    """An encoder process: decoded songs in, rows of the feature store out."""

    def __init__(self, encoder: dict[str, Any], batch_windows: int, threads: int) -> None:
        import torch

        from mer_ray.mert import load_encoder

        torch.set_num_threads(threads)
        self._encoder = load_encoder(**encoder)
        self._identity: Identity = asdict(self._encoder.identity)
        self._batch_windows = batch_windows

    def __call__(self, songs: pa.Table) -> pa.Table:
        from mer_ray.mert import encode_tracks

        started = time.perf_counter()
        tracks = [_unpacked(song) for song in songs.select(["windows", "scales"]).to_pylist()]
        features = encode_tracks(self._encoder, tracks, self._batch_windows)
        seconds = (time.perf_counter() - started) / max(1, len(songs))
        schema = store_schema(self._identity, self._encoder.dim)
        status = [songs[name].combine_chunks() for name in STATUS_COLUMNS]
        table = pa.table([*status, features_column(features, self._encoder.dim)], schema=schema)
        table = table.append_column("encode_s", pa.array(np.full(len(songs), seconds, np.float32)))
        for name in COSTS:
            if name in songs.column_names:
                table = table.append_column(name, songs[name])
        return table


def commit_features(songs: pa.Table, output: str, token: str) -> pa.Table:
    """Write encoded songs as one part of the store; returns its receipt."""
    costs = {name: pc.sum(songs[name]).as_py() or 0 for name in COSTS}
    return _receipt(commit(output, songs.drop_columns(list(COSTS)), token), songs, costs)


def tagging(parts: list[str], output: str, token: str, workers: int, task: dict[str, Any]) -> Dataset:
    """The graph from a store's parts to receipts of tag parts.

    Args:
        parts: URIs of store parts that hold pending songs.
        output: the tags directory.
        token: of the run, see :func:`mer_ray.runs.commit`.
        workers: processes.
        task: the other arguments of :class:`mer_ray.pipelines.TagSongs`; the ids in ``pending`` and the
            ``yardstick`` are put in the object store once, for all processes.
    """
    import ray
    from ray.data import ActorPoolStrategy

    shared = {name: ray.put(task[name]) for name in ("pending", "yardstick")}
    # A block a part, so that a part is the unit of work.
    blocks = [pa.table({"part": [part]}) for part in parts]
    return ray.data.from_arrow(blocks).map_batches(
        TagSongs,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_kwargs={**task, **shared, "output": output, "token": token},
        compute=ActorPoolStrategy(size=workers),
        num_cpus=0.9,
    )


class TagSongs:
    """A tagging process: parts of a feature store in, receipts of committed tag parts out."""

    def __init__(
        self, model: str, options: TagOptions, encoder: Identity, pending: Any, yardstick: Any, output: str, token: str
    ) -> None:
        import ray
        import torch

        from mer_ray.tagging import SongTagger, Tagger

        torch.set_num_threads(1)
        self._tagger = SongTagger(Tagger.load(model).with_yardstick(ray.get(yardstick)), options, encoder)
        self._pending = ray.get(pending)
        self._output, self._token = output, token

    def __call__(self, parts: pa.Table) -> Iterator[pa.Table]:
        for part in parts["part"].to_pylist():
            for songs in storage.iter_tables(part, rows=512):
                wanted = songs.filter(pc.is_in(songs["track_id"], value_set=self._pending))
                if len(wanted):
                    table = self._tagger.tag(wanted)
                    yield _receipt(commit(self._output, table, self._token), table)


def song_vectors(parts: list[str], model: str, chosen: pa.Array, workers: int) -> NDArray[np.float32]:
    """Project the chosen songs of a store, the yardstick of a catalogue: [songs, E]."""
    import ray
    from ray.data import ActorPoolStrategy

    blocks = [pa.table({"part": [part]}) for part in parts]
    graph = ray.data.from_arrow(blocks).map_batches(
        ProjectSongs,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(model, ray.put(chosen)),
        compute=ActorPoolStrategy(size=workers),
        num_cpus=0.9,
    )
    tables = [batch for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow") if len(batch)]
    order = pa.concat_tables(tables).sort_by("track_id")
    return np.stack([np.frombuffer(vector, np.float32) for vector in order["vector"].to_pylist()])


class ProjectSongs:
    """A projecting process: parts of a feature store in, one mean vector a chosen song out."""

    def __init__(self, model: str, chosen: Any) -> None:
        import ray
        import torch

        from mer_ray.model import Model

        torch.set_num_threads(1)
        self._model = Model.load(model)
        self._chosen = ray.get(chosen)

    def __call__(self, parts: pa.Table) -> Iterator[pa.Table]:
        from mer_ray.tagging import project_songs

        for part in parts["part"].to_pylist():
            for songs in storage.iter_tables(part, rows=512, columns=["track_id", "features"]):
                wanted = songs.filter(pc.is_in(songs["track_id"], value_set=self._chosen))
                vectors = project_songs(self._model, wanted)[2]
                rows = [vector.astype(np.float32).tobytes() for vector in vectors]
                yield pa.table({"track_id": wanted["track_id"], "vector": pa.array(rows, pa.binary())})


def _read_parquet(uri: str, columns: list[str]) -> Dataset:
    import ray

    songs: Dataset = ray.data.read_parquet(
        storage.filesystem(uri)[1], filesystem=storage.arrow_filesystem(uri), columns=columns, num_cpus=0.1
    )
    return songs


def _unpacked(song: dict[str, Any]) -> list[NDArray[np.float32]]:
    pairs = zip(song["windows"] or [], song["scales"] or [], strict=True)
    return [np.frombuffer(window, np.int16).astype(np.float32) * np.float32(scale) for window, scale in pairs]


def _storage_error(error: BaseException | None) -> StorageError | None:
    """The StorageError among the causes of what Ray raised."""
    while error is not None and type(error) is not StorageError:
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return error


def _receipt(part: str, songs: pa.Table, costs: dict[str, float] | None = None) -> pa.Table:
    failed = songs.filter(pc.not_equal(songs["status"], "ok")).select(FAILURE_COLUMNS)
    row = {
        "part": part,
        "songs": len(songs),
        "audio_s": pc.sum(songs["duration_s"].cast(pa.float64())).as_py() or 0.0,
        **{name: float((costs or {}).get(name, 0.0)) for name in COSTS},
        "node": os.uname().nodename,
        "failures": failed.to_pylist(),
    }
    return pa.Table.from_pylist([row], schema=RECEIPT_SCHEMA)
