"""Every setting of every job: documented, validated, from flags, ``MER_*`` variables or a file.

Flags win over the environment, the environment over the file named by ``--settings``.
The docstring under a field is what ``--help`` prints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import AfterValidator, AliasChoices, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from mer_ray.errors import InputError, without_credentials

Fraction = Annotated[float, Field(ge=0, le=1)]


def _absolute(uri: str) -> str:
    """The URI as any process on this machine can read it, whatever its working directory."""
    without_credentials(uri)
    return (
        uri.rstrip("/") if uri.startswith("s3://") else os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))
    )


Uri = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]

ALL_DONE, TOO_MANY_FAILURES, WRONG_INPUT = 0, 3, 2
NOT_VALID = 3


class JobSettings(BaseSettings):
    """What every job's settings share."""

    model_config = SettingsConfigDict(
        env_prefix="MER_",
        env_prefix_target="all",
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        cli_ignore_unknown_args=False,
        allow_inf_nan=False,
    )

    settings: str | None = None
    """A YAML file with any of these settings (names as the flags, dashes or underscores)."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named readings of the paper: what each sets where flags, environment and file say nothing."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment, then what the caller read from the settings file (flags come before both)."""
        return env_settings, init_settings


class PresetSettings(JobSettings):
    """Jobs whose settings decide how the paper is read."""

    preset: Literal["paper", "reference"] = "paper"
    """All readings at once: the paper's, or its published code's; single settings still win."""


def _label_text(text: str) -> str:
    """A file of phrases as any process can read it; the two names stay names."""
    return text if text in ("plain", "thesaurus") else _absolute(text)


class AudioSettings(PresetSettings):
    """How a song becomes features: these decide the result and are part of a store's fingerprint."""

    presets = {"reference": {"pooling": "first"}}

    encoder: str = "m-a-p/MERT-v1-95M"
    """Hub id, local directory, or a seeded twin without trained weights: 'random' (full size) or 'tiny'."""
    encoder_revision: str | None = None
    """Hub commit of the encoder; the default encoder's is pinned."""
    layers: tuple[PositiveInt, ...] = (3, 6, 9, 12)
    """Hidden states to keep, separated by commas, 1 = output of the first layer."""
    pooling: Literal["mean", "first"] = "mean"
    """Mean over a window's frames (the paper), or its first frame only (the published code)."""
    window_seconds: Annotated[float, Field(ge=1, le=60)] = 10.0
    """Length of a window in seconds."""
    keep_tail: bool = False
    """Keep the piece after the last full window as a window of its own."""
    max_minutes: PositiveFloat = 120.0
    """Longer songs are capped at this length and flagged as truncated."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the encoder; auto is bfloat16 on a GPU and float32 on a CPU."""


class ClusterSettings(JobSettings):
    """How much of the cluster to use; these never change the result."""

    gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs for the encoder pool; all of the cluster's if not given, 0 for the CPU."""
    encoders: PositiveInt | None = None
    """Encoder processes; one a GPU, or fitted to the CPUs if not given."""
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


class RunSettings(JobSettings):
    """How a run treats failures."""

    retry_failed: bool = False
    """Do the songs again that failed in an earlier run."""
    max_failure_rate: Fraction = 1.0
    """Exit with code 3 when more than this share of the songs failed."""


class CatalogSettings(PresetSettings):
    """List the songs of a folder, an s3:// prefix, a table or a dataset in a manifest."""

    presets = {"reference": {"split": "ordered", "cal500_truth": "reference"}}

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


class ExtractSettings(AudioSettings, ClusterSettings, RunSettings):
    """Stream songs through decoders and encoders into a feature store."""

    catalog: Uri
    """Manifest (Parquet), table, folder or s3:// prefix of songs."""
    features: Uri
    """The feature store: a folder or s3:// prefix; continued if it is there."""


