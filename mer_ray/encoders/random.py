"""``random``: a twin of MERT-v1-95M in its full size; random weights, the same ones each time."""

from __future__ import annotations

from mer_ray.encoders._encoder import Encoder
from mer_ray.encoders.mert import Settings

__all__ = ["Settings", "load"]


def load(word: str, settings: Settings, device: str) -> Encoder:
    """MERT-v1-95M as it was before training. ``word`` means nothing here."""
    from mer_ray.encoders._hubert import twin

    return twin("random", settings, device)
