"""Settings of reproduce and import_features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from mer_ray.learning.settings import RecipeSettings
from mer_ray.settings import READING, JobSettings, Uri

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
    clusters: Annotated[Uri | None, READING] = None
    """The published code's folder 'clusters': each pair's label_map.json as it is, instead of Mean Shift."""
    only: list[Wanted] = Field(default_factory=list)
    """Only this table or figure; repeat the flag for several."""
    at_once: PositiveInt | None = None
    """Models trained side by side; one a CPU if not given."""


class ImportSettings(JobSettings):
    """Make a feature store and a manifest of arrays: those that the reference published, or any encoder's."""

    opening = "import: arrays into {features}"

    source: Annotated[list[Uri], Field(min_length=1)]
    """Array of windows (.npy); with --encoder also an .npz or a folder with an array a song; repeat for several."""
    index: tuple[Uri, ...] = ()
    """Track ids and times, a row a window (.npy, .csv, .parquet); one for each source, none where songs have their own
    arrays."""
    labels: tuple[Uri, ...] = ()
    """The songs' labels, {key: {"path", "mood/theme"}} (JSON); one for each source, or none."""
    features: Uri
    """The feature store: a folder or s3:// prefix; continued if it is there."""
    manifest: Uri
    """The manifest to write (Parquet)."""
    dataset: Literal["jamendo", "cal500", "emotify", "none"] = "none"
    """The dataset of the arrays; its songs get the ids they have everywhere."""
    encoder: Annotated[str, Field(min_length=1)] | None = None
    """What made the arrays, such as laion/clap; if not given they are the reference's, [n, 1, 13, 768] or
    [n, 13, 768]."""
    layers: tuple[NonNegativeInt, ...] = ()
    """Layers to keep, by their place from 0, all if not given (3,6,9,12 of the reference's); as many as the array has
    name them as they stand."""
    pooling: Annotated[str, Field(min_length=1)] | None = None
    """With --encoder: how a window's frames became one vector, such as mean; kept with the store."""
    licence: Annotated[str, Field(min_length=1)] | None = None
    """With --encoder: the licence of its weights; kept with the store and every model made of it."""
    window_seconds: PositiveFloat | None = None
    """With --encoder: seconds of a window, 10 if not given."""
    split: Literal["seeded", "ordered"] = "seeded"
    """Split songs at random by seed, or in storage order; files named train, val and test (MTG-Jamendo) keep theirs."""
    seed: int = 0
    """Seed of the split."""
