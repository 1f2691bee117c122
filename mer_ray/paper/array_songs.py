"""Songs whose features come as arrays that somebody else made: a feature store and a manifest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mer_ray.catalog.datasets import SplitRule, draw_splits
from mer_ray.catalog.manifest import make_manifest
from mer_ray.errors import InputError
from mer_ray.features import store_table
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.songs import Identity

WINDOWS_PER_PART = 2048
"""About this many windows are in memory at a time and stand in one part."""

Floats = NDArray[np.floating[Any]]
_DECIDES = ("name", "layers", "pooling", "window_seconds", "dim")


class MalformedError(Exception):
    """An array of a song that is not what the others are; the message says how."""


@dataclass(frozen=True)
class ArraySong:
    """One song.

    Attributes:
        track_id: its id in store and manifest.
        uri: where its array is.
        read: its windows in the order of time, [w, D] floats; raises :class:`MalformedError`.
        labels: None where nobody says them.
        split: the one that is published, if one is.
    """

    track_id: str
    uri: str
    read: Callable[[], Floats]
    labels: list[str] | None = None
    split: str | None = None


def import_songs(
    songs: Sequence[ArraySong],
    features: str,
    identity: Identity,
    asked: dict[str, Any],
    *,
    dataset: str = "none",
    split: SplitRule = "seeded",
    seed: int = 0,
) -> tuple[pa.Table, dict[str, Any]]:
    """Bring a feature store up to date with songs; those it holds are left as they are.

    Memory stays within some parts. A song that is malformed, or with a value that float16 cannot hold, is a failed row
    that names its window. Returns the manifest of all songs and the summary of the run.

    Args:
        songs: in the order of storage.
        features: the store: a folder or ``s3://`` prefix.
        identity: of the encoder, as far as it is known; with ``dim``.
        asked: what the user asked for, to be kept with the store.
        dataset: in the manifest; ``none`` leaves it out.
        split: how songs are split whose files do not say.
        seed: of the split.

    Raises:
        InputError: two songs of one name, or a store begun with other features.
    """
    manifest = _manifest(songs, dataset, split, seed)
    with SongsDirectory(features, "import") as output:
        output.begin({name: identity[name] for name in _DECIDES}, asked, manifest)
        pending = set(output.pending()["track_id"].to_pylist())
        for rows, tracks in _parts([song for song in songs if song.track_id in pending], identity):
            output.lock.check()
            commit(features, store_table(rows, tracks, identity))
        return manifest, output.finish(songs_done=len(pending))


def _manifest(songs: Sequence[ArraySong], dataset: str, split: SplitRule, seed: int) -> pa.Table:
    """Split as the files are named, else by song as ``split`` says."""
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


def _parts(songs: Sequence[ArraySong], identity: Identity) -> Iterator[tuple[list[dict[str, Any]], list[Floats]]]:
    """Whole songs in storage order, about ``WINDOWS_PER_PART`` windows at a time: status rows and [w, D] features."""
    rows: list[dict[str, Any]] = []
    tracks: list[Floats] = []
    for song in songs:
        row, track = _row(song, identity)
        rows.append(row)
        tracks.append(track)
        if song is songs[-1] or sum(map(len, tracks)) >= WINDOWS_PER_PART:
            yield rows, tracks
            rows, tracks = [], []


def _row(song: ArraySong, identity: Identity) -> tuple[dict[str, Any], Floats]:
    row = {"track_id": song.track_id, "uri": song.uri, "truncated": False, "bad_packets": 0, "status": "ok"}
    nothing = np.zeros((0, identity["dim"]), np.float16)
    try:
        track = song.read()
    except MalformedError as error:
        return {**row, "status": "failed", "error_class": "malformed", "error": f"{song.uri}: {error}"}, nothing
    row["duration_s"] = len(track) * identity["window_seconds"]
    with np.errstate(over="ignore"):
        halves = track.astype(np.float16)
    bad = np.argwhere(~np.isfinite(halves))
    if not len(bad):
        return row, halves
    window, at = bad[0]
    value = track[window, at]
    what = f"holds {value:g}" + ", which float16 cannot hold; scale the features" * bool(np.isfinite(value))
    why = f"{song.uri}: window {window + 1} of {len(track)} {what}"
    return {**row, "status": "failed", "error_class": "not_finite", "error": why}, nothing
