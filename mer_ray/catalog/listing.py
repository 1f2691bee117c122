"""Songs that are files: those of a folder or an ``s3://`` prefix, known by their extensions."""

from __future__ import annotations

import math
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mer_ray import storage
from mer_ray.catalog.manifest import make_manifest
from mer_ray.errors import InputError
from mer_ray.storage import Found
from mer_ray.threads import Ticker

_AUDIO = ".mp3 .flac .wav .wave .ogg .oga .opus .m4a .mp4 .aac .alac .aif .aiff .aifc .wma"
AUDIO_EXTENSIONS = frozenset(_AUDIO.split())
EVERY_SECONDS = 5.0


@dataclass
class Listing:
    """How far a listing is; as a context it says so every few seconds, on standard error.

    Attributes:
        songs: found so far.
        others: files that are not songs by their names, by extension; hidden ones are not counted.
        place: where it is; empty before it begins.
        most: songs that there may be.
        walks: whether a folder or prefix is listed, whose files come in the order of their storage.
    """

    songs: int = 0
    others: Counter[str] = field(default_factory=Counter)
    place: str = ""
    most: float = math.inf
    walks: bool = False

    def __enter__(self) -> Listing:
        self._ticker = Ticker("listing", EVERY_SECONDS, self._say)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.stop()

    def _say(self) -> None:
        if self.place:
            print(f"catalog: {self.songs:,} songs listed, in {self.place}", file=sys.stderr, flush=True)

    def add(self, songs: int, source: str) -> None:
        """Count songs.

        Raises:
            InputError: there are more than there may be.
        """
        self.songs += songs
        if self.songs > self.most:
            raise InputError(
                f"{source}: more than {self.most:,} songs, too many for one file; give --output a folder's name."
            )

    def songs_among(self, files: Sequence[Found]) -> list[Found]:
        """Those that are songs; the others are counted."""
        songs = []
        for file in files:
            if not any(is_hidden(part) for part in file.path.split("/")):
                extension = posixpath.splitext(file.path)[1].lower()
                if extension in AUDIO_EXTENSIONS:
                    songs.append(file)
                else:
                    self.others[extension or "no extension"] += 1
        return songs


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: ``.x``, and the notes of a run."""
    return name.startswith(".") or name == "_run"


def list_songs(source: str, listing: Listing) -> Iterator[list[Found]]:
    """Every audio file below a folder or prefix, some at a time; hidden names and ``_run`` folders are passed over."""
    with storage.readable(source):
        if not storage.is_s3(source) and os.path.isfile(storage.filesystem(source)[1]):
            raise NotADirectoryError("neither a folder nor a CSV, TSV or Parquet table")
        root = storage.absolute(source).rstrip("/")
        for files in storage.files_below(source, is_hidden):
            listing.place = posixpath.dirname(f"{root}/{files[-1].path}") + "/"
            if songs := listing.songs_among(files):
                yield songs


def list_audio(source: str) -> dict[str, Found]:
    """Path below ``source`` → what is known of it, for every audio file, in one listing."""
    return {file.path: file for files in list_songs(source, Listing()) for file in files}


def listed_batches(source: str, rows: int, listing: Listing) -> Iterator[pa.Table]:
    """A manifest of every audio file below a folder or prefix, so many rows at a time; ids are the paths below it."""
    listing.walks = True
    waiting: list[Found] = []
    for files in list_songs(source, listing):
        waiting += files
        while len(waiting) >= rows:
            yield as_manifest(source, waiting[:rows])
            del waiting[:rows]
    if waiting:
        yield as_manifest(source, waiting)


def as_manifest(source: str, files: Sequence[Found], name: str | None = None) -> pa.Table:
    """The rows of files below ``source``; a refusal calls it ``name``."""
    root = storage.absolute(source).rstrip("/")
    paths = [file.path for file in files]
    rows = {"track_id": paths, "uri": [f"{root}/{path}" for path in paths], **known_of(files)}
    return make_manifest(rows, name or source)


def known_of(files: Sequence[Found]) -> dict[str, list[Any]]:
    """The manifest's columns of what a listing says of files."""
    return {"size_bytes": [file.size for file in files], "etag": [file.etag for file in files]}
