"""The Ray Data graphs: songs to features, features to tags.

extract:  manifest -> decode (CPU tasks) -> encode (GPU or CPU actors) -> commit -> receipts
tag:      store parts -> project, rank, commit (CPU actors) -> receipts

A row is a song from end to end, so a commit is always whole songs. The driver sees receipts alone:
one row for each committed part.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray.audio.process import Limits, shared_decoder
from mer_ray.cluster.plan import Plan
from mer_ray.errors import StorageError
from mer_ray.features import STATUS_COLUMNS, STATUS_FIELDS, features_column, store_schema
from mer_ray.runs.directory import commit

if TYPE_CHECKING:
    from ray.data import Dataset

    from mer_ray.encoders._batching import Window
    from mer_ray.tagging.projections import Projections
    from mer_ray.tagging.ranking import TagOptions

Reading = dict[str, Any]
"""Arguments of :class:`mer_ray.tagging.projections.Projections`, the model by its URI."""

FAILURE_COLUMNS = ("track_id", "error_class", "error")

DECODED_SCHEMA = pa.schema(
    [
        *STATUS_FIELDS,
        pa.field("windows", pa.list_(pa.large_binary())),
        pa.field("scales", pa.list_(pa.float32())),
        pa.field("decode_s", pa.float32()),
        pa.field("fetch_retries", pa.int32()),
        pa.field("fetch_retry_s", pa.float32()),
        pa.field("trouble", pa.string()),
    ]
)
"""A decoded song on its way to an encoder: int16 windows, each scaled to its own peak, so that quiet
and over-full windows lose nothing. ``trouble`` is what ends the run: no fault of the song, which is not committed."""

DECODE_COSTS = ("decode_s", "fetch_retries", "fetch_retry_s")
COSTS = (*DECODE_COSTS, "encode_s")
"""Columns that tell what a song cost; added up in the receipts, and in no part."""
BESIDE = (*COSTS, "ready")
"""All that an encoded song carries to its commit beside its row: its costs, and when its worker was ready."""

RECEIPT_SCHEMA = pa.schema(
    [
        pa.field("part", pa.string()),
        pa.field("songs", pa.int64()),
        pa.field("audio_s", pa.float64()),
        *(pa.field(name, pa.float64()) for name in BESIDE),
        pa.field("node", pa.string()),
        pa.field("failures", pa.list_(pa.struct(dict.fromkeys(FAILURE_COLUMNS, pa.string()).items()))),
        pa.field("trouble", pa.string()),
    ]
)
"""What the driver learns of a committed part; its failed songs by name, so that an operator can read of them. Or the
``trouble`` that kept it from being written: what ends a task comes back from Ray as a wall of text."""

COMMIT_CPUS = 0.2

BEYOND_FLOAT16 = 65_520
"""What is as large as this becomes infinite in a store."""

PARTS_PER_TASK = 16
"""At most so many parts of a store are read by one task: a task costs as much as a part's tags."""

PART_BYTES = 256_000_000
"""Features in one part: 256 songs of usual length have 30 MB, as many of two hours a gigabyte."""


