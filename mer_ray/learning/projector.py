"""The projector f_theta: features of a window to the space of label embeddings (paper §3.3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mer_ray.errors import InputError
from mer_ray.features import song_means

_BATCH, _SONGS = 4096, 256


@dataclass(frozen=True)
class ProjectorShape:
    """Sizes of the projector: D features in, label embeddings of E out, the transformer's in between.

    ``context`` is ``segment`` where each window is a sequence of its own (the paper), so that attention is a linear
    map, and ``track`` where the windows of a song attend to each other: as a set, or with ``positions`` in order.
    Without ``layers`` it is a linear map of rank ``hidden_dim``. Standardised features beyond ``clip`` are cut off.
    """

    input_dim: int
    output_dim: int = 384
    hidden_dim: int = 768
    layers: int = 2
    heads: int = 8
    dropout: float = 0.1
    context: Literal["segment", "track"] = "segment"
    positions: bool = False
    clip: float | None = None
    activation: Literal["gelu", "relu"] = "gelu"

    def __post_init__(self) -> None:
        if self.layers and self.hidden_dim % self.heads:
            raise InputError(
                f"projector: {self.hidden_dim} wide with {self.heads} heads; "
                f"give --width a multiple of {self.heads}, or other --heads."
            )


class Projector(nn.Module):
    """Linear, post-norm transformer layers, LayerNorm, Linear; without layers the two linear maps alone.

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
        if shape.layers:
            # The library clones its first layer; drawn one by one, no two start with equal weights.
            layers = [_layer(shape) for _ in range(shape.layers)]
            self.transformer = nn.TransformerEncoder(layers[0], 1, enable_nested_tensor=False)
            self.transformer.layers = nn.ModuleList(layers)
            self.norm = nn.LayerNorm(shape.hidden_dim)
        self.output = nn.Linear(shape.hidden_dim, shape.output_dim)

    def forward(self, features_ND: Tensor, counts_S: Tensor | None = None) -> Tensor:
        """Project windows, those of a song side by side: [n, D] to [n, E], not normalised.

        ``counts_S`` are the windows of each song, at least one each, n in all; all n are one song if not given.
        Only ``context = track`` looks at it.
        """
        scaled_ND = (features_ND.float() - self.feature_mean) / self.feature_std
        if self.shape.clip is not None:
            scaled_ND = scaled_ND.clamp(-self.shape.clip, self.shape.clip)
        hidden_NH = self.input(scaled_ND)
        if self.shape.layers:
            hidden_NH = self.norm(self._transformed(hidden_NH, counts_S))
        projected: Tensor = self.output(hidden_NH)
        return projected

    def _transformed(self, hidden_NH: Tensor, counts_S: Tensor | None) -> Tensor:
        # Over one window the weights of attention are 1 and the gradient of query and key is 0. The fused kernels
        # leave round-off there, which Adam would scale up to full steps, other ones on other numbers of workers.
        with sdpa_kernel(SDPBackend.MATH):
            if self.shape.context == "segment":
                alone_NH: Tensor = self.transformer(hidden_NH.unsqueeze(1)).squeeze(1)
                return alone_NH
            return self._attend(hidden_NH, counts_S)

    def _attend(self, hidden_NH: Tensor, counts_S: Tensor | None) -> Tensor:
        """Let the windows of each song attend to each other; padding is masked and left out again."""
        counts = torch.tensor([len(hidden_NH)]) if counts_S is None else counts_S
        row_W = torch.arange(int(counts.max()))
        valid_SW = (row_W[None, :] < counts[:, None]).to(hidden_NH.device)
        padded_SWH = hidden_NH.new_zeros(*valid_SW.shape, hidden_NH.shape[1])
        padded_SWH[valid_SW] = hidden_NH
        if self.shape.positions:
            padded_SWH = padded_SWH + _sinusoids(len(row_W), hidden_NH.shape[1]).to(hidden_NH)
        attended: Tensor = self.transformer(padded_SWH, src_key_padding_mask=~valid_SW)[valid_SW]
        return attended

    def set_feature_scale(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Take over the training set's mean and deviation; a constant dimension is left unscaled."""
        self.feature_mean.copy_(mean_D)
        self.feature_std.copy_(torch.where(std_D > 1e-6, std_D, torch.ones_like(std_D)))


def _layer(shape: ProjectorShape) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        shape.hidden_dim,
        shape.heads,
        dim_feedforward=4 * shape.hidden_dim,
        dropout=shape.dropout,
        activation=shape.activation,
        batch_first=True,
    )


def project(
    projector: Projector,
    features_ND: NDArray[np.floating[Any]],
    counts_S: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Windows to unit vectors in the space of words: [n, D] to [n, E].

    Args:
        projector: in evaluation mode, on ``device``.
        features_ND: those of a song side by side.
        counts_S: windows of each song, 0 for a song without; all n are one song if not given.
        device: where the projector is.
    """
    nothing = np.zeros((0, projector.shape.output_dim), np.float32)
    return np.concatenate([nothing, *(piece for _, piece in pieces(projector, features_ND, counts_S, device))])


@torch.inference_mode()
def pieces(
    projector: Projector,
    features_ND: NDArray[np.floating[Any]],
    counts_S: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The same some thousand windows at a time: the first one's number, and [b, E]."""
    one_by_one = projector.shape.context == "segment"
    counts_S = np.ones(len(features_ND), np.int64) if one_by_one else counts_S
    for start, end, counts in _whole_songs(np.array([len(features_ND)]) if counts_S is None else counts_S):
        batch = torch.from_numpy(np.array(features_ND[start:end])).to(device)
        yield start, F.normalize(projector(batch, counts), dim=1).cpu().numpy()


def song_vectors(
    projector: Projector,
    features_ND: NDArray[np.floating[Any]],
    counts_S: NDArray[np.int64],
    songs_X: NDArray[np.int64],
    device: str = "cpu",
) -> NDArray[np.float32]:
    """The mean unit vector of some of the songs whose windows these are, [X, E], in the memory of a few hundred songs.

    Args:
        projector: in evaluation mode, on ``device``.
        features_ND: those of a song side by side.
        counts_S: windows of each song.
        songs_X: which songs.
        device: where the projector is.
    """
    means = [np.zeros((0, projector.shape.output_dim), np.float32)]
    ends_S = np.cumsum(counts_S)
    for some in np.array_split(songs_X, -(-len(songs_X) // _SONGS) or 1):
        rows = [np.zeros(0, np.int64), *(np.arange(ends_S[song] - counts_S[song], ends_S[song]) for song in some)]
        projected = project(projector, features_ND[np.concatenate(rows)], counts_S[some], device)
        means.append(song_means(projected, counts_S[some]))
    return np.concatenate(means)


def _whole_songs(counts: NDArray[np.int64]) -> Iterator[tuple[int, int, Tensor]]:
    """Ranges of windows to project together, some whole songs each, with the songs' counts."""
    counts = counts[counts > 0]
    ends, first = np.cumsum(counts), 0
    while first < len(counts):
        start = int(ends[first] - counts[first])
        last = max(first + 1, int(np.searchsorted(ends, start + _BATCH, side="right")))
        yield start, int(ends[last - 1]), torch.from_numpy(counts[first:last])
        first = last


def _sinusoids(length: int, width: int) -> Tensor:
    """The usual sine and cosine positions: [length, width]."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(length, -1)[:, :width]
