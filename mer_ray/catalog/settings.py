"""Settings of the catalog job."""

from typing import ClassVar

from mer_ray.catalog.datasets import DOOR, SplitRule
from mer_ray.settings import Presets, PresetSettings, Uri


class CatalogSettings(PresetSettings):
    """List the songs of a folder, an s3:// prefix, a table, an inventory or a dataset in a manifest."""

    opening = "catalog: songs of {source}"

    presets: ClassVar[Presets] = {"reference": {"split": "ordered"}}
    doors: ClassVar = {"dataset": DOOR}

    source: Uri
    """Folder, s3:// prefix, CSV/TSV/Parquet table or S3 Inventory (manifest.json); for a dataset, its label files."""
    output: Uri
    """The manifest to write: a file that ends in .parquet, or a folder of them for any number of songs."""
    dataset: str = "none"
    """The dataset whose label files the source is, such as emotify, or a module of your own (my_pkg.deam)."""
    audio: Uri | None = None
    """Where the dataset's audio lies, if not with its labels."""
    split: SplitRule = "seeded"
    """Songs whose dataset states no split: at random by seed, or in storage order (the published code)."""
    seed: int = 0
    """Seed of the split."""
    names: bool = True
    """Read title, artist, album and ISRC of local songs from their own tags where the source says nothing."""
