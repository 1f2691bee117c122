"""``tiny``: MERT-v1-95M made small, for tests and first tries; random weights, the same ones each time."""

from mer_ray.encoders._encoder import Encoder
from mer_ray.encoders._settings import Settings as Settings


def load(word: str, settings: Settings, device: str) -> Encoder:
    """The twin; ``word`` means nothing to it."""
    from mer_ray.encoders._hubert import twin

    sizes = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "conv_dim": (32,) * 7}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return twin("tiny", settings, device, **sizes, **positions)
