"""Playlists that any player reads (extended M3U in UTF-8)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from mer_ray import storage


def playlist(songs: Iterable[Mapping[str, Any]], uri: str) -> bytes:
    """An ``.m3u8`` to lie at a URI: of songs with ``uri``, ``duration_s``, ``title``, ``artist``, ``track_id``.

    Local songs are named by their path from the playlist's folder, so that both may move together.
    """
    lines = ["#EXTM3U"]
    for song in songs:
        name = " - ".join(text for text in (song["artist"], song["title"] or song["track_id"]) if text)
        lines.append(f"#EXTINF:{round(song['duration_s'] or -1)},{' '.join(name.split())}")
        lines.append(_place(song["uri"], uri))
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _place(song: str, uri: str) -> str:
    if storage.is_s3(song) or storage.is_s3(uri):
        return song
    path = os.path.relpath(storage.absolute(song), os.path.dirname(storage.absolute(uri)))
    # A name that would be read as a remark or as two lines is written as a link.
    return path if path.isprintable() and not path.startswith("#") else f"file://{quote(storage.absolute(song))}"
