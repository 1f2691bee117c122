"""What a run learns of a committed part: all that is to be counted, so that rows never leave the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.errors import StorageError
from mer_ray.runs.lock import LockLostError
from mer_ray.runs.songs_directory import commit

FAILURE_COLUMNS = ("track_id", "error_class", "error")

DECODE_COSTS = ("decode_s", "fetch_retries", "fetch_retry_s")
COSTS = (*DECODE_COSTS, "encode_s")
"""What a song cost, beside its row on the way to its commit; added up in the receipts, and in no part."""


@dataclass(frozen=True)
class Receipt:
    """Of one part, or of the ``trouble`` that kept it from being written: an exception would be a wall of text.

    Attributes:
        ready: when its worker was, in seconds since 1970.
        failures: FAILURE_COLUMNS of the songs that are not ok, so that an operator can read of them.
    """

    part: str | None = None
    songs: int = 0
    audio_s: float = 0.0
    decode_s: float = 0.0
    fetch_retries: float = 0.0
    fetch_retry_s: float = 0.0
    encode_s: float = 0.0
    ready: float = 0.0
    failures: Sequence[Mapping[str, str]] = ()
    trouble: str | None = None

    def table(self) -> pa.Table:
        """As one row, for Ray."""
        return pa.Table.from_pylist([vars(self)], schema=_SCHEMA)


_FAILURE = pa.struct(dict.fromkeys(FAILURE_COLUMNS, pa.string()).items())
_TYPES = {"part": pa.string(), "songs": pa.int64(), "failures": pa.list_(_FAILURE), "trouble": pa.string()}
_SCHEMA = pa.schema([pa.field(each.name, _TYPES.get(each.name, pa.float64())) for each in fields(Receipt)])


def committed(uri: str, rows: pa.Table, token: str, **beside: Any) -> pa.Table:
    """Commit a part (:func:`mer_ray.runs.songs_directory.commit`); returns its receipt as a table.

    ``beside`` are COSTS and ``ready``, as far as there are any.
    """
    failed = rows.filter(pc.not_equal(rows["status"], "ok")).select(FAILURE_COLUMNS).to_pylist()
    audio_s = pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
    try:
        name = commit(uri, rows, token)
    except (StorageError, LockLostError) as error:
        return Receipt(trouble=str(error)).table()
    return Receipt(name, len(rows), audio_s, failures=failed, **beside).table()
