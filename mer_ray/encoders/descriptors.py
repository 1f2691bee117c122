"""``descriptors``: classical descriptors of music, some 40 ms a window on one core, and no weights.

Timbre, rhythm and tonality as the literature of music information retrieval has them (each is named and sourced in
``_descriptors/``). They do not change with gain, and are finite for whatever there is to hear, silence too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.encoders._descriptors import rhythm, timbre, tonal
from mer_ray.encoders._descriptors.spectra import SAMPLE_RATE, Spectra
from mer_ray.encoders._encoder import Encoder
from mer_ray.settings import Part

VERSION = "1"
"""Another one is another encoder: a model trained on the features of this one refuses those of the next."""


def load(word: str, settings: Part, device: str) -> Encoder:
    """The encoder; ``word`` means nothing to it, and it computes on the CPU whatever the device."""
    groups = describe(np.zeros(SAMPLE_RATE, np.float32))
    columns = tuple((name, len(values)) for name, values in groups.items())
    return Encoder(
        encode,
        name="descriptors",
        dim=sum(width for _, width in columns),
        sample_rate=SAMPLE_RATE,
        licence="none needed (no weights)",
        digest=VERSION,
        columns=columns,
    )


def encode(windows_BS: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows [b, samples] to [b, D], one after another: what is in use at a time is one window's and fits the cache.

    A window that holds anything but finite numbers has no descriptors: its row is NaN.
    """
    rows = [np.concatenate([*describe(window).values()]) for window in np.nan_to_num(windows_BS)]
    finite_B1 = np.isfinite(windows_BS).all(axis=1, keepdims=True)
    return np.where(finite_B1, rows, np.nan).astype(np.float32)


def describe(window: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """One window's descriptors by group, in the order of the columns; at least 0.1 s of finite samples."""
    spectra = Spectra.of(window)
    return {**timbre.describe(spectra), **rhythm.describe(spectra), **tonal.describe(spectra)}
