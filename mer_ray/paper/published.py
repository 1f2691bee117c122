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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray import storage
from mer_ray.catalog.datasets import SplitRule, draw_splits
from mer_ray.catalog.manifest import make_manifest
from mer_ray.errors import InputError
from mer_ray.features import store_table
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.songs import Identity

STATES, WIDTH = 13, 768
WINDOW_SECONDS = 10.0
WINDOWS_PER_PART = 2048
"""About this many windows are in memory at a time and stand in one part."""

_NAMED_SPLIT = re.compile(r"(?:^|[-_.])(train|val|validation|test)(?=[-_.]|$)")


@dataclass(frozen=True)
class PublishedFiles:
    """The files of one published array; ``labels`` is its JSON, if there is one."""

    source: str
    index: str
    labels: str | None = None


@dataclass(frozen=True)
class PublishedSong:
    """One song of an array; ``labels`` is None without a label file, ``split`` where no file's name says it.

    ``rows`` are its windows in ``states``, the whole array, [n, 13, 768], mapped and not read.
    """

    track_id: str
    labels: list[str] | None
    split: str | None
    uri: str
    states: NDArray[np.floating[Any]]
    rows: NDArray[np.int64]


def import_published(
    files: Sequence[PublishedFiles],
    features: str,
    *,
    dataset: str = "none",
    layers: Sequence[int] = (3, 6, 9, 12),
    split: SplitRule = "seeded",
    seed: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Bring a feature store up to date with published arrays; songs it holds are left as they are.

    Memory stays within some parts. Returns the manifest of all arrays and the summary of the run.

    Raises:
        InputError: a file that is missing or of another form, files that do not belong together, or a
            store begun with other features.
    """
    if not set(layers) <= set(range(STATES)):
        raise InputError(f"layers {','.join(map(str, layers))}: the arrays hold 0 to {STATES - 1}; choose among these.")
    songs = [song for one in files for song in read_songs(one, dataset)]
    manifest = published_manifest(songs, dataset, split, seed)
    identity = published_identity(layers)
    fingerprint = {name: identity[name] for name in ("name", "layers", "pooling", "window_seconds")}
    asked = {"files": [vars(one) for one in files], "dataset": dataset, "split": split, "seed": seed}
    with SongsDirectory(features, "import") as output:
        output.begin(fingerprint, asked, manifest)
        pending = set(output.pending(manifest, retry_failed=False)["track_id"].to_pylist())
        for group in _parts([song for song in songs if song.track_id in pending]):
            output.lock.check()
            commit(features, _store_table(group, layers))
        return manifest, output.finish(songs_done=len(pending))


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


def read_songs(files: PublishedFiles, dataset: str) -> list[PublishedSong]:
    """The songs of one array in storage order; nothing of the array itself is read."""
    states = _states(files.source)
    keys, rows = read_index(files.index, len(states), files.source)
    if files.labels is None and dataset != "none":
        raise InputError(
            f"{files.source}: --dataset {dataset} needs the songs' names; add its label file with --labels."
        )
    named = {key: (key, None) for key in keys} if files.labels is None else _named_songs(files.labels, dataset)
    unknown = next((key for key in keys if key not in named), None)
    if unknown is not None:
        raise InputError(
            f"{files.labels}: no track {unknown!r} of {files.index} in it; give the label file it goes with."
        )
    split = _named_split(files) if dataset == "jamendo" else None
    uri = storage.absolute(files.source)
    return [PublishedSong(*named[key], split, f"{uri}#{key}", states, own) for key, own in zip(keys, rows, strict=True)]


def read_index(uri: str, windows: int, source: str) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Whose the windows are: the songs' keys in storage order, and the rows of each in the order of time.

    Raises:
        InputError: no index, or not of ``windows`` rows.
    """
    keys, starts = _index_columns(uri)
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


def _named_songs(uri: str, dataset: str) -> dict[str, tuple[str, list[str] | None]]:
    """A label file: key in the index → our track id and the labels."""
    try:
        songs = json.loads(storage.read_text(uri)).items()
        return {key: (_track_id(dataset, key, one["path"]), list(map(str, one["mood/theme"]))) for key, one in songs}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f'{uri}: not a label file of {dataset} ({{key: {{"path", "mood/theme"}}}}); check --labels and --dataset.'
        ) from error


