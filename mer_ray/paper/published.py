"""What others published: the reference's preprocessed arrays as a feature store and a manifest.

The reference (AMAAI-Lab/cross-dataset-emotion-alignment) trains on three kinds of files:

- ``*_source.npy``: float32 [n, 1, 13, 768] or [n, 13, 768], one row a 10 s window at 24 kHz: the 13 hidden
  states of MERT-v1-95M (state l is the output of layer l, 0 the input of the first) at time frame 0.
- ``*_index.npy``: a structured array [n]; its field ``track_id`` is the song's key in the label file, its
  numbers are the window's start and end in seconds. A text array [n, 2 or 3] of the same is read as well.
- a label file, JSON: ``{key: {"path": ..., "mood/theme": [label, ...]}}``. Keys are ``"948"`` in MTG-Jamendo
  (a label file and arrays for each split), ``"0"`` to ``"499"`` in CAL500, ``"101,rock"`` in Emotify.

Its preprocessing shuffles windows over GPUs, repeats some to make the shares even, and sorts by key alone
afterwards: a song's windows are put in the order of their starts here, and a repeated one is dropped.
It splits *segments* in storage order, so that a song can stand in two splits. A manifest splits by song:
``ordered`` is the nearest to it, by the songs' first windows.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.arrays import map_array
from mer_ray.catalog.datasets import SplitRule
from mer_ray.errors import InputError
from mer_ray.paper.array_index import read_index
from mer_ray.paper.array_songs import ArraySong, Floats, import_songs
from mer_ray.songs import Identity

STATES, WIDTH = 13, 768
WINDOW_SECONDS = 10.0

_NAMED_SPLIT = re.compile(r"(?:^|[-_.])(train|val|validation|test)(?=[-_.]|$)")


@dataclass(frozen=True)
class PublishedFiles:
    """The files of one published array; ``labels`` is its JSON, if there is one."""

    source: str
    index: str
    labels: str | None = None


def import_published(
    files: Sequence[PublishedFiles],
    features: str,
    *,
    dataset: str = "none",
    layers: Sequence[int] = (3, 6, 9, 12),
    split: SplitRule = "seeded",
    seed: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Bring a feature store up to date with published arrays, as :func:`import_songs` does.

    Raises:
        InputError: a file that is missing or of another form, files that do not belong together, or a
            store begun with other features.
    """
    if not set(layers) <= set(range(STATES)):
        raise InputError(f"layers {','.join(map(str, layers))}: the arrays hold 0 to {STATES - 1}; choose among these.")
    songs = [song for one in files for song in read_songs(one, dataset, layers)]
    asked = {"files": [vars(one) for one in files], "dataset": dataset, "split": split, "seed": seed}
    return import_songs(songs, features, published_identity(layers), asked, dataset=dataset, split=split, seed=seed)


def published_identity(layers: Sequence[int]) -> Identity:
    """The encoder's identity; its weights were never seen here, so no digest of them is claimed."""
    return {
        "name": "m-a-p/MERT-v1-95M (published features)",
        "revision": None,
        "weights_sha256": None,
        "licence": "CC-BY-NC-4.0",
        "layers": list(layers),
        "pooling": "first",
        "window_seconds": WINDOW_SECONDS,
        "sample_rate": 24000,
        "dtype": "float32",
        "dim": len(layers) * WIDTH,
    }


def read_songs(files: PublishedFiles, dataset: str, layers: Sequence[int]) -> list[ArraySong]:
    """The songs of one array in storage order; nothing of the array itself is read."""
    states = _states(files.source)
    keys, rows = read_index(files.index, len(states), files.source)
    named = named_songs(keys, files.labels, files.index, dataset)
    split = _named_split(files) if dataset == "jamendo" else None
    uri = storage.absolute(files.source)
    return [
        ArraySong(track_id, f"{uri}#{key}", partial(_windows, states, own, list(layers)), labels, split)
        for key, own, (track_id, labels) in zip(keys, rows, named, strict=True)
    ]


def named_songs(
    keys: Sequence[str], labels: str | None, source: str, dataset: str
) -> list[tuple[str, list[str] | None]]:
    """The id and the labels of each song of an array, by its key in the label file.

    Raises:
        InputError: a dataset without its label file, or a song that is not in it.
    """
    if labels is None and dataset != "none":
        raise InputError(f"{source}: --dataset {dataset} needs the songs' names; add its label file with --labels.")
    named = {key: (key, None) for key in keys} if labels is None else _label_file(labels, dataset)
    unknown = next((key for key in keys if key not in named), None)
    if unknown is not None:
        raise InputError(f"{labels}: no track {unknown!r} of {source} in it; give the label file it goes with.")
    return [named[key] for key in keys]


def _windows(states: Floats, rows: NDArray[np.int64], layers: list[int]) -> Floats:
    """[w, layers × width] some windows of [n, layers, width] states."""
    return np.asarray(states[rows[:, None], layers]).reshape(len(rows), -1)


def _label_file(uri: str, dataset: str) -> dict[str, tuple[str, list[str] | None]]:
    """A label file: key in the index → our track id and the labels."""
    try:
        songs = json.loads(storage.read_text(uri)).items()
        return {key: (_track_id(dataset, key, one["path"]), list(map(str, one["mood/theme"]))) for key, one in songs}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f'{uri}: not a label file of {dataset} ({{key: {{"path", "mood/theme"}}}}); check --labels and --dataset.'
        ) from error


def _states(uri: str) -> NDArray[np.floating[Any]]:
    """The [n, 13, 768] hidden states, as a view of the mapped file."""
    array = map_array(uri)
    states = array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
    if states.shape[1:] != (STATES, WIDTH) or states.dtype.kind != "f" or not len(states):
        raise InputError(
            f"{uri}: {array.dtype} of shape {list(array.shape)}; expected floats [n, 1, {STATES}, {WIDTH}] or "
            f"[n, {STATES}, {WIDTH}] with n at least 1."
        )
    return states


def _track_id(dataset: str, key: str, path: object) -> str:
    if dataset == "jamendo":
        return f"jamendo/{int(key)}"
    if dataset == "emotify":
        return f"emotify/{int(key.split(',')[0])}"
    return key if dataset == "none" else f"{dataset}/{posixpath.splitext(posixpath.basename(str(path)))[0]}"


def _named_split(files: PublishedFiles) -> str | None:
    """The official split of an MTG-Jamendo array, by the name of its label file or its own."""
    for uri in (files.labels, files.source):
        found = set(_NAMED_SPLIT.findall(posixpath.basename(uri or "")))
        if len(found) == 1:
            return "validation" if found <= {"val", "validation"} else str(found.pop())
    return None
