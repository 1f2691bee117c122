"""What a part of a feature store or of a tags directory promises: its schema, and what its rows may hold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mer_ray.features import SCHEMA_VERSION, STATUS_FIELDS
from mer_ray.fingerprints import encoder_differences

EXAMPLES = 5


class Findings:
    """Places where a check does not hold: all counted, the first few named."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, check: str, what: str, places: pa.Array | pa.ChunkedArray | list[str]) -> None:
        """Note songs or parts where ``check`` is broken; ``what`` follows their number in the report."""
        if len(places):
            self._counts[check][what] += len(places)
            room = max(0, EXAMPLES - len(self._examples[check + what]))
            self._examples[check + what] += [shown(place) for place in _listed(places[:room])]

    def problem(self, check: str) -> str:
        """How a check is broken; empty if it holds."""
        return "; ".join(
            f"{count:,} {what} ({', '.join(self._examples[check + what])}{', ...' if count > EXAMPLES else ''})"
            for what, count in self._counts[check].items()
        )


def shown(name: Any) -> str:
    """A name on one line of a console, whatever it is made of."""
    return name if isinstance(name, str) and name.isprintable() else repr(name)


def stored_metadata(schema: pa.Schema) -> dict[str, str]:
    """A schema's own words about what made it."""
    return {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}


def stored_json(schema: pa.Schema, key: str) -> dict[str, Any]:
    """A JSON object of the metadata; {} if it is not there or torn."""
    try:
        value = json.loads(stored_metadata(schema).get(key, ""))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def width(schema: pa.Schema) -> int | None:
    """D of a feature store's schema; None if its features are none."""
    column = schema.field("features").type if "features" in schema.names else pa.null()
    windows = column.value_type if pa.types.is_list(column) else pa.null()
    good = pa.types.is_fixed_size_list(windows) and pa.types.is_float16(windows.value_type)
    return int(windows.list_size) if good else None


def schema_problem(schema: pa.Schema, content: str) -> str:
    """How a part's schema departs from the contract; empty if it does not.

    Args:
        schema: the part's.
        content: ``features`` or ``tags``.
    """
    wrong = [field.name for field in STATUS_FIELDS if not _has(schema, field.name, field.type)]
    needed = ["mer_ray.encoder"]
    if content == "tags":
        # Imported late: it brings torch along.
        from mer_ray.tagging.ranking import TAGS_TYPE

        wrong += [] if _has(schema, "tags", TAGS_TYPE) else ["tags"]
        needed += ["mer_ray.tags"]
    elif width(schema) is None:
        wrong.append("features")
    if wrong:
        return f"without {', '.join(wrong)} of the right type"
    version = stored_metadata(schema).get("mer_ray.schema")
    if version != SCHEMA_VERSION:
        return f"of schema {version}, not {SCHEMA_VERSION}"
    absent = [key for key in needed if not stored_json(schema, key)]
    return f"without {', '.join(absent)} in the metadata" if absent else ""


def schema_difference(first: pa.Schema, other: pa.Schema) -> str:
    """How two parts of one directory differ in kind; empty if they do not. Code versions may differ."""
    if not first.equals(other, check_metadata=False):
        return "with other columns"
    ours, theirs = stored_metadata(first), stored_metadata(other)
    encoders = (stored_json(first, "mer_ray.encoder"), stored_json(other, "mer_ray.encoder"))
    # One encoder may have been loaded from two places: its weights count, not its name.
    keys = (ours.keys() | theirs.keys()) - {"mer_ray.version", "mer_ray.encoder"}
    unlike = sorted(key for key in keys if ours.get(key) != theirs.get(key))
    unlike += ["mer_ray.encoder"] if encoder_differences(*encoders) else []
    return f"with other {', '.join(unlike)}" if unlike else ""


def check_rows(rows: pa.Table, content: str, asked: Mapping[str, Any], findings: Findings) -> None:
    """Check some rows whose schema is right.

    Args:
        rows: of one part.
        content: ``features`` or ``tags``.
        asked: of a tags directory, its ``labels``, ``k`` and ``threshold``.
        findings: where to note what is broken.
    """
    rows = rows.combine_chunks()
    ids, status = rows["track_id"], rows["status"]
    known = pc.fill_null(pc.is_in(status, value_set=pa.array(["ok", "failed"])), False)
    findings.add("status", "songs neither ok nor failed", ids.filter(pc.invert(known)))
    failed = pc.fill_null(pc.equal(status, "failed"), False)
    _check_failed(rows, failed, findings)
    ok = pc.fill_null(pc.equal(status, "ok"), False)
    endless = pc.fill_null(pc.invert(pc.is_finite(rows["duration_s"])), False)
    findings.add("ok rows", "songs whose duration is no finite number", ids.filter(pc.and_(ok, endless)))
    if content == "features":
        _check_features(rows, ok, findings)
    else:
        _check_tags(rows, ok, asked, findings)