class RecipeSettings(PresetSettings):
    """How a projector is trained."""

    presets = {
        "reference": {
            "negatives": 5,
            "regularizer": "reference",
            "standardize": False,
            "lr": 1e-4,
            "epochs": 75,
        }
    }

    loss: Literal["triplet", "contrastive"] = "triplet"
    """Cosine triplets with a margin (the paper), or a softmax over all labels with several true ones."""
    temperature: PositiveFloat = 0.1
    """Divides the cosines in the contrastive loss."""
    regularizer: Literal["negative", "positive", "reference"] = "negative"
    """Pairs from different clusters (the paper), from one cluster (Table 6), or the published code's form."""
    margin: Annotated[float, Field(ge=0)] = 1.0
    """Margin of the triplet loss."""
    positive: Literal["mean", "sample"] = "mean"
    """A song's true target: the mean of its labels, or one drawn at random each step."""
    negatives: PositiveInt = 1
    """Wrong labels averaged into the negative (1 in the paper, 5 in the published code)."""
    bandwidth: str = "auto"
    """Mean Shift bandwidth of the label clusters: auto, quantile:q or a number; none leaves each word alone."""
    label_model: str = "auto"
    """Sentence encoder: auto (all-MiniLM-L6-v2), a hub id or a directory."""
    label_text: Annotated[str, Field(min_length=1), AfterValidator(_label_text)] = "plain"
    """What stands for a label: plain, the word itself (the paper); thesaurus, the averaged phrases of the packaged
    emotion thesaurus, templates for words it lacks; or a YAML file of 'label: phrase, phrase', then the thesaurus."""
    center_labels: bool = False
    """Take the mean of the thesaurus's phrases from every label's embedding."""
    affect: Annotated[float, Field(ge=0)] = 0.0
    """How far labels are moved along the thesaurus's axes of affect, so that antonyms part; 0 leaves them."""
    standardize: bool = True
    """Scale each feature by the training set's mean and deviation."""
    context: Literal["segment", "track"] = "segment"
    """Attention over one window alone (the paper), or over all windows of a song."""
    positions: bool = False
    """With --context track: tell the windows' order; without, a song is a set of windows."""
    epochs: PositiveInt = 100
    """Passes over the largest training set."""
    batch_size: PositiveInt = 256
    """Windows of each dataset in one step, over all workers."""
    lr: PositiveFloat = 2e-4
    """Base learning rate of AdamW."""
    min_lr: Annotated[float, Field(ge=0)] = 1.6e-7
    """The plateau schedule goes no lower."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The learning rate is multiplied by this on a plateau of validation macro F1."""
    plateau_patience: Annotated[int, Field(ge=0)] = 10
    """Epochs without improvement before that."""
    plateau_cooldown: Annotated[int, Field(ge=0)] = 5
    """Epochs to wait after that."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside the projector."""
    seed: int = 0
    """Seed of weights, order, draws and of the split of manifests that have none."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    """At most this much training is lost to a kill; 0 writes a checkpoint after every epoch."""

    @model_validator(mode="after")
    def _positions_need_an_order(self) -> RecipeSettings:
        if self.positions and self.context != "track":
            raise ValueError("a single window has no order; add --context track or leave --positions out")
        return self


class TrainSettings(RecipeSettings):
    """Fit a projector from stored features to the embeddings of emotion words."""

    presets = {
        **RecipeSettings.presets,
        "best": {
            "loss": "contrastive",
            "targets": "labels",
            "label_text": "thesaurus",
            "center_labels": True,
            "affect": 0.5,
            "temperature": 0.2,
        },
    }

    preset: Literal["paper", "reference", "best"] = "best"  # type: ignore[assignment]
    """All readings at once: what the bench found best, the paper's, or its published code's; single settings win."""
    train: Annotated[list[Uri], Field(min_length=1)]
    """Manifest with labels; repeat the flag to train on several datasets together."""
    features: Annotated[list[Uri], Field(min_length=1)]
    """Feature store with the songs' features; repeat the flag for several."""
    model: Uri
    """Directory to write the model to; an unfinished training there goes on."""
    targets: Literal["labels", "clusters"] = "clusters"
    """Draw songs to their labels' embeddings, or to the centres of the labels' clusters."""
    lambda_: Annotated[float, Field(ge=0)] = Field(0.0, validation_alias=AliasChoices("lambda"))
    """Weight of the alignment regularization."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Ray Train workers, each on its share of a node's cores; 0 trains inside this process."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs for training: 0, or one a worker."""


