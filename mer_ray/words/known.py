"""Vectors of the thesaurus's phrases by the packaged sentence encoder, so that no job waits for them again.

``known.safetensors`` holds float32 vectors, made by ``python -m mer_ray.words.remember``; the digest of the encoder's
weights says whose they are, and another encoder's are not looked up there.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

FILE = "words/known.safetensors"
"""Within the package."""


@lru_cache(maxsize=1)
def known_vectors(weights_sha256: str) -> dict[str, NDArray[np.float32]]:
    """Unit vectors by text, of the encoder with these weights; {} of another."""
    from safetensors import safe_open

    path = files("mer_ray").joinpath(FILE)
    if not path.is_file():
        return {}
    with safe_open(str(path), framework="numpy") as file:
        said = file.metadata()
        if said["weights_sha256"] != weights_sha256:
            return {}
        return dict(zip(json.loads(said["texts"]), file.get_tensor("vectors"), strict=True))
