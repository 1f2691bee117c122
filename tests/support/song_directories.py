"""Small directories of songs and of tags, made as runs make them, and what tests do to them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mer_ray.features import FEATURES, features_column, store_schema
from mer_ray.runs.songs_directory import SongsDirectory, commit
from mer_ray.runs.validation import Report, validate
from mer_ray.songs import STATUS_FIELDS, metadata, part_uris
from mer_ray.tagging.contract import TAGS_TYPE, tags_content
from tests.support import ROOT

DIM = 4
ENCODER = {"name": "tiny", "weights_sha256": "ab" * 32, "layers": [1], "window_seconds": 10.0, "dim": DIM}
FINGERPRINT = {"encoder": "tiny", "dim": DIM}
EMBEDDING = pa.list_(pa.float16(), 2)
SONGS = ["a", "b", "c", "d", "e", "f"]


def manifest(*songs: str) -> pa.Table:
    return pa.table({"track_id": list(songs), "uri": [f"/music/{song}" for song in songs]})


def status_columns(songs: tuple[str, ...], failed: str | None) -> list[pa.Array]:
    ok = {"status": "ok", "duration_s": 60.0, "truncated": False}
    bad = {"status": "failed", "error_class": failed, "error": "it is no audio file"}
    listed = [{"track_id": song, "uri": f"/music/{song}", **(bad if failed else ok)} for song in songs]
    table = pa.Table.from_pylist(listed, schema=pa.schema(STATUS_FIELDS))
    return [column.combine_chunks() for column in table.columns]


def features(*songs: str, failed: str | None = None) -> pa.Table:
    windows = [np.ones((0 if failed else 3, DIM)) for _ in songs]
    columns = [*status_columns(songs, failed), features_column(windows, DIM)]
    return pa.table(columns, schema=store_schema(ENCODER, DIM))


def tags(*songs: str, failed: str | None = None, count: int = 2, **choice: Any) -> pa.Table:
    ranked = [{"label": "calm", "score": 1.5, "percentile": 0.9}, {"label": "sad", "score": -0.5, "percentile": 0.0}]
    ranked = ranked[:count]
    asked = json.dumps(
        {"labels": ["sad", "calm", "angry"], "k": 2, "threshold": None, "ranking": "standardized", **choice}
    )
    schema = pa.schema(
        [*STATUS_FIELDS, pa.field("tags", TAGS_TYPE), pa.field("embedding", EMBEDDING)],
        metadata=metadata(ENCODER, **{"mer_ray.model": "cd" * 32, "mer_ray.tags": asked}),
    )
    columns = [*status_columns(songs, failed), pa.array([[] if failed else ranked for _ in songs], TAGS_TYPE)]
    vectors = pa.array([None if failed else np.ones(2, np.float16) for _ in songs], EMBEDDING)
    return pa.table([*columns, vectors], schema=schema)


def run(uri: str, job: str, *tables: pa.Table, asked: tuple[str, ...] = tuple(SONGS), finish: bool = True) -> None:
    """One run on a directory, through the front door."""
    with SongsDirectory(uri, job) as output:
        output.begin(FINGERPRINT, {}, manifest(*asked))
        output.pending()
        for table in tables:
            commit(uri, table)
        if finish:
            output.finish(songs=len(asked), work_seconds=7.2)


def part_of(folder: Path, song: str) -> Path:
    return next(Path(part) for part in part_uris(str(folder)) if song in pq.read_table(part)["track_id"].to_pylist())


def change(folder: Path, song: str, **columns: Any) -> None:
    """Write a part anew with other values in one song's row, under the same name."""
    part = part_of(folder, song)
    table = pq.read_table(part)
    at = table["track_id"].to_pylist().index(song)
    for name, value in columns.items():
        index, values = table.column_names.index(name), table[name].to_pylist()
        values[at] = value
        table = table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))
    pq.write_table(table, part)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def leave_lock(folder: Path, **facts: Any) -> None:
    """What a run that died on another machine left behind."""
    found = {"token": "t", "job": "extract", "host": "far-away", "pid": 4711, "since": 1.8e9, "heartbeat": time.time()}
    lock = folder / "_run" / "lock"
    lock.write_text(json.dumps({**found, **facts}))
    os.utime(lock, ({**found, **facts}["heartbeat"],) * 2)


def broken(report: Report) -> dict[str, str]:
    return {check.name: check.problem for check in report.checks if check.problem}


def validated(uri: str) -> Report:
    return validate(uri, [FEATURES, tags_content(uri)], deep=True)


def job(name: str, *flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)
