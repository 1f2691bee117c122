"""Extract's own cost a song, and its memory, as a catalogue grows.

python -m benchmarks.scale [--songs 1000 10000 100000]

A real extract (Ray Data, actors, commits, accounting) whose decoder and encoder are stand-ins that do next
to nothing: each song is one short window, every thousandth fails. So the time is what the machinery costs.
Each size runs in a process of its own with a Ray of its own. Memory is read from /proc every half second:
private pages of the driver and of the largest worker (mapped pages of the object store are shared and
counted once, as those of the raylet). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from benchmarks.memory import watched
from mer_ray.report import table

DIM = 48
WINDOW = np.zeros(400, np.int16).tobytes()
IDENTITY = {
    "name": "stand-in",
    "weights_sha256": "0" * 64,
    "layers": [3],
    "pooling": "mean",
    "sample_rate": 24_000,
    "dtype": "float32",
    "dim": DIM,
}


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # this process is the measured one
    asked = parser.parse_args()
    if asked.inside is not None:
        _extract(asked.songs[0], asked.inside)
        return
    header = [
        "songs",
        "wall s",
        "start-up s",
        "ms a song",
        "CPU ms a song",
        "driver MB",
        "largest worker MB",
        "store MB",
    ]
    print(table(header, [_measure(songs) for songs in asked.songs]))


def _measure(songs: int) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="mer-ray-scale-") as folder:
        begun = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.scale", "--songs", str(songs), "--inside", folder]
        peaks = watched(command)
        wall = time.monotonic() - begun
        run = json.loads((Path(folder) / "features" / "_run" / "summary.json").read_text())["this_run"]
    startup = run.get("startup_s", 0.0)
    times = [
        f"{wall:.0f}",
        f"{startup:.0f}",
        f"{(run['work_seconds'] - startup) / songs * 1e3:.2f}",
        f"{sum(peaks.cpu_seconds.values()) / songs * 1e3:.2f}",
    ]
    return [f"{songs:,}", *times, *(f"{megabytes:,.0f}" for megabytes in (peaks.driver, peaks.worker, peaks.store))]


def _extract(songs: int, folder: Path) -> None:
    import ray

    from mer_ray import batch, pipelines
    from mer_ray.settings import ExtractSettings, parse

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    numbers = range(songs)
    manifest = pa.table(
        {
            "track_id": [f"catalogue/{number:08d}.mp3" for number in numbers],
            "uri": [f"s3://music/catalogue/{number:08d}.mp3" for number in numbers],
        }
    )
    flags = ["--catalog", "unused", "--features", str(folder / "features"), "--encoder", "tiny"]
    with (
        patch.object(pipelines, "decode_songs", decode_nothing),
        patch.object(pipelines, "EncodeSongs", EncodeNothing),
    ):
        batch.extract(parse(ExtractSettings, flags), manifest)


def decode_nothing(songs: pa.Table, **_: Any) -> Iterator[pa.Table]:
    """Stand in for :func:`mer_ray.pipelines.decode_songs`."""
    from mer_ray.pipelines import DECODED_SCHEMA

    for song in songs.to_pylist():
        failed = song["track_id"].endswith("000.mp3")
        row = {**song, "decode_s": 0.0, "truncated": False, "bad_packets": 0}
        if failed:
            row |= {"status": "failed", "error_class": "not_found", "error": f"{song['uri']}: not found (404)."}
        else:
            row |= {"status": "ok", "duration_s": 200.0, "windows": [WINDOW], "scales": [1.0]}
        yield pa.Table.from_pylist([row], schema=DECODED_SCHEMA)


class EncodeNothing:
    """Stand in for :class:`mer_ray.pipelines.EncodeSongs`."""

    def __init__(self, *_: Any) -> None:
        self._ready = time.time()

    def __call__(self, songs: pa.Table) -> pa.Table:
        from mer_ray.features import STATUS_COLUMNS, features_column, store_schema

        windows = [np.zeros((len(song or []), DIM), np.float32) for song in songs["windows"].to_pylist()]
        status = [songs[name].combine_chunks() for name in STATUS_COLUMNS]
        encoded = pa.table([*status, features_column(windows, DIM)], schema=store_schema(IDENTITY, DIM))
        for name, value in (("decode_s", 0.0), ("encode_s", 0.0), ("encoder_ready", self._ready)):
            encoded = encoded.append_column(name, pa.array(np.full(len(songs), value)))
        return encoded


if __name__ == "__main__":
    main()
