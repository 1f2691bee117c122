"""Every figure with its baseline, in a short form, into RESULTS.md (`make bench`).

python -m benchmarks [--music DIR] [--only decode encode training tagging overlap scale]

Minutes on two cores. What takes longer has commands of its own: the full ``benchmarks.scale`` and
``benchmarks.overlap``, ``benchmarks.resume``, ``benchmarks.search``, ``benchmarks.zero_shot``.
Without ``--music`` songs are composed.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import date
from pathlib import Path

import torch

from benchmarks import decode, encode, overlap, scale, tagging, training
from benchmarks.data import windows_of
from benchmarks.measure import Line, as_table, flags

RESULTS = Path(__file__).with_name("RESULTS.md")
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"
BENCHES = {
    "decode": lambda music: decode.measure(music, songs=2, rounds=3),
    "encode": lambda music: encode.measure(windows_of(music, 8), batch=8),
    "training": lambda _: training.measure(windows=60_000, steps=10),
    "tagging": lambda _: tagging.measure(songs=30_000, dim=96, hidden=96),
    "overlap": lambda music: overlap.measure(music, songs=30),
    "scale": lambda _: scale.measure(songs=5_000),
}


def main() -> None:
    """Measure, print each line as it comes, and write the table."""
    asked = flags(__doc__, music=None, only=list(BENCHES))
    measured: dict[str, list[Line]] = {}
    for name in asked.only:
        measured[name] = BENCHES[name](asked.music)
        for one in measured[name]:
            print(f"{one.what}: {' -> '.join(one.figures)} ({one.ratio:.2f})", flush=True)
    before, _, rest = RESULTS.read_text().partition(BEGIN)
    RESULTS.write_text(f"{before}{BEGIN}{_where()}\n\n{as_table(measured)}\n{END}{rest.partition(END)[2]}")


def _where() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"Commit {said.stdout.strip()}, {os.cpu_count()} cores ({platform.machine()}), {card}, {date.today()}."


if __name__ == "__main__":
    main()
