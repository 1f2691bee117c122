"""MERT-v1-330M by its published configuration: features equal a straight forward pass written from its description.

Pre-norm layers, and an ``attention_relax`` that divides the attention's scores by 32, takes each row's maximum away
and multiplies by 32 again before the softmax, so that float16 does not overflow. The published model is post-norm only
where ``deepnorm`` is set, and relaxes only there; here it is relaxed all the same, since that must make no difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

from mer_ray.encoders import load_encoder
from mer_ray.errors import InputError
from tests.encoders.test_mert import publish, published_names

PUBLISHED: dict[str, Any] = {
    "do_stable_layer_norm": True,
    "attention_relax": 32.0,
    "deepnorm": False,
    "feature_extractor_cqt": False,
    "feat_proj_layer_norm": True,
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "mask_time_prob": 0.075,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "sample_rate": 24_000,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "conv_dim": [24] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
CONVOLUTIONS = [
    pytest.param({"feat_extract_norm": "group", "conv_bias": False}, id="group"),
    pytest.param({"feat_extract_norm": "layer", "conv_bias": True}, id="layer"),
]


def random_weights(config: dict[str, Any]) -> HubertModel:
    """A model whose norms and biases are random too, so that a norm in the wrong place shows."""
    torch.manual_seed(3)
    known = HubertConfig().to_dict().keys()
    model = HubertModel(HubertConfig(**{key: value for key, value in config.items() if key in known}))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, float("norm.weight" in name), 0.3)
    return model


def straight(weights: dict[str, Tensor], config: dict[str, Any], wave_BS: Tensor, relax: float) -> list[Tensor]:
    """The output of every layer [b, t, c], from weights by their published names."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    mean, var = wave_BS.mean(1, keepdim=True), wave_BS.var(1, correction=0, keepdim=True)
    x = ((wave_BS - mean) / (var + 1e-7).sqrt())[:, None]
    for number, stride in enumerate((5, 2, 2, 2, 2, 2, 2)):
        name = f"feature_extractor.conv_layers.{number}"
        x = F.conv1d(x, weights[f"{name}.conv.weight"], weights.get(f"{name}.conv.bias"), stride)
        if config["feat_extract_norm"] == "layer":
            x = norm(x.mT, f"{name}.layer_norm").mT
        elif number == 0:
            mean, var = x.mean(2, keepdim=True), x.var(2, correction=0, keepdim=True)
            gain, shift = (weights[f"{name}.layer_norm.{part}"][:, None] for part in ("weight", "bias"))
            x = (x - mean) / (var + 1e-5).sqrt() * gain + shift
        x = F.gelu(x)
    x = linear(norm(x.mT, "feature_projection.layer_norm"), "feature_projection.projection")
    taps, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    name = "encoder.pos_conv_embed.conv"
    direction, length = weights[f"{name}.weight_v"], weights[f"{name}.weight_g"]
    kernel = direction * length / direction.pow(2).sum((0, 1), keepdim=True).sqrt()
    positions = F.conv1d(x.mT, kernel, weights[f"{name}.bias"], padding=taps // 2, groups=groups)[..., : x.shape[1]]
    x = x + F.gelu(positions).mT
    heads, states = config["num_attention_heads"], []
    for number in range(config["num_hidden_layers"]):
        name = f"encoder.layers.{number}"
        y = norm(x, f"{name}.layer_norm")
        q, k, v = (
            linear(y, f"{name}.attention.{part}_proj").unflatten(2, (heads, -1)).transpose(1, 2) for part in "qkv"
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if relax > 0:
            scores = scores / relax
            scores = (scores - scores.max(-1, keepdim=True).values) * relax
        y = (scores.exp() / scores.exp().sum(-1, keepdim=True)) @ v
        x = x + linear(y.transpose(1, 2).flatten(2), f"{name}.attention.out_proj")
        y = F.gelu(linear(norm(x, f"{name}.final_layer_norm"), f"{name}.feed_forward.intermediate_dense"))
        x = x + linear(y, f"{name}.feed_forward.output_dense")
        states.append(x)
    return states


@pytest.mark.parametrize("convolutions", CONVOLUTIONS)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_features_equal_a_straight_forward_pass(tmp_path: Path, convolutions: dict[str, Any], pooling: str) -> None:
    config = {**PUBLISHED, **SMALL, **convolutions}
    folder = publish(tmp_path / "MERT-330M", random_weights(config), **config)
    encoder = load_encoder(str(folder), pooling=pooling, layers=(3, 6, 9, 12, 24))
    assert (encoder.dim, encoder.sample_rate, encoder.licence) == (5 * 64, 24_000, "CC-BY-NC-4.0")
    windows = np.random.default_rng(1).normal(0.1, 0.5, (2, 24_000)).astype(np.float32)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    states = straight(weights, config, torch.from_numpy(windows), PUBLISHED["attention_relax"])
    kept = [states[layer - 1] for layer in (3, 6, 9, 12, 24)]
    expected = torch.cat([state.mean(1) if pooling == "mean" else state[:, 0] for state in kept], dim=1)
    torch.testing.assert_close(encoder(windows), expected, atol=1e-5, rtol=1e-5)


def test_relaxing_attention_changes_nothing() -> None:
    config = {**PUBLISHED, **SMALL, "feat_extract_norm": "layer", "conv_bias": True}
    weights = {name: tensor.double() for name, tensor in published_names(random_weights(config)).items()}
    wave = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (1, 12_000)))
    plain, relaxed = (straight(weights, config, wave, relax)[-1] for relax in (-1.0, 32.0))
    assert (plain - relaxed).abs().max() < 1e-12 * plain.abs().max()


def test_its_default_layers_are_those_of_the_smaller_one(tmp_path: Path) -> None:
    config = {**PUBLISHED, **SMALL, "feat_extract_norm": "group", "conv_bias": False}
    folder = publish(tmp_path / "MERT-330M", random_weights(config), **config)
    assert load_encoder(folder).settings == {"layers": (3, 6, 9, 12), "pooling": "mean"}
    with pytest.raises(InputError, match="has layers 1 to 24"):
        load_encoder(folder, layers=(25,))
