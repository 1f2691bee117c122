"""What benchmarks measure with: a folder's songs or composed ones, their windows, stores of noise, a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from mer_ray.audio.decoding import decode_windows
from mer_ray.catalog.sources import load_catalog
from mer_ray.demo.composer import write_world
from mer_ray.demo.simulated import simulated_identity
from mer_ray.features import store_table
from mer_ray.fingerprints import weights_sha256
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.runs.songs_directory import commit
from mer_ray.words.embedding import label_model, unit

SONGS_PER_PART, EMBEDDING = 256, 384


def songs_of(music: Path | None, count: int, scratch: Path) -> list[str]:
    """Paths of at most so many songs; composed below ``scratch`` if there is no folder of music."""
    source = music
    if source is None:
        write_world(scratch / "world", songs_per_dataset=max(10, count), seed=0)
        source = scratch / "world" / "demo-gems"
    paths: list[str] = load_catalog(str(source))["uri"].to_pylist()
    # Evenly over the folder, whose order may be one genre after another.
    return [paths[at * len(paths) // count] for at in range(count)] if len(paths) > count else paths


def windows_of(music: Path | None, count: int) -> NDArray[np.float32]:
    """So many windows of 8 songs, [count, samples]."""
    with TemporaryDirectory(prefix="mer-ray-windows-") as scratch:
        pieces = [decode_windows(path).windows for path in songs_of(music, 8, Path(scratch))]
    full = np.concatenate([piece for piece in pieces if piece.shape[1] == pieces[0].shape[1]])
    return np.resize(full, (count, full.shape[1]))


def write_store(folder: Path, songs: int, windows: int, dim: int) -> None:
    """Write a feature store of so many songs of so many windows each, [windows, dim] float16 normal noise."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0).standard_normal((SONGS_PER_PART, windows, dim), np.float32).astype(np.float16)
    for part, start in enumerate(range(0, songs, SONGS_PER_PART)):
        rows = [
            {"track_id": f"simulated/{at}", "uri": f"simulated/{at}", "status": "ok", "duration_s": 10.0 * windows}
            for at in range(start, min(start + SONGS_PER_PART, songs))
        ]
        rolled = np.roll(drawn[: len(rows)], part, axis=2)
        commit(str(folder), store_table(rows, [*rolled], simulated_identity(dim, 0)))


def write_model(uri: str, dim: int, hidden: int) -> None:
    """Write a model of an untrained projector, for the stores of :func:`write_store`."""
    torch.manual_seed(0)
    shape = ProjectorShape(dim, EMBEDDING, hidden)
    config = {
        "projector": asdict(shape),
        "encoder": simulated_identity(dim, 0),
        "label_model": {"name": "auto", "weights_sha256": weights_sha256(label_model())},
    }
    background = unit(np.random.default_rng(0).normal(size=(100, EMBEDDING)))
    Model(Projector(shape).eval(), config, {"words": [], "phrases": {}}, background).save(uri)
