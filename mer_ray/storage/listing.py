"""Every file below a folder or prefix, in a stream: memory does not follow how many there are.

On S3 prefixes are listed side by side, some pages ahead of who reads. A prefix of a few pages, or of many small
folders, is listed flat, a thousand keys a request; one of large folders is taken apart into them. Prefixes alone tell
one part of a listing from another, so that nothing is missed where a storage lists in an order of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeAlias

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from mer_ray.storage.access import filesystem, guarded
from mer_ray.uris import is_s3

AHEAD = 8
"""Prefixes that are listed at the same time."""
PAGES = 20
"""Of a prefix at a time; the next are asked for once these are read."""
PAGE_KEYS = 1000
"""What S3 answers to one request at most."""


class Found(NamedTuple):
    """A file as a listing shows it.

    Attributes:
        path: below the folder that was listed.
        size: bytes; None of a broken link.
        etag: S3's name for its content; None where there is none.
    """

    path: str
    size: int | None = None
    etag: str | None = None


def files_below(uri: str, passed_over: Callable[[str], bool] = lambda name: False) -> Iterator[list[Found]]:
    """The files below a folder or prefix, some at a time, in the order of their paths as far as the storage lists so.

    Folders whose name is ``passed_over`` need not be looked into; S3 may list what is in them none the less. Locally
    linked folders are followed, each once; the names in one folder, and the path of each folder, are held in memory.
    """
    fs, path = filesystem(uri)
    with guarded(uri):
        yield from _s3_files(fs, path, passed_over) if is_s3(uri) else _local_files(path, passed_over)


def is_below(uri: str) -> bool:
    """Whether a local folder stands at the path, or any object below a prefix; one request."""
    fs, path = filesystem(uri)
    if not is_s3(uri):
        return os.path.isdir(path)
    with guarded(uri), contextlib.suppress(FileNotFoundError):
        bucket, prefix = _bucket_and_prefix(fs, path)
        page = sync(fs.loop, fs._call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return bool(page.get("Contents"))
    return False


def _local_files(root: str, passed_over: Callable[[str], bool]) -> Iterator[list[Found]]:
    """An unreadable folder is an error, since its files would be left out unseen."""
    base, visited = os.path.join(root, ""), {os.path.realpath(root)}
    inside, run = [_in_order(root)], []
    while inside:
        for entry in inside[-1]:
            if not _is_folder(entry):
                run.append(Found(entry.path.removeprefix(base), _size(entry)))
                if len(run) == PAGE_KEYS:
                    yield run
                    run = []
            elif not passed_over(entry.name) and (real := os.path.realpath(entry.path)) not in visited:
                visited.add(real)
                inside.append(_in_order(entry.path))
                break
        else:
            inside.pop()
    if run:
        yield run


def _in_order(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, so that going into each folder as it comes gives paths in their order."""
    with os.scandir(folder) as entries:
        return iter(sorted(entries, key=lambda entry: entry.name + "/" * _is_folder(entry)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):  # of a link to itself
        return entry.is_dir()
    return False


def _size(entry: os.DirEntry[str]) -> int | None:
    with contextlib.suppress(OSError):
        return entry.stat().st_size
    return None


class _Piece(NamedTuple):
    """A part of a listing that is to be asked for: what is below a prefix, or ``apart``, its files beside its folders.

    ``token`` says where an earlier answer ended.
    """

    prefix: str
    apart: bool = False
    token: str | None = None


_Part: TypeAlias = "list[Found] | _Piece"


def _s3_files(fs: AbstractFileSystem, path: str, passed_over: Callable[[str], bool]) -> Iterator[list[Found]]:
    bucket, root = _bucket_and_prefix(fs, path)
    listing = _Listing(fs, bucket, root, passed_over)
    todo: deque[_Part] = deque([_Piece(root)])
    asked: dict[_Piece, Future[list[_Part]]] = {}
    try:
        while todo:
            pieces = (part for part in todo if isinstance(part, _Piece))
            for piece in itertools.islice(pieces, AHEAD):
                if piece not in asked:
                    asked[piece] = asyncio.run_coroutine_threadsafe(listing.parts(piece), fs.loop)
            first = todo.popleft()
            if isinstance(first, _Piece):
                todo.extendleft(reversed(asked.pop(first).result()))
            elif first:
                yield first
    finally:
        for future in asked.values():
            future.cancel()


class _Listing(NamedTuple):
    """The requests of one listing."""

    fs: AbstractFileSystem
    bucket: str
    root: str
    passed_over: Callable[[str], bool]

    async def parts(self, piece: _Piece) -> list[_Part]:
        """What a piece holds, in order: files, and pieces that are yet to be asked for."""
        if piece.apart:
            return await self._apart(piece)
        found: list[Found] = []
        token = piece.token
        for _ in range(PAGES):
            page = await self._page(piece.prefix, token)
            found += self._files(page)
            token = page.get("NextContinuationToken")
            if token is None:
                return [found]
        folders = {each.path[len(piece.prefix) - len(self.root) :].partition("/")[0] for each in found}
        if piece.token is None and len(found) >= PAGE_KEYS * len(folders):
            return [_Piece(piece.prefix, apart=True)]
        return [found, _Piece(piece.prefix, token=token)]

    async def _apart(self, piece: _Piece) -> list[_Part]:
        page = await self._page(piece.prefix, piece.token, Delimiter="/")
        inside: list[tuple[str, _Part]] = [(self.root + each.path, [each]) for each in self._files(page)]
        folders = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        inside += [(name, _Piece(name)) for name in folders if not self.passed_over(name.split("/")[-2])]
        parts = [part for _, part in sorted(inside, key=lambda pair: pair[0])]
        token = page.get("NextContinuationToken")
        return [*parts, _Piece(piece.prefix, apart=True, token=token)] if token else parts

    async def _page(self, prefix: str, token: str | None, **how: str) -> dict[str, Any]:
        more = {"ContinuationToken": token} if token else {}
        page: dict[str, Any] = await self.fs._call_s3(
            "list_objects_v2", Bucket=self.bucket, Prefix=prefix, MaxKeys=PAGE_KEYS, **more, **how
        )
        return page

    def _files(self, page: dict[str, Any]) -> list[Found]:
        """The files of an answer; a key that ends in a slash stands for a folder."""
        files = [each for each in page.get("Contents", ()) if not each["Key"].endswith("/")]
        etags = (each.get("ETag", "").strip('"') or None for each in files)
        return [
            Found(each["Key"][len(self.root) :], each.get("Size"), etag)
            for each, etag in zip(files, etags, strict=True)
        ]


def _bucket_and_prefix(fs: AbstractFileSystem, path: str) -> tuple[str, str]:
    bucket, key, _ = fs.split_path(path)
    return bucket, f"{key}/" if key else ""
