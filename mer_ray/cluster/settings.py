"""Settings of extract and tag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mer_ray.doors import Door
from mer_ray.encoders import DOOR
from mer_ray.settings import Fraction, JobSettings, ModelUri, OutputSettings, PresetSettings, Uri


class AudioSettings(PresetSettings):
    """How a song becomes features: these decide the result and are part of a store's fingerprint."""

    doors: ClassVar[Mapping[str, Door]] = {"encoder": DOOR}

    encoder: str = "m-a-p/MERT-v1-95M"
    """Hub id, local directory, 'descriptors' (classical ones, without weights), a seeded twin without trained weights:
    'random' (full size) or 'tiny', or a module of your own."""
    window_seconds: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Length of a window in seconds."""
    keep_tail: bool = False
    """Keep the piece after the last full window as a window of its own."""
    max_minutes: PositiveFloat = 120.0
    """Longer songs are capped at this length and flagged as truncated."""


class ClusterSettings(JobSettings):
    """How much of the cluster to use; these never change the result."""

    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs for the encoder pool; all of the cluster's, and those that join, if not given; 0 for the CPU."""
    gpus_per_encoder: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of a GPU that one encoder takes; 0.25 puts four on each."""
    require_gpus: Annotated[int, Field(ge=0)] = 0
    """Do not begin with fewer GPUs than this; without it a cluster that has none encodes on CPUs and says so."""
    wait_minutes: Annotated[float, Field(ge=0)] = 0.0
    """Wait so long for nodes to come, two CPUs and --require-gpus, before a cluster that lacks them is refused."""
    preflight: bool = True
    """Look first, which takes seconds, whether every node has the same versions, sees the output, reads songs, has room
    on its disk."""
    encoders: PositiveInt | None = None
    """Encoder processes; as many as GPUs or CPUs and the songs to do are good for if not given."""
    decoders: PositiveInt | None = None
    """Songs decoded at a time; fitted to the CPUs if not given."""
    batch_windows: PositiveInt | None = None
    """Windows in one forward pass; 64 on a GPU and 8 on a CPU if not given."""
    songs_per_part: PositiveInt | None = None
    """Songs committed in one file; fitted to the size of the run if not given."""
    song_timeout_s: PositiveFloat = 600.0
    """Seconds to fetch and decode one song; one that takes longer is recorded as timeout."""
    decoder_memory_mb: Annotated[int, Field(ge=256)] | None = None
    """Memory of one decoder, in MB; fitted to --max-minutes if not given. A song that needs more fails."""


class RunSettings(OutputSettings):
    """How a run treats failures."""

    retry_failed: bool = False
    """Do the songs again that failed in an earlier run."""
    max_failure_rate: Fraction = 0.5
    """Exit with code 3 when more than this share of the songs that this run did failed; 1 lets all of them fail."""


class FetchSettings(JobSettings):
    """How long a run waits for the world."""

    patience_minutes: Annotated[float, Field(ge=0)] = 10.0
    """Minutes to wait and try again while nothing can be fetched, or credentials are refused, before giving up."""


class ExtractSettings(AudioSettings, ClusterSettings, RunSettings, FetchSettings):
    """Stream songs through decoders and encoders into a feature store."""

    opening = "extract: {catalog} into {features}, encoder {encoder}"

    catalog: Uri
    """Manifest (Parquet, or a folder of it), table, S3 Inventory, folder or s3:// prefix of songs."""
    features: Uri
    """The feature store: a folder or s3:// prefix; continued if it is there."""


class CheckSettings(ExtractSettings):
    """Look, in seconds, at all that would spoil an extract with these settings; no song is done."""

    opening = "check: {catalog} into {features}, encoder {encoder}"


class TagSettings(AudioSettings, ClusterSettings, RunSettings, FetchSettings):
    """Rank any list of words for every song of a feature store, or of a catalogue."""

    opening = "tag: words of {labels}, model {model}, into {output}"

    features: Uri
    """Feature store to tag from; with --catalog, also where new songs' features go."""
    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""
    labels: str
    """Words: happy,sad; a text file (one a line); a YAML file (label: phrase, phrase); or moods, jamendo, cal500,
    gems."""
    output: Uri
    """Directory for the tags (Parquet); continued if it is there."""
    catalog: Uri | None = None
    """Extract first the songs of this catalogue that the store lacks, then tag exactly these songs."""
    k: PositiveInt | None = None
    """At most this many tags a song; 3 if neither this nor a threshold is given."""
    threshold: float | None = None
    """Only tags whose score reaches this; if neither this nor a percentile or precision is given, what earns a word its
    place on a song: 0.75, or by cosine whatever is among the k best. -100 gives every song k words, however wrong."""
    min_percentile: Fraction | None = None
    """Only tags whose percentile reaches this, 0 to 1: 0.9 gives a word to the tenth of the songs it suits best."""
    min_precision: Fraction | None = None
    """Only tags of which this share is expected to be right, by the --calibration of an evaluation."""
    calibration: Uri | None = None
    """Directory of an evaluation of the model on songs it had not seen, whose truth says how right a percentile is:
    each tag gets the precision expected of it, and between what it lies."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What scores are measured against: the catalogue, or the model's training songs; auto is the catalogue if it has
    100 songs."""
    ranking: Literal["auto", "standardized", "cosine"] = "auto"
    """The score of a word for a song: against its own spread over the catalogue, or the bare cosine (the paper); auto
    is the model's own, by which its epoch was chosen."""
    timeline: bool = False
    """Also write the tags of each window."""
    embedding: bool = False
    """Also write each song's place in the space of words."""
    page: bool = True
    """Also write a page to look at and listen to (_run/page.html), of at most 20,000 songs."""
    keep_projections: bool = True
    """Keep projected windows beside the store (_projected/), so that other words later need no projector; a store that
    cannot be written to needs --no-keep-projections."""

    @model_validator(mode="after")
    def _precision_needs_truth(self) -> TagSettings:
        if self.min_precision is not None and self.calibration is None:
            raise ValueError("--min-precision needs truth; give --calibration the directory of an evaluation")
        if self.min_precision is not None and self.min_percentile is not None:
            raise ValueError("--min-precision sets the percentile; leave --min-percentile out")
        return self
