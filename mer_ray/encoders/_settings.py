"""Settings of MERT and its twins."""

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
    """Arithmetic of the encoder; auto is bfloat16 on a GPU and float32 on a CPU."""

    def on(self, device: str) -> Self:
        """The same with the arithmetic that this device stands for."""
        auto = "float32" if device == "cpu" else "bfloat16"
        return self.model_copy(update={"dtype": auto}) if self.dtype == "auto" else self
