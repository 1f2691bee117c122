"""Vectors of the thesaurus's phrases by the packaged sentence encoder, so that no job waits for them again.

``known.safetensors`` holds float32 vectors, made by ``python -m mer_ray.words.remember``; the digest of the encoder's
weights says whose they are, and another encoder's are not looked up there. It says as well by which file the encoder is
known, so that a job whose words are all there never loads it: that takes seconds.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_ray.fingerprints import file_sha256

FILE = "words/known.safetensors"
"""Within the package."""
WEIGHTS = "model.safetensors"
"""The file that an encoder is known by, within its folder."""


@lru_cache(maxsize=1)
def known_vectors(weights_sha256: str) -> dict[str, NDArray[np.float32]]:
    """Unit vectors by text, of the encoder with these weights; {} of another."""
    from safetensors import safe_open

    said = _said()
    if said.get("weights_sha256") != weights_sha256:
        return {}
    with safe_open(_path(), framework="numpy") as file:
        return dict(zip(json.loads(said["texts"]), file.get_tensor("vectors"), strict=True))


def known_weights(encoder: Path) -> str | None:
    """The digest of an encoder's weights, by its folder, if it is the one whose vectors are known; None of another."""
    said, weights = _said(), encoder / WEIGHTS
    if "file_sha256" not in said or not weights.is_file() or file_sha256(weights) != said["file_sha256"]:
        return None
    return said["weights_sha256"]


def _said() -> dict[str, str]:
    from safetensors import safe_open

    if not Path(_path()).is_file():
        return {}
    with safe_open(_path(), framework="numpy") as file:
        said: dict[str, str] = file.metadata()
    return said


def _path() -> str:
    return str(files("mer_ray").joinpath(FILE))
