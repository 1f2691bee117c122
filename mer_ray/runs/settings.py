"""Settings of status and validate."""

from pydantic import AliasChoices, Field

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
