"""How a page reaches its songs: by paths from its own folder, by their old place, by links that expire on S3."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from mer_ray import storage


@dataclass(frozen=True)
class Links:
    """Where a player looks for songs.

    Attributes:
        roots: what to put before a song's ending, one after the other until it plays.
        endings: a song each; a whole link where it is on S3, None where it cannot be heard.
    """

    roots: list[str]
    endings: list[str | None]


def links(uris: Sequence[str | None], page: str, seconds: float) -> Links:
    """Links from a page to songs.

    A local song is looked for from the page's folder first, so that both may move together, then where it was. A
    song on S3 gets a link that whoever has the page can use for so many seconds.
    """
    paths = [_local(uri) for uri in uris]
    folders = {os.path.dirname(path) for path in paths if path}
    root = os.path.commonpath(folders) if folders else ""
    roots = [_link("file://", root)] if root else []
    if root and not storage.is_s3(page):
        roots.insert(0, _link("", os.path.relpath(root, os.path.dirname(storage.absolute(page)))))
    inside = len(root.rstrip("/")) + 1
    endings = [
        quote(path[inside:], errors="surrogateescape") if path else _signed(uri, seconds)
        for uri, path in zip(uris, paths, strict=True)
    ]
    return Links(roots, endings)


def _local(uri: str | None) -> str | None:
    return None if uri is None or storage.is_s3(uri) else storage.absolute(uri)


def _link(scheme: str, folder: str) -> str:
    return scheme + quote(folder.replace(os.sep, "/").rstrip("/")) + "/"


def _signed(uri: str | None, seconds: float) -> str | None:
    if uri is None or not seconds:
        return None
    fs, path = storage.filesystem(uri)
    with storage.guarded(uri):
        return str(fs.sign(path, expiration=int(seconds)))
