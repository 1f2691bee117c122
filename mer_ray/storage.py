"""URIs: local paths and ``s3://`` objects behind one fsspec filesystem.

The endpoint and the credentials of S3 come from the standard AWS variables or from
the machine's role (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), never from our settings.

What may pass by itself (5xx, resets, timeouts, bodies cut short, no connection) is tried again by the S3
client. What then still fails is a :class:`StorageError`; that nothing is there stays a FileNotFoundError.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.asyn import FSTimeoutError, sync
from pyarrow.fs import FSSpecHandler, PyFileSystem

from mer_ray.errors import InputError, StorageError, without_credentials

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
"""Of silence on an open connection, not of a whole transfer."""
CLIENT_ATTEMPTS = 5
"""Of the S3 client at one request."""
PUT_ATTEMPTS = 3
PUT_TIMEOUT_S = 20.0
"""For one put, with another second for each half megabyte."""

_PUT_BYTES_PER_S = 500_000
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}


def is_s3(uri: str) -> bool:
    """True for an ``s3://`` URI."""
    return uri.startswith("s3://")


def filesystem(uri: str, *, attempts: int = CLIENT_ATTEMPTS) -> tuple[AbstractFileSystem, str]:
    """Resolve a local path or ``s3://`` URI to a filesystem and the path on it (no trailing slash).

    Listings are never cached: another run may be writing beside this one.

    Raises:
        InputError: the URI carries credentials.
    """
    without_credentials(uri)
    if is_s3(uri):
        config = {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "max_pool_connections": 32,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
        }
        # More than one at a time would read an object's size first, and large objects in ranges.
        fs = fsspec.filesystem("s3", use_listings_cache=False, max_concurrency=1, config_kwargs=config)
        fs.retries = attempts
        return fs, uri.removeprefix("s3://").rstrip("/")
    local = fsspec.filesystem("file", auto_mkdir=True)
    return local, os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def arrow_filesystem(uri: str) -> PyFileSystem:
    """The filesystem of a URI as pyarrow and Ray take it."""
    return PyFileSystem(FSSpecHandler(filesystem(uri)[0]))


def join(uri: str, *names: str) -> str:
    """Append path segments to a URI."""
    return "/".join([uri.rstrip("/"), *names])


def absolute(uri: str) -> str:
    """The URI as another process can read it: local paths made absolute."""
    return uri if is_s3(uri) else filesystem(uri)[1]


@contextlib.contextmanager
def guarded(uri: str, deed: str = "read") -> Iterator[None]:
    """Turn what storage fails with, beyond that something is or is not there, into a StorageError."""
    try:
        yield
    except (StorageError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
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
    """What to tell the user of a failure to read, write or delete."""
    reason = str(error).rstrip(".") or type(error).__name__
    mend = "once the storage answers"
    if credentials_gone(error):
        reason, mend = f"the credentials are missing or have expired: {reason}", "with new credentials"
    return StorageError(f"{uri}: cannot be {deed} ({reason}); run the same command again {mend}.")


def credentials_gone(error: BaseException) -> bool:
    """Whether credentials that are missing or have expired are the reason: nothing but new ones will help."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    answer = getattr(error.__cause__, "response", None) or {}
    missing = isinstance(error, (NoCredentialsError, PartialCredentialsError))
    return missing or answer.get("Error", {}).get("Code") in _EXPIRED


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


def read_once(uri: str) -> bytes:
    """The whole object in one request and one try; raises whatever it fails with (:func:`failures`)."""
    fs, path = filesystem(uri, attempts=1)
    data: bytes = fs.cat_file(path)
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole object so that a reader sees all of it or none of it.

    Locally through a hidden sibling and a rename; on S3 a put is atomic by itself.
    """
    with guarded(uri, "written"):
        if is_s3(uri):
            _put(uri, data)
        else:
            _write_local(filesystem(uri)[1], data)


def _put(uri: str, data: bytes, **options: Any) -> None:
    """Put an object, within a time of its own: the client's timeouts do not count before ``100 Continue``."""
    fs, path = filesystem(uri)
    limit = PUT_TIMEOUT_S + len(data) / _PUT_BYTES_PER_S
    for attempt in range(1, PUT_ATTEMPTS + 1):
        try:
            sync(fs.loop, fs._pipe_file, path, data, timeout=limit, **options)
            return
        except FSTimeoutError:
            if attempt == PUT_ATTEMPTS:
                raise


def _write_local(path: str, data: bytes) -> None:
    os.replace(_write_temporary(path, data), path)
    # The rename itself must outlive a power loss too, or _SUCCESS could stand without its parts.
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write an object only if none is there, with all its content from the first moment on; False if one is."""
    fs, path = filesystem(uri)
    with guarded(uri, "written"):
        if not is_s3(uri):
            return _create_local(path, data)
        try:
            _put(uri, data, mode="create")
            return True
        except OSError:
            # S3 answers with a failed precondition, which is no FileExistsError.
            if fs.exists(path):
                return False
            raise


def _create_local(path: str, data: bytes) -> bool:
    temporary = _write_temporary(path, data)
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
        os.unlink(temporary)
    return True


def _write_temporary(path: str, data: bytes) -> str:
    """Write a hidden sibling of a local file, safe from a power loss; returns its path."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


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
    fs, path = filesystem(uri)
    if not is_s3(uri) and os.path.isdir(path):
        for name in os.listdir(path):
            if name.startswith(".") and name.endswith(".tmp"):
                fs.rm_file(os.path.join(path, name))


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file."""
    fs, path = filesystem(uri)
    with guarded(uri), fs.open(path, "rb") as file:
        return pq.read_table(file, columns=columns)


def read_schema(uri: str) -> pa.Schema:
    """The schema of one Parquet file, without its rows."""
    fs, path = filesystem(uri)
    with guarded(uri), fs.open(path, "rb") as file:
        return pq.read_schema(file)


def iter_tables(uri: str, *, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read a Parquet file some rows at a time, in bounded memory whatever its size."""
    fs, path = filesystem(uri)
    with guarded(uri), fs.open(path, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns):
            yield pa.Table.from_batches([batch])


def write_table(uri: str, table: pa.Table) -> None:
    """Write one Parquet file, atomically (see :func:`write_bytes`)."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(uri, sink.getvalue().to_pybytes())


def content_key(uri: str) -> str:
    """Another for each content of a file, as its storage tells it: by ETag on S3, else by size, inode and times."""
    fs, path = filesystem(uri)
    with guarded(uri):
        return str(fs.ukey(path))


def write_arrow(uri: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write one Arrow file, a record batch a table, atomically (see :func:`write_bytes`)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as file:
        for table in tables:
            file.write_table(table.combine_chunks())
    write_bytes(uri, sink.getvalue().to_pybytes())


def is_arrow(uri: str) -> bool:
    """Whether a whole Arrow file stands there."""
    fs, path = filesystem(uri)
    try:
        with guarded(uri), fs.open(path, "rb") as file:
            pa.ipc.open_file(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


def iter_arrow(uri: str, columns: list[str]) -> Iterator[pa.Table]:
    """Read some columns of an Arrow file, a record batch at a time."""
    fs, path = filesystem(uri)
    with guarded(uri), fs.open(path, "rb") as file:
        schema = pa.ipc.open_file(file).schema
        options = pa.ipc.IpcReadOptions(included_fields=sorted(map(schema.get_field_index, columns)))
        reader = pa.ipc.open_file(file, options=options)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])
