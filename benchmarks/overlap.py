"""How well decoding and encoding overlap: extract's time against the slower of the two alone.

python -m benchmarks.overlap [--music DIR] [--songs 40] [--rounds 3] [--encoder tiny|random|...]

Three runs of the same graph on the same songs and CPUs, in turns, each in a process and a Ray of its own:
extract as it is; with a stand-in for the encoder that takes no time (decode alone); with a decoder that hands out
noise, as many windows a song as the real one did (encode alone). Times are of the work, from the moment the encoder
is loaded to the last commit; start-up is reported beside them. Without ``--encoder`` it is a stand-in too, which waits
as a worker waits for its GPU. With an encoder on the CPU both stages want the same cores, and the slower alone cannot
be reached: the seconds of both over the cores are a second bound. Prints medians over the rounds, and where an
extract's time went.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from benchmarks.breakdown import stages
from benchmarks.data import songs_of
from benchmarks.measure import Line, flags
from benchmarks.processes import working_seconds
from benchmarks.stand_ins import ASLEEP, NOTHING, extracted
from mer_ray.features import Store
from mer_ray.pages import table
from mer_ray.songs import lengths

TIMES = ("wall", "startup_s", "work", "decode_s", "encode_s", "work_seconds", "seconds")
Found = dict[str, dict[str, float]]


def main() -> None:
    """Run the three in turns and print what they took."""
    asked = flags(__doc__, music=None, songs=40, rounds=3, encoder=ASLEEP)
    found = _run_in_turns(asked.music, asked.songs, asked.rounds, asked.encoder)
    slower, work = _slower(found), found["extract"]["work"]
    rows = [[kind, *(f"{times[name]:.1f}" for name in TIMES[:3])] for kind, times in found.items()]
    print(table(["", "wall s", "start-up s", "work s"], rows))
    print(f"\nextract / the slower alone: {work / slower:.2f}")
    if asked.encoder != ASLEEP:
        # An encoder alone has a thread on every core, a decoder has one.
        shared = max(slower, found["decode"]["decode_s"] / (os.cpu_count() or 1) + found["encode"]["encode_s"])
        print(f"extract / what the cores allow ({shared:.1f} s): {work / shared:.2f}")
    print(f"\n{stages(found['extract'], 'an extract')}")


def measure(music: Path | None, songs: int) -> list[Line]:
    """The one line for a table of all benchmarks."""
    found = _run_in_turns(music, songs, rounds=1, encoder=ASLEEP)
    slower, work = _slower(found), found["extract"]["work"]
    what = "extract, the slower of decode alone and encode alone (less is better)"
    return [Line(what, [f"{slower:.1f} s", f"{work:.1f} s"], work / slower, "≤ 1.10")]


def _run_in_turns(music: Path | None, songs: int, rounds: int, encoder: str) -> Found:
    """The median times of each kind of run."""
    runs: dict[str, list[dict[str, float]]] = {"extract": [], "decode": [], "encode": []}
    with TemporaryDirectory(prefix="mer-ray-overlap-") as name:
        folder = Path(name)
        paths = songs_of(music, songs, folder)
        for turn in range(rounds):
            for kind, times in runs.items():
                uris = _windows(folder / "extract-0") if kind == "encode" else paths
                run = extracted(uris, folder / f"{kind}-{turn}", NOTHING if kind == "decode" else encoder)
                times.append({**run, "work": working_seconds(run)})
    return {kind: {name: median(run[name] for run in times) for name in TIMES} for kind, times in runs.items()}


def _windows(features: Path) -> list[str]:
    """Stand-ins for the songs of a store, with as many windows."""
    parts = [pq.read_table(part)["features"] for part in Store.open(str(features)).parts]
    return [f"{count}x240000.noise" for part in parts for count in lengths(part).to_pylist()]


def _slower(found: Found) -> float:
    return max(found["decode"]["work"], found["encode"]["work"])


if __name__ == "__main__":
    main()
