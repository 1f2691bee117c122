"""Extract's own cost a song, and its memory, as a catalogue or its songs grow.

python -m benchmarks.scale [--songs 1000 10000 100000]
python -m benchmarks.scale --lengths 3 30 180

A real extract (Ray Data, actors, commits, accounting) whose decoder and encoder are stand-ins that do next
to nothing. So the time is what the machinery costs.
Each size runs in a process of its own with a Ray of its own. Memory is read from /proc every second:
private pages of the driver and of the largest worker (mapped pages of the object store are shared and
counted apart, for the worker that touched most of them). Prints a Markdown table.

With ``--lengths`` (minutes) four FLAC songs of each length, made here, pass through the real decoder and the
real encoder stage, of which only the forward pass is a stand-in. Then 24 songs of two hours pass from stand-in
to stand-in, the second of them slow, through an object store that holds four of them.
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
import pyarrow.compute as pc
import soundfile
import torch

from benchmarks.measure import Line
from benchmarks.memory import Peaks, watched
from mer_ray.cluster.session import prepare_environment
from mer_ray.cluster.stages import EncodeSongs, decoded_table
from mer_ray.pages import table
from mer_ray.runs.receipts import DECODE_COSTS

DIM = 48
STORE = 1_500_000_000
"""Bytes of Ray's object store: four songs of two hours."""
MEMORY = ("driver MB", "largest worker MB", "store MB")
WORKERS = ("decode", "Encode", "commit")
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
    """Measure each size or length and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--lengths", type=float, nargs="+")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # this process is the measured one
    parser.add_argument("--stages", choices=[*STAGES], default="none", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside is not None:
        _extract(asked.songs[0], asked.inside, asked.stages)
    elif asked.lengths:
        _print_lengths(asked.lengths)
    else:
        _print_sizes(asked.songs)


def measure(songs: int) -> list[Line]:
    """The one line for a table of all benchmarks."""
    with tempfile.TemporaryDirectory(prefix="mer-ray-scale-") as folder:
        _, run, _ = _measure(songs, Path(folder), "none")
    own = (run["work_seconds"] - run["startup_s"]) / songs * 1e3
    what = f"extract's own cost a song, {songs:,} songs, the bound (less is better)"
    return [Line(what, "3 ms", f"{own:.2f} ms", own / 3, "≤ 1", f"python -m benchmarks.scale --songs {songs}")]


def _print_sizes(sizes: list[int]) -> None:
    rows = []
    for songs in sizes:
        with tempfile.TemporaryDirectory(prefix="mer-ray-scale-") as folder:
            wall, run, peaks = _measure(songs, Path(folder), "none")
        startup = run["startup_s"]
        own = (run["work_seconds"] - startup) / songs * 1e3
        cpu = sum(peaks.cpu_seconds.values()) / songs * 1e3
        megabytes = (f"{peak:,.0f}" for peak in (peaks.driver, peaks.worker, peaks.store))
        rows.append([f"{songs:,}", f"{wall:.0f}", f"{startup:.0f}", f"{own:.2f}", f"{cpu:.2f}", *megabytes])
    print(table(["songs", "wall s", "start-up s", "ms a song", "CPU ms a song", *MEMORY], rows))


def _print_lengths(lengths: list[float]) -> None:
    measured = []
    for minutes in lengths:
        with tempfile.TemporaryDirectory(prefix="mer-ray-scale-") as folder:
            _write_song(Path(folder) / "song.flac", minutes)
            measured.append((f"4 of {minutes:g} min", *_measure(4, Path(folder), "real")))
    with tempfile.TemporaryDirectory(prefix="mer-ray-scale-") as folder:
        measured.append(("24 of 120 min, stand-ins", *_measure(24, Path(folder), "long")))
    rows = []
    for what, wall, _, peaks in measured:
        by_stage = [max([0.0, *(peaks.workers[name] for name in peaks.workers if stage in name)]) for stage in WORKERS]
        rows.append(
            [what, f"{wall:.0f}", *(f"{peak:,.0f}" for peak in (peaks.driver, peaks.decoder, *by_stage, peaks.store))]
        )
    print(
        table(
            ["songs", "wall s", "driver MB", "decoder MB", *(f"{name} worker MB" for name in WORKERS), "store MB"], rows
        )
    )


def _measure(songs: int, folder: Path, stages: str) -> tuple[float, dict[str, Any], Peaks]:
    begun = time.monotonic()
    inside = ["--songs", str(songs), "--inside", str(folder), "--stages", stages]
    peaks = watched([sys.executable, "-m", "benchmarks.scale", *inside])
    run = json.loads((folder / "features" / "_run" / "summary.json").read_text())["this_run"]
    return time.monotonic() - begun, run, peaks


def _extract(songs: int, folder: Path, kind: str) -> None:
    prepare_environment()
    import ray

    from mer_ray.cluster import stages
    from mer_ray.cluster.extract import extract
    from mer_ray.cluster.settings import ExtractSettings
    from mer_ray.commandline import parse

    ray.init("local", num_cpus=2, object_store_memory=STORE, include_dashboard=False, log_to_driver=False)
    ids = pa.array([f"catalogue/{number:08d}.mp3" for number in range(songs)])
    uri = str(folder / "song.flac")
    uris = pc.binary_join_element_wise("s3://music", ids, "/") if kind == "none" else [uri] * songs
    flags = ["--catalog", "unused", "--features", str(folder / "features"), "--encoder", "tiny"]
    decode, encode = STAGES[kind]
    with (
        patch.object(stages, "decode_songs", decode or stages.decode_songs),
        patch.object(stages, "EncodeSongs", encode or stages.EncodeSongs),
    ):
        extract(parse(ExtractSettings, flags), lambda: pa.table({"track_id": ids, "uri": uris}))


def _write_song(path: Path, minutes: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000 * 60).astype(np.float32)
    with soundfile.SoundFile(path, "w", 24_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(minutes)):
            file.write(noise)


def decode_nothing(songs: pa.Table, **_: Any) -> Iterator[pa.Table]:
    """Stand in for :func:`mer_ray.cluster.stages.decode_songs`: one short window a song, every thousandth fails."""
    for song in songs.to_pylist():
        failed = {"status": "failed", "error_class": "not_found", "error": f"{song['uri']}: not found (404)."}
        read = {"status": "ok", "duration_s": 200.0, "windows": [bytearray(800)], "scales": [1.0]}
        yield decoded_row(song, failed if song["track_id"].endswith("000.mp3") else read)


def decode_long(songs: pa.Table, **_: Any) -> Iterator[pa.Table]:
    """Stand in for a decoder of two-hour songs: 720 windows of silence."""
    for song in songs.to_pylist():
        windows = [bytearray(480_000) for _ in range(720)]
        read = {"status": "ok", "duration_s": 7200.0, "windows": windows, "scales": [1.0] * 720}
        yield decoded_row(song, read)


def decoded_row(song: dict[str, Any], row: dict[str, Any]) -> pa.Table:
    """A row of DECODED_SCHEMA."""
    facts = {"decode_s": 0.0, "truncated": False, "bad_packets": 0}
    return decoded_table({**song, **facts, **row})


class EncodeNothing:
    """Stand in for :class:`mer_ray.cluster.stages.EncodeSongs`, which waits as if for a GPU."""

    seconds_a_window = 0.0

    def __init__(self, *_: Any) -> None:
        self._ready = time.time()

    def __call__(self, songs: pa.Table) -> pa.Table:
        from mer_ray.features import features_column, store_schema
        from mer_ray.songs import STATUS_COLUMNS

        counts = pc.fill_null(pc.list_value_length(songs["windows"]), 0).to_pylist()
        seconds = self.seconds_a_window * sum(counts)
        time.sleep(seconds)
        status = [songs[name].combine_chunks() for name in STATUS_COLUMNS]
        features = features_column([np.zeros((count, DIM), np.float32) for count in counts], DIM)
        encoded = pa.table([*status, features], schema=store_schema(IDENTITY, DIM))
        for name in (*DECODE_COSTS, "trouble"):
            encoded = encoded.append_column(name, songs[name])
        for name, value in (("encode_s", seconds / max(1, len(songs))), ("ready", self._ready)):
            encoded = encoded.append_column(name, pa.array(np.full(len(songs), value)))
        return encoded


class EncodeCheaply(EncodeSongs):
    """The real stage around a forward pass that does nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._encoder = NoModel()  # type: ignore[assignment]


class NoModel:
    """Zeros for features."""

    dim, device = DIM, None

    def launch(self, samples: torch.Tensor, _scales: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(samples), DIM)


class EncodeSlowly(EncodeNothing):
    """Stand in for an encoder that does not keep up with its decoders: two seconds a song of two hours."""

    seconds_a_window = 2 / 720


STAGES: dict[str, tuple[Any, Any]] = {
    "none": (decode_nothing, EncodeNothing),
    "real": (None, EncodeCheaply),
    "long": (decode_long, EncodeSlowly),
}
"""What decodes and what encodes; None is the real thing."""


if __name__ == "__main__":
    main()
