"""What every part of a directory of songs promises, whatever stands beside the status of its songs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mer_ray.fingerprints import encoder_differences
from mer_ray.songs import (
    SCHEMA_VERSION,
    STATUS_COLUMNS,
    STATUS_FIELDS,
    Breach,
    Content,
    lengths,
    stored_json,
    stored_metadata,
)

EXAMPLES = 5


class Findings:
    """What breaks each check; of its songs or parts all are counted, and the first few named."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, tuple[int, list[str]]]] = defaultdict(dict)

    def say(self, check: str, problem: str) -> None:
        """Note a whole sentence."""
        self._found[check][problem] = (0, [])

    def add(self, check: str, what: str, places: pa.Array | pa.ChunkedArray | list[str]) -> None:
        """Note songs or parts where ``check`` is broken; ``what`` follows their number in the report."""
        if len(places):
            first = places[:EXAMPLES]
            named = first if isinstance(first, list) else [shown(place) for place in first.to_pylist()]
            count, examples = self._found[check].get(what, (0, []))
            self._found[check][what] = count + len(places), [*examples, *named][:EXAMPLES]

    def problem(self, check: str) -> str:
        """How a check is broken; empty if it holds."""
        return "; ".join(
            f"{count:,} {what} ({', '.join(examples)}{', ...' if count > EXAMPLES else ''})" if count else what
            for what, (count, examples) in self._found[check].items()
        )


def shown(name: Any) -> str:
    """A name on one line of a console, whatever it is made of."""
    return name if isinstance(name, str) and name.isprintable() else repr(name)


def schema_problem(schema: pa.Schema, content: Content) -> str:
    """How a part's schema departs from the contract; empty if it does not."""
    kinds = {field.name: field.type for field in schema}
    wrong = [field.name for field in STATUS_FIELDS if kinds.get(field.name) != field.type]
    if content.column not in kinds or not content.fits(kinds[content.column]):
        wrong.append(content.column)
    if wrong:
        return f"without {', '.join(wrong)} of the right type"
    version = stored_metadata(schema).get("mer_ray.schema")
    if version != SCHEMA_VERSION:
        return f"of schema {version}, not {SCHEMA_VERSION}"
    absent = [key for key in content.identities if not stored_json(schema, key)]
    return f"without {', '.join(absent)} in the metadata" if absent else ""


def schema_difference(first: pa.Schema, other: pa.Schema) -> str:
    """How two parts of one directory differ in kind; empty if they do not. Code versions may differ."""
    if not first.equals(other, check_metadata=False):
        return "with other columns"
    ours, theirs = stored_metadata(first), stored_metadata(other)
    encoders = (stored_json(first, "mer_ray.encoder"), stored_json(other, "mer_ray.encoder"))
    # One encoder may have been loaded from two places: its weights count, not its name.
    keys = (ours.keys() | theirs.keys()) - {"mer_ray.version", "mer_ray.encoder"}
    unlike = sorted(key for key in keys if ours.get(key) != theirs.get(key) and not _agree(first, other, key))
    unlike += ["mer_ray.encoder"] if encoder_differences(*encoders) else []
    return f"with other {', '.join(unlike)}" if unlike else ""


def _agree(first: pa.Schema, other: pa.Schema, key: str) -> bool:
    """Whether two JSON objects of metadata say nothing that contradicts: versions may have told more or less."""
    ours, theirs = stored_json(first, key), stored_json(other, key)
    shared = ours.keys() & theirs.keys()
    return bool(shared) and all(ours[name] == theirs[name] for name in shared)


def row_breaches(rows: pa.Table, content: Content) -> Iterator[Breach]:
    """What is wrong with some rows of a part whose schema is right, as far as their columns were read."""
    rows = rows.combine_chunks()
    ids, status = rows["track_id"], rows["status"]
    ok, failed = (pc.fill_null(pc.equal(status, name), False) for name in ("ok", "failed"))
    yield "status", "songs neither ok nor failed", ids.filter(pc.invert(pc.or_(ok, failed)))
    for name in ("error_class", "error"):
        silent = pc.fill_null(pc.equal(rows[name], ""), True)
        yield "failed rows", f"failed songs without {name}", ids.filter(pc.and_(failed, silent))
    for field in rows.schema:
        if field.name not in STATUS_COLUMNS:
            column = rows[field.name]
            filled = pc.greater(lengths(column), 0) if pa.types.is_list(field.type) else column.is_valid()
            yield "failed rows", f"failed songs with {field.name}", ids.filter(pc.and_(failed, filled))
    endless = pc.fill_null(pc.invert(pc.is_finite(rows["duration_s"])), False)
    yield "ok rows", "songs whose duration is no finite number", ids.filter(pc.and_(ok, endless))
    if content.column in rows.column_names:
        yield from content.row_breaches(rows, ok)
