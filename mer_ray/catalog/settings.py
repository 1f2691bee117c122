"""Settings of the catalog job."""

from __future__ import annotations

from typing import ClassVar, Literal

from mer_ray.settings import Presets, PresetSettings, Uri


class CatalogSettings(PresetSettings):
    """List the songs of a folder, an s3:// prefix, a table or a dataset in a manifest."""

    presets: ClassVar[Presets] = {"reference": {"split": "ordered", "cal500_truth": "reference"}}

    source: Uri
    """Folder, s3:// prefix or CSV/TSV/Parquet table of songs; for a dataset, its label files."""
    output: Uri
    """The manifest to write (Parquet)."""
    dataset: Literal["jamendo", "cal500", "emotify", "none"] = "none"
    """Read the source as this dataset's published label files."""
    audio: Uri | None = None
    """Where the dataset's audio lies, if not with its labels."""
    split: Literal["seeded", "ordered"] = "seeded"
    """CAL500 and Emotify: split songs at random by seed, or in storage order (the published code)."""
    seed: int = 0
    """Seed of the split."""
    cal500_truth: Literal["paper", "reference", "published"] = "paper"
    """CAL500's labels from raw annotations: mean rating above 3, else the best (paper); above 4, then the
    top 5 (reference). Its published list of labels is taken as it is."""
