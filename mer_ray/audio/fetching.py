"""Where a song's bytes come from: fetched from S3, or read from a local file.

Done by who asks for the decoding, never by the process that decodes: that one has no credentials and no network.
"""

from __future__ import annotations

import os
import random
import stat
import time
from dataclasses import dataclass

from mer_ray import storage
from mer_ray.audio.formats import AudioError
from mer_ray.audio.opening import named
from mer_ray.errors import StorageError

FETCH_ATTEMPTS = 7
"""Tries of one fetch before an ``io_error`` is final; each is one request."""
FETCH_WAIT_S = 0.5
"""Wait before the first repeat, on average; each further one takes twice as long, half a minute in all."""


@dataclass
class Repeats:
    """How often fetches were tried again, and the seconds that failed tries and waits took."""

    count: int = 0
    seconds: float = 0.0


def fetch(
    uri: str, repeats: Repeats | None = None, *, attempts: int = FETCH_ATTEMPTS, most: int | None = None
) -> bytes | str:
    """A song ready for :func:`decode_windows`: an ``s3://`` object's bytes, or a local path to stream from.

    Args:
        uri: local or ``s3://``.
        repeats: counts the tries after the first.
        attempts: tries before an ``io_error`` is final.
        most: bytes of an object, which is held in memory.

    Raises:
        AudioError: ``not_found``, ``forbidden``, ``too_much_memory``, or ``io_error`` once it has been retried.
        StorageError: there are no credentials, or they have expired: no other song could be fetched either.
    """
    repeats = Repeats() if repeats is None else repeats
    for attempt in range(1, attempts + 1):
        started = time.monotonic()
        try:
            return _fetch_s3(uri, most) if storage.is_s3(uri) else _check_local(uri)
        except AudioError as error:
            if error.error_class != "io_error" or attempt == attempts:
                raise
        # Jitter keeps a thousand workers from coming back to a struggling server all at once.
        time.sleep(FETCH_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        repeats.count += 1
        repeats.seconds += time.monotonic() - started
    raise AssertionError("unreachable: the last attempt returns or raises")


def why_unreadable(uri: str) -> str | None:
    """Why a song cannot be fetched now; None if it can."""
    try:
        fetch(uri)
    except (AudioError, StorageError) as error:
        return str(error)
    return None


def as_descriptor(source: bytes | str) -> int:
    """What :func:`fetch` gave as an open file, which a process may be handed that could not open it itself."""
    if isinstance(source, str):
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    with open(os.memfd_create("song"), "wb") as file:
        file.write(source)
        file.flush()
        return os.dup(file.fileno())


def _check_local(uri: str) -> str:
    """The path of a local file, once it is known to be a regular one that can be read."""
    path = storage.filesystem(uri)[1]
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise AudioError("not_found", f"{path}: not a regular file. Check the catalogue.")
        with open(path, "rb"):
            return path
    except OSError as error:
        raise named(path, error) from error
    except ValueError as error:
        raise AudioError("not_found", f"{path!r}: no possible path ({error}). Check the catalogue.") from error


def _fetch_s3(uri: str, most: int | None) -> bytes:
    """The whole object in one get: many small ranges are an order of magnitude slower."""
    try:
        return storage.read_once(uri, most)
    except storage.TooLargeError as error:
        limit = f"{(most or 0) / 1e6:,.0f} MB (--decoder-memory-mb)"
        raise AudioError(
            "too_much_memory", f"{uri}: {error}, more than {limit}; raise it or replace the file."
        ) from None
    except storage.failures(uri) as error:
        if storage.credentials_gone(error):
            raise storage.refusal(uri, "read", error) from error
        raise named(uri, error) from error
