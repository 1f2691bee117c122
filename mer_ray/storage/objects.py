"""Whole files: listed, read, written so that a reader sees all of it or none, moved, deleted."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.asyn import FSTimeoutError, sync

from mer_ray.storage.access import filesystem, guarded, readable
from mer_ray.uris import is_s3, join

PUT_ATTEMPTS = 3
PUT_TIMEOUT_S = 20.0
"""For one put, with another second for each half megabyte."""

_PUT_BYTES_PER_S = 500_000
_STREAM_BYTES = 8 << 20


class Entry(NamedTuple):
    """A file as a listing of its folder shows it.

    Attributes:
        size: bytes.
        written: when, in seconds since 1970 by the storage's clock.
        version: another for each content; what :func:`mer_ray.storage.discard` takes.
    """

    uri: str
    size: int
    written: float
    version: str

    @property
    def name(self) -> str:
        """The last segment of the URI."""
        return self.uri.rsplit("/", 1)[-1]


def exists(uri: str) -> bool:
    """Whether a file or folder stands at the URI."""
    fs, path = filesystem(uri)
    with guarded(uri):
        return bool(fs.exists(path))


def names(uri: str) -> list[str]:
    """The names right below a folder, sorted; none where there is no folder."""
    fs, path = filesystem(uri)
    with guarded(uri), contextlib.suppress(FileNotFoundError):
        return sorted(entry.rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
    return []


def entries(uri: str, prefix: str = "") -> list[Entry]:
    """The files right below a folder whose names begin so, in the order of their names, from one listing.

    None where there is no folder.
    """
    fs, path = filesystem(uri)
    with guarded(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not is_s3(uri):
            return sorted(_local_entries(path, prefix))
        # Keys that begin so, folders are not asked for: of a hundred thousand parts only those of a shard.
        listed = fs.find(path, prefix=prefix, detail=True).values() if prefix else fs.ls(path, detail=True)
        return sorted(_s3_entries(uri, listed))
    return []


def _s3_entries(uri: str, listed: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    for info in listed:
        name = info["name"].rsplit("/", 1)[-1]
        if name and info["type"] == "file":  # some servers list a folder as an object without a name
            yield Entry(join(uri, name), info["size"], info["LastModified"].timestamp(), info.get("ETag", ""))


def _local_entries(path: str, prefix: str) -> Iterator[Entry]:
    for each in os.scandir(path):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            if each.name.startswith(prefix) and each.is_file():
                stat = os.stat(each.path)
                yield Entry(each.path, stat.st_size, stat.st_mtime, local_version(stat))


def local_version(stat: os.stat_result) -> str:
    """Another for each content that was written as a whole: a rename brings another inode."""
    return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}"


def written(uri: str) -> float | None:
    """When a file was written, in seconds since 1970 by the storage's clock; None if it is not there."""
    fs, path = filesystem(uri)
    with guarded(uri), contextlib.suppress(FileNotFoundError):
        return float(fs.modified(path).timestamp())
    return None


def is_folder(uri: str) -> bool:
    """Whether a local folder stands at the path."""
    return not is_s3(uri) and os.path.isdir(filesystem(uri)[1])


def read_bytes(uri: str) -> bytes:
    """The whole object in one request."""
    fs, path = filesystem(uri)
    with guarded(uri):
        data: bytes = fs.cat_file(path)
    return data


def read_text(uri: str) -> str:
    """A user's text file as UTF-8, with a mark for each byte that is none; raises an InputError (:func:`readable`)."""
    with readable(uri):
        return read_bytes(uri).decode("utf-8-sig", errors="replace")


@contextlib.contextmanager
def streamed(uri: str) -> Iterator[BinaryIO]:
    """A user's file, to be read from its beginning on; raises an InputError (:func:`readable`)."""
    fs, path = filesystem(uri)
    with readable(uri), fs.open(path, "rb", block_size=_STREAM_BYTES) as file:
        yield file


def read_json(uri: str) -> dict[str, Any] | None:
    """A JSON object, or None where there is none or a torn one."""
    try:
        value = json.loads(read_bytes(uri))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def as_json(value: Mapping[str, Any]) -> bytes:
    """Readable JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n").encode()


class TooLargeError(Exception):
    """An object that would not fit into the memory that it may have."""


def read_once(uri: str, most: int | None = None) -> bytes:
    """The whole object in one request and one try; raises whatever it fails with (:func:`failures`).

    Raises:
        TooLargeError: it has more bytes than ``most``; they are not read.
    """
    fs, path = filesystem(uri, attempts=1)
    data: bytes = sync(fs.loop, _get, fs, path, most)
    return data


async def _get(fs: AbstractFileSystem, path: str, most: int | None) -> bytes:
    bucket, key, _ = fs.split_path(path)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key)
    async with answer["Body"] as body:
        if most is not None and answer["ContentLength"] > most:
            raise TooLargeError(f"has {answer['ContentLength'] / 1e6:,.0f} MB")
        data: bytes = await body.read()
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object so that a reader sees all of it or none of it.

    Locally through a hidden sibling and a rename; on S3 a put is atomic by itself.
    """
    with guarded(uri, "written"):
        if is_s3(uri):
            put(uri, data)
        else:
            write_local(filesystem(uri)[1], data)


