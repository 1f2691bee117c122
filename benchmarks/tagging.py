"""Tagging a store of MTG-Jamendo's size with other words: against reading its projected windows and one product.

python -m benchmarks.tagging [--songs 55000] [--dim 3072]

The store is drawn at random, 22 windows a song. It is tagged with 56 words, which projects it; then with 56 other
words, without and with the tags of each window. The baseline is what nothing can avoid: a process a core that reads
the kept windows and multiplies them with 56 vectors. Rates are of the work, from the moment the workers are ready to
the last commit; the seconds of whole jobs, Python's and Ray's start and the accounting included, stand beside them.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.data import EMBEDDING, write_model, write_store
from benchmarks.measure import Line, Pair, as_table, flags
from benchmarks.processes import this_run, working_seconds
from mer_ray import storage
from mer_ray.catalog.datasets import vocabularies
from mer_ray.features import window_arrays
from mer_ray.learning.projector import ProjectorShape
from mer_ray.tagging.projections import FOLDER
from mer_ray.words.thesaurus import load_thesaurus

WINDOWS, WORDS = 22, 56
CORES = os.cpu_count() or 1


def main() -> None:
    """Print the lines as a table."""
    asked = flags(__doc__, songs=55_000, dim=3072)
    print(as_table({"tagging": measure(asked.songs, asked.dim)}))


def measure(songs: int = 55_000, dim: int = 3072, hidden: int = 768) -> list[Line]:
    """All lines of this benchmark; a narrower projector than the paper's leaves out what it would take."""
    with TemporaryDirectory(prefix="mer-ray-tagging-") as name:
        folder = Path(name)
        write_store(folder / "features", songs, WINDOWS, dim)
        write_model(str(folder / "model"), dim, hidden)
        words, others = "jamendo", folder / "others.txt"
        others.write_text("\n".join(sorted(load_thesaurus().entries.keys() - set(vocabularies()[words]))[:WORDS]))
        first = _tag(folder, "first", words)
        with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
            list(pool.map(abs, range(CORES)))
            before = _read_and_multiply(pool, folder)
            again, moments = _tag(folder, "again", others), _tag(folder, "moments", others, "--timeline")
            baseline = median([before, *(_read_and_multiply(pool, folder) for _ in range(2))])
    windows = songs * WINDOWS
    what = f"tags of {windows:,} windows with other words, reading and one product"
    lines = [
        Pair.of([(baseline, working_seconds(run))]).line(what + more, windows, "windows/s", "≥ 0.25")
        for more, run in (("", again), (", each window's tags too", moments))
    ]
    if hidden == ProjectorShape.hidden_dim:
        whole = f"whole jobs: tags of {songs:,} songs, the first ones against other words"
        walls = [first["wall"], again["wall"]]
        lines.append(Line(whole, [f"{wall:.0f} s" for wall in walls], walls[0] / walls[1]))
    return lines


def _tag(folder: Path, output: str, labels: object, *more: str) -> dict[str, Any]:
    uris = {"features": folder / "features", "model": folder / "model", "labels": labels, "output": folder / output}
    flags = [part for name, uri in uris.items() for part in (f"--{name}", uri)]
    return this_run(["jobs/tag.py", *flags, *more], folder / output)


def _read_and_multiply(pool: ProcessPoolExecutor, folder: Path) -> float:
    """Seconds of all cores for all kept files."""
    kept = sorted(map(str, (folder / "features" / FOLDER).glob("*/*.arrow")))
    started = time.perf_counter()
    list(pool.map(_product, kept, chunksize=4))
    return time.perf_counter() - started


def _product(kept: str) -> None:
    torch.set_num_threads(1)
    words = torch.ones(EMBEDDING, WORDS)
    for songs in storage.iter_arrow(kept, ["windows"]):
        windows, _ = window_arrays(songs["windows"])
        torch.from_numpy(windows.copy()).float() @ words


if __name__ == "__main__":
    main()
