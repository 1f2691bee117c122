"""Every figure with its baseline, in a short form, into RESULTS.md (`make bench`).

python -m benchmarks [--music DIR] [--only decode encode training tagging overlap scale]

Minutes on two cores. What takes longer has commands of its own: the full ``benchmarks.scale`` and
``benchmarks.overlap``, ``benchmarks.zero_shot``. Without ``--music`` songs are composed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

from benchmarks import decode, encode, overlap, scale, tagging, training
from benchmarks.measure import Line, as_table

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"
BENCHES = ("decode", "encode", "training", "tagging", "overlap", "scale")


def main() -> None:
    """Measure, print each line as it comes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, help="folder of songs; composed if not given")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=BENCHES)
    asked = parser.parse_args()
    lines: list[Line] = []
    for name in asked.only:
        measured = _measure(name, asked.music)
        print("\n".join(f"{one.what}: {one.baseline} -> {one.ours} ({one.ratio:.2f})" for one in measured), flush=True)
        lines += measured
    before, _, rest = RESULTS.read_text().partition(BEGIN)
    RESULTS.write_text(f"{before}{BEGIN}{_where()}\n\n{as_table(lines)}\n{END}{rest.partition(END)[2]}")


def _measure(name: str, music: Path | None) -> list[Line]:
    if name == "decode":
        return decode.measure(music, songs=2, rounds=3)
    if name == "encode":
        return encode.measure(encode.music(music, 8), batch=8)
    if name == "training":
        return training.measure(windows=60_000, steps=10)
    if name == "tagging":
        return tagging.measure(songs=30_000, dim=96, hidden=96)
    if name == "overlap":
        return overlap.measure(music, songs=30)
    return scale.measure(songs=5_000)


def _where() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent, check=False
    ).stdout.strip()
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"Commit {commit}, {os.cpu_count()} cores ({platform.machine()}), {card}, {date.today().isoformat()}."


if __name__ == "__main__":
    main()
