"""Settings of page."""

from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic_settings import CliPositionalArg

from mer_ray.settings import JobSettings, ModelUri, Uri

SONGS = 20_000
"""On a page at most, where nothing else is asked: more is slow to open."""


class PageSettings(JobSettings):
    """Make one HTML page of a tagged catalogue, to look at and to listen to."""

    opening = "page: {tags} into {output}"

    tags: CliPositionalArg[Uri]
    """What tag wrote."""
    output: Uri
    """The page to write (.html); it needs no other file and no network."""
    title: str | None = None
    """Its heading; the name of the tags' folder if not given."""
    songs: PositiveInt = SONGS
    """Songs on the page at most; of more, a sample by a hash of their ids."""
    features: Uri | None = None
    """The feature store that the tags were made from, if it no longer stands where it did."""
    model: ModelUri | None = None
    """The model that the tags were made with, if it no longer stands where it did."""
    catalog: Uri | None = None
    """A manifest or table with titles and artists; the one that was tagged, if not given."""
    link_hours: Annotated[float, Field(ge=0, le=168)] = 24.0
    """How long songs on s3:// can be heard from the page by whoever has it (no longer than the credentials hold that
    sign its links); 0 links none."""
