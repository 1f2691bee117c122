"""What a run learns of a committed part: all that is to be counted, so that rows never leave the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.errors import StorageError
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

    part: str | None
    songs: int
    audio_s: float
    decode_s: float
    fetch_retries: float
    fetch_retry_s: float
    encode_s: float
    ready: float
    failures: Sequence[Mapping[str, str]]
    trouble: str | None


RECEIPTS = pa.schema(
    [
        pa.field("part", pa.string()),
        pa.field("songs", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("audio_s", *COSTS, "ready")),
        pa.field("failures", pa.list_(pa.struct(dict.fromkeys(FAILURE_COLUMNS, pa.string()).items()))),
        pa.field("trouble", pa.string()),
    ]
)


def committed(uri: str, rows: pa.Table, token: str, **beside: float) -> pa.Table:
    """Commit a part; returns its receipt as a table of RECEIPTS.

    Args:
        uri: the output directory.
        rows: whole songs.
        token: of the run, see :func:`mer_ray.runs.songs_directory.commit`.
        beside: COSTS and ``ready``, as far as there are any.
    """
    failed = rows.filter(pc.not_equal(rows["status"], "ok")).select(FAILURE_COLUMNS)
    audio_s = pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
    facts = {"songs": len(rows), "audio_s": audio_s, **dict.fromkeys((*COSTS, "ready"), 0.0), **beside}
    try:
        done = {"part": commit(uri, rows, token)}
    except StorageError as error:
        done = {"trouble": str(error)}
    return pa.Table.from_pylist([{**facts, **done, "failures": failed.to_pylist()}], schema=RECEIPTS)


def in_trouble(trouble: str) -> pa.Table:
    """The receipt of no part, but of what ends the run."""
    nothing = dict.fromkeys(("songs", "audio_s", *COSTS, "ready"), 0)
    return pa.Table.from_pylist([{**nothing, "failures": [], "trouble": trouble}], schema=RECEIPTS)
