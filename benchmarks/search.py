"""Searching a store of a million songs: the first time, and when the index stands.

python -m benchmarks.search [--songs 55000 1000000] [--rounds 3]

The store is drawn at random, a window of 8 features a song, since search reads projected songs alone; the model's
projector is untrained and narrow, its words 384 wide as always. Each search is what jobs/search.py calls, in a
process of its own, for a phrase that its sentence encoder has to read: of a store that nothing was made of; of one
whose projections are kept, but no index; then several times. Imports are counted apart; the sentence encoder's loading
is part of the search. CPU seconds beside the clock's, for machines that have other work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.data import write_model, write_store
from benchmarks.measure import flags
from benchmarks.processes import alone, high_water_mib
from mer_ray.pages import table
from mer_ray.tagging.projections import FOLDER

DIM = 8
QUERY, UNWANTED = "a slow walk home in the rain", "sad"


class Took(NamedTuple):
    """What one search took; private memory is that beside the files it maps."""

    imports_s: float
    search_s: float
    cpu_s: float
    peak_mib: float
    private_mib: float


def main() -> None:
    """Measure each size and print the table."""
    asked = flags(__doc__, songs=[55_000, 1_000_000], rounds=3)
    rows = [row for songs in asked.songs for row in measure(songs, asked.rounds)]
    header = ["songs", "search", "imports s", "search s", "CPU s", "peak RSS MiB", "private MiB", "kept MB"]
    print(table(header, rows))


def measure(songs: int, rounds: int) -> list[list[str]]:
    """The rows of one size."""
    with TemporaryDirectory(prefix="mer-ray-search-") as name:
        features, model = Path(name) / "features", Path(name) / "model"
        write_store(features, songs, 1, DIM)
        write_model(str(model), DIM, DIM)
        rows = [_row(songs, "the first of a store", [_search(features, model)], features)]
        for index in features.rglob("songs-*.arrow"):
            index.unlink()
        rows.append(_row(songs, "the first, projections kept", [_search(features, model)], features))
        rows.append(_row(songs, "later", [_search(features, model) for _ in range(rounds)], features))
    return rows


def _search(features: Path, model: Path) -> Took:
    return alone(_searched, str(features), str(model))


def _searched(features: str, model: str) -> Took:
    begun = time.perf_counter()
    import sentence_transformers  # noqa: F401 - to be counted
    import torch  # noqa: F401 - to be counted

    from benchmarks.processes import private_memory
    from mer_ray.tagging.search import search
    from mer_ray.tagging.settings import SearchSettings

    settings = SearchSettings.model_construct(query=(QUERY,), not_=(UNWANTED,), features=features, model=model)
    imported, cpu = time.perf_counter(), time.process_time()
    with private_memory() as private:
        search(settings)
    ended = time.perf_counter()
    return Took(imported - begun, ended - imported, time.process_time() - cpu, high_water_mib(), private[0])


def _row(songs: int, what: str, took: Sequence[Took], features: Path) -> list[str]:
    columns = dict(zip(Took._fields, zip(*took, strict=True), strict=True))
    seconds = [f"{median(columns[name]):.2f}" for name in ("imports_s", "search_s", "cpu_s")]
    memory = [f"{max(columns[name]):,.0f}" for name in ("peak_mib", "private_mib")]
    kept = sum(file.stat().st_size for file in features.rglob(f"{FOLDER}/*/*"))
    return [f"{songs:,}", what, *seconds, *memory, f"{kept / 1e6:,.0f}"]


if __name__ == "__main__":
    main()