class ReproduceSettings(RecipeSettings):
    """Train and test what the paper's tables need, and lay ours beside the paper's."""

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
    only: list[Literal["table2", "table3", "table4", "table5", "table6", "sweep", "figure2"]] = []
    """Only this table or figure; repeat the flag for several."""
    at_once: PositiveInt | None = None
    """Models trained side by side; one a CPU if not given."""


class EvaluateSettings(JobSettings):
    """Score a model on songs whose labels are known."""

    model: Uri
    """Directory of a trained model."""
    test: Annotated[list[Uri], Field(min_length=1)]
    """Manifest with labels; repeat the flag for several datasets."""
    features: Annotated[list[Uri], Field(min_length=1)]
    """Feature store with the songs' features; repeat the flag for several."""
    output: Uri
    """Directory for metrics.json, report.md and figures."""
    split: Literal["test", "validation", "train", "all"] = "test"
    """Songs to score; a manifest without splits is split as in the model's training, or scored whole if the model
    never saw the dataset."""
    k: PositiveInt | None = None
    """Labels a song is given; if not given, the dataset's own (2 Jamendo, 4 CAL500, 3 Emotify, else its average)."""
    ranking: Literal["auto", "cosine", "standardized"] = "auto"
    """Rank labels by cosine (the paper), or by cosine standardized over a yardstick of songs; auto is cosine for a
    model of the paper's loss, else standardized."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What standardizes: the scored songs themselves, without their truth, or the model's training songs; auto is the
    songs if there are 100."""
    label_text: Uri | None = None
    """YAML file of 'label: phrase, phrase' for labels the model was not trained on."""
    seed: int = 0
    """Seed of the random baseline."""


class TagSettings(AudioSettings, ClusterSettings, RunSettings):
    """Rank any list of words for every song of a feature store, or of a catalogue."""

    features: Uri
    """Feature store to tag from; with --catalog, also where new songs' features go."""
    model: Uri
    """Directory of a trained model."""
    labels: str
    """Words: a text file (one a line), a YAML file (label: phrase, phrase), or jamendo, cal500, gems."""
    output: Uri
    """Directory for the tags (Parquet); continued if it is there."""
    catalog: Uri | None = None
    """Extract first the songs of this catalogue that the store lacks, then tag exactly these songs."""
    k: PositiveInt | None = None
    """At most this many tags a song; 3 if neither this nor a threshold is given."""
    threshold: float | None = None
    """Only tags whose score reaches this."""
    min_percentile: Fraction | None = None
    """Only tags whose percentile reaches this, 0 to 1: 0.9 gives a word to the tenth of the songs it suits best."""
    min_precision: Fraction | None = None
    """Only tags of which this share is expected to be right, by the --calibration of an evaluation."""
    calibration: Uri | None = None
    """Directory of an evaluation of the model, whose truth says how right a percentile is."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What scores are measured against: the catalogue, or the model's training songs; auto is the catalogue if it has
    100 songs."""
    ranking: Literal["standardized", "cosine"] = "standardized"
    """Score a word against its own spread over the catalogue, or by bare cosine (the paper)."""
    timeline: bool = False
    """Also write the tags of each window."""
    embedding: bool = False
    """Also write each song's place in the space of words."""
    keep_projections: bool = True
    """Keep projected windows beside the store (_projected/), so that other words later need no projector; a store that
    cannot be written to needs --no-keep-projections."""

    @model_validator(mode="after")
    def _precision_needs_truth(self) -> TagSettings:
        if (self.min_precision is None) != (self.calibration is None):
            raise ValueError("--min-precision and --calibration belong together; give both or neither")
        if self.min_precision is not None and self.min_percentile is not None:
            raise ValueError("--min-precision sets the percentile; leave --min-percentile out")
        return self


class LabelsSettings(JobSettings):
    """Say how a model reads each word of a list, before a night is spent on it."""

    labels: str
    """Words: a text file (one a line), a YAML file (label: phrase, phrase), or jamendo, cal500, gems."""
    model: Uri
    """Directory of a trained model."""


class SearchSettings(JobSettings):
    """Find the songs of a feature store that are nearest to a phrase."""

    query: Annotated[str, Field(min_length=1)]
    """A word or any phrase, such as 'tender but tense'."""
    features: Uri
    """Feature store to search."""
    model: Uri
    """Directory of a trained model."""
    k: PositiveInt = 20
    """How many songs."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What scores are measured against: the store, or the model's training songs; auto is the store if it has 100."""
    keep_projections: bool = True
    """Keep projected windows beside the store (_projected/), so that the next query needs no projector; a store that
    cannot be written to needs --no-keep-projections."""
    output: Uri | None = None
    """Also write the table there: Parquet, or CSV if it ends so."""


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


