"""Settings of MERT and its twins."""

from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt

from mer_ray.settings import Part, Presets


class Settings(Part):
    """Which of MERT's hidden states are kept, and how."""

    presets: ClassVar[Presets] = {"reference": {"pooling": "first"}}

    encoder_revision: str | None = None
    """Hub commit of the encoder; the default encoder's is pinned."""
    layers: tuple[PositiveInt, ...] = (3, 6, 9, 12)
    """Hidden states to keep, separated by commas, 1 = output of the first layer."""
    pooling: Literal["mean", "first"] = "mean"
    """Mean over a window's frames (the paper), or its first frame only (the published code)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the encoder. auto is what the store was begun with; for a new one bfloat16 on a GPU, and on a CPU
    that has instructions for it, else float32."""

    def on(self, device: str) -> Self:
        """The same with the arithmetic that this device stands for."""
        auto = "float32" if device == "cpu" and not multiplies_bfloat16() else "bfloat16"
        return self.model_copy(update={"dtype": auto}) if self.dtype == "auto" else self


@cache
def multiplies_bfloat16() -> bool:
    """Whether this machine's CPU has instructions for products of bfloat16: AMX, or those of AVX-512.

    Read from what the kernel says: the driver of an extract asks too, and it imports no torch.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        return False
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)
