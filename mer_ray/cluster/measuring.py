"""What measures the words of a tags directory: frozen there by its first run, so that all its songs are measured alike.

_run/yardstick.safetensors    the songs that measure
_run/calibration.json         how far the directory's songs are from the calibrated ones
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from mer_ray import storage
from mer_ray.cluster.settings import TagSettings
from mer_ray.cluster.store_songs import Sample
from mer_ray.errors import InputError
from mer_ray.learning.model import Model
from mer_ray.learning.scoring import measured_by_catalog
from mer_ray.runs.songs_directory import SongsDirectory
from mer_ray.tagging.calibration import Calibration
from mer_ray.tagging.ranking import Tagger

YARDSTICK, STRANGE = "yardstick.safetensors", "calibration.json"

Vectors = Callable[[pa.Array], NDArray[np.float32]]
"""The mean unit vectors of songs by their ids."""


def calibrated(output: SongsDirectory, calibration: Calibration, sample: Sample, vectors: Vectors) -> Calibration:
    """A calibration for the songs of a directory, frozen there at its first run."""
    kept = output.read_json(STRANGE)
    if kept is None:
        found = {"strange": calibration.of(vectors(sample.some)).strange if len(sample.ids) else 1.0}
        kept = json.loads(output.once(STRANGE, storage.as_json(found)))
    strange = float(kept["strange"])
    print(
        f"tag: {strange:.0%} of what parts these songs from the calibrated ones is more than chance; so far are the "
        "intervals of expected precision opened"
    )
    return replace(calibration, strange=strange)


def measured_tagger(
    output: SongsDirectory,
    settings: TagSettings,
    model: Model,
    sample: Sample,
    vectors: Vectors,
) -> tuple[str, Tagger]:
    """The songs that measure the words, for a reader, and a tagger measured by them.

    Raises:
        InputError: the catalogue's songs are to measure, and none could be read.
    """
    frozen = output.file(YARDSTICK)
    if storage.exists(frozen):
        count, tagger = _measured_by(model, storage.read_bytes(frozen))
        return f"the {count:,} songs of the first run", tagger
    if settings.yardstick == "catalog" and not len(sample.ids):
        raise InputError(f"--yardstick catalog: no song of {settings.features} could be read; use model.")
    songs, source, blended = model.background, f"the model's {len(model.background):,} training songs", True
    if measured_by_catalog(settings.yardstick, len(sample.ids)):
        songs, blended = vectors(sample.some), settings.yardstick != "catalog"
        source = f"{len(songs):,} songs of the catalogue"
    kept: dict[str, Any] = {"songs": songs.astype(np.float16)} | ({"blended": np.ones(1, np.int8)} if blended else {})
    return source, _measured_by(model, output.once(YARDSTICK, save_arrays(kept)))[1]


def _measured_by(model: Model, frozen: bytes) -> tuple[int, Tagger]:
    """The number of songs that were frozen, and a tagger measured by them."""
    kept = load_arrays(frozen)
    songs = kept["songs"].astype(np.float32)
    # Before 0.3 they measured alone.
    return len(songs), Tagger(model, songs, alone="blended" not in kept)