class DemoSettings(JobSettings):
    """The whole way on a small composed catalogue, or on a folder of your own music."""

    output: Uri = "demo"
    """Folder for everything the demo makes."""
    music: Uri | None = None
    """Tag this folder of music as well."""
    songs: Annotated[int, Field(ge=30)] = 80
    """Pieces composed for each of the two datasets."""
    epochs: PositiveInt = 30
    """Training epochs."""
    encoder: str = "tiny"
    """As in extract; m-a-p/MERT-v1-95M takes the trained encoder."""
    seed: int = 0
    """Seed of the composed pieces and of training."""


Settings = TypeVar("Settings", bound=JobSettings)


def parse(cls: type[Settings], arguments: Sequence[str]) -> Settings:
    """Resolve a job's settings.

    Raises:
        InputError: one sentence naming the setting, what is wrong and where to look.
    """
    try:
        flags = [argument[1:] if argument.split("=")[0] == "--k" else argument for argument in arguments]
        build: Callable[..., Settings] = cls
        return _with_preset(build(_cli_parse_args=flags, **_file_settings(cls, arguments)))
    except ValidationError as error:
        raise InputError(
            "; ".join(_explain(problem, cls) for problem in error.errors()[:3]) + "; see --help."
        ) from error
    except SettingsError as error:
        raise InputError(_explain_flag(str(error), cls)) from error


def run(main: Callable[[Settings], int], cls: type[Settings]) -> int:
    """Parse the command line, do the job, and turn a user's mistake into one sentence and exit code 2."""
    try:
        return main(parse(cls, sys.argv[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _with_preset(settings: Settings) -> Settings:
    """Fill in what the preset says where nothing else does."""
    preset = settings.presets.get(getattr(settings, "preset", ""), {})
    unsaid = {name: value for name, value in preset.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=unsaid)


def _file_settings(cls: type[JobSettings], arguments: Sequence[str]) -> dict[str, object]:
    path = os.environ.get("MER_SETTINGS")
    for position, argument in enumerate(arguments):
        if argument == "--settings" and position + 1 < len(arguments):
            path = arguments[position + 1]
        elif argument.startswith("--settings="):
            path = argument.removeprefix("--settings=")
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(f"--settings {path}: no such file; give a YAML file of settings.")
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--settings {path}: not valid YAML; write lines like 'epochs: 20'.") from error
    if not isinstance(content, dict):
        raise InputError(f"--settings {path}: expected lines like 'epochs: 20'.")
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = [key for key in values if key not in _names(cls)]
    if unknown:
        raise InputError(
            f"--settings {path}: unknown setting '{unknown[0]}'{_did_you_mean(unknown[0], cls)}; see --help."
        )
    return values


def _names(cls: type[JobSettings]) -> list[str]:
    return [name.rstrip("_") for name in cls.model_fields]


def _did_you_mean(name: str, cls: type[JobSettings]) -> str:
    near = get_close_matches(name.replace("-", "_"), _names(cls), n=1)
    return f" (did you mean '{near[0].replace('_', '-')}'?)" if near else ""


def _explain(problem: object, cls: type[JobSettings]) -> str:
    assert isinstance(problem, dict)
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    where = str(problem["loc"][0])
    flag = "--" + where.rstrip("_").replace("_", "-")
    if problem["type"] == "missing":
        return f"{flag}: required"
    if problem["type"] == "extra_forbidden":
        return f"{flag}: unknown setting{_did_you_mean(where, cls)}"
    return f"{flag} {problem.get('input')!s:.60}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _explain_flag(message: str, cls: type[JobSettings]) -> str:
    reason = message.removeprefix("error parsing CLI: ")
    if reason.startswith("unrecognized arguments: "):
        flag = reason.removeprefix("unrecognized arguments: ").split()[0]
        return f"{flag}: unknown setting{_did_you_mean(flag.lstrip('-').split('=')[0], cls)}; see --help."
    return f"{reason}; see --help."
