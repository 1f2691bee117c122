"""A tags directory as its reader finds it: what was asked, how often each word was given, what failed, some songs."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import text_sha256
from mer_ray.runs.directory import SETTINGS, run_file
from mer_ray.songs import STATUS_COLUMNS, Identity, part_uris, read_columns, stored_json, stored_metadata
from mer_ray.tagging.contract import asked_words
from mer_ray.words.lists import Word

PARTS = 200
"""Parts looked at, drawn by a hash: four million songs of a large directory, which nobody waits for longer."""
EXAMPLES = 5
"""Songs named for each way to fail."""


@dataclass(frozen=True)
class Tagged:
    """A tags directory.

    Attributes:
        parts: those looked at, of ``all_parts``.
        asked: what the metadata says of the tags: ``ranking``, ``k``, thresholds.
        settings: of the run that made it, {} where they are gone.
    """

    uri: str
    parts: list[str]
    all_parts: int
    schema: pa.Schema
    words: list[Word]
    asked: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def open(cls, uri: str) -> Tagged:
        """Look at a tags directory.

        Raises:
            InputError: there is none.
        """
        parts = part_uris(uri)
        if not parts:
            raise InputError(f"tags {uri}: no part-*.parquet there; make them with jobs/tag.py --output {uri}.")
        with storage.readable(parts[0]):
            schema = storage.read_schema(parts[0])
        asked = stored_json(schema, "mer_ray.tags")
        if "tags" not in schema.names or not asked:
            raise InputError(f"tags {uri}: not tags (no column 'tags'); point to what jobs/tag.py wrote.")
        all_parts, parts = len(parts), sorted(parts, key=text_sha256)[:PARTS]
        run = storage.read_json(run_file(uri, SETTINGS)) or {}
        return cls(uri, parts, all_parts, schema, asked_words(uri, schema), asked, run.get("settings", {}))

    @property
    def encoder(self) -> Identity:
        """Of the features that the tags were made from."""
        return stored_json(self.schema, "mer_ray.encoder")

    @property
    def model_digest(self) -> str:
        """Of the model that made the tags."""
        return stored_metadata(self.schema).get("mer_ray.model", "")

    @property
    def version(self) -> str:
        """Of the code that made the tags."""
        return stored_metadata(self.schema).get("mer_ray.version", "unknown")

    def read(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of each part."""
        for _, table in read_columns(self.parts, columns):
            yield table.replace_schema_metadata(None)


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