def extraction(
    songs: pa.Table,
    output: str,
    token: str,
    plan: Plan,
    decoding: dict[str, Any],
    encoder: dict[str, Any],
    cut: dict[str, Any],
) -> Dataset:
    """The graph from pending songs to receipts.

    A decode task hands its songs on as soon as they fill a block of Ray's (128 MB), so what waits between
    the stages is bounded in bytes, however many songs a task has and however long they are.

    Args:
        songs: ``track_id`` and ``uri``; they go into the object store.
        output: the feature store.
        token: of the run, see :func:`mer_ray.runs.directory.commit`.
        plan: pool sizes.
        decoding: arguments of :func:`decode_song`.
        encoder: ``name`` and ``settings`` of :func:`mer_ray.encoders.load_encoder`.
        cut: ``window_seconds`` and ``keep_tail``, as the store records them.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    size = plan.songs_per_block
    starts = range(0, len(songs), size)
    # The songs lie in the object store once; a task gets two numbers. (from_arrow would start a task for each block,
    # to ask for its schema.)
    ranges = [pa.table({"start": [start], "stop": [start + size]}) for start in starts]
    decoded = ray.data.from_blocks(ranges).map_batches(
        decode_ranges,
        batch_format="pyarrow",
        fn_kwargs={"songs": ray.put(songs), "decode": partial(decode_songs, **decoding)},
        compute=TaskPoolStrategy(size=None if plan.decoders_grow else plan.decoders),
        num_cpus=plan.decoder_cpus,
    )
    # A block as it comes: putting others together would copy gigabytes of long songs. The public map_batches refuses
    # that where there are GPUs, for fear of batches too large for them; ours are cut by the encoder.
    encoded = decoded.map_batches_internal(
        EncodeSongs,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_args=({**encoder, "device": plan.device}, cut, plan.batch_windows, plan.threads),
        compute=ActorPoolStrategy(size=plan.encoders),
        num_cpus=plan.encoder_cpus,
        num_gpus=1 if plan.gpus else None,
    )
    # Blocks seldom add up to a part: the rest of each bundle of blocks, a few songs, is a part of its own. Strict
    # repartition would even that out, but its task wants a whole CPU and holds up the commits on a small machine.
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
        StorageError: storage refused a worker for good.
    """
    for receipt in graph.iter_rows():
        if receipt["trouble"] is not None:
            raise StorageError(receipt["trouble"])
        yield receipt


