"""A feature store of random features, of any size, for benchmarks that read one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_ray.demo.simulated import simulated_identity
from mer_ray.features import store_table
from mer_ray.runs.songs_directory import commit

SONGS_PER_PART = 256


def write_store(folder: Path, songs: int, windows: int, dim: int) -> None:
    """Write so many songs of so many windows each, [windows, dim] float16 normal noise."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0).standard_normal((SONGS_PER_PART, windows, dim), np.float32).astype(np.float16)
    for part, start in enumerate(range(0, songs, SONGS_PER_PART)):
        rows = [
            {"track_id": f"simulated/{at}", "uri": f"simulated/{at}", "status": "ok", "duration_s": 10.0 * windows}
            for at in range(start, min(start + SONGS_PER_PART, songs))
        ]
        features = [*np.roll(drawn[: len(rows)], part, axis=2)]
        commit(str(folder), store_table(rows, features, simulated_identity(dim, 0)))
