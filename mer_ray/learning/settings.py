"""Settings of train: how the paper is read, and how the work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, Field, PositiveFloat, PositiveInt, model_validator

from mer_ray.doors import Door
from mer_ray.learning import losses
from mer_ray.settings import OPERATIONAL, READING, NewModelUri, OutputSettings, Presets, PresetSettings, Uri
from mer_ray.uris import absolute

Regularizer = Literal["negative", "positive", "reference"]
Experiment = Literal["baseline1", "baseline2", "regularized"]

EXPERIMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "baseline1": {"targets": "labels", "lambda_": 0.0},
        "baseline2": {"targets": "clusters", "lambda_": 0.0},
        "regularized": {"targets": "clusters", "lambda_": 2.5},
    },
    "reference": {
        "baseline1": {"targets": "labels", "lambda_": 0.0, "cycle": False},
        "baseline2": {"targets": "clusters", "lambda_": 0.0, "cycle": False},
        "regularized": {"targets": "labels", "lambda_": 2.5, "cycle": True},
    },
}
"""By preset what the paper's three kinds of runs set: the reference's regularized runs draw to label embeddings, and
they alone cycle the smaller dataset."""
Ranking = Literal["standardized", "cosine"]


def _label_text(text: str) -> str:
    """A file of phrases as any process can read it; the two names stay names."""
    return text if text in ("plain", "thesaurus") else absolute(text)


class RecipeSettings(PresetSettings):
    """How a projector is trained."""

    presets: ClassVar[Presets] = {
        "reference": {
            "regularizer": "reference",
            "bandwidth": "reference",
            "standardize": False,
            "activation": "relu",
            "lr": 1e-4,
            "epochs": 75,
            "keep": "loss",
            "select_over": "first",
        }
    }
    doors: ClassVar[Mapping[str, Door]] = {"loss": losses.DOOR}

    loss: Annotated[str, READING] = "triplet"
    """triplet: cosine triplets with a margin and drawn wrong labels (the paper); soft_triplet: triplets with a soft
    margin over the smooth hardest wrong label; contrastive: a softmax over all labels with several true ones; or a
    module of yours that defines 'loss', such as my_pkg.hinge. Each has settings of its own."""
    contrast: Annotated[Literal["dataset", "training"], READING] = "dataset"
    """A song's wrong labels: those of its own dataset, whose listeners could have given them; or also the words of
    the other datasets of the training, but for those that share a cluster with a true one."""
    regularizer: Annotated[Regularizer, READING] = "negative"
    """Pairs from different clusters (the paper), from one cluster (Table 6), or the published code's form."""
    bandwidth: Annotated[str, READING] = "auto"
    """Mean Shift bandwidth of the label clusters: auto; reference, the published code's quantile for these datasets;
    quantile:q; or a number. none leaves each word alone, as auto and reference do where they find no clusters."""
    clusters: Annotated[Uri | None, READING] = None
    """A published label_map.json: its clusters as they are, instead of Mean Shift."""
    label_embeddings: Annotated[list[Uri], READING] = Field(default_factory=list)
    """A published label_expanded_*.npz: its embeddings of the trained words as they are, instead of the sentence
    encoder's; repeat the flag for several."""
    label_model: str = "auto"
    """Sentence encoder: auto (all-MiniLM-L6-v2), a hub id or a directory."""
    label_text: Annotated[str, Field(min_length=1), AfterValidator(_label_text), READING] = "plain"
    """What stands for a label: plain, the word itself (the paper); thesaurus, the averaged phrases of the packaged
    emotion thesaurus, templates for words it lacks; or a YAML file of 'label: phrase, phrase', then the thesaurus."""
    center_labels: Annotated[bool, READING] = False
    """Take the mean of the thesaurus's phrases from every label's embedding."""
    affect: Annotated[float, Field(ge=0), READING] = 0.0
    """How far labels are moved along the thesaurus's axes of affect, so that antonyms part; 0 leaves them."""
    standardize: Annotated[bool, READING] = True
    """Scale each feature by the training set's mean and deviation."""
    context: Annotated[Literal["segment", "track"], READING] = "segment"
    """Attention over one window alone (the paper), or over all windows of a song."""
    positions: Annotated[bool, READING] = False
    """With --context track: tell the windows' order; without, a song is a set of windows."""
    width: PositiveInt = 768
    """Width of the projector, a multiple of its heads."""
    depth: PositiveInt = 2
    """Transformer layers of the projector."""
    heads: PositiveInt = 8
    """Attention heads of each."""
    activation: Annotated[Literal["gelu", "relu"], READING] = "gelu"
    """Between the two linear maps of each."""
    ranking: Annotated[Ranking, READING] = "cosine"
    """The score of a word for a song, in choosing the epoch, in evaluation and in tags: the cosine (the paper), or
    standardized over a yardstick of songs, where a word keeps how common it is and must earn its place."""
    epochs: PositiveInt = 100
    """At most so many passes over the largest training set."""
    cycle: Annotated[bool, READING] = True
    """Begin a smaller dataset again until the largest is through (max_size_cycle); --no-cycle goes on without it."""
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
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Scale a step's gradient down to this norm where it is longer; 0 leaves it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside the projector."""
    keep: Annotated[Literal["macro_f1", "loss"], READING] = "macro_f1"
    """The epoch that is kept: that of the highest validation macro F1, or of the lowest validation loss."""
    stop_patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs that were neither better than the one kept nor lower in validation loss; 0: never."""
    select_on: Annotated[Literal["songs", "windows"], READING] = "windows"
    """Validation macro F1 is that of songs, by the ranking, or of windows, by cosine (the paper)."""
    select_over: Annotated[Literal["all", "first"], READING] = "all"
    """Validation figures are the mean over all datasets of the training, or the first one's."""
    seed: int = 0
    """Seed of weights, order, draws and of the split of manifests that have none."""
    checkpoint_seconds: Annotated[float, Field(ge=0), OPERATIONAL] = 20.0
    """At most this much training is lost to a kill; 0 writes a checkpoint after every epoch."""
    scratch: Annotated[str | None, OPERATIONAL] = None
    """Folder on each training node's own disk where features lie while it trains; its temporary folder if not
    given."""

    @model_validator(mode="after")
    def _positions_need_an_order(self) -> RecipeSettings:
        if self.positions and self.context != "track":
            raise ValueError("a single window has no order; add --context track or leave --positions out")
        return self

    def training(self, **own: Any) -> TrainSettings:
        """A training of this recipe, with what settings of train alone say; nothing is checked again."""
        recipe = {name: getattr(self, name) for name in RecipeSettings.model_fields}
        fit = TrainSettings.model_construct(**{**recipe, **own})
        fit._parts.update(self._parts)
        return fit


