"""What a run learns of a committed part: all that is to be counted, so that rows never leave the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.errors import StorageError
from mer_ray.runs.lock import LockLostError
from mer_ray.runs.open_shard import OpenShard
from mer_ray.songs import STATUS_COLUMNS, STATUS_FIELDS

DECODE_COSTS = ("decode_s", "fetch_retries", "fetch_retry_s")
COSTS = (*DECODE_COSTS, "encode_s")
"""What a song cost, beside its row on the way to its commit; added up in the receipts, and in no part."""


@dataclass(frozen=True)
class Receipt:
    """Of one part, or of the ``trouble`` that kept it from being written: an exception would be a wall of text.

    Attributes:
        shard: whose songs they are.
        opened: how many songs of a shard are to do, of one that has been opened; there is no part then.
        asked: of how many, where that was not known before.
        ready: when its worker was, in seconds since 1970.
        failures: status columns of the songs that are not ok and the ``node`` that read them, so that an operator can
            read of them. Those of an extract stand in no part yet (:class:`mer_ray.runs.withheld.Withheld`).
        nodes: how many ``songs`` each ``node`` read.
        witness: the uri of a song that is ok.
    """

    part: str | None = None
    shard: int = 0
    opened: int | None = None
    asked: int | None = None
    songs: int = 0
    audio_s: float = 0.0
    decode_s: float = 0.0
    fetch_retries: float = 0.0
    fetch_retry_s: float = 0.0
    encode_s: float = 0.0
    ready: float = 0.0
    failures: Sequence[Mapping[str, Any]] = ()
    nodes: Sequence[Mapping[str, Any]] = ()
    witness: str | None = None
    trouble: str | None = None

    def table(self) -> pa.Table:
        """As one row, for Ray."""
        return pa.Table.from_pylist([vars(self)], schema=_SCHEMA)


_NODE = pa.field("node", pa.string())
_TEXT = dict.fromkeys(("part", "witness", "trouble"), pa.string())
_LISTS = {"failures": pa.struct([*STATUS_FIELDS, _NODE]), "nodes": pa.struct([_NODE, pa.field("songs", pa.int64())])}
_COUNTS = dict.fromkeys(("shard", "opened", "asked", "songs"), pa.int64())
_TYPES = {**_COUNTS, **_TEXT, **{name: pa.list_(kind) for name, kind in _LISTS.items()}}
_SCHEMA = pa.schema([pa.field(each.name, _TYPES.get(each.name, pa.float64())) for each in fields(Receipt)])


def committed(shard: OpenShard, rows: pa.Table, **beside: Any) -> Receipt:
    """Commit a part of a shard; ``beside`` are COSTS and ``ready``, where known."""
    failed = rows.filter(pc.not_equal(rows["status"], "ok")).select(STATUS_COLUMNS).to_pylist()
    audio_s = pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
    try:
        name = shard.commit(rows)
    except (StorageError, LockLostError) as error:
        return Receipt(trouble=str(error))
    return Receipt(name, shard.shard.number, songs=len(rows), audio_s=audio_s, failures=failed, **beside)


def committed_ok(shard: OpenShard, rows: pa.Table, nodes: pa.ChunkedArray, **beside: Any) -> Receipt:
    """Commit the songs that are ok; the failed ones are for who began the run, and only in the receipt.

    ``nodes`` names for each row the node that read it.
    """
    ok = pc.equal(rows["status"], "ok")
    good, failed = rows.filter(ok), rows.select(STATUS_COLUMNS).append_column(_NODE, nodes).filter(pc.invert(ok))
    receipt = committed(shard, good, **beside) if len(good) else Receipt(shard=shard.shard.number, **beside)
    counts = [{"node": one["values"], "songs": one["counts"]} for one in pc.value_counts(nodes).to_pylist()]
    witness = good["uri"][0].as_py() if len(good) else None
    if receipt.trouble is not None:
        return receipt
    return replace(receipt, songs=len(rows), failures=failed.to_pylist(), nodes=counts, witness=witness)
