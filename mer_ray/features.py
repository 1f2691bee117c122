"""The feature store: one Parquet row a song, a feature vector a window."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mer_ray import __version__, storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import encoder_differences

SCHEMA_VERSION = "1"

STATUS_FIELDS = [
    pa.field("track_id", pa.string(), nullable=False),
    pa.field("uri", pa.string()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error", pa.string()),
    pa.field("duration_s", pa.float32()),
    pa.field("truncated", pa.bool_()),
    pa.field("bad_packets", pa.int32()),
]
"""The columns that say what became of a song; every table of songs begins with them."""

STATUS_COLUMNS = [field.name for field in STATUS_FIELDS]

STATUS_AHEAD, FEATURES_AHEAD = 16, 4
"""Parts that are read at a time: many where a request is all it takes, few where a part is tens of MB."""

_WINDOW_COLUMNS = ["track_id", "status", "error_class", "features"]

Identity = dict[str, Any]
"""An encoder's identity as stored: name, revision, weights_sha256, licence, layers, ..."""


def metadata(identity: Identity, **more: str) -> dict[str, str]:
    """Schema metadata that tells a reader what made the file."""
    return {
        "mer_ray.schema": SCHEMA_VERSION,
        "mer_ray.encoder": json.dumps(identity, sort_keys=True),
        "mer_ray.version": __version__,
        **more,
    }


def store_schema(identity: Identity, dim: int) -> pa.Schema:
    """The schema of a store whose windows have ``dim`` features."""
    features = pa.field("features", pa.list_(pa.list_(pa.float16(), dim)))
    return pa.schema([*STATUS_FIELDS, features], metadata=metadata(identity))


def features_column(tracks: Sequence[NDArray[np.floating[Any]]], dim: int) -> pa.Array:
    """Per-song [w, dim] arrays as one list<fixed_size_list<halffloat, dim>> array."""
    offsets = np.cumsum([0, *(len(track) for track in tracks)])
    flat = np.concatenate([np.zeros((0, dim)), *tracks]).astype(np.float16)
    windows = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), windows)


def window_arrays(column: pa.Array) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """The reverse of :func:`features_column`, without a copy per song.

    Returns:
        [n, D] features of all windows in order, and [songs] the number of windows of each song
        (0 for a failed one).
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    windows = column.flatten()
    dim = windows.type.list_size
    return windows.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim), counts


@dataclass(frozen=True)
class Store:
    """A feature store that is there: its parts, its encoder, its D."""

    uri: str
    parts: list[str]
    encoder: Identity
    dim: int

    @classmethod
    def open(cls, uri: str) -> Store:
        """Look at a store.

        Raises:
            InputError: there is none, or it is empty or of another schema.
        """
        parts = part_uris(uri)
        if not parts:
            raise InputError(
                f"features {uri}: no part-*.parquet there; make them with jobs/extract.py --features {uri}."
            )
        schema = _schema(parts[0])
        stored = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        missing = [name for name in ("track_id", "status", "features") if name not in schema.names]
        if missing or "mer_ray.encoder" not in stored:
            raise InputError(
                f"features {uri}: not a feature store (lacks {', '.join(missing) or 'mer_ray.encoder'}); "
                "point to what jobs/extract.py wrote."
            )
        if stored.get("mer_ray.schema") != SCHEMA_VERSION:
            raise InputError(
                f"features {uri}: schema {stored.get('mer_ray.schema')}, this version reads {SCHEMA_VERSION}."
            )
        return cls(
            uri, parts, json.loads(stored["mer_ray.encoder"]), schema.field("features").type.value_type.list_size
        )


def open_stores(uris: Sequence[str]) -> list[Store]:
    """Open several stores that hold features of one and the same encoder.

    Raises:
        InputError: they differ, naming in what.
    """
    stores = [Store.open(uri) for uri in uris]
    for store in stores[1:]:
        unlike = encoder_differences({**stores[0].encoder, "dim": stores[0].dim}, {**store.encoder, "dim": store.dim})
        if unlike:
            raise InputError(f"features {store.uri}: not of the same encoder as {stores[0].uri}: {'; '.join(unlike)}.")
    return stores


def part_uris(uri: str) -> list[str]:
    """The committed parts of an output directory, in name order."""
    names = [name for name in storage.names(uri) if name.startswith("part-") and name.endswith(".parquet")]
    return [storage.join(uri, name) for name in names]


def read_columns(
    parts: Sequence[str], columns: list[str], ahead: int = STATUS_AHEAD
) -> Iterator[tuple[str, pa.Table | None]]:
    """Read some columns of many parts, ``ahead`` of them at a time; None for a part that is no Parquet file."""

    def read(part: str) -> pa.Table | None:
        try:
            return storage.read_table(part, columns)
        except pa.ArrowInvalid:
            return None

    queue = iter(parts)
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        waiting = deque((part, pool.submit(read, part)) for part in islice(queue, ahead))
        while waiting:
            part, table = waiting.popleft()
            yield part, table.result()
            # The next one is asked for only now, so that never more than these are in memory.
            waiting.extend((part, pool.submit(read, part)) for part in islice(queue, 1))


@dataclass(frozen=True)
class Windows:
    """Windows of known songs.

    Attributes:
        features: [n, D] float16.
        songs: [n] index of each window's song in ``track_ids``, ascending.
        track_ids: the songs that have windows.
        absent: songs asked for that the store lacks or holds as failed, with the reason.
    """

    features: NDArray[np.float16]
    songs: NDArray[np.int64]
    track_ids: list[str]
    absent: dict[str, str]

    @property
    def counts(self) -> NDArray[np.int64]:
        """[songs] windows of each song."""
        return np.bincount(self.songs, minlength=len(self.track_ids))

    def song_means(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The mean over each song's windows: [n, X] to [songs, X]."""
        return song_means(values, self.counts)