def _check_failed(rows: pa.Table, failed: pa.ChunkedArray, findings: Findings) -> None:
    ids = rows["track_id"]
    for name in ("error_class", "error"):
        silent = pc.fill_null(pc.equal(rows[name], ""), True)
        findings.add("failed rows", f"failed songs without {name}", ids.filter(pc.and_(failed, silent)))
    for name in ("features", "tags", "timeline", "embedding"):
        if name in rows.column_names:
            column = rows[name]
            fixed = pa.types.is_fixed_size_list(column.type)
            filled = column.is_valid() if fixed else pc.greater(_lengths(column), 0)
            findings.add("failed rows", f"failed songs with {name}", ids.filter(pc.and_(failed, filled)))


def _check_features(rows: pa.Table, ok: pa.ChunkedArray, findings: Findings) -> None:
    ids, column = rows["track_id"], rows["features"]
    silent = pc.and_(ok, pc.equal(_lengths(column), 0))
    findings.add("ok rows", "songs without a window", ids.filter(silent))
    windows, song = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy()
    whole = windows.is_valid().to_numpy()
    values = pc.list_flatten(windows.drop_null()).to_numpy().reshape(-1, column.type.value_type.list_size)
    bad = [song[~whole], song[whole][~np.isfinite(values).all(axis=1)]]
    findings.add("ok rows", "songs with features that are no finite numbers", _songs(ids, np.concatenate(bad)))


def _check_tags(rows: pa.Table, ok: pa.ChunkedArray, asked: Mapping[str, Any], findings: Findings) -> None:
    ids, column = rows["track_id"], rows["tags"]
    song, flat = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    label, score, percentile = (pc.struct_field(flat, name) for name in ("label", "score", "percentile"))
    scores, ranks = score.to_numpy(), percentile.to_numpy()
    findings.add("ok rows", "songs with scores that are no finite numbers", _songs(ids, song[~np.isfinite(scores)]))
    rising = (np.diff(scores) > 0) & (np.diff(song) == 0)
    findings.add("tags", "songs whose tags are not best first", _songs(ids, song[1:][rising]))
    outside = ~((ranks >= 0) & (ranks <= 1))
    findings.add("tags", "songs with percentiles outside 0 to 1", _songs(ids, song[outside]))
    strange = pc.invert(pc.is_in(label, value_set=pa.array(asked["labels"], pa.string()))).to_numpy()
    findings.add("tags", "songs with words that were not asked for", _songs(ids, song[strange]))
    most, lengths = min(asked["k"] or len(asked["labels"]), len(asked["labels"])), _lengths(column)
    findings.add("tags", f"songs with more than {most} tags", ids.filter(pc.greater(lengths, most)))
    if asked["threshold"] is None:
        fewer = pc.and_(ok, pc.less(lengths, most))
        findings.add("tags", f"songs with fewer than {most} tags", ids.filter(fewer))
    if "embedding" in rows.column_names:
        vectors = rows["embedding"]
        there = vectors.is_valid()
        values = pc.list_flatten(vectors.drop_null()).to_numpy().reshape(-1, vectors.type.list_size)
        finite = np.zeros(len(rows), bool)
        finite[there.to_numpy()] = np.isfinite(values).all(axis=1)
        broken = pc.and_(ok, pa.array(~finite))
        findings.add("ok rows", "songs whose embedding is missing or no finite numbers", ids.filter(broken))


def _has(schema: pa.Schema, name: str, kind: pa.DataType) -> bool:
    return name in schema.names and schema.field(name).type == kind


def _lengths(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.list_value_length(column), 0)


def _songs(ids: pa.ChunkedArray, positions: NDArray[np.int64]) -> pa.ChunkedArray:
    return ids.take(pa.array(np.unique(positions)))


def _listed(places: pa.Array | pa.ChunkedArray | list[str]) -> list[Any]:
    return places if isinstance(places, list) else places.to_pylist()
