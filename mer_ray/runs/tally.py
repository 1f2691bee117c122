"""What rows of songs add up to: one count for resume, status and validation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.songs import STATUS_FIELDS


@dataclass
class Tally:
    """Counts rows by the columns that were read of them; ``track_id`` and ``status`` are needed.

    Of a million songs it keeps the ids, and of failed ones what was read of their status.
    """

    songs: int = 0
    truncated: int = 0
    audio_s: float = 0.0
    ids: list[pa.Array] = field(default_factory=list)
    failures: list[pa.Table] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        """Count the rows of a part, or some of them."""
        failed = rows.filter(pc.not_equal(rows["status"], "ok"))
        schema = pa.schema([each for each in STATUS_FIELDS if each.name in rows.column_names])
        self.songs += len(rows)
        self.ids += rows["track_id"].chunks
        self.failures.append(failed.select(schema.names).cast(schema))
        if "truncated" in schema.names:
            self.truncated += pc.sum(rows["truncated"]).as_py() or 0
        if "duration_s" in schema.names:
            self.audio_s += pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0

    def add_all(self, other: Tally) -> None:
        """Count what another has counted."""
        self.songs += other.songs
        self.truncated += other.truncated
        self.audio_s += other.audio_s
        self.ids += other.ids
        self.failures += other.failures

    @property
    def failed(self) -> pa.Table:
        """The rows that are not ok."""
        return pa.concat_tables(self.failures or [pa.schema(STATUS_FIELDS).empty_table()])

    def counts_of(self, asked: pa.Array) -> dict[str, Any]:
        """How many of these songs there are, ok and failed by class; each must stand in the rows once."""
        songs = sum(pc.sum(pc.is_in(ids, value_set=asked)).as_py() or 0 for ids in self.ids)
        failed = self.failed
        failed = failed.filter(pc.is_in(failed["track_id"], value_set=asked))
        return {"songs": songs, "ok": songs - len(failed), "failed": len(failed), "error_classes": _by_class(failed)}

    def counts(self) -> dict[str, Any]:
        """As a summary states them."""
        failed = self.failed
        return {
            "songs": self.songs,
            "ok": self.songs - len(failed),
            "failed": len(failed),
            "error_classes": _by_class(failed),
            "truncated": self.truncated,
            "audio_seconds": round(self.audio_s, 1),
        }


def _by_class(failed: pa.Table) -> dict[str, int]:
    return dict(Counter(failed["error_class"].to_pylist()).most_common())
