"""Files that several processes change: looked at, and changed only where they still are as one has seen them.

On S3 by conditional requests (``If-None-Match``, ``If-Match`` with the ETag), which the storage decides; locally under
a lock of the file's folder, which ends with its process. Ages are by the storage's clock, whatever this machine's says.
"""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from fsspec.asyn import sync

from mer_ray.storage.access import answer_code, filesystem, guarded
from mer_ray.storage.objects import local_version, put, write_local, write_temporary
from mer_ray.uris import is_s3

GUARD_SECONDS = 5.0
"""To wait for a local folder's lock, which is held for some milliseconds."""

_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_UNKNOWN = {"NotImplemented", "501"}
"""What a storage answers that knows no conditions, if it does not just pass over them."""


class Seen(NamedTuple):
    """A file as one look found it.

    Attributes:
        version: another for each content; empty where the storage tells none.
        age_s: since it was written.
    """

    data: bytes
    version: str
    age_s: float


def look(uri: str, *, touch: bool = False) -> Seen | None:
    """What stands there, its version and its age; None if nothing does.

    A local filesystem tells its time only to who writes: ``touch`` does so. Otherwise, and where an S3 storage
    does not tell its own, this machine's clock is taken.
    """
    with guarded(uri), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if is_s3(uri):
            fs, path = filesystem(uri)
            bucket, key, _ = fs.split_path(path)
            # The version first: where the file changes between the two requests, a swap is refused.
            head = sync(fs.loop, fs._call_s3, "head_object", Bucket=bucket, Key=key)
            age_s = _told_now(head) - head["LastModified"].timestamp()
            return Seen(fs.cat_file(path), str(head.get("ETag", "")), max(0.0, age_s))
        path = filesystem(uri)[1]
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            data = file.read()
        now = _touched(path) if touch else time.time()
        return Seen(data, local_version(stat), max(0.0, now - stat.st_mtime))
    return None


def swap(uri: str, data: bytes, version: str | None) -> str | None:
    """Write a file only while its version is still this one, or None while no file is there.

    Returns:
        The new version; None if the file had changed, or if an answer was lost and a repeated request found what
        the first one had written: look again to know.
    """
    with guarded(uri, "written"):
        if is_s3(uri):
            condition = {"mode": "create"} if version is None else {"IfMatch": version} if version else {}
            return _conditional_put(uri, data, condition)
        path = filesystem(uri)[1]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with _guarding(path) as mine:
            if not mine or _version(path) != version or (version is None and not _create(path, data)):
                return None
            if version is not None:
                write_local(path, data)
            return _version(path)


def swaps_hold(uri: str, data: bytes) -> bool:
    """Whether the storage of a file that holds ``data`` minds conditions: it must refuse to write it on false ones."""
    with guarded(uri, "written"):
        if is_s3(uri):
            false: tuple[dict[str, Any], ...] = ({"mode": "create"}, {"IfMatch": '"0"'})
            return all(_conditional_put(uri, data, condition) is None for condition in false)
        descriptor = os.open(os.path.dirname(filesystem(uri)[1]), os.O_RDONLY)
        try:
            return _flock(descriptor) is not None
        finally:
            os.close(descriptor)


def discard(uri: str, version: str) -> None:
    """Delete a file only while its version is still this one."""
    fs, path = filesystem(uri)
    with guarded(uri, "deleted"), contextlib.suppress(FileNotFoundError):
        if not is_s3(uri):
            with _guarding(path) as mine:
                if mine and _version(path) == version:
                    os.unlink(path)
            return
        bucket, key, _ = fs.split_path(path)
        condition = {"IfMatch": version} if version else {}
        try:
            sync(fs.loop, fs._call_s3, "delete_object", Bucket=bucket, Key=key, **condition)
        except OSError as error:
            if answer_code(error) in _UNKNOWN:
                fs.rm_file(path)
            elif answer_code(error) not in _CHANGED:
                raise


def _conditional_put(uri: str, data: bytes, condition: dict[str, Any]) -> str | None:
    try:
        return put(uri, data, **condition)
    except FileNotFoundError:  # gone: there is nothing that could match
        return None
    except OSError as error:
        if answer_code(error) in _UNKNOWN:
            return put(uri, data)
        if answer_code(error) in _CHANGED:
            return None
        raise


def _told_now(answer: dict[str, Any]) -> float:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()


def _touched(path: str) -> float:
    """Now, as the filesystem of a path stamps what is written to it."""
    temporary = write_temporary(f"{path}-time", b"")
    try:
        return os.stat(temporary).st_mtime
    finally:
        os.unlink(temporary)


def _create(path: str, data: bytes) -> bool:
    """Write a local file only if none is there, with all its content from the first moment on; False if one is."""
    temporary = write_temporary(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a filesystem without hard links: the content follows the name by a moment
        try:
            with open(path, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return True


def _version(path: str) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return local_version(os.stat(path))
    return None


@contextlib.contextmanager
def _guarding(path: str) -> Iterator[bool]:
    """Whether this process may change a local file now, and no other that asks so; the folder is locked meanwhile."""
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        yield _flock(descriptor) is not False
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool | None:
    """Lock an open folder; False if another process keeps it, None if its filesystem knows no locks of folders."""
    deadline = time.monotonic() + GUARD_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        except OSError:  # NFS, some FUSE filesystems
            return None
