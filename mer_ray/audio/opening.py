"""A song's file as a decoder reads it, and by what name it fails."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from mer_ray.audio.formats import AudioError

AudioSource = bytes | str | os.PathLike[str] | BinaryIO


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
            raise named(os.fspath(source), error) from error
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
            raise named(name, error) from error
        except AudioError:
            if watched.failure is None:
                raise
        if watched.failure is not None:
            raise named(name, watched.failure) from watched.failure


def named(uri: object, error: Exception) -> AudioError:
    """What is said of a song that could not be read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return AudioError("not_found", f"{uri}: not found. Check the catalogue.")
    if isinstance(error, IsADirectoryError):
        return AudioError("not_found", f"{uri}: a folder, not a file. Check the catalogue.")
    if isinstance(error, PermissionError):
        return AudioError("forbidden", f"{uri}: access denied. Check the permissions or credentials.")
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return AudioError("not_found", f"{uri}: {error.strerror}. Check the catalogue.")
    reason = str(error).rstrip(".") or type(error).__name__
    return AudioError("io_error", f"{uri}: {reason}. The next run tries it again.")
