"""The feature store: one Parquet row a song, a feature vector a window."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import encoder_differences
from mer_ray.songs import (
    FEATURES_AHEAD,
    SCHEMA_VERSION,
    STATUS_FIELDS,
    Breach,
    Content,
    Identity,
    lengths,
    metadata,
    part_uris,
    read_columns,
    songs_at,
    stored_json,
    stored_metadata,
)

_WINDOW_COLUMNS = ["track_id", "status", "error_class", "features"]


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


def store_table(
    rows: list[dict[str, Any]], tracks: Sequence[NDArray[np.floating[Any]]], identity: Identity
) -> pa.Table:
    """Rows of a feature store: what became of each song, by column, and its [w, dim] features."""
    status = pa.Table.from_pylist(rows, schema=pa.schema(STATUS_FIELDS))
    dim = identity["dim"]
    return pa.table([*status.columns, features_column(tracks, dim)], schema=store_schema(identity, dim))


def window_arrays(column: pa.Array) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """The reverse of :func:`features_column`: [n, D] all windows in order, and [songs] how many each song has."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    counts = lengths(column).to_numpy(zero_copy_only=False).astype(np.int64)
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
        try:
            with storage.opened(parts[0]) as file:
                schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"features {parts[0]}: not a readable Parquet file; extract again into a new folder."
            ) from error
        stored = stored_metadata(schema)
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
        dim = schema.field("features").type.value_type.list_size
        return cls(uri, parts, json.loads(stored["mer_ray.encoder"]), dim)


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


Places = dict[str, tuple[int, int, int]]
"""Where the windows of a song lie: in which piece, the first one in it, and how many."""


def find_windows(
    stores: Sequence[Store], track_ids: Collection[str], found: Places, absent: dict[str, str]
) -> Iterator[NDArray[np.float16]]:
    """The windows of these songs piece by piece as the stores hold them, [m, D] each.

    ``found`` and ``absent`` are filled in as it goes: where each song's windows are, or why it has none.

    Raises:
        InputError: a window holds what is no finite number.
    """
    wanted = pa.array(list(track_ids), pa.string())
    absent.update(dict.fromkeys(track_ids, "not in the feature store"))
    piece = 0
    for store in stores:
        for _, whole in read_columns(store.parts, _WINDOW_COLUMNS, FEATURES_AHEAD):
            table = whole.filter(pc.is_in(whole["track_id"], value_set=wanted))
            flat, counts = window_arrays(table["features"])
            starts, ids = np.cumsum(counts) - counts, table["track_id"].to_pylist()
            _check_finite(store, flat, ids, starts)
            errors = table["error_class"].to_pylist()
            for track_id, error_class, start, count in zip(ids, errors, starts.tolist(), counts.tolist(), strict=True):
                if count:
                    found[track_id] = (piece, start, count)
                    absent.pop(track_id, None)
                elif track_id in absent:
                    absent[track_id] = f"failed: {error_class}"
            yield flat
            piece += 1


def _check_finite(store: Store, flat_ND: NDArray[np.float16], track_ids: list[str], starts: NDArray[np.int64]) -> None:
    bad_N = ~np.isfinite(flat_ND).all(axis=1)
    if bad_N.any():
        window = int(bad_N.argmax())
        song = int(np.searchsorted(starts, window, side="right")) - 1
        raise InputError(
            f"features {store.uri}: song {track_ids[song]}, window {window - starts[song] + 1}: holds a value that is "
            f"no finite number, and {bad_N.sum() - 1:,} more windows of its part do; nothing can be learned from or "
            "told by that. Make the song's features again, or leave it out of the manifest."
        )


def read_windows(stores: Sequence[Store], track_ids: Collection[str]) -> Windows:
    """Read the windows of these songs from one or several stores, in the order of ``track_ids``.

    Memory is that of the windows and of a few parts: what has been read is let go as it is put in its place.

    Raises:
        InputError: a window holds what is no finite number.
    """
    found, absent = Places(), dict[str, str]()
    pieces = list(find_windows(stores, track_ids, found, absent))
    ids = [track_id for track_id in track_ids if track_id in found]
    places = [found[track_id] for track_id in ids]
    counts = np.array([count for _, _, count in places], np.int64)
    ends = np.cumsum(counts)
    features = np.empty((counts.sum(), stores[0].dim), np.float16)
    for at in sorted(range(len(ids)), key=places.__getitem__, reverse=True):
        piece, start, count = places[at]
        del pieces[piece + 1 :]
        features[ends[at] - count : ends[at]] = pieces[piece][start : start + count]
    return Windows(features, np.repeat(np.arange(len(ids)), counts), ids, absent)


def _width(kind: pa.DataType) -> int | None:
    """D of a column of features; None if it is none."""
    windows = kind.value_type if pa.types.is_list(kind) else pa.null()
    good = pa.types.is_fixed_size_list(windows) and pa.types.is_float16(windows.value_type)
    return int(windows.list_size) if good else None


def _schema_width(schema: pa.Schema | None) -> int | None:
    return _width(schema.field("features").type) if schema is not None and "features" in schema.names else None


def _width_breaches(schema: pa.Schema, fingerprint: dict[str, Any]) -> Iterator[str]:
    found = _schema_width(schema)
    stated = [stored_json(schema, "mer_ray.encoder").get("dim"), fingerprint.get("dim")]
    if any(dim not in (None, found) for dim in stated):
        yield f"of D = {found} where {next(filter(None, stated))} is stated"


def _breaches(rows: pa.Table, ok: pa.Array) -> Iterator[Breach]:
    column = rows["features"]
    silent = pc.and_(ok, pc.equal(lengths(column), 0))
    yield "ok rows", "songs without a window", rows["track_id"].filter(silent)
    windows, song = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy()
    whole = windows.is_valid().to_numpy()
    values = pc.list_flatten(windows.drop_null()).to_numpy().reshape(-1, column.type.value_type.list_size)
    bad = np.concatenate([song[~whole], song[whole][~np.isfinite(values).all(axis=1)]])
    yield "ok rows", "songs with features that are no finite numbers", songs_at(rows, bad)


FEATURES = Content(
    column="features",
    jobs=("extract", "import"),
    identities=("mer_ray.encoder",),
    fits=lambda kind: _width(kind) is not None,
    check="width",
    shown=lambda schema: f"D = {dim}" if (dim := _schema_width(schema)) else "no part yet",
    schema_breaches=_width_breaches,
    row_breaches=_breaches,
)
"""What the parts of a feature store promise."""
