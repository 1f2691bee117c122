"""The projector f_theta: MERT features of a window to the space of label embeddings (paper §3.3.2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class ProjectorShape:
    """Sizes of the projector.

    Attributes:
        input_dim: D, length of a window's features.
        output_dim: E, length of a label embedding.
        hidden_dim: width of the transformer layers.
        layers: number of transformer encoder layers.
        heads: attention heads a layer.
        dropout: dropout inside the transformer layers.
    """

    input_dim: int
    output_dim: int = 384
    hidden_dim: int = 768
    layers: int = 2
    heads: int = 8
    dropout: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        """The sizes as plain values."""
        return asdict(self)


class Projector(nn.Module):
    """Linear, post-norm transformer layers over a sequence of one, LayerNorm, Linear.

    Each window is a sequence of its own, as in the paper, so attention acts as a linear map.
    Features are standardised first with the training set's mean and deviation, which travel with
    the weights: MERT's dimensions differ in scale by orders of magnitude.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, shape: ProjectorShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("feature_mean", torch.zeros(shape.input_dim))
        self.register_buffer("feature_std", torch.ones(shape.input_dim))
        self.input = nn.Linear(shape.input_dim, shape.hidden_dim)
        layer = nn.TransformerEncoderLayer(
            shape.hidden_dim,
            shape.heads,
            dim_feedforward=4 * shape.hidden_dim,
            dropout=shape.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=False,
        )
        self.transformer = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.hidden_dim)
        self.output = nn.Linear(shape.hidden_dim, shape.output_dim)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Project windows: [b, D] to [b, E], not normalised."""
        standard_BD = (features_BD.float() - self.feature_mean) / self.feature_std
        hidden_B1H = self.transformer(self.input(standard_BD).unsqueeze(1))
        projected: Tensor = self.output(self.norm(hidden_B1H.squeeze(1)))
        return projected

    def set_feature_scale(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Take over the training set's mean and deviation; a constant dimension is left unscaled."""
        self.feature_mean.copy_(mean_D)
        self.feature_std.copy_(torch.where(std_D > 1e-6, std_D, torch.ones_like(std_D)))


@torch.inference_mode()
def project(projector: Projector, features_ND: NDArray[np.floating[Any]], device: str = "cpu") -> NDArray[np.float32]:
    """Windows to unit vectors in the space of words, some thousand at a time: [n, D] to [n, E]."""
    pieces = [np.zeros((0, projector.shape.output_dim), np.float32)]
    for start in range(0, len(features_ND), 4096):
        batch = torch.from_numpy(np.ascontiguousarray(features_ND[start : start + 4096])).to(device)
        pieces.append(F.normalize(projector(batch), dim=1).cpu().numpy())
    return np.concatenate(pieces)
