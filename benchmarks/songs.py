"""Songs to measure with: a folder's, or composed ones."""

from __future__ import annotations

from pathlib import Path

from mer_ray.catalog.sources import load_catalog
from mer_ray.demo.composer import write_world


def songs_of(music: Path | None, count: int, scratch: Path) -> list[str]:
    """Paths of at most so many songs; composed below ``scratch`` if there is no folder of music."""
    source = music
    if source is None:
        write_world(scratch / "world", songs_per_dataset=max(10, count), seed=0)
        source = scratch / "world" / "demo-gems"
    paths: list[str] = load_catalog(str(source))["uri"].to_pylist()
    # Evenly over the folder, whose order may be one genre after another.
    return [paths[at * len(paths) // count] for at in range(count)] if len(paths) > count else paths