def decode_ranges(ranges: pa.Table, songs: Any, decode: Callable[[pa.Table], Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Decode songs ``start`` to ``stop`` of a table that lies in the object store."""
    import ray

    table = ray.get(songs)
    for row in ranges.to_pylist():
        yield from decode(table.slice(row["start"], row["stop"] - row["start"]))


def decode_songs(songs: pa.Table, **decoding: Any) -> Iterator[pa.Table]:
    """Fetch and decode songs, each into a row of DECODED_SCHEMA, failed ones too; trouble is the last row."""
    for song in songs.to_pylist():
        started = time.perf_counter()
        try:
            row = decode_song(song["uri"], **decoding)
        except StorageError as error:
            row = {"status": "failed", "trouble": str(error)}
        row |= {"track_id": song["track_id"], "uri": song["uri"], "decode_s": time.perf_counter() - started}
        yield decoded_table(row)
        if "trouble" in row:
            return


def decoded_table(row: dict[str, Any]) -> pa.Table:
    """One row of DECODED_SCHEMA; ``windows``, a list of bytes-likes, is emptied as it is taken over."""
    at = DECODED_SCHEMA.get_field_index("windows")
    packed = _packed(row.pop("windows")) if "windows" in row else pa.nulls(1, DECODED_SCHEMA.field(at).type)
    table = pa.Table.from_pylist([row], schema=DECODED_SCHEMA.remove(at))
    return table.add_column(at, DECODED_SCHEMA.field(at), packed)


def _packed(windows: list[bytearray]) -> pa.Array:
    """A song's windows as a column of one row, in a buffer of the right size: a builder's would grow to four times."""
    ends = np.cumsum([0, *map(len, windows)], dtype=np.int64)
    buffer = pa.allocate_buffer(int(ends[-1]))
    view = np.frombuffer(buffer, np.uint8)
    count = len(windows)
    while windows:  # from the last, whose memory goes back to the system first
        last = windows.pop()
        view[ends[len(windows)] : ends[len(windows) + 1]] = np.frombuffer(last, np.uint8)
    values = pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(ends), buffer])
    return pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)


def decode_song(uri: str, *, limits: Limits, **decoding: Any) -> dict[str, Any]:
    """One song's decoded columns; whatever goes wrong with it, and whatever it does to its decoder, becomes its status.

    Args:
        uri: where it lies.
        limits: its time and its decoder's memory.
        decoding: options of :func:`mer_ray.audio.decode_windows`.
    """
    return shared_decoder(limits).decode(uri, **decoding)


class EncodeSongs:
    """An encoder process: decoded songs in, rows of the feature store out."""

    def __init__(self, encoder: dict[str, Any], cut: dict[str, Any], batch_windows: int, threads: int) -> None:
        import torch

        from mer_ray.encoders import load_encoder

        torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
        self._encoder = load_encoder(**encoder)
        self._identity = self._encoder.identity(**cut)
        self._batch_windows = batch_windows
        self._ready = time.time()

    def __call__(self, songs: pa.Table) -> pa.Table:
        from mer_ray.encoders._batching import encode_tracks

        started = time.perf_counter()
        tracks = [*map(packed_windows, songs["windows"], songs["scales"])]
        features = encode_tracks(self._encoder, tracks, self._batch_windows)
        seconds = (time.perf_counter() - started) / max(1, len(songs))
        schema = store_schema(self._identity, self._encoder.dim)
        status = self._without_broken(songs.select(STATUS_COLUMNS), features)
        table = pa.table([*status, features_column(features, self._encoder.dim)], schema=schema)
        added = {name: songs[name] for name in DECODE_COSTS}
        constant = {"encode_s": seconds, "ready": self._ready}
        added |= {name: pa.array(np.full(len(songs), value)) for name, value in constant.items()}
        for name in BESIDE:
            table = table.append_column(name, added[name])
        return table.append_column("trouble", songs["trouble"])

    def _without_broken(self, status: pa.Table, features: list[NDArray[np.float32]]) -> list[pa.Array]:
        """The status columns, with songs failed whose features a store cannot hold: NaN, or beyond float16."""
        broken = np.array([not (np.abs(track) < BEYOND_FLOAT16).all() for track in features], bool)
        message = f"Encoder {self._encoder.name} gives no finite numbers for this song; leave it out."
        said = {"status": "failed", "error_class": "not_finite", "error": message}
        for at in np.flatnonzero(broken):
            features[at] = features[at][:0]
        columns = {name: status[name].combine_chunks() for name in STATUS_COLUMNS}
        if broken.any():
            columns |= {name: pc.if_else(pa.array(broken), value, columns[name]) for name, value in said.items()}
        return [*columns.values()]


def commit_features(songs: pa.Table, output: str, token: str) -> Iterator[pa.Table]:
    """Write encoded songs as one part of the store, or as several where they are very long; yields receipts."""
    fine = pc.is_null(songs["trouble"])
    for part in _parts(songs.filter(fine)):
        costs = {name: pc.sum(part[name]).as_py() or 0 for name in COSTS}
        costs["ready"] = pc.min(part["ready"]).as_py()
        yield _committed(output, part.drop_columns([*BESIDE, "trouble"]), token, costs)
    for trouble in pc.unique(songs["trouble"].drop_null()).to_pylist():
        yield pa.Table.from_pylist([{"songs": 0, "trouble": trouble}], schema=RECEIPT_SCHEMA)


WORK_SCHEMA = pa.schema([pa.field("part", pa.string()), pa.field("wanted", pa.list_(pa.string()))])
"""Parts of a store to read: their URIs, and the ids that are wanted of each; null for all."""


def tagging(work: pa.Table, output: str, token: str, workers: int, task: dict[str, Any]) -> Dataset:
    """The graph from a store's parts to receipts of tag parts.

    Args:
        work: of WORK_SCHEMA.
        output: the tags directory.
        token: of the run, see :func:`mer_ray.runs.directory.commit`.
        workers: processes.
        task: the other arguments of :class:`mer_ray.cluster.pipelines.TagSongs`; the ``scale`` is put in the object
            store once, for all processes.
    """
    import ray

    scale = ray.put(task["scale"])
    return _over_parts(work, workers, TagSongs, {**task, "scale": scale, "output": output, "token": token})


class TagSongs:
    """A tagging process: parts of a feature store in, receipts of committed tag parts out."""

    def __init__(self, reading: Reading, options: TagOptions, scale: Any, output: str, token: str) -> None:
        import ray

        from mer_ray.tagging.ranking import SongTagger

        self._projections = _projections(reading)
        self._tagger = SongTagger(ray.get(scale), options, reading["encoder"], self._projections.model)
        self._windows = options.timeline
        self._output, self._token = output, token
        self._beside = {"ready": time.time()}

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        for part, wanted in zip(work["part"].to_pylist(), work["wanted"], strict=True):
            for songs in self._projections.songs(part, wanted.values, windows=self._windows):
                if len(songs):
                    yield _committed(self._output, self._tagger.tag(songs), self._token, self._beside)


def song_places(work: pa.Table, reading: Reading, workers: int) -> NDArray[np.float32]:
    """The places of the wanted songs of a store, the yardstick of a catalogue: [songs, E] in the order of their ids."""
    from mer_ray.tagging.projections import song_vectors

    graph = _over_parts(work, workers, ProjectSongs, {"reading": reading})
    tables = [batch for batch in graph.iter_batches(batch_size=None, batch_format="pyarrow") if len(batch)]
    return song_vectors(pa.concat_tables(tables).sort_by("track_id"))[0]


class ProjectSongs:
    """A projecting process: parts of a feature store in, one mean vector a chosen song out."""

    def __init__(self, reading: Reading) -> None:
        self._projections = _projections(reading)

    def __call__(self, work: pa.Table) -> Iterator[pa.Table]:
        for part, wanted in zip(work["part"].to_pylist(), work["wanted"], strict=True):
            for songs in self._projections.songs(part, wanted.values):
                yield songs.select(["track_id", "vector"]).replace_schema_metadata(None)


def _over_parts(work: pa.Table, workers: int, stage: type, arguments: dict[str, Any]) -> Dataset:
    """A graph of a pool of processes over a store's parts, some of them a task."""
    import ray.data
    from ray.data import ActorPoolStrategy

    size = max(1, min(PARTS_PER_TASK, len(work) // (8 * workers)))
    blocks = [work.slice(start, size) for start in range(0, len(work), size)]
    return ray.data.from_blocks(blocks).map_batches(
        stage,
        batch_size=None,
        batch_format="pyarrow",
        fn_constructor_kwargs=arguments,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=0.9,
    )


def _projections(reading: Reading) -> Projections:
    import torch

    from mer_ray.learning.model import Model
    from mer_ray.tagging.projections import Projections

    torch.set_num_threads(1)
    return Projections(**{**reading, "model": Model.load(reading["model"])})


def packed_windows(windows: pa.Scalar, scales: pa.Scalar) -> list[Window]:
    """The windows of one row of DECODED_SCHEMA, without a copy: views of its block."""
    from mer_ray.encoders._batching import Window

    if windows.values is None:
        return []
    pairs = zip(windows.values, scales.values.to_pylist(), strict=True)
    return [Window(np.frombuffer(window.as_buffer(), np.int16), scale) for window, scale in pairs]


def _parts(songs: pa.Table) -> Iterator[pa.Table]:
    """Cut before the song whose features would begin another PART_BYTES."""
    windows = pc.fill_null(pc.list_value_length(songs["features"]), 0).to_numpy().astype(np.int64)
    dim = songs.schema.field("features").type.value_type.list_size
    ends = np.cumsum(windows) * dim * np.dtype(np.float16).itemsize
    cuts = np.flatnonzero(np.diff(ends // PART_BYTES)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(songs)]):
        if end > start:
            yield songs.slice(start, end - start)


def _committed(output: str, songs: pa.Table, token: str, beside: dict[str, float] | None = None) -> pa.Table:
    """Commit a part; returns its receipt, one row of RECEIPT_SCHEMA."""
    failed = songs.filter(pc.not_equal(songs["status"], "ok")).select(FAILURE_COLUMNS)
    row = {
        "songs": len(songs),
        "audio_s": pc.sum(songs["duration_s"].cast(pa.float64())).as_py() or 0.0,
        **{name: float((beside or {}).get(name, 0.0)) for name in BESIDE},
        "node": os.uname().nodename,
        "failures": failed.to_pylist(),
    }
    try:
        row["part"] = commit(output, songs, token)
    except StorageError as error:
        row["trouble"] = str(error)
    return pa.Table.from_pylist([row], schema=RECEIPT_SCHEMA)
