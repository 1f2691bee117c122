"""What a manifest holds, counted as its songs go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.catalog.datasets import SPLITS


@dataclass
class Tally:
    """Counts of songs, by split too, of labels, and of songs whose size is not known."""

    songs: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    sizeless: int = 0

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables, each counted before it is handed on."""
        for table in tables:
            self.songs += len(table)
            for each in pc.value_counts(table["split"].drop_null()).to_pylist():
                self.splits[each["values"]] += each["counts"]
            self.labels.update(pc.unique(pc.list_flatten(table["labels"])).to_pylist())
            self.sizeless += table["size_bytes"].null_count
            yield table

    def facts(self) -> str:
        """The counts in words."""
        facts = [f"{self.songs:,} songs", *(f"{self.splits[name]:,} {name}" for name in SPLITS if self.splits[name])]
        return ", ".join([*facts, *([f"{len(self.labels)} labels"] if self.labels else [])])
