"""The index of an array of windows: whose each row is, and when it starts."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.arrays import map_array
from mer_ray.catalog.manifest import read_parquet
from mer_ray.errors import InputError


def read_index(uri: str, windows: int, source: str) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Whose the windows are: the songs' keys in storage order, and the rows of each in the order of time.

    A window that stands there again, of the same song and start, is dropped.

    Args:
        uri: ``.npy``, a structured array [n] whose field ``track_id`` is the key and whose first number is the start,
            or text [n, 2 or 3] of the same; or a table (``.csv``, ``.parquet``) of ``track_id`` and perhaps ``start``.
        windows: n.
        source: the array, for the message.

    Raises:
        InputError: no index, or not of ``windows`` rows.
    """
    keys, starts = _table(uri) if uri.lower().endswith((".csv", ".parquet")) else _array(uri)
    if len(keys) != windows:
        raise InputError(
            f"{uri}: {len(keys):,} rows for the {windows:,} windows of {source}; give the index it goes with."
        )
    names, first, song = np.unique(keys, return_index=True, return_inverse=True)
    in_storage = np.argsort(first)
    song = np.argsort(in_storage)[song]
    order = np.lexsort((starts, song))
    again = (np.diff(song[order]) == 0) & (np.diff(starts[order]) == 0)
    order = order[np.r_[True, ~again]]
    rows = np.split(order, np.flatnonzero(np.diff(song[order])) + 1)
    return [str(name) for name in names[in_storage]], rows


def _array(uri: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The [n] keys as text and the [n] starts; windows without times keep their order."""
    index = map_array(uri)
    fields = index.dtype.names or ()
    if index.ndim == 1 and "track_id" in fields:
        times = [index[name] for name in fields if name != "track_id" and index.dtype[name].kind in "iuf"]
        keys, starts = index["track_id"], times[0] if times else np.arange(len(index))
    elif index.ndim == 2 and index.shape[1] > 1 and index.dtype.kind in "US":
        keys, starts = index[:, 0], index[:, 1]
    else:
        raise InputError(f"{uri}: {index.dtype} of shape {list(index.shape)}; expected a row a window with 'track_id'.")
    text = np.char.decode(keys, "utf-8") if keys.dtype.kind == "S" else keys.astype(np.str_)
    return text, _times(uri, starts)


def _table(uri: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if uri.lower().endswith(".parquet"):
        columns: dict[str, list[Any]] = read_parquet(uri).to_pydict()
    else:
        with storage.readable(uri):
            rows = list(csv.DictReader(io.StringIO(storage.read_text(uri))))
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    if not columns.get("track_id") or None in columns["track_id"]:
        raise InputError(f"{uri}: expected a row a window with 'track_id', and perhaps 'start'; mend the table.")
    keys = np.array([str(key) for key in columns["track_id"]])
    return keys, _times(uri, columns.get("start", np.arange(len(keys))))


def _times(uri: str, starts: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(starts).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{uri}: the second column holds no times; expected track id, start and end.") from error
