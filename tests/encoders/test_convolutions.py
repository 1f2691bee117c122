"""The convolutions as matrix products are HuBERT's own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from mer_ray.encoders._convolutions import CHUNK, as_products, convolve, fold

GROUP: dict[str, Any] = {"feat_extract_norm": "group", "conv_bias": False}  # MERT-v1-95M
LAYER: dict[str, Any] = {"feat_extract_norm": "layer", "conv_bias": True}  # MERT-v1-330M


def extractor(**config: Any) -> nn.Module:
    """HuBERT's, with weights and norms that are not the ones of its start."""
    torch.manual_seed(1)
    small = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1, "conv_dim": (16,) * 7}
    made: nn.Module = HubertModel(HubertConfig(**{**small, **config})).feature_extractor.eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def windows(count: int, samples: int) -> Tensor:
    return torch.randn(count, samples, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("norm", [GROUP, LAYER, {"feat_extract_norm": "group", "conv_bias": True}])
@pytest.mark.parametrize("samples", [400, 401, 719, 720, 24_000, 320 * CHUNK + 80, 320 * (CHUNK + 1) + 80, 99_991])
def test_they_are_the_librarys(norm: dict[str, Any], samples: int) -> None:
    """Windows of any length, at the ends of chunks too; one is louder and off centre."""
    own = extractor(**norm)
    inputs = windows(3, samples) * torch.tensor([[1.0], [5.0], [0.1]]) + torch.tensor([[0.0], [2.0], [0.0]])
    expected = own(inputs)
    found = as_products(own)(inputs)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    turned = inputs.T.contiguous().T  # the same windows, their samples not side by side in memory
    torch.testing.assert_close(as_products(own)(turned), found)


@torch.no_grad()
def test_other_kernels_and_strides() -> None:
    own = extractor(**LAYER, conv_dim=(8, 16, 4), conv_kernel=(7, 3, 2), conv_stride=(3, 1, 4))
    inputs = windows(2, 5000)
    torch.testing.assert_close(as_products(own)(inputs), own(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (3, 2), (2, 2), (10, 5), (7, 3), (2, 5)])
@pytest.mark.parametrize("channels", [1, 6])
def test_a_convolution(taps: int, stride: int, channels: int) -> None:
    rows = torch.randn(300, channels)[17:217]  # a view, which does not begin where its memory does
    weight, bias = torch.randn(taps, channels, 5), torch.randn(5)
    expected = nn.functional.conv1d(rows.T[None], weight.permute(2, 1, 0), bias, stride)[0].T
    torch.testing.assert_close(convolve(rows, weight, bias, stride), expected)
    torch.testing.assert_close(convolve(rows, weight, None, stride), expected - bias, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_folded_norm_is_the_norm() -> None:
    norm = nn.GroupNorm(16, 16)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    samples, weight = windows(1, 5000)[0] * 3 + 1, torch.randn(10, 1, 16)
    plain = convolve(samples[:, None], weight, None, 5)
    torch.testing.assert_close(
        convolve(samples[:, None], *fold(samples, weight, 5, norm), 5), norm(plain.T[None])[0].T, rtol=1e-4, atol=1e-4
    )


def test_a_norm_over_several_channels_is_not_folded() -> None:
    with pytest.raises(ValueError, match="norm over 4 channels"):
        fold(torch.randn(100), torch.randn(10, 1, 16), 5, nn.GroupNorm(4, 16))
