"""Windows of audio to MERT layer features, with plain ``transformers.HubertModel``.

MERT-v1 is a HuBERT by architecture, so its weights load into the library's own class and
no code from the hub is run. Features are hidden states averaged over time and concatenated
(paper §3.2); hooks pool inside the forward pass, so the 13 full states are never held.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from mer_ray.audio.decoding import SAMPLE_RATE, WINDOW_SECONDS
from mer_ray.encoders._convolutions import as_products
from mer_ray.errors import InputError
from mer_ray.fingerprints import weights_sha256

HUB_ENCODER = "m-a-p/MERT-v1-95M"
HUB_REVISION = "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"
HUB_LICENCE = "CC-BY-NC-4.0"
LAYERS = (3, 6, 9, 12)
MIN_SAMPLES = 400  # the receptive field of one frame

Pooling = Literal["mean", "first"]
Item = TypeVar("Item")
Result = TypeVar("Result")

_TWINS: dict[str, dict[str, Any]] = {
    "random": {},
    "tiny": {
        "hidden_size": 48,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
}
_TWIN_SEED = 20241015


@dataclass(frozen=True)
class EncoderIdentity:
    """What made a feature store; it travels in the store's schema metadata."""

    name: str
    revision: str | None
    weights_sha256: str
    licence: str
    layers: tuple[int, ...]
    pooling: str
    window_seconds: float
    keep_tail: bool
    sample_rate: int
    dtype: str
    dim: int


class MertEncoder:
    """Pooled hidden states of a MERT (or HuBERT) model. Made by :func:`load_encoder`."""

    def __init__(self, model: HubertModel, identity: EncoderIdentity, device: torch.device) -> None:
        self.model = model
        self.identity = identity
        self.device = device
        self._dtype = getattr(torch, identity.dtype)
        torch.nn.Module.to(model, device=device, dtype=self._dtype)
        model.eval()
        # [b, samples] to [b, C, frames]; on a CPU another way to the same, which takes less time and memory.
        self.convolve: Callable[[Tensor], Tensor] = model.feature_extractor
        if device.type == "cpu":
            self.convolve = as_products(model.feature_extractor)

    @property
    def dim(self) -> int:
        """D, the length of one window's feature vector: layers x hidden size."""
        return self.identity.dim

    def __call__(self, windows: NDArray[np.floating[Any]] | Tensor) -> Tensor:
        """Encode windows of equal length.

        Args:
            windows: [b, samples] mono at 24 kHz, at least 400 samples, any scale.

        Returns:
            [b, D] float32 on the CPU. A window's features do not depend on its neighbours.
        """
        return self.launch(torch.as_tensor(windows)).cpu()

    def launch(self, samples_BS: Tensor, scales_B: Tensor | None = None) -> Tensor:
        """Begin to encode a batch.

        Args:
            samples_BS: [b, samples] of any type; int16 is half the way to a GPU.
            scales_B: [b] what the samples are to be multiplied with, if anything.

        Returns:
            [b, D] float32 where the encoder is. A GPU may still be at work on it; ``.cpu()`` waits.

        Raises:
            ValueError: windows too short for a single frame.
        """
        if samples_BS.shape[1] < MIN_SAMPLES:
            raise ValueError(f"windows of {samples_BS.shape[1]} samples; {MIN_SAMPLES} make a frame")
        windows_BS = samples_BS.to(self.device, non_blocking=True).to(torch.float32)
        if scales_B is not None:
            windows_BS = windows_BS * scales_B.to(self.device, non_blocking=True)[:, None]
        with torch.inference_mode(), self._pooled_states() as states:
            frames_BLC = self.convolve(normalize(windows_BS).to(self._dtype)).transpose(1, 2)
            self.model.encoder(self.model.feature_projection(frames_BLC))
            return torch.cat([states[layer] for layer in self.identity.layers], dim=1).float()

    @contextmanager
    def _pooled_states(self) -> Iterator[dict[int, Tensor]]:
        states: dict[int, Tensor] = {}

        def pool(layer: int) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                first = self.identity.pooling == "first"
                states[layer] = output[:, 0] if first else output.float().mean(dim=1)

            return hook

        # State l is the output of layer l; of a pre-norm model's last layer too, before the closing LayerNorm.
        modules = self.model.encoder.layers
        handles = [modules[layer - 1].register_forward_hook(pool(layer)) for layer in self.identity.layers]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()


def normalize(windows_BS: Tensor) -> Tensor:
    """Zero mean and unit variance per window, as the checkpoint's preprocessor does ([b, samples])."""
    variance, mean = torch.var_mean(windows_BS, dim=1, correction=0, keepdim=True)
    return (windows_BS - mean) / torch.sqrt(variance + 1e-7)


class Window(NamedTuple):
    """One window of a song: ``samples`` [n] times ``scale``, int16 as a decoder packs them or floats."""

    samples: NDArray[Any]
    scale: float = 1.0


