"""Columns of Parquet and Arrow files: no more of a file than they need.

A file is opened without reading ahead: its footer is one request, and what lies side by side of the columns that are
asked for another. s3fs reads ahead 50 MB otherwise, and two columns of a part would fetch all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from mer_ray.errors import InputError
from mer_ray.storage.access import filesystem, guarded, readable
from mer_ray.storage.objects import write_bytes
from mer_ray.uris import is_s3


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """A file to read from here and there; on S3 each read is a request of just its bytes."""
    fs, path = filesystem(uri)
    with guarded(uri), fs.open(path, "rb", **({"cache_type": "none"} if is_s3(uri) else {})) as file:
        yield file


@contextlib.contextmanager
def readable_parquet(uri: str) -> Iterator[None]:
    """Turn whatever keeps a user's Parquet file from being read into an InputError."""
    try:
        with readable(uri):
            yield
    except pa.ArrowException as error:
        raise InputError(f"{uri}: not a Parquet file; write it again.") from error


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file, or some columns of it."""
    with opened(uri) as file:
        return pq.ParquetFile(file, pre_buffer=True).read(columns)


def read_schema(uri: str) -> pa.Schema:
    """The schema of one Parquet file, without its rows."""
    with opened(uri) as file:
        return pq.read_schema(file)


def iter_tables(uri: str, *, rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read a Parquet file some rows at a time, in bounded memory whatever its size."""
    with opened(uri) as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns):
            yield pa.Table.from_batches([batch])


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def parquet_bytes_of(schema: pa.Schema, tables: Iterable[pa.Table]) -> bytes:
    """Tables as the bytes of a Parquet file, a row group of each; no more than its compressed bytes are held."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as file:
        for table in tables:
            file.write_table(table.replace_schema_metadata(schema.metadata))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(uri: str, table: pa.Table) -> None:
    """Write one Parquet file, atomically (see :func:`mer_ray.storage.write_bytes`)."""
    write_bytes(uri, parquet_bytes(table))


def write_tables(uri: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write one Parquet file of several tables (:func:`parquet_bytes_of`), atomically."""
    write_bytes(uri, parquet_bytes_of(schema, tables))


def write_arrow(uri: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write one Arrow file, a record batch a table, atomically (see :func:`mer_ray.storage.write_bytes`)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as file:
        for table in tables:
            file.write_table(table.combine_chunks())
    write_bytes(uri, sink.getvalue().to_pybytes())


def is_arrow(uri: str) -> bool:
    """Whether a whole Arrow file stands there."""
    try:
        with opened(uri) as file:
            pa.ipc.open_file(file)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


def iter_arrow(uri: str, columns: list[str]) -> Iterator[pa.Table]:
    """Read some columns of an Arrow file, a record batch at a time."""
    with opened(uri) as file:
        schema = pa.ipc.open_file(file).schema
        options = pa.ipc.IpcReadOptions(included_fields=sorted(map(schema.get_field_index, columns)))
        reader = pa.ipc.open_file(file, options=options)
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])
