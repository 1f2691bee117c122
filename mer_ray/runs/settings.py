"""Settings of status, validate and forget."""

from __future__ import annotations

from pydantic import AliasChoices, Field, PositiveInt, model_validator

from mer_ray.settings import JobSettings, Uri


class StatusSettings(JobSettings):
    """Say what an output directory holds and who works on it; a run may go on meanwhile."""

    run: Uri
    """Output directory of extract or tag, or model directory of train: local or s3://."""
    json_: bool = Field(False, validation_alias=AliasChoices("json"))
    """Print the same as JSON."""


class ValidateSettings(JobSettings):
    """Check an output directory against its manifest and its schema; exit code 3 if a check fails."""

    run: Uri
    """Output directory of extract or tag: local or s3://."""
    deep: bool = False
    """Read every value as well, and so the whole directory: features are finite numbers, tags best first."""
    shards: PositiveInt | None = None
    """Look at so many shards alone, spread over the directory."""


class ForgetSettings(JobSettings):
    """Take songs out of feature stores and tags; later runs leave them out too. Models are left as they are."""

    run: list[Uri]
    """Output directory of extract or tag: local or s3://; repeat the flag for several."""
    songs: list[str] = Field(default_factory=list)
    """Id (track_id) of a song; repeat the flag for several."""
    songs_from: str | None = None
    """Text file of ids, one a line."""
    unforget: bool = False
    """Do the reverse: let later runs do these songs again."""

    @model_validator(mode="after")
    def _some_songs(self) -> ForgetSettings:
        if not self.songs and self.songs_from is None:
            raise ValueError("--songs or --songs-from: say which songs")
        return self