def encode_tracks(
    encoder: MertEncoder, tracks: Sequence[Sequence[Window]], batch_windows: int
) -> list[NDArray[np.float32]]:
    """Encode the windows of several tracks in shared batches and hand them back by track.

    While one batch is encoded, the next is put together; a GPU gets it before the last one's features are fetched.

    Args:
        encoder: encodes.
        tracks: per track its windows; lengths may differ (short songs, tails).
        batch_windows: windows a forward pass; only windows of equal length share one.

    Returns:
        Per track [w, D] float32, in the order of its windows.
    """
    features = [np.empty((len(windows), encoder.dim), np.float32) for windows in tracks]
    by_length: dict[int, list[tuple[int, int]]] = {}
    for track, windows in enumerate(tracks):
        for position, window in enumerate(windows):
            by_length.setdefault(len(window.samples), []).append((track, position))
    batches = [
        places[start : start + batch_windows]
        for places in by_length.values()
        for start in range(0, len(places), batch_windows)
    ]

    def packed(batch: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        windows = [tracks[track][position] for track, position in batch]
        tensors = np.stack([one.samples for one in windows]), np.array([one.scale for one in windows], np.float32)
        samples, scales = map(torch.from_numpy, tensors)
        return (samples.pin_memory(), scales.pin_memory()) if encoder.device.type == "cuda" else (samples, scales)

    def hand_back(batch: list[tuple[int, int]], encoded: Tensor) -> None:
        for (track, position), vector in zip(batch, encoded.cpu().numpy(), strict=True):
            features[track][position] = vector

    launched: list[tuple[list[tuple[int, int]], Tensor]] = []
    for batch, (samples, scales) in zip(batches, one_ahead(packed, batches), strict=True):
        launched.append((batch, encoder.launch(samples, scales)))
        if len(launched) > 1:
            hand_back(*launched.pop(0))
    for batch, encoded in launched:
        hand_back(batch, encoded)
    return features


def one_ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Like map, with the next result made in another thread while the last one is used, and no more than that."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(function, item) for item in items[:1]]
        for item in items[1:]:
            result = coming.pop().result()
            coming.append(pool.submit(function, item))
            yield result
        for last in coming:
            yield last.result()


def load_encoder(
    name: str | PathLike[str] = HUB_ENCODER,
    *,
    revision: str | None = None,
    layers: Sequence[int] = LAYERS,
    pooling: Pooling = "mean",
    window_seconds: float = WINDOW_SECONDS,
    keep_tail: bool = False,
    device: str = "auto",
    dtype: str = "auto",
) -> MertEncoder:
    """Load an encoder.

    Args:
        name: a hub id such as ``m-a-p/MERT-v1-95M``, a directory with ``config.json`` and
            ``model.safetensors`` or ``pytorch_model.bin``, or one of the seeded twins without
            trained weights: ``random`` (the full size) and ``tiny``.
        revision: hub commit; the pinned one for the default encoder.
        layers: hidden states to keep, counted from 1 = output of the first layer (paper §3.2).
        pooling: ``mean`` over time, or ``first`` frame only (the published code's reading).
        window_seconds: recorded in the identity, as is ``keep_tail``; the caller cuts the windows.
        keep_tail: whether the piece after a song's last full window is a window of its own.
        device: ``auto`` takes the GPU if there is one.
        dtype: ``auto`` is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        InputError: no such directory or hub id, weights that are not a MERT's, layers it lacks, or a GPU that
            torch cannot see.
    """
    name = str(name)
    if name in _TWINS:
        model, revision, licence = _twin(name), None, "Apache-2.0 (untrained)"
    else:
        folder, revision, licence = _resolve(name, revision)
        model = _load_directory(folder)
    depth = model.config.num_hidden_layers
    if not layers or min(layers) < 1 or max(layers) > depth:
        raise InputError(f"layers {tuple(layers)}: encoder {name} has layers 1 to {depth}; choose among them.")
    place = _place(name, device)
    if dtype == "auto":
        dtype = "bfloat16" if place.type == "cuda" else "float32"
    identity = EncoderIdentity(
        name=name,
        revision=revision,
        weights_sha256=weights_sha256(model),
        licence=licence,
        layers=tuple(layers),
        pooling=pooling,
        window_seconds=window_seconds,
        keep_tail=keep_tail,
        sample_rate=SAMPLE_RATE,
        dtype=dtype,
        dim=len(layers) * model.config.hidden_size,
    )
    return MertEncoder(model, identity, place)


def _place(name: str, device: str) -> torch.device:
    seen = torch.cuda.is_available()
    place = torch.device("cuda" if seen else "cpu") if device == "auto" else torch.device(device)
    if place.type == "cuda" and not seen:
        raise InputError(
            f"encoder {name}: torch sees no GPU on {os.uname().nodename}; "
            "mend its driver (nvidia-smi says what it sees), or encode on CPUs with --gpus 0."
        )
    return place


def _twin(name: str) -> HubertModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_TWIN_SEED)
        return HubertModel(HubertConfig(**_TWINS[name]))


def _resolve(name: str, revision: str | None) -> tuple[Path, str | None, str]:
    """The folder of an encoder's files, its revision and licence; fetched from the hub if need be."""
    if Path(name).expanduser().is_dir():
        licence = HUB_LICENCE if "mert" in name.lower() else "unknown (local directory)"
        return Path(name).expanduser(), revision, licence
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(f"encoder {name}: no such directory; give a directory, a hub id, 'random' or 'tiny'.")
    revision = revision or (HUB_REVISION if name == HUB_ENCODER else None)
    if revision is None:
        raise InputError(f"encoder {name}: no pinned revision; add --encoder-revision with the hub's commit.")
    return _download(name, revision), revision, HUB_LICENCE if "MERT" in name else "see the hub page"


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=["config.json", "*.safetensors", "pytorch_model.bin"]
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"encoder {name}@{revision[:8]}: not in the local cache and the hub did not answer "
            f"({type(error).__name__}); give a local directory, or --encoder tiny to try the pipeline."
        ) from error


def _load_directory(folder: Path) -> HubertModel:
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
    """Keep what HuBERT knows; refuse the variants of MERT that plain HuBERT cannot express."""
    variant = [key for key in ("feature_extractor_cqt", "deepnorm") if published.get(key)]
    if (published.get("attention_relax") or 0) > 0:
        variant.append("attention_relax")
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
