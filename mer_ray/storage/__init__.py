"""Files and objects: local paths and ``s3://`` behind one fsspec filesystem.

    access        a URI's filesystem, and what its failures mean
    listing       every file below a folder or prefix, in a stream
    objects       whole files: listed, read, written so that a reader sees all of it or none, deleted
    tables        columns of Parquet and Arrow files, no more of a file than they need
    conditional   files that several processes change: only where they still are as one has seen them

The endpoint and the credentials of S3 come from the standard AWS variables or from
the machine's role (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), never from our settings.

What may pass by itself (5xx, resets, timeouts, bodies cut short, no connection) is tried again by the S3
client. What then still fails is a :class:`StorageError`; that nothing is there stays a FileNotFoundError.
"""

from mer_ray.storage.access import (
    arrow_filesystem,
    credentials_gone,
    failures,
    filesystem,
    guarded,
    readable,
    refusal,
)
from mer_ray.storage.conditional import Seen, discard, look, swap, swaps_hold
from mer_ray.storage.listing import Found, files_below, is_below
from mer_ray.storage.objects import (
    Entry,
    TooLargeError,
    as_json,
    content_key,
    download,
    entries,
    exists,
    is_folder,
    is_temporary,
    local_file,
    move,
    names,
    read_bytes,
    read_json,
    read_once,
    read_text,
    remove,
    remove_folder,
    remove_temporaries,
    streamed,
    upload,
    write_bytes,
    written,
)
from mer_ray.storage.tables import (
    is_arrow,
    iter_arrow,
    iter_tables,
    opened,
    parquet_bytes,
    parquet_bytes_of,
    read_schema,
    read_table,
    readable_parquet,
    write_arrow,
    write_table,
    write_tables,
)
from mer_ray.uris import absolute, is_s3, join

__all__ = [
    "Entry",
    "Found",
    "Seen",
    "TooLargeError",
    "absolute",
    "arrow_filesystem",
    "as_json",
    "content_key",
    "credentials_gone",
    "discard",
    "download",
    "entries",
    "exists",
    "failures",
    "files_below",
    "filesystem",
    "guarded",
    "is_arrow",
    "is_below",
    "is_folder",
    "is_s3",
    "is_temporary",
    "iter_arrow",
    "iter_tables",
    "join",
    "local_file",
    "look",
    "move",
    "names",
    "opened",
    "parquet_bytes",
    "parquet_bytes_of",
    "read_bytes",
    "read_json",
    "read_once",
    "read_schema",
    "read_table",
    "read_text",
    "readable",
    "readable_parquet",
    "refusal",
    "remove",
    "remove_folder",
    "remove_temporaries",
    "streamed",
    "swap",
    "swaps_hold",
    "upload",
    "write_arrow",
    "write_bytes",
    "write_table",
    "write_tables",
    "written",
]
