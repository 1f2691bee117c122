"""``random``: MERT-v1-95M in its full size before any training; random weights, the same ones each time."""

from mer_ray.encoders._encoder import Encoder
from mer_ray.encoders._settings import Settings as Settings


def load(word: str, settings: Settings, device: str) -> Encoder:
    """The twin; ``word`` means nothing to it."""
    from mer_ray.encoders._hubert import twin

    return twin("random", settings, device)
