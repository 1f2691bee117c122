"""Settings of reproduce and import_features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from mer_ray.learning.settings import RecipeSettings
from mer_ray.settings import JobSettings, Uri

Wanted = Literal["table2", "table3", "table4", "table5", "table6", "sweep", "figure2"]


class ReproduceSettings(RecipeSettings):
    """Train and test what the paper's tables need, and lay ours beside the paper's."""

    opening = "reproduce: the paper's tables into {output}"

    features: Annotated[list[Uri], Field(min_length=1)]
    """Feature store with the songs' features; repeat the flag for several."""
    output: Uri
    """Directory for models, results, figures and the page; continued if it is there."""
    jamendo: Uri | None = None
    """Manifest of MTG-Jamendo; without it, its cells are marked not run."""
    cal500: Uri | None = None
    """Manifest of CAL500."""
    emotify: Uri | None = None
    """Manifest of Emotify."""
    seeds: PositiveInt = 1
    """Train each model so many times, with the seeds from --seed on; more can be asked for later."""
    only: list[Wanted] = Field(default_factory=list)
    """Only this table or figure; repeat the flag for several."""
    at_once: PositiveInt | None = None
    """Models trained side by side; one a CPU if not given."""


class ImportSettings(JobSettings):
    """Make a feature store and a manifest of preprocessed arrays that the reference published."""

    source: Annotated[list[Uri], Field(min_length=1)]
    """Array of hidden states, [n, 1, 13, 768] or [n, 13, 768] (.npy); repeat the flag for several."""
    index: Annotated[list[Uri], Field(min_length=1)]
    """Array of track ids and times, a row a window (.npy); one for each source."""
    labels: tuple[Uri, ...] = ()
    """The songs' labels, {key: {"path", "mood/theme"}} (JSON); one for each source, or none."""
    features: Uri
    """The feature store: a folder or s3:// prefix; continued if it is there."""
    manifest: Uri
    """The manifest to write (Parquet)."""
    dataset: Literal["jamendo", "cal500", "emotify", "none"] = "none"
    """The dataset of the arrays; its songs get the ids they have everywhere."""
    layers: tuple[PositiveInt, ...] = (3, 6, 9, 12)
    """Hidden states to keep, separated by commas, 1 = output of the first layer."""
    split: Literal["seeded", "ordered"] = "seeded"
    """Split songs at random by seed, or in storage order; files named train, val and test (MTG-Jamendo) keep theirs."""
    seed: int = 0
    """Seed of the split."""
