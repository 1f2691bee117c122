"""Extract's own cost a song, and its memory, as a catalogue or its songs grow.

python -m benchmarks.scale [--songs 1000 10000 100000]
python -m benchmarks.scale --lengths 3 30 180

A real extract (Ray Data, actors, commits, accounting) whose songs and model are stand-ins that take next to no time:
one short window a song, and every thousandth fails. So the time is what the machinery costs. Each size runs in a
process and a Ray of its own. Memory is read from /proc every second: private pages of the driver and of the largest
worker (mapped pages of the object store are shared and counted apart, for the worker that touched most of them).

With ``--lengths`` (minutes) four FLAC songs of each length, made here, pass through the real decoder and the real
encoder stage, of which only the forward pass is a stand-in. Then 24 stand-ins for songs of two hours pass to an
encoder that does not keep up, through an object store that holds four of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile

from benchmarks.measure import Line, flags
from benchmarks.processes import Peaks, working_seconds
from benchmarks.stand_ins import NOTHING, SLOW, extracted
from mer_ray.pages import table

WORKERS = ("decode", "Encode", "commit")


def main() -> None:
    """Measure each size or length and print the table."""
    asked = flags(__doc__, songs=[1_000, 10_000, 100_000], lengths=[])
    print(_lengths(asked.lengths) if asked.lengths else _sizes(asked.songs))


def measure(songs: int) -> list[Line]:
    """The one line for a table of all benchmarks."""
    own, _, _ = _of_songs(songs)
    what = f"extract's own cost a song, {songs:,} songs, the bound (less is better)"
    return [Line(what, ["3 ms", f"{own:.2f} ms"], own / 3, "≤ 1")]


def _of_songs(songs: int) -> tuple[float, dict[str, Any], Peaks]:
    """Milliseconds of work a song, the run, and its memory."""
    run, peaks = _extract(["0x0.noise" if at % 1000 == 0 else "1x400.noise" for at in range(songs)], NOTHING)
    return working_seconds(run) / songs * 1e3, run, peaks


def _extract(uris: Sequence[str], encoder: str) -> tuple[dict[str, Any], Peaks]:
    peaks = Peaks()
    with TemporaryDirectory(prefix="mer-ray-scale-") as folder:
        return extracted(uris, Path(folder) / "features", encoder, peaks), peaks


def _sizes(sizes: Sequence[int]) -> str:
    rows = []
    for songs in sizes:
        own, run, peaks = _of_songs(songs)
        cpu = sum(peaks.cpu_seconds.values()) / songs * 1e3
        megabytes = (f"{most:,.0f}" for most in (peaks.driver, peaks.worker(), peaks.store))
        driver = peaks.driver_cpu_s / songs * 1e3
        seconds = f"{run['wall']:.0f}", f"{run['startup_s']:.0f}", f"{own:.2f}", f"{cpu:.2f}", f"{driver:.2f}"
        rows.append([f"{songs:,}", *seconds, *megabytes])
    header = ["songs", "wall s", "start-up s", "ms a song", "CPU ms a song", "of the driver"]
    return table([*header, "driver MB", "largest worker MB", "store MB"], rows)


def _lengths(lengths: Sequence[float]) -> str:
    measured = []
    for minutes in lengths:
        with TemporaryDirectory(prefix="mer-ray-scale-") as folder:
            song = Path(folder) / "song.flac"
            _write_song(song, minutes)
            measured.append((f"4 of {minutes:g} min", *_extract([str(song)] * 4, NOTHING)))
    measured.append(("24 of 120 min, stand-ins", *_extract(["720x240000.noise"] * 24, SLOW)))
    rows = []
    for what, run, peaks in measured:
        megabytes = peaks.driver, peaks.decoder, *map(peaks.worker, WORKERS), peaks.store
        rows.append([what, f"{run['wall']:.0f}", *(f"{most:,.0f}" for most in megabytes)])
    header = ["songs", "wall s", "driver MB", "decoder MB", *(f"{name} worker MB" for name in WORKERS), "store MB"]
    return table(header, rows)


def _write_song(path: Path, minutes: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000 * 60).astype(np.float32)
    with soundfile.SoundFile(path, "w", 24_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(minutes)):
            file.write(noise)


if __name__ == "__main__":
    main()
