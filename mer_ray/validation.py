"""Whether an output directory keeps its promises: its parts against its manifest, its schema and its summary.

Parts are read a few songs at a time; what grows with the catalogue are the ids and the failed rows.
Nothing is written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray import storage
from mer_ray.datasets import readable
from mer_ray.errors import InputError
from mer_ray.features import STATUS_FIELDS, part_uris
from mer_ray.inspection import TRAINING, RunFiles, damaged, open_run
from mer_ray.row_checks import Problems, RowChecks
from mer_ray.runs import FAILURES, MANIFEST, SUMMARY, part_name, read_json
from mer_ray.schema_checks import schema_problems

EXAMPLES = 5
BATCH_SONGS = 64
"""Songs read at a time; of two hours each, their features are a third of a gigabyte."""

_STATUS_SCHEMA = pa.schema(STATUS_FIELDS)


class Check(NamedTuple):
    """One promise: ``problem`` says how it is broken, or is empty; ``detail`` what was found if it holds."""

    name: str
    problem: str
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of a directory, and remarks that break no promise."""

    uri: str
    job: str
    checks: list[Check]
    notes: list[str]

    @property
    def valid(self) -> bool:
        """Whether every check holds."""
        return not any(check.problem for check in self.checks)


@dataclass
class Survey:
    """What reading all parts brought to light.

    Attributes:
        ids: of every row.
        failed: the rows that are not ok, status columns only.
        problems: by name of the check, the places where it does not hold.
        counts: rows, truncated songs, by what ``summary.json`` calls them.
    """

    ids: list[pa.Array] = field(default_factory=list)
    failed: list[pa.Table] = field(default_factory=lambda: [_STATUS_SCHEMA.empty_table()])
    problems: Problems = field(default_factory=lambda: defaultdict(list))
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    audio_s: float = 0.0

    def add(self, rows: pa.Table) -> None:
        """Count some rows whose columns are those of the contract."""
        failed = pc.not_equal(rows["status"], "ok")
        self.counts["songs"] += len(rows)
        self.counts["truncated"] += pc.sum(rows["truncated"]).as_py() or 0
        self.audio_s += pc.sum(rows["duration_s"].cast(pa.float64())).as_py() or 0.0
        self.failed.append(rows.filter(failed).select(_STATUS_SCHEMA.names).cast(_STATUS_SCHEMA))
