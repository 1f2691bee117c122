"""What a page tells of a tags directory: how often each word was given, what failed, and some songs."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.fingerprints import text_sha256
from mer_ray.songs import STATUS_COLUMNS
from mer_ray.tagging.tagged import Tagged

PARTS = 200
"""Parts looked at, drawn by a hash: four million songs of a large directory, which nobody waits for longer."""
EXAMPLES = 5
"""Songs named for each way to fail."""


def some_parts(tagged: Tagged) -> Tagged:
    """The same directory as if it had PARTS parts at most."""
    return replace(tagged, parts=sorted(tagged.parts, key=text_sha256)[:PARTS])


@dataclass
class Counts:
    """Of all songs in the parts that are looked at, whether they are on the page or not.

    Attributes:
        given: songs that have each word among their tags, by word.
        failures: songs by error class.
        examples: of each error class, ``track_id`` and ``error`` of the first few.
    """

    songs: int = 0
    ok: int = 0
    audio_s: float = 0.0
    given: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def survey(tagged: Tagged, most: int) -> tuple[Counts, list[str]]:
    """Count all songs; and the ids of at most so many that could be read, the first by a hash of their ids, sorted."""
    counts, chosen = Counts(), list[tuple[str, str]]()
    for table in tagged.read([*STATUS_COLUMNS, "tags"]):
        good = pc.equal(table["status"], "ok")
        ok = table.filter(good)
        counts.songs += len(table)
        counts.ok += len(ok)
        counts.audio_s += pc.sum(ok["duration_s"].cast(pa.float64())).as_py() or 0.0
        labels = pc.struct_field(pc.list_flatten(ok["tags"]), "label")
        counts.given.update({one["values"]: one["counts"] for one in pc.value_counts(labels).to_pylist()})
        for song in table.filter(pc.invert(good)).to_pylist():
            kind = song["error_class"] or "unnamed"
            counts.failures[kind] += 1
            named = counts.examples.setdefault(kind, [])
            if len(named) < EXAMPLES:
                named.append((song["track_id"], song["error"] or ""))
        drawn = ((text_sha256(name), name) for name in ok["track_id"].to_pylist())
        chosen = heapq.nsmallest(most, [*chosen, *drawn])
    return counts, sorted(name for _, name in chosen)


def read_songs(tagged: Tagged, ids: list[str]) -> pa.Table:
    """The rows of these songs, in the order of their ids."""
    wanted = pa.array(ids, pa.string())
    columns = [name for name in tagged.schema.names if name not in ("status", "error_class", "error")]
    rows = [table.filter(pc.is_in(table["track_id"], value_set=wanted)) for table in tagged.read(columns)]
    return pa.concat_tables(rows).sort_by("track_id")
