"""Where a song's bytes come from: fetched from S3, or read from a local file; and by what name it fails."""

from __future__ import annotations

import errno
import io
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from mer_ray import storage
from mer_ray.audio.formats import AudioError

FETCH_ATTEMPTS = 7
"""Tries of one fetch before an ``io_error`` is final; each is one request."""
FETCH_WAIT_S = 0.5
"""Wait before the first repeat, on average; each further one takes twice as long, half a minute in all."""

AudioSource = bytes | str | os.PathLike[str] | BinaryIO


@dataclass
class Repeats:
    """How often fetches were tried again, and the seconds that failed tries and waits took."""

    count: int = 0
    seconds: float = 0.0


def fetch(uri: str, repeats: Repeats | None = None) -> bytes | str:
    """A song ready for :func:`decode_windows`: an ``s3://`` object's bytes, or a local path to stream from.

    ``repeats`` counts the tries after the first.

    Raises:
        AudioError: ``not_found``, ``forbidden``, or ``io_error`` once it has been retried.
        StorageError: there are no credentials, or they have expired: no other song could be fetched either.
    """
    repeats = Repeats() if repeats is None else repeats
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        started = time.monotonic()
        try:
            return _fetch_s3(uri) if storage.is_s3(uri) else _check_local(uri)
        except AudioError as error:
            if error.error_class != "io_error" or attempt == FETCH_ATTEMPTS:
                raise
        # Jitter keeps a thousand workers from coming back to a struggling server all at once.
        time.sleep(FETCH_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        repeats.count += 1
        repeats.seconds += time.monotonic() - started
    raise AssertionError("unreachable: the last attempt returns or raises")


class _Watched(io.RawIOBase):
    """A file that ends at a failed read and remembers it: libsndfile knows no other way to stop.

    It also has no name, by which both libraries would guess a format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A damaged header sends the reader to a negative place: no fault of the disk.
            raise ValueError("a place outside the file") from error

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            self.failure = error
            return 0
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def opened(source: AudioSource) -> Iterator[BinaryIO]:
    """The source as a seekable file. Raises AudioError when it cannot be opened or read."""
    if isinstance(source, (str, os.PathLike)):
        try:
            file = open(source, "rb")  # noqa: SIM115 - closed by the with below; only opening is guarded here
        except OSError as error:
            raise _named(os.fspath(source), error) from error
        with file, opened(file) as stream:
            yield stream
    elif isinstance(source, bytes) or not source.seekable():
        yield io.BytesIO(source if isinstance(source, bytes) else source.read())
    else:
        watched = _Watched(source)
        name = getattr(source, "name", "the file")
        try:
            yield cast(BinaryIO, watched)
        except OSError as error:
            raise _named(name, error) from error
        except AudioError:
            if watched.failure is None:
                raise
        if watched.failure is not None:
            raise _named(name, watched.failure) from watched.failure


def _check_local(uri: str) -> str:
    """The path of a local file, once it is known to be a regular one that can be read."""
    path = storage.filesystem(uri)[1]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError("not_found", f"{path}: not a regular file. Check the catalogue.")
        with open(path, "rb"):
            return path
    except OSError as error:
        raise _named(path, error) from error
    except ValueError as error:
        raise AudioError("not_found", f"{path!r}: no possible path ({error}). Check the catalogue.") from error


def _fetch_s3(uri: str) -> bytes:
    """The whole object in one get: many small ranges are an order of magnitude slower."""
    try:
        return storage.read_once(uri)
    except storage.failures(uri) as error:
        if storage.credentials_gone(error):
            raise storage.refusal(uri, "read", error) from error
        raise _named(uri, error) from error


def _named(uri: object, error: Exception) -> AudioError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return AudioError("not_found", f"{uri}: not found. Check the catalogue.")
    if isinstance(error, IsADirectoryError):
        return AudioError("not_found", f"{uri}: a folder, not a file. Check the catalogue.")
    if isinstance(error, PermissionError):
        return AudioError("forbidden", f"{uri}: access denied. Check the permissions or credentials.")
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return AudioError("not_found", f"{uri}: {error.strerror}. Check the catalogue.")
    reason = str(error).rstrip(".") or type(error).__name__
    return AudioError("io_error", f"{uri}: {reason}. Try again with --retry-failed.")