def published_manifest(songs: Sequence[PublishedSong], dataset: str, split: SplitRule, seed: int) -> pa.Table:
    """The manifest of the songs: split as the files are named, else by song as ``split`` says."""
    ids = [song.track_id for song in songs]
    twice, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise InputError(f"track {twice}: stands in the given files more than once; give each song one array and key.")
    named = [song.split for song in songs]
    splits, reading = draw_splits(ids, split, seed) if None in named else (named, "official")
    columns = {
        "track_id": ids,
        "uri": [song.uri for song in songs],
        "dataset": [None if dataset == "none" else dataset] * len(ids),
        "split": splits,
        "labels": [song.labels for song in songs],
    }
    return make_manifest(columns, songs[0].uri, {"split": reading, "features": "published"})


def _store_table(songs: Sequence[PublishedSong], layers: Sequence[int]) -> pa.Table:
    """Rows of the feature store; a song with a value that float16 cannot hold is a failed one."""
    rows, kept = [], []
    for song in songs:
        with np.errstate(over="ignore"):
            track = song.states[song.rows[:, None], list(layers)].astype(np.float16).reshape(-1, len(layers) * WIDTH)
        fine = bool(np.isfinite(track).all())
        kept.append(track[: None if fine else 0])
        row = {"track_id": song.track_id, "uri": song.uri, "truncated": False, "bad_packets": 0}
        failed = {"status": "failed", "error_class": "not_finite", "error": f"{song.uri}: not finite"}
        row |= {"duration_s": len(song.rows) * WINDOW_SECONDS, **({"status": "ok"} if fine else failed)}
        rows.append(row)
    return store_table(rows, kept, published_identity(layers))


def _parts(songs: Sequence[PublishedSong]) -> Iterator[list[PublishedSong]]:
    """Whole songs in storage order, about ``WINDOWS_PER_PART`` windows at a time."""
    group: list[PublishedSong] = []
    for song in songs:
        group.append(song)
        if song is songs[-1] or sum(len(one.rows) for one in group) >= WINDOWS_PER_PART:
            yield group
            group = []


def _load(uri: str) -> NDArray[Any]:
    """Map a ``.npy`` file; never a pickle."""
    if storage.is_s3(uri):
        raise InputError(f"{uri}: arrays are mapped from disk; copy the file to a local path.")
    try:
        with storage.readable(uri):
            array = np.load(storage.absolute(uri), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{uri}: not a plain .npy array (whole, without Python objects); fetch it again.") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{uri}: an archive of arrays; give the .npy file itself.")
    return array


def _states(uri: str) -> NDArray[np.floating[Any]]:
    """The [n, 13, 768] hidden states, as a view of the mapped file."""
    array = _load(uri)
    states = array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array
    if states.shape[1:] != (STATES, WIDTH) or states.dtype.kind != "f" or not len(states):
        raise InputError(
            f"{uri}: {array.dtype} of shape {list(array.shape)}; expected floats [n, 1, {STATES}, {WIDTH}] or "
            f"[n, {STATES}, {WIDTH}] with n at least 1."
        )
    return states


def _index_columns(uri: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The [n] keys as text and the [n] starts; windows without times keep their order."""
    index = _load(uri)
    fields = index.dtype.names or ()
    if index.ndim == 1 and "track_id" in fields:
        times = [index[name] for name in fields if name != "track_id" and index.dtype[name].kind in "iuf"]
        keys, starts = index["track_id"], times[0] if times else np.arange(len(index))
    elif index.ndim == 2 and index.shape[1] > 1 and index.dtype.kind in "US":
        keys, starts = index[:, 0], index[:, 1]
    else:
        raise InputError(f"{uri}: {index.dtype} of shape {list(index.shape)}; expected a row a window with 'track_id'.")
    text = np.char.decode(keys, "utf-8") if keys.dtype.kind == "S" else keys.astype(np.str_)
    try:
        return text, np.asarray(starts).astype(np.float64)
    except ValueError as error:
        raise InputError(f"{uri}: the second column holds no times; expected track id, start and end.") from error


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
