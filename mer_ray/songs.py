"""What a row of a song is: the columns that say what became of it, the parts that hold such rows, their names.

Every table of songs begins with these columns, whoever writes the ones beside them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray import __version__, storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import text_sha256

Item = TypeVar("Item")
Found = TypeVar("Found")

SCHEMA_VERSION = "1"

STATUS_FIELDS = [
    pa.field("track_id", pa.string(), nullable=False),
    pa.field("uri", pa.string()),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error_class", pa.string()),
    pa.field("error", pa.string()),
    pa.field("duration_s", pa.float32()),
    pa.field("truncated", pa.bool_()),
    pa.field("bad_packets", pa.int32()),
]
"""The columns that say what became of a song."""

STATUS_COLUMNS = [field.name for field in STATUS_FIELDS]

WORLDLY = frozenset({"io_error", "timeout", "crashed", "forbidden", "no_decoder", "encoder_crashed"})
"""Classes of failure that may be the world's: network, storage, permissions, a node that is full or out of memory."""

STATUS_AHEAD, FEATURES_AHEAD = 16, 4
"""Parts that are read at a time: many where a request is all it takes, few where a part is tens of MB."""

Identity = dict[str, Any]
"""An encoder's identity as stored: name, revision, weights_sha256, licence, layers, ..."""

Breach = tuple[str, str, pa.Array]
"""The check that does not hold, what is wrong, and the ids of the songs."""


@dataclass(frozen=True)
class Content:
    """What a job writes beside the status of a song, and what it promises of it; said where it is written.

    Attributes:
        column: its first column, whose type ``fits``.
        jobs: that write it.
        identities: keys of the metadata that hold a JSON object.
        check: the name of a check of its own.
        shown: what was looked at where that holds, by a part's schema; None where there is no part.
        row_breaches: by some rows whose schema is right, and which of them are ok.
        schema_breaches: of that check, by a part's schema and the run's fingerprint; None if it needs the values.
    """

    column: str
    jobs: Collection[str]
    identities: Collection[str]
    fits: Callable[[pa.DataType], bool]
    check: str
    shown: Callable[[pa.Schema | None], str]
    row_breaches: Callable[[pa.Table, pa.Array], Iterator[Breach]]
    schema_breaches: Callable[[pa.Schema, dict[str, Any]], Iterator[str]] | None = None


class Damage(Enum):
    """Why there is nothing of a part."""

    TORN = "not readable Parquet"
    GONE = "gone while they were read"


def metadata(identity: Identity, **more: str) -> dict[str, str]:
    """Schema metadata that tells a reader what made the file."""
    return {
        "mer_ray.schema": SCHEMA_VERSION,
        "mer_ray.encoder": json.dumps(identity, sort_keys=True),
        "mer_ray.version": __version__,
        **more,
    }


def stored_metadata(schema: pa.Schema) -> dict[str, str]:
    """A schema's own words about what made it."""
    return {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}


def untrained(identity: Identity) -> bool:
    """Whether an encoder's weights were drawn at random, so that what is made with it tells nothing of music."""
    return "untrained" in str(identity.get("licence"))


def stored_json(schema: pa.Schema, key: str) -> dict[str, Any]:
    """A JSON object of the metadata; {} if it is not there or torn."""
    try:
        value = json.loads(stored_metadata(schema).get(key, ""))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def part_name(ids: pa.Array | pa.ChunkedArray, prefix: str = "part-") -> str:
    """A part is named by the songs in it, so that work done twice lands on the same name."""
    return f"{prefix}{text_sha256(chr(0).join(sorted(ids.to_pylist())))[:20]}.parquet"


def list_parts(uri: str, prefix: str = "part-") -> list[storage.Entry]:
    """The committed parts of an output directory, in name order, from one listing."""
    return [one for one in storage.entries(uri, prefix) if one.name.endswith(".parquet")]


def part_uris(uri: str) -> list[str]:
    """The URIs of the committed parts of an output directory, in name order."""
    return [part.uri for part in list_parts(uri)]


def prefetched(function: Callable[[Item], Found], items: Iterable[Item], ahead: int) -> Iterator[Found]:
    """Like map, in threads: results come in order, and ``ahead`` of them, the one in use among them, are in memory."""
    queue = iter(items)
    with ThreadPoolExecutor(max_workers=ahead) as pool:
        waiting = deque(pool.submit(function, item) for item in islice(queue, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(queue, 1))


def read_parts(
    parts: Sequence[str], read: Callable[[str], Found], ahead: int = STATUS_AHEAD
) -> Iterator[tuple[str, Found | Damage]]:
    """Read many parts, ``ahead`` of them at a time; they come in their order, with what ``read`` found or why not."""

    def attempt(part: str) -> Found | Damage:
        try:
            return read(part)
        except FileNotFoundError:
            return Damage.GONE
        except (OSError, pa.ArrowException) as error:
            if damaged(error):
                return Damage.TORN
            raise

    return zip(parts, prefetched(attempt, parts, ahead), strict=True)


def read_columns(parts: Sequence[str], columns: list[str], ahead: int = STATUS_AHEAD) -> Iterator[tuple[str, pa.Table]]:
    """Some columns of each part of a feature store.

    Raises:
        InputError: a part is damaged.
    """
    for part, table in read_parts(parts, lambda part: storage.read_table(part, columns), ahead):
        if isinstance(table, Damage):
            raise InputError(f"features {part}: not a readable Parquet file; run extract again, it mends the store.")
        yield part, table


def damaged(error: Exception) -> bool:
    """Whether a failed read tells of a file that is not readable Parquet, not of storage or memory that failed."""
    if isinstance(error, pa.ArrowException):
        return not isinstance(error, (MemoryError, pa.ArrowCancelled))
    return type(error) is OSError and error.errno is None


def read_whole(uri: str, columns: list[str] | None = None) -> pa.Table | None:
    """A table at a URI; None where it is not there yet, or torn."""
    try:
        return storage.read_table(uri, columns)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        if damaged(error):
            return None
        raise


def lengths(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """How long each row's list is; 0 where there is none."""
    return pc.fill_null(pc.list_value_length(column), 0)


def songs_at(rows: pa.Table, positions: NDArray[np.int64]) -> pa.ChunkedArray:
    """The ids of the rows at these positions, each once."""
    return rows["track_id"].take(pa.array(np.unique(positions)))