class TrainSettings(RecipeSettings, OutputSettings):
    """Fit a projector from stored features to the embeddings of emotion words."""

    opening = "train: a model into {model}"

    presets: ClassVar[Presets] = {
        "reference": {**RecipeSettings.presets["reference"], **EXPERIMENTS["reference"]["regularized"]},
        "best": {
            "loss": "soft_triplet",
            "targets": "labels",
            "lambda_": 1.0,
            "label_text": "thesaurus",
            "center_labels": True,
            "affect": 0.5,
            "width": 96,
            "epochs": 15,
            "lr": 1e-3,
            "clip_norm": 1.0,
            "stop_patience": 5,
            "select_on": "songs",
            "ranking": "standardized",
        },
        **{f"{preset} {name}": own for preset, runs in EXPERIMENTS.items() for name, own in runs.items()},
    }

    preset: Annotated[Literal["paper", "reference", "best"], READING] = "best"  # type: ignore[assignment]
    """All readings at once: what the bench found best, the paper's, or its published code's; single settings win."""
    experiment: Annotated[Experiment | None, READING] = None
    """With --preset paper or reference: which of the paper's three kinds of runs; sets targets, lambda and cycle."""
    train: Annotated[list[Uri], Field(min_length=1), OPERATIONAL]
    """Manifest with labels; repeat the flag to train on several datasets together."""
    features: Annotated[list[Uri], Field(min_length=1), OPERATIONAL]
    """Feature store with the songs' features; repeat the flag for several."""
    model: Annotated[NewModelUri, OPERATIONAL]
    """Directory to write the model to; an unfinished training there goes on."""
    targets: Annotated[Literal["labels", "clusters"], READING] = "clusters"
    """Draw songs to their labels' embeddings, or to the centres of the labels' clusters."""
    lambda_: Annotated[float, Field(ge=0), READING] = Field(0.0, validation_alias=AliasChoices("lambda"))
    """Weight of the alignment regularization."""
    workers: Annotated[int, Field(ge=0), OPERATIONAL] = 1
    """Ray Train workers, each on its share of a node's cores; 0 trains inside this process."""
    gpus: Annotated[int, Field(ge=0), OPERATIONAL] = 0
    """GPUs for training: 0, or one a worker."""

    tensorboard: Annotated[Uri | None, OPERATIONAL] = None
    """Folder of this machine for TensorBoard events of each epoch, where tensorboard is installed."""
    mlflow: Annotated[str | None, OPERATIONAL] = None
    """MLflow tracking URI to which settings and each epoch are logged, where mlflow is installed."""

    @property
    def preset_names(self) -> list[str]:
        """The preset, and what it says of the experiment."""
        return [self.preset, f"{self.preset} {self.experiment}"]

    @model_validator(mode="after")
    def _experiments_are_the_papers(self) -> TrainSettings:
        if self.experiment and self.preset not in EXPERIMENTS:
            raise ValueError("--experiment: one of the paper's; add --preset paper or --preset reference")
        return self