def put(uri: str, data: bytes, **options: Any) -> str:
    """Put an object on S3, within a time of its own: the client's timeouts do not count before ``100 Continue``.

    ``options`` are of the S3 call. Returns the object's ETag, empty where the storage tells none.
    """
    fs, path = filesystem(uri)
    limit = PUT_TIMEOUT_S + len(data) / _PUT_BYTES_PER_S
    for attempt in range(1, PUT_ATTEMPTS + 1):
        try:
            answer = sync(fs.loop, fs._pipe_file, path, data, timeout=limit, **options)
            return str((answer or {}).get("ETag", ""))
        except FSTimeoutError:
            if attempt == PUT_ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def write_local(path: str, data: bytes) -> None:
    """Write a local file whole (:func:`_whole`)."""
    with _whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def local_file(path: str) -> Iterator[BinaryIO]:
    """A local file to write piece by piece, which a reader sees whole or not at all."""
    with guarded(path, "written"), _whole(filesystem(path)[1]) as file:
        yield file


@contextlib.contextmanager
def _whole(path: str) -> Iterator[BinaryIO]:
    """A local file that is written through a hidden sibling and a rename, safe from a power loss."""
    with _temporary(path) as file:
        yield file
    try:
        rename(file.name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise


def rename(source: str, target: str) -> None:
    """Rename a local file; the name itself must outlive a power loss too, or _SUCCESS could stand without its parts."""
    os.replace(source, target)
    descriptor = os.open(os.path.dirname(target), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_temporary(path: str, data: bytes) -> str:
    """Write a hidden sibling of a local file, safe from a power loss; returns its path."""
    with _temporary(path) as file:
        file.write(data)
    return file.name


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[BinaryIO]:
    """A hidden sibling of a local file; gone if writing it fails."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:  # of a full disk, which needs the room
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def download(uri: str, path: str) -> None:
    """Fetch an object on S3 into a local file, of any size."""
    fs, key = filesystem(uri)
    with local_file(path) as file, guarded(uri):
        fs.get_file(key, file.name)


def upload(path: str, uri: str) -> None:
    """Put a local file to S3, of any size; a reader sees all of it or none."""
    fs, key = filesystem(uri)
    with guarded(uri, "written"):
        fs.put_file(path, key)


def move(source: str, target: str) -> None:
    """Give a file another name, in one step that fails with a FileNotFoundError if the file is there no more.

    On S3 the storage itself copies what is there at that moment, under 5 GB.
    """
    fs, path = filesystem(source)
    with guarded(target, "moved"):
        if is_s3(source):
            fs.cp_file(path, filesystem(target)[1])
            fs.rm_file(path)
        else:
            place = filesystem(target)[1]
            os.makedirs(os.path.dirname(place), exist_ok=True)
            rename(path, place)


def remove(uri: str) -> None:
    """Delete an object if it is there."""
    fs, path = filesystem(uri)
    with guarded(uri, "deleted"), contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def remove_folder(uri: str) -> None:
    """Delete a folder and all below it, if it is there."""
    fs, path = filesystem(uri)
    with guarded(uri, "deleted"), contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def remove_temporaries(uri: str) -> None:
    """Delete what killed writers left beside the objects of a local folder (S3 has no half-written objects)."""
    path = filesystem(uri)[1]
    if not is_s3(uri) and os.path.isdir(path):
        for name in os.listdir(path):
            if is_temporary(name):
                with (
                    guarded(uri, "deleted"),
                    contextlib.suppress(FileNotFoundError),
                ):  # its writer lives and has moved it
                    os.unlink(os.path.join(path, name))


def is_temporary(name: str) -> bool:
    """Whether a file of this name is half-written, or was left so."""
    return name.startswith(".") and name.endswith(".tmp")


def content_key(uri: str) -> str:
    """Another for each content of a file, as its storage tells it: by ETag on S3, else by size, inode and times."""
    fs, path = filesystem(uri)
    with guarded(uri):
        return str(fs.ukey(path))
