"""Settings of labels and search."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from mer_ray.settings import JobSettings, ModelUri, Uri


class LabelsSettings(JobSettings):
    """Say how a model reads each word of a list, before a night is spent on it."""

    opening = "labels: {labels} as {model} reads it"

    labels: str
    """Words: a text file (one a line), a YAML file (label: phrase, phrase), or jamendo, cal500, gems."""
    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""


class SearchSettings(JobSettings):
    """Find the songs of a feature store that are nearest to a phrase."""

    opening = "search: {features} by {model}"

    query: Annotated[str, Field(min_length=1)]
    """A word or any phrase, such as 'tender but tense'."""
    features: Uri
    """Feature store to search."""
    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""
    k: PositiveInt = 20
    """How many songs."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What scores are measured against: the store, or the model's training songs; auto is the store if it has 100."""
    keep_projections: bool = True
    """Keep projected windows beside the store (_projected/), so that the next query needs no projector; a store that
    cannot be written to needs --no-keep-projections."""
    output: Uri | None = None
    """Also write the table there: Parquet, or CSV if it ends so."""
