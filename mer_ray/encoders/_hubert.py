"""The forward pass of MERT and its twins: a HuBERT's hidden states, pooled while it runs.

Features are hidden states averaged over time and concatenated (paper §3.2); hooks pool inside the forward pass, so
the 13 full states are never held.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from mer_ray.encoders._convolutions import as_products
from mer_ray.encoders._encoder import Encoder
from mer_ray.encoders._settings import Settings
from mer_ray.errors import InputError
from mer_ray.fingerprints import weights_sha256

SAMPLE_RATE = 24_000
MIN_SAMPLES = 400  # the receptive field of one frame

_TWIN_SEED = 20241015


def twin(name: str, settings: Settings, device: str, **sizes: Any) -> Encoder:
    """A MERT-v1-95M with seeded random weights, or with other ``sizes`` of its configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_TWIN_SEED)
        model = HubertModel(HubertConfig(**sizes))
    return hubert(model, settings, device, name=name, licence="Apache-2.0 (untrained)", stands_for=name)


def hubert(model: HubertModel, settings: Settings, device: str, **said: Any) -> Encoder:
    """A model as an encoder; ``said`` is what else an encoder says of itself.

    Raises:
        InputError: layers that the model lacks.
    """
    layers, depth = settings.layers, model.config.num_hidden_layers
    if not layers or max(layers) > depth:
        raise InputError(f"layers {layers}: encoder {said['name']} has layers 1 to {depth}; choose among them.")
    dtype = settings.on(device).dtype
    return Encoder(
        digest=weights_sha256(model),
        encode=PooledStates(model, layers, settings.pooling == "first", device, dtype),
        dim=len(layers) * model.config.hidden_size,
        sample_rate=SAMPLE_RATE,
        settings={"layers": layers, "pooling": settings.pooling},
        dtype=dtype,
        device=device,
        **said,
    )


class PooledStates:
    """Pooled hidden states of a HuBERT. A window's features do not depend on its neighbours."""

    def __init__(self, model: HubertModel, layers: tuple[int, ...], first: bool, device: str, dtype: str) -> None:
        self.model = model
        self._layers, self._first = layers, first
        self._dtype = getattr(torch, dtype)
        torch.nn.Module.to(model, device=device, dtype=self._dtype)
        model.eval()
        # [b, samples] to [b, C, frames]; on a CPU another way to the same, which takes less time and memory.
        self.convolve: Callable[[Tensor], Tensor] = model.feature_extractor
        if device == "cpu":
            self.convolve = as_products(model.feature_extractor)

    def __call__(self, windows_BS: Tensor) -> Tensor:
        """Windows of any scale [b, samples], at least 400 samples, to [b, D].

        Raises:
            ValueError: windows too short for a single frame.
        """
        if windows_BS.shape[1] < MIN_SAMPLES:
            raise ValueError(f"windows of {windows_BS.shape[1]} samples; {MIN_SAMPLES} make a frame")
        states: dict[int, Tensor] = {}

        def pool(layer: int) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                states[layer] = output[:, 0] if self._first else output.float().mean(dim=1)

            return hook

        # State l is the output of layer l; of a pre-norm model's last layer too, before the closing LayerNorm (which
        # transformers 4 had gone through in the last of its hidden_states).
        modules = self.model.encoder.layers
        handles = [modules[layer - 1].register_forward_hook(pool(layer)) for layer in self._layers]
        try:
            frames_BLC = self.convolve(normalize(windows_BS).to(self._dtype)).transpose(1, 2)
            self.model.encoder(self.model.feature_projection(frames_BLC))
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([states[layer] for layer in self._layers], dim=1)


def normalize(windows_BS: Tensor) -> Tensor:
    """Zero mean and unit variance per window, as the checkpoint's preprocessor does ([b, samples])."""
    variance, mean = torch.var_mean(windows_BS, dim=1, correction=0, keepdim=True)
    return (windows_BS - mean) / torch.sqrt(variance + 1e-7)


def load_directory(folder: Path) -> HubertModel:
    """A model in the layout of the hub. Raises InputError where its files do not make one."""
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise InputError(f"encoder {folder}: no config.json there; point to a directory as published on the hub.")
    try:
        model = HubertModel(_hubert_config(json.loads(config_path.read_text()), folder))
    except (ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise InputError(
            f"encoder {folder}: config.json does not describe a model ({type(error).__name__}); fetch it again."
        ) from error
    weights = {_module_name(name): tensor for name, tensor in _read_weights(folder).items()}
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise InputError(f"encoder {folder}: weights do not fit its config.json ({reason[:200]}).") from error
    return model


def _hubert_config(published: dict[str, Any], folder: Path) -> HubertConfig:
    """Keep what HuBERT knows; refuse the variants of MERT that plain HuBERT cannot express.

    ``attention_relax`` is none of them: it takes each row's maximum from the attention's weights before the softmax,
    which leaves what comes out of it as it was.
    """
    variant = [key for key in ("feature_extractor_cqt", "deepnorm") if published.get(key)]
    if variant:
        raise InputError(f"encoder {folder}: config.json sets {', '.join(variant)}, which plain HuBERT lacks.")
    known = HubertConfig().to_dict()
    skipped = {"architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version"}
    return HubertConfig(**{key: value for key, value in published.items() if key in known and key not in skipped})


def _read_weights(folder: Path) -> dict[str, Tensor]:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    file = safe if safe.is_file() else pickled
    if not file.is_file():
        raise InputError(f"encoder {folder}: neither model.safetensors nor pytorch_model.bin is there.")
    try:
        weights = load_file(safe) if file is safe else torch.load(pickled, map_location="cpu", weights_only=True)
    except (UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"encoder {file}: holds no plain weights ({type(error).__name__}); fetch the file again."
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise InputError(f"encoder {file}: holds no plain weights; fetch the file again.")
    return weights


def _module_name(published: str) -> str:
    """Published names to today's: no model prefix, and weight norm as a parametrization."""
    name = published.removeprefix("hubert.")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f"pos_conv_embed.conv.{old}", f"pos_conv_embed.conv.parametrizations.weight.{new}")
    return name
