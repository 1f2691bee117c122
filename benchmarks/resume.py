"""A run that finds most of a catalogue done: its driver, its start and its end, as the catalogue grows.

python -m benchmarks.resume [--songs 10000 1000000 10000000] [--left 0.01]
python -m benchmarks.resume --songs 1000000 --failed 0.005

The catalogue is a manifest in a folder. The first shard is extracted by stand-ins, the others are written finished
here, but for the share that is ``--left``, one at least, which a second extract by stand-ins does. It is timed to its
first commit, and from its last commit to its end. Memory is the driver's private pages, read each second.

With ``--failed`` all shards are finished, but so many of their songs failed, and the second extract tries these again.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import flags
from benchmarks.processes import ROOT, Peaks, this_run
from benchmarks.stand_ins import DIM, NOTHING
from mer_ray import storage
from mer_ray.catalog.folder import write_folder
from mer_ray.catalog.manifest import make_manifest
from mer_ray.catalog.sources import catalog_songs
from mer_ray.features import Store, features_column, store_schema
from mer_ray.pages import table
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.songs import STATUS_FIELDS
from mer_ray.threads import Ticker

BATCH = 100_000
LARGE = 100_000
"""Bytes of a part that others were put together in; of stand-ins, 256 songs have some ten thousand."""
JOB = ("-m", "benchmarks.stand_ins")
OK = {"status": "ok", "duration_s": 10.0, "truncated": False, "bad_packets": 0}
FAILED = {"status": "failed", "error_class": "not_found", "error": "a stand-in: not found (404)."}


def main() -> None:
    """Measure each size and print the table."""
    asked = flags(__doc__, songs=[10_000, 1_000_000, 10_000_000], left=0.01, failed=0.0)
    rows = [_of(songs, asked.left, asked.failed) for songs in asked.songs]
    columns = ["songs", "shards", "to do", "driver MB", "first commit s", "end s", "wall s", "ms a song to do"]
    print(table([*columns, "parts", "rewritten"], rows))


def _of(songs: int, left: float, failed: float) -> list[str]:
    with TemporaryDirectory(prefix="mer-ray-resume-") as folder:
        catalog, features = Path(folder) / "manifest", Path(folder) / "features"
        write_folder(str(catalog), _songs(songs), "stand-ins")
        job = [*JOB, "--catalog", catalog, "--features", features, "--encoder", NOTHING, "--no-preflight"]
        shards = 1
        if songs >= 30_000:
            subprocess.run([sys.executable, *map(str, job), "--shards", "0:1"], check=True, cwd=ROOT)
            shards = _finish(catalog, features, left, failed)
        before = {part.uri for part in storage.entries(str(features), "part-")}
        commits = Commits(str(features), begun := time.time())
        peaks = Peaks()
        run = this_run([*job, *(["--retry-failed"] if failed else [])], features, peaks)
        ended = time.time()
        commits.stop()
        there = storage.entries(str(features), "part-")
    figures = [peaks.driver, min(commits.seen) - begun, ended - max(commits.seen), run["wall"]]
    own = run["work_seconds"] / run["songs"] * 1e3
    told = (f"{each:,.0f}" for each in figures)
    parts = f"{len(before):,}", f"{len(before - {part.uri for part in there}):,}"
    return [f"{songs:,}", f"{shards:,}", f"{run['songs']:,}", *told, f"{own:.2f}", *parts]


class Commits(Ticker):
    """When parts are committed, seen as it happens: once a shard is finished, they are put together in large ones."""

    def __init__(self, features: str, begun: float) -> None:
        super().__init__("commits", 0.5, self._look)
        self._features, self._begun = features, begun
        self.seen: set[float] = set()
        self.start()

    def _look(self) -> None:
        parts = storage.entries(self._features, "part-")
        self.seen |= {part.written for part in parts if part.written > self._begun and part.size < LARGE}


def _songs(songs: int) -> Iterator[pa.Table]:
    for start in range(0, songs, BATCH):
        ids = [f"catalogue/{at:010}" for at in range(start, min(songs, start + BATCH))]
        yield make_manifest({"track_id": ids, "uri": [f"/music/{each}/1x400.noise" for each in ids]}, "stand-ins")


def _finish(catalog: Path, features: Path, left: float, failed: float) -> int:
    """Write all shards as finished but the last ones, or but none if songs ``failed``; returns how many there are."""
    found = storage.read_json(str(features / "_run" / "settings.json")) or {}
    with SongsDirectory(str(features), "extract") as output:
        output.begin(found["fingerprint"], found["settings"], catalog_songs(str(catalog)))
        schema = store_schema(Store.open(str(features)).encoder, DIM)
        to_do = [*output.unfinished()]
        last = 0 if failed else max(1, round(left * len(output.shards)))
        for number in to_do[: len(to_do) - last]:
            shard = output.shards[number]
            songs, bad = shard.manifest(), np.random.default_rng(number).random(output.sizes[number]) < failed
            shard.commit(_rows(songs.filter(pa.array(~bad)), schema, OK, windows=1))
            if bad.any():
                shard.commit(_rows(songs.filter(pa.array(bad)), schema, FAILED, windows=0))
            shard.account(output.keys[number])
        return len(output.shards)


def _rows(songs: pa.Table, schema: pa.Schema, known: dict[str, Any], windows: int) -> pa.Table:
    """Songs as extract leaves them, with so many windows of zeros each."""
    count = len(songs)
    columns = [
        songs[field.name] if field.name in songs.column_names else pa.array([known.get(field.name)] * count, field.type)
        for field in STATUS_FIELDS
    ]
    return pa.table([*columns, features_column([np.zeros((windows, DIM))] * count, DIM)], schema=schema)


if __name__ == "__main__":
    main()
