"""What an encoder is to everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mer_ray.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False)
class Encoder:
    """Any function of windows, with what a feature store must know of it.

    Attributes:
        encode: mono windows [b, samples] float32 at ``sample_rate`` to features [b, ``dim``].
        name: how a store calls it.
        dim: D, the length of one window's feature vector.
        sample_rate: Hz of the audio it takes.
        licence: of its weights.
        digest: anything that tells its weights from others; of MERT the SHA-256 of all of them.
        min_seconds: a song shorter than this is ``too_short``.
        revision: of its weights, where they have one.
        settings: what else decides its output; its own settings, but for operational ones, if none are given.
        dtype: its arithmetic; it counts as a reason to begin a new store, not as another encoder.
        device: where ``encode`` wants its windows as a tensor; without one it takes and returns arrays of numpy.
        columns: what its features are, in their order: names of groups and how many features each has.
        stands_for: what a run's fingerprint says of it; its digest, wherever it was loaded from, if nothing is given.
    """

    encode: Callable[[Any], Any]
    name: str
    dim: int
    sample_rate: int
    licence: str
    digest: str
    min_seconds: float = 0.1
    revision: str | None = None
    settings: dict[str, Any] | None = None
    dtype: str = "float32"
    device: str | None = None
    columns: tuple[tuple[str, int], ...] = ()
    stands_for: str = ""

    @property
    def names(self) -> list[str]:
        """A name for each feature, such as ``mel_mean_12``; none where its columns are not known."""
        return [f"{group}_{at}" if width > 1 else group for group, width in self.columns for at in range(width)]

    def __call__(self, windows: Any) -> Tensor:
        """Windows of equal length, array or tensor [b, samples], to [b, D] float32 on the CPU."""
        import torch

        if self.device is None:
            return torch.from_numpy(self.launch(np.asarray(windows)))
        encoded: Tensor = self.launch(torch.as_tensor(windows))
        return encoded.cpu()

    def launch(self, samples_BS: Any, scales_B: Any = None) -> Any:
        """Begin to encode samples [b, samples] of any type times scales [b]; int16 is half the way to a GPU.

        Both are tensors, or arrays of numpy where the encoder names no ``device``.

        Returns:
            [b, D] float32: a tensor where the encoder is, at which a GPU may still be at work (``.cpu()`` waits), or
            an array.

        Raises:
            InputError: the encoder returned something of another shape.
        """
        features_BD = (
            self._of_arrays(samples_BS, scales_B) if self.device is None else self._of_tensors(samples_BS, scales_B)
        )
        if features_BD.shape != (len(samples_BS), self.dim):
            found, asked = list(features_BD.shape), [len(samples_BS), self.dim]
            raise InputError(f"encoder {self.name}: returns features {found} where {asked} were promised.")
        return features_BD

    def _of_arrays(self, samples_BS: Any, scales_B: Any) -> NDArray[np.float32]:
        windows_BS = np.asarray(samples_BS, np.float32)
        if scales_B is not None:
            windows_BS = windows_BS * np.asarray(scales_B, np.float32)[:, None]
        return np.asarray(self.encode(windows_BS), np.float32)

    def _of_tensors(self, samples_BS: Tensor, scales_B: Tensor | None) -> Tensor:
        import torch

        windows_BS = samples_BS.to(self.device, non_blocking=True).to(torch.float32)
        if scales_B is not None:
            windows_BS = windows_BS * scales_B.to(self.device, non_blocking=True)[:, None]
        with torch.inference_mode():
            return torch.as_tensor(self.encode(windows_BS)).float()

    def identity(self, window_seconds: float = 10.0, keep_tail: bool = False) -> dict[str, Any]:
        """What a feature store of such windows says of its encoder."""
        said = {key: getattr(self, key) for key in ("name", "revision", "licence", "sample_rate", "dtype", "dim")}
        windows = {"window_seconds": window_seconds, "keep_tail": keep_tail}
        columns = {"columns": [list(group) for group in self.columns]} if self.columns else {}
        return {**(self.settings or {}), **said, **columns, "weights_sha256": self.digest, **windows}

    def fingerprint(self) -> dict[str, Any]:
        """What of the encoder decides a feature."""
        weights = self.digest[:16] if len(self.digest) == 64 else f"{self.digest} of {self.name}"
        facts = {"sample_rate": self.sample_rate, "dtype": self.dtype, "dim": self.dim}
        return {**(self.settings or {}), "encoder": self.stands_for or f"weights {weights}", **facts}

    def check(self) -> None:
        """Encode a moment of noise; InputError if that gives another shape than promised or no finite numbers."""
        noise = np.random.default_rng(0).normal(0, 0.1, (2, round(self.min_seconds * self.sample_rate)))
        encode = self.launch if self.device is None else self
        if not np.isfinite(np.asarray(encode(noise.astype(np.float32)))).all():
            raise InputError(f"encoder {self.name}: returns no finite numbers for {self.min_seconds:g} s of noise.")
