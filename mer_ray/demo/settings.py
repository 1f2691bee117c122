"""Settings of the demo."""

from typing import Annotated

from pydantic import Field, PositiveInt

from mer_ray.settings import JobSettings, Uri


class DemoSettings(JobSettings):
    """The whole way on a small composed catalogue, or on a folder of your own music."""

    opening = "demo: everything goes into {output}"

    output: Uri = "demo"
    """Folder for everything the demo makes."""
    music: Uri | None = None
    """Tag this folder of music, of any size, instead of the composed one."""
    songs: Annotated[int, Field(ge=30)] = 80
    """Pieces composed for each of the two datasets."""
    epochs: PositiveInt = 30
    """Training epochs."""
    encoder: str = "descriptors"
    """As in extract; m-a-p/MERT-v1-95M takes the trained encoder."""
    seed: int = 0
    """Seed of the composed pieces and of training."""