def song_means(values_NX: NDArray[np.floating[Any]], counts_S: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean over each song's windows, which lie side by side: [n, X] to [songs, X], 0 for a song without."""
    means_SX = np.zeros((len(counts_S), values_NX.shape[1]), np.float32)
    some_S = counts_S > 0
    if some_S.any():
        starts = (np.cumsum(counts_S) - counts_S)[some_S]
        sums = np.add.reduceat(values_NX, starts, axis=0, dtype=np.float32)
        means_SX[some_S] = sums / counts_S[some_S].astype(np.float32)[:, None]
    return means_SX


def read_windows(stores: Sequence[Store], track_ids: Collection[str]) -> Windows:
    """Read the windows of these songs from one or several stores, in the order of ``track_ids``.

    Memory is that of the windows and of a few parts: what has been read is let go as it is put in its place.
    """
    wanted = pa.array(list(track_ids), pa.string())
    absent = dict.fromkeys(track_ids, "not in the feature store")
    pieces: list[NDArray[np.float16]] = []
    found: dict[str, tuple[int, int, int]] = {}  # piece, first window in it, windows
    for store in stores:
        for part, whole in read_columns(store.parts, _WINDOW_COLUMNS, FEATURES_AHEAD):
            if whole is None:
                raise InputError(
                    f"features {part}: not a readable Parquet file; run extract again, it mends the store."
                )
            table = whole.filter(pc.is_in(whole["track_id"], value_set=wanted))
            flat, counts = window_arrays(table["features"])
            for track_id, error_class, start, count in zip(
                table["track_id"].to_pylist(),
                table["error_class"].to_pylist(),
                (np.cumsum(counts) - counts).tolist(),
                counts.tolist(),
                strict=True,
            ):
                if count:
                    found[track_id] = (len(pieces), start, count)
                    absent.pop(track_id, None)
                elif track_id in absent:
                    absent[track_id] = f"failed: {error_class}"
            pieces.append(flat)
    ids = [track_id for track_id in track_ids if track_id in found]
    counts = np.array([found[track_id][2] for track_id in ids], np.int64)
    features = _gathered(pieces, [found[track_id] for track_id in ids], stores[0].dim)
    return Windows(features, np.repeat(np.arange(len(ids)), counts), ids, absent)


def _gathered(
    pieces: list[NDArray[np.float16]], songs: Sequence[tuple[int, int, int]], dim: int
) -> NDArray[np.float16]:
    """The windows of (piece, first window, windows) in this order, [n, dim]; ``pieces`` are let go one by one."""
    ends = np.cumsum([0, *(count for _, _, count in songs)])
    features = np.empty((int(ends[-1]), dim), np.float16)
    in_piece: dict[int, list[int]] = {}
    for at, (piece, _, _) in enumerate(songs):
        in_piece.setdefault(piece, []).append(at)
    for piece in reversed(range(len(pieces))):
        flat = pieces.pop()
        for at in in_piece.get(piece, ()):
            _, start, count = songs[at]
            features[ends[at] : ends[at + 1]] = flat[start : start + count]
    return features


def _schema(part: str) -> pa.Schema:
    fs, path = storage.filesystem(part)
    try:
        with storage.guarded(part), fs.open(path, "rb") as file:
            return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"features {part}: not a readable Parquet file; extract again into a new folder.") from error
