"""A URI's filesystem, and what its failures mean to a user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from mer_ray.errors import InputError, StorageError
from mer_ray.uris import absolute, checked, is_s3

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
"""Of silence on an open connection, not of a whole transfer."""
CLIENT_ATTEMPTS = 10
"""Of the S3 client at one request, waiting 0.1 s and 1.7 times as long each time: half a minute in all."""

_REFUSED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken", "TokenRefreshRequired"}
_REFUSED |= {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_PASSING = {429, 500, 502, 503, 504}
"""Statuses that may be another's a moment later; 501 is final, and how a storage says that it knows no conditions."""
_AGAIN = "run the same command again"
_MENDS = {
    errno.ENOSPC: ("the disk is full", f"make room there and {_AGAIN}"),
    errno.EDQUOT: ("the quota is used up", f"make room there and {_AGAIN}"),
    errno.EROFS: ("the filesystem is read-only", "choose a place that can be written to"),
    errno.EACCES: ("permission denied", f"give the permission and {_AGAIN}, or choose another place"),
    errno.EPERM: ("not permitted", f"give the permission and {_AGAIN}, or choose another place"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "choose another place"),
    errno.EEXIST: ("a file stands where a folder is needed", "choose another place"),
    errno.EISDIR: ("a folder stands there", "choose another place"),
    errno.ENOENT: ("no such folder can be made", "choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "choose another place"),
}
"""The cause and the next step of an error that waiting does not mend."""


def filesystem(uri: str, *, attempts: int | None = None) -> tuple[AbstractFileSystem, str]:
    """Resolve a local path or ``s3://`` URI to a filesystem and the path on it (no trailing slash).

    Listings are never cached: another run may be writing beside this one.

    Raises:
        InputError: the URI carries credentials, or is of another scheme.
    """
    checked(uri)
    if not is_s3(uri):
        return fsspec.filesystem("file", auto_mkdir=True), absolute(uri)
    tries = attempts or CLIENT_ATTEMPTS
    config = {
        # s3fs repeats. But it keeps its clients by this number, each with its own tries: one of one try needs its own.
        "retries": {"mode": "standard", "total_max_attempts": min(tries, 2)},
        "max_pool_connections": 32,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "signature_version": "s3v4",  # links too, which are else signed as regions younger than 2014 refuse
    }
    _repeat_what_may_pass()
    _read_times_fast()
    # More than one at a time would read an object's size first, and large objects in ranges.
    fs = fsspec.filesystem("s3", use_listings_cache=False, max_concurrency=1, config_kwargs=config)
    fs.retries = tries
    return fs, uri.removeprefix("s3://").rstrip("/")


@cache
def _repeat_what_may_pass() -> None:
    """Have s3fs repeat what the storage, or the way to it, is to blame for: an answer without a body too."""
    import botocore.exceptions
    from s3fs.core import set_custom_error_handler

    def may_pass(error: Exception) -> bool:
        status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in _PASSING or isinstance(error, botocore.exceptions.ConnectionError)

    set_custom_error_handler(may_pass)


@cache
def _read_times_fast() -> None:
    """Have botocore read a listing's times by Python's own parser: its own takes four fifths of a listing's CPU."""
    import botocore.parsers

    botocore.parsers.DEFAULT_TIMESTAMP_PARSER = time_told


def time_told(value: Any) -> datetime:
    """A time as S3 tells it, of whatever form."""
    try:
        told = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        told = None
    if told is None or told.tzinfo is None:
        from botocore.utils import parse_timestamp

        told = parse_timestamp(value)
    return told


def arrow_filesystem(uri: str) -> PyFileSystem:
    """The filesystem of a URI as pyarrow and Ray take it."""
    return PyFileSystem(FSSpecHandler(filesystem(uri)[0]))


@contextlib.contextmanager
def guarded(uri: str, deed: str = "read") -> Iterator[None]:
    """Turn what storage fails with into a StorageError, but for the absence of what was to be read or deleted."""
    absence = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) if deed != "written" else ()
    try:
        yield
    except (StorageError, *absence):
        raise
    except failures(uri) as error:
        if type(error) is OSError and error.errno is None:  # pyarrow's word for a damaged file
            raise
        raise refusal(uri, deed, error) from error


@contextlib.contextmanager
def readable(uri: str) -> Iterator[None]:
    """Turn whatever keeps a user's file from being read into an InputError."""
    try:
        with guarded(uri):
            yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{uri}: not found; check the path.") from error
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error}); check the path and its permissions.") from error


def failures(uri: str) -> tuple[type[Exception], ...]:
    """What a filesystem may raise; not all that S3 fails with is an OSError."""
    if not is_s3(uri):
        return (OSError,)
    # Imported late because they are slow.
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.parsers import ResponseParserError

    return (OSError, ClientError, BotoCoreError, ResponseParserError)


def refusal(uri: str, deed: str, error: BaseException) -> StorageError:
    """What to tell the user of a failure to read, write or delete: the place, the cause, the next step."""
    reason, mend = str(error).rstrip(".") or type(error).__name__, f"{_AGAIN} once the storage answers"
    if credentials_gone(error):
        reason = f"the credentials are missing, are wrong or have expired: {reason}"
        mend = f"{_AGAIN} with new credentials"
    elif is_s3(uri) and isinstance(error, PermissionError):
        mend = f"{_AGAIN} with credentials that may"
    elif is_s3(uri) and isinstance(error, FileNotFoundError):
        mend = "check the name of the bucket"
    elif isinstance(error, OSError) and not is_s3(uri) and error.errno in _MENDS:
        reason, mend = _MENDS[error.errno]
    return StorageError(f"{uri}: cannot be {deed} ({reason}); {mend}.")


def credentials_gone(error: BaseException) -> bool:
    """Whether credentials that are missing, wrong or expired are the reason: nothing but new ones will help."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    missing = isinstance(error, (NoCredentialsError, PartialCredentialsError))
    return missing or answer_code(error) in _REFUSED


def answer_code(error: BaseException) -> str:
    """S3's own word for a refusal (``SlowDown``, ``PreconditionFailed``); empty where there is none."""
    answer = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
