"""Encoders that fail: ``--encoder tests.support.moody:poor+deadly+lame``.

poor      out of memory above a batch of 4
deadly    dies, and its process with it, of a window of DEADLY_SECONDS
lame      the first that an encoder of this Ray loads cannot be, and says that it has no GPU
hopeless  none can be
blunt     raises on a window of DEADLY_SECONDS
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mer_ray.encoders import Encoder
from mer_ray.settings import Part

RATE, DIM = 8_000, 8
DEADLY_SECONDS = 3


def load(word: str, settings: Part, device: str) -> Encoder:
    """An encoder of these moods."""
    moods = word.split("+")
    if _encodes() and ("hopeless" in moods or ("lame" in moods and _is_first())):
        raise RuntimeError("no CUDA-capable device is detected")

    def encode(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        marked = windows.shape[1] == DEADLY_SECONDS * RATE
        if "poor" in moods and len(windows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if "deadly" in moods and marked:
            os.kill(os.getpid(), signal.SIGKILL)
        if "blunt" in moods and marked:
            raise ValueError("cannot encode this")
        return np.abs(windows[:, :DIM])

    return Encoder(encode, f"moody:{word}", DIM, sample_rate=RATE, licence="none", digest="1")


def _encodes() -> bool:
    """Whether this process is an encoder, and not the one that asks what an encoder is."""
    import ray

    return ray.get_runtime_context().get_actor_id() is not None


def _is_first() -> bool:
    """Whether this process is the first encoder of its Ray."""
    mark = Path(tempfile.gettempdir()) / f"mer-ray-lame-{os.getppid()}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
