"""Songs that an output directory is to forget: taken out of all it holds, and not done again.

_run/forgotten.parquet    their ids; who wants one back takes it off the list (``--unforget``)
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.runs.directory import FORGOTTEN, run_file


def read_forgotten(uri: str) -> pa.Array:
    """The ids that a directory is to forget."""
    try:
        return storage.read_table(run_file(uri, FORGOTTEN), ["track_id"])["track_id"].combine_chunks()
    except FileNotFoundError:
        return pa.array([], pa.string())


def write_forgotten(uri: str, ids: pa.Array) -> None:
    """Keep the ids that a directory is to forget."""
    storage.write_table(run_file(uri, FORGOTTEN), pa.table({"track_id": ids}))


def without(songs: pa.Table, ids: pa.Array) -> pa.Table:
    """The songs but for these."""
    return songs.filter(pc.invert(pc.is_in(songs["track_id"], value_set=ids))) if len(ids) else songs
