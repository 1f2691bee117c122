"""How well decoding and encoding overlap: extract's time against the slower of the two alone.

python -m benchmarks.overlap [--music DIR] [--songs 40] [--rounds 3] [--encoder asleep|tiny|random|...]

Three runs of the same graph on the same songs and CPUs, in turns, each in a process and a Ray of its own:
extract as it is; with a stand-in for the encoder that takes no time (decode alone); with a decoder that hands out
noise, as many windows a song as the real one did (encode alone). Times are of the work, from the moment the encoder
is loaded to the last commit; start-up is reported beside them. ``asleep`` encodes nothing and waits instead, as a
worker waits for its GPU. With an encoder on the CPU both stages want the same cores, and the slower alone cannot be
reached: the seconds of both over the cores are a second bound. Prints medians over the rounds, and where an
extract's time went. Without ``--music`` it composes its songs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.breakdown import stages
from benchmarks.measure import Line
from benchmarks.scale import EncodeNothing, decoded_row
from mer_ray.catalog.manifest import write_manifest
from mer_ray.catalog.sources import load_catalog
from mer_ray.cluster.session import prepare_environment
from mer_ray.demo.composer import write_world
from mer_ray.pages import table

KINDS = ("extract", "decode", "encode")
ASLEEP = "asleep"


class EncodeAsleep(EncodeNothing):
    """Stand in for an encoder on a GPU that is about as fast as one decoder."""

    seconds_a_window = 0.03


def main() -> None:
    """Run the three in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", help="folder of songs; composed if not given")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="asleep", help="asleep, or as of extract (asleep)")
    parser.add_argument("--inside", choices=KINDS, help=argparse.SUPPRESS)  # this process is the measured one
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        _extract(asked.inside, asked.folder, asked.encoder)
        return
    found = _run_in_turns(asked.music, asked.songs, asked.rounds, asked.encoder)
    slower, work = _slower(found), found["extract"]["work"]
    rows = [[kind, *(f"{found[kind][name]:.1f}" for name in ("wall", "startup_s", "work"))] for kind in KINDS]
    print(table(["", "wall s", "start-up s", "work s"], rows))
    print(f"\nextract / the slower alone: {work / slower:.2f}")
    if asked.encoder != ASLEEP:
        # An encoder alone has a thread on every core, a decoder has one.
        shared = max(slower, found["decode"]["decode_s"] / (os.cpu_count() or 1) + found["encode"]["encode_s"])
        print(f"extract / what the cores allow ({shared:.1f} s): {work / shared:.2f}")
    print(f"\n{stages(found['extract'], found['extract']['wall'], 'an extract')}")


def measure(music: Path | None, songs: int) -> list[Line]:
    """The one line for a table of all benchmarks."""
    found = _run_in_turns(None if music is None else str(music), songs, rounds=1, encoder=ASLEEP)
    slower, work = _slower(found), found["extract"]["work"]
    what = "extract, the slower of decode alone and encode alone (less is better)"
    return [Line(what, f"{slower:.1f} s", f"{work:.1f} s", work / slower, "≤ 1.10", "python -m benchmarks.overlap")]


def _run_in_turns(music: str | None, songs: int, rounds: int, encoder: str) -> dict[str, dict[str, float]]:
    """The median times of each kind of run."""
    times: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="mer-ray-overlap-") as name:
        folder = Path(name)
        if music is None:
            write_world(folder / "world", songs_per_dataset=max(2, -(-songs // 3)))
        manifest = load_catalog(music or str(folder / "world"))
        write_manifest(str(folder / "songs.parquet"), manifest.slice(0, songs))
        for turn in range(rounds):
            for kind in KINDS:
                times[kind].append(_measure(kind, folder, f"{kind}-{turn}", encoder))
                print(kind, json.dumps(times[kind][-1]), file=sys.stderr, flush=True)
    return {kind: {name: median(run[name] for run in runs) for name in runs[0]} for kind, runs in times.items()}


def _slower(found: dict[str, dict[str, float]]) -> float:
    return max(found["decode"]["work"], found["encode"]["work"])


def _measure(kind: str, folder: Path, name: str, encoder: str) -> dict[str, float]:
    begun = time.monotonic()
    inside = ["--inside", kind, "--folder", str(folder / name), "--encoder", encoder]
    subprocess.run([sys.executable, "-m", "benchmarks.overlap", *inside], check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begun
    run = json.loads((folder / name / "_run" / "summary.json").read_text())["this_run"]
    times = {"wall": wall, "work": run["work_seconds"] - run["startup_s"]}
    return times | {key: run[key] for key in ("startup_s", "decode_s", "encode_s", "work_seconds", "seconds")}


def _extract(kind: str, output: Path, encoder: str) -> None:
    prepare_environment()
    import ray

    from mer_ray.cluster import stages
    from mer_ray.cluster.extract import extract
    from mer_ray.cluster.settings import ExtractSettings
    from mer_ray.commandline import parse

    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
    manifest = pq.read_table(output.parent / "songs.parquet")
    if kind == "encode":  # the real store says how many windows a song has
        parts = [*map(str, (output.parent / "extract-0").glob("part-*.parquet"))]
        counts = pa.concat_tables([pq.read_table(part, columns=["track_id", "features"]) for part in parts])
        windows = pc.list_value_length(counts["features"])
        manifest = pa.table({"track_id": counts["track_id"], "uri": windows.cast(pa.string())})
    asleep = encoder == ASLEEP
    flags = ["--catalog", "unused", "--features", str(output), "--encoder", "tiny" if asleep else encoder]
    decode = decode_noise if kind == "encode" else stages.decode_songs
    encode: Any = EncodeAsleep if asleep else stages.EncodeSongs
    encode = EncodeNothing if kind == "decode" else encode
    with patch.object(stages, "decode_songs", decode), patch.object(stages, "EncodeSongs", encode):
        extract(parse(ExtractSettings, flags), lambda: manifest)


def decode_noise(songs: pa.Table, **_: Any) -> Iterator[pa.Table]:
    """Stand in for the decoder: as many windows of noise as ``uri`` says."""
    noise = np.random.default_rng(0).integers(-9999, 9999, 240_000, np.int16).tobytes()
    for song in songs.to_pylist():
        count = int(song["uri"] or 0)
        row = {"status": "ok", "duration_s": 10.0 * count, "windows": [noise] * count, "scales": [1e-4] * count}
        yield decoded_row(song, row)


if __name__ == "__main__":
    main()
