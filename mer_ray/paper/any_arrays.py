"""Features that any encoder made, as arrays: of all windows with an index, or one a song.

- ``.npy``, or an ``.npz`` of one array, with an index: [n, layers, width] or [n, D], one row a window.
- ``.npz`` without an index: an array a song, each by its song's key.
- a folder of ``.npy`` or ``.npz`` of one array: a file a song, its key the path below the folder without the ending.

A song's own array is [w, layers, width], [w, D], or [D] of a single window.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.arrays import map_array, read_arrays
from mer_ray.catalog.datasets import SplitRule
from mer_ray.errors import InputError
from mer_ray.paper.array_index import read_index
from mer_ray.paper.array_songs import ArraySong, Floats, MalformedError, import_songs
from mer_ray.paper.published import named_songs
from mer_ray.songs import Identity

ENDINGS = (".npy", ".npz")


@dataclass(frozen=True)
class ArrayFiles:
    """Arrays from one place: a file or a folder, the index of a file's rows, and the songs' labels (JSON)."""

    source: str
    index: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class ArrayEncoder:
    """What made the arrays, in its maker's words: the identity of the store."""

    name: str
    licence: str
    pooling: str
    window_seconds: float
    layers: tuple[int, ...] = ()

    def identity(self, layers: Sequence[int], dim: int) -> Identity:
        """The store's identity; weights and revision were never seen here."""
        return {
            "name": self.name,
            "revision": None,
            "weights_sha256": None,
            "licence": self.licence,
            "layers": list(layers),
            "pooling": self.pooling,
            "window_seconds": self.window_seconds,
            "sample_rate": None,
            "dtype": None,
            "dim": dim,
        }


@dataclass(frozen=True)
class Shape:
    """What every window of an import is, [layers, width] or [D], and which layers are kept of it."""

    window: tuple[int, ...]
    kept: tuple[int, ...]
    names: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any], layers: tuple[int, ...], uri: str) -> Shape:
        """Of windows as the first song has them, [w, layers, width] or [w, D].

        As many ``layers`` as there are name them as they stand; fewer choose among them by their place.

        Raises:
            InputError: the array has no such layers, or is none of windows.
        """
        if array.ndim not in (2, 3) or array.dtype.kind != "f" or not array.size:
            raise InputError(
                f"{uri}: {array.dtype} of shape {list(array.shape)}; expected floats [windows, layers, width] or "
                "[windows, D]."
            )
        window = array.shape[1:]
        if len(window) == 1 or len(layers) == window[0]:
            return cls(window, (), layers)
        chosen = layers or tuple(range(window[0]))
        if max(chosen) >= window[0]:
            raise InputError(
                f"--layers {','.join(map(str, layers))}: {uri} holds {window[0]} layers; choose among 0 to "
                f"{window[0] - 1}, or name all {window[0]}."
            )
        return cls(window, chosen, chosen)

    @property
    def dim(self) -> int:
        """D of the store."""
        return int(np.prod(self.window)) if not self.kept else len(self.kept) * self.window[1]

    def windows(self, array: NDArray[Any]) -> Floats:
        """[w, D] of a song's array.

        Raises:
            MalformedError: its windows are of another shape than the import's.
        """
        if array.shape[1:] != self.window or array.dtype.kind != "f" or not len(array):
            raise MalformedError(
                f"{array.dtype} of shape {list(array.shape)}, where the others are floats {['windows', *self.window]}"
            )
        kept = array[:, list(self.kept)] if self.kept else array
        return np.asarray(kept).reshape(len(array), -1)


def import_arrays(
    files: Sequence[ArrayFiles],
    features: str,
    encoder: ArrayEncoder,
    *,
    dataset: str = "none",
    split: SplitRule = "seeded",
    seed: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Bring a feature store up to date with arrays of any width, as :func:`import_songs` does.

    The first song says what a window is; a song's own file that differs from it is a failed row.

    Raises:
        InputError: a source that is missing, empty or of no form that is read, an index or labels that do not go
            with it, or a store begun with other features.
    """
    shape: Shape | None = None
    songs: list[ArraySong] = []
    for one in files:
        found = _of_index(one, one.index) if one.index else _of_songs(one)
        if not found:
            raise InputError(f"{one.source}: no array in it; give .npy or .npz files.")
        named = named_songs([key for key, _, _ in found], one.labels, one.source, dataset)
        for (_, uri, read), (track_id, labels) in zip(found, named, strict=True):
            shape = shape or Shape.of(read(), encoder.layers, uri)
            songs.append(ArraySong(track_id, uri, partial(_windows, shape, read), labels))
    assert shape is not None, "files is not empty"
    asked = {"files": [vars(one) for one in files], "dataset": dataset, "split": split, "seed": seed}
    identity = encoder.identity(shape.names, shape.dim)
    return import_songs(songs, features, identity, asked, dataset=dataset, split=split, seed=seed)


def _windows(shape: Shape, read: Any) -> Floats:
    try:
        return shape.windows(read())
    except InputError as error:
        raise MalformedError(str(error)) from error


def _of_index(files: ArrayFiles, index: str) -> list[tuple[str, str, Any]]:
    """Key, place and reader of each song of one array."""
    array = map_array(files.source) if files.source.lower().endswith(".npy") else _only(files.source)
    if array.ndim not in (2, 3):
        raise InputError(
            f"{files.source}: shape {list(array.shape)}; with an index it is [windows, layers, width] or [windows, D]."
        )
    keys, rows = read_index(index, len(array), files.source)
    uri = storage.absolute(files.source)
    return [(key, f"{uri}#{key}", partial(array.__getitem__, own)) for key, own in zip(keys, rows, strict=True)]


def _of_songs(files: ArrayFiles) -> list[tuple[str, str, Any]]:
    """Key, place and reader of each song that has an array of its own."""
    uri = storage.absolute(files.source)
    if uri.lower().endswith(ENDINGS):
        if uri.lower().endswith(".npy"):
            raise InputError(f"{uri}: whose its windows are is not said; give its index with --index.")
        arrays = read_arrays(uri)
        return [(key, f"{uri}#{key}", partial(_own, array)) for key, array in arrays.items()]
    fs, root = storage.filesystem(uri)
    with storage.readable(uri):
        if not fs.isdir(root):
            raise InputError(f"{uri}: neither a folder nor an array (.npy, .npz); check --source.")
        paths = sorted(path for path in fs.find(root) if path.lower().endswith(ENDINGS))
    names = [path.removeprefix(root).lstrip("/") for path in paths]
    return [(posixpath.splitext(name)[0], place := storage.join(uri, name), partial(_file, place)) for name in names]


def _file(uri: str) -> NDArray[Any]:
    return _own(_only(uri))


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """A song's array; [D] is one window."""
    return array[None] if array.ndim == 1 else array


def _only(uri: str) -> NDArray[Any]:
    arrays = read_arrays(uri)
    if len(arrays) != 1:
        raise InputError(f"{uri}: holds {len(arrays)} arrays ({', '.join(list(arrays)[:3])}); expected one.")
    return next(iter(arrays.values()))
