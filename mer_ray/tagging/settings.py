"""Settings of labels and search."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, PositiveInt, model_validator
from pydantic_settings import CliPositionalArg

from mer_ray.settings import JobSettings, ModelUri, Texts, Uri


class LabelsSettings(JobSettings):
    """Say how a model reads each word of a list, before a night is spent on it."""

    opening = "labels: {labels} as {model} reads it"

    labels: str
    """Words: happy,sad; a text file (one a line); a YAML file (label: phrase, phrase); or moods, jamendo, cal500,
    gems."""
    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""


class SearchSettings(JobSettings):
    """Find the songs of a feature store that are nearest to phrases, or to songs."""

    opening = "search: {features} by {model}"

    query: Texts = ()
    """A word or any phrase, such as 'tender but tense'; repeat the flag for several answers."""
    like: Texts = ()
    """A song to find others like: its id in the store, or a file to listen to now; repeat the flag for several."""
    not_: Texts = Field((), validation_alias=AliasChoices("not"))
    """A word or phrase that pushes down the songs it suits, in every answer; repeat the flag for several."""
    features: Uri
    """Feature store to search."""
    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""
    catalog: Uri | None = None
    """Stay within the songs of this manifest, table, folder or prefix; it also says what they are called."""
    k: PositiveInt = 20
    """How many songs an answer has."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What scores are measured against: the songs searched (10,000 of them where there are more), or the model's
    training songs; auto is the songs if there are 100."""
    keep_projections: bool = True
    """Keep projected windows and an index of the songs beside the store (_projected/), so that the next query is
    answered in seconds; a store that cannot be written to needs --no-keep-projections."""
    output: Uri | None = None
    """Also write the answers there: .parquet, .csv, or of one answer a playlist, .m3u8."""
    playlists: Uri | None = None
    """Also write each answer as a playlist (.m3u8) into this folder."""

    @model_validator(mode="after")
    def _something_to_find(self) -> SearchSettings:
        if not (self.query or self.like) or not all(text.strip() for text in [*self.query, *self.like, *self.not_]):
            raise ValueError("--query, --like: give a phrase or a song to search for")
        return self


class ExportSettings(JobSettings):
    """Take tags elsewhere: tables for a spreadsheet, words in the files' own tags."""

    opening = "export: {tags}"

    tags: CliPositionalArg[Uri]
    """What tag wrote."""
    long: Uri | None = None
    """Write a table of a row a song and word there (.csv or .parquet)."""
    wide: Uri | None = None
    """Write a table of a row a song, with a column a word that holds its percentile, there (.csv or .parquet)."""
    catalog: Uri | None = None
    """A manifest or table with titles and artists; the one that was tagged, if not given."""
    write_files: bool = False
    """Write each song's words as its mood into the song's own file (local ones; ID3 TMOO, Vorbis and MP4 MOOD)."""
    undo: bool = False
    """Put back what stood in the files before --write-files."""

    @model_validator(mode="after")
    def _something_to_do(self) -> ExportSettings:
        if self.undo and self.write_files:
            raise ValueError("--undo takes back what --write-files wrote; give one of them")
        if not (self.long or self.wide or self.write_files or self.undo):
            raise ValueError("nothing to do; give --long, --wide, --write-files or --undo")
        return self
