"""HuBERT's convolutional feature extractor as matrix products: the same frames, on a CPU in less time and memory.

With a frame in each row, a convolution is a few products of views of its input, as many as the stride goes into the
kernel: the first ``stride`` taps of every frame stand side by side in memory, the next ones a row of that view
further on. Only the one channel of the first layer's input is copied, while torch rearranges each layer's input and
output. The group norm after the first layer is folded into its weights, window by window: one channel goes in, so
what the norm measures follows from the mean and covariance of the window's patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 128
"""Frames that come out at a time: a window's first layer is 100 MB, theirs 17 MB."""


def as_products(extractor: nn.Module) -> Callable[[Tensor], Tensor]:
    """A ``HubertFeatureEncoder`` with its weights as they are now, as a function of [b, samples] to [b, C, frames]."""
    layers: Any = extractor.conv_layers
    kernels = [(layer.conv.weight.detach().permute(2, 1, 0).contiguous(), layer.conv.bias) for layer in layers]
    strides = [layer.conv.stride[0] for layer in layers]
    norms = [getattr(layer, "layer_norm", nn.Identity()) for layer in layers]
    folded = norms[0] if isinstance(norms[0], nn.GroupNorm) else None
    if folded is not None:
        norms[0] = nn.Identity()
    hop = math.prod(strides)
    reach = 1  # samples that a frame depends on
    for (weight_KCO, _), stride in zip(reversed(kernels), reversed(strides), strict=True):
        reach = (reach - 1) * stride + len(weight_KCO)

    def frames(window_S: Tensor) -> Tensor:
        own = list(kernels)
        if folded is not None:
            own[0] = fold(window_S, kernels[0][0], strides[0], folded)
        count = (len(window_S) - reach) // hop + 1
        chunks = []
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            rows_LC = window_S[start * hop : (stop - 1) * hop + reach, None]
            for (weight_KCO, bias_O), stride, norm, layer in zip(own, strides, norms, layers, strict=True):
                rows_LC = layer.activation(norm(convolve(rows_LC, weight_KCO, bias_O, stride)))
            chunks.append(rows_LC)
        return torch.cat(chunks)

    return lambda windows_BS: torch.stack([frames(one_S) for one_S in windows_BS.contiguous()]).transpose(1, 2)


def convolve(rows_LC: Tensor, weight_KCO: Tensor, bias_O: Tensor | None, stride: int) -> Tensor:
    """A convolution over rows [L, C] that lie side by side, by [taps, C, O] and without padding: [frames, O]."""
    rows, channels = rows_LC.shape
    taps, _, width = weight_KCO.shape
    frames = (rows - taps) // stride + 1
    together = taps if channels == 1 else stride  # a copy of one channel costs less than a second product
    products = []
    for first in range(0, taps, together):
        weight_XO = weight_KCO[first : first + together].reshape(-1, width)
        at = rows_LC.storage_offset() + first * channels
        products.append((rows_LC.as_strided((frames, len(weight_XO)), (stride * channels, 1), at), weight_XO))
    (piece_FX, weight_XO), *rest = products
    total_FO = piece_FX @ weight_XO if bias_O is None else torch.addmm(bias_O, piece_FX, weight_XO)
    for piece_FX, weight_XO in rest:
        total_FO.addmm_(piece_FX, weight_XO)
    return total_FO


def fold(samples_S: Tensor, weight_K1O: Tensor, stride: int, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """The first convolution of a window and the norm of each of its channels over time, as one convolution.

    A bias before the norm would cancel out. The norm has a group for each channel. Returns weights [taps, 1, O] and
    bias [O].
    """
    taps, _, width = weight_K1O.shape
    if norm.num_groups != width:
        raise ValueError(f"a norm over {width // norm.num_groups} channels cannot be folded into their convolution")
    patches_FK = samples_S.unfold(0, taps, stride).double()
    weight_KO = weight_K1O[:, 0].double()
    mean_K = patches_FK.mean(0)
    centred_FK = patches_FK - mean_K
    covariance_KK = centred_FK.T @ centred_FK / len(patches_FK)
    variance_O = (weight_KO * (covariance_KK @ weight_KO)).sum(0)
    scale_O = norm.weight.double() / torch.sqrt(variance_O + norm.eps)
    shift_O = norm.bias.double() - scale_O * (mean_K @ weight_KO)
    return (weight_KO * scale_O)[:, None].to(weight_K1O.dtype), shift_O.to(weight_K1O.dtype)
