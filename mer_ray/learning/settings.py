"""Settings of train: how the paper is read, and how the work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, Field, PositiveFloat, PositiveInt, model_validator

from mer_ray.doors import Door
from mer_ray.learning import losses
from mer_ray.settings import OPERATIONAL, READING, NewModelUri, Presets, PresetSettings, Uri, absolute

Regularizer = Literal["negative", "positive", "reference"]


def _label_text(text: str) -> str:
    """A file of phrases as any process can read it; the two names stay names."""
    return text if text in ("plain", "thesaurus") else absolute(text)


class RecipeSettings(PresetSettings):
    """How a projector is trained."""

    presets: ClassVar[Presets] = {
        "reference": {"regularizer": "reference", "standardize": False, "lr": 1e-4, "epochs": 75}
    }
    doors: ClassVar[Mapping[str, Door]] = {"loss": losses.DOOR}

    loss: Annotated[str, READING] = "triplet"
    """triplet: cosine triplets with a margin (the paper); contrastive: a softmax over all labels with several true
    ones; or a module of yours that defines 'loss', such as my_pkg.hinge. Each has settings of its own."""
    regularizer: Annotated[Regularizer, READING] = "negative"
    """Pairs from different clusters (the paper), from one cluster (Table 6), or the published code's form."""
    bandwidth: Annotated[str, READING] = "auto"
    """Mean Shift bandwidth of the label clusters: auto, quantile:q or a number; none leaves each word alone."""
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
    checkpoint_seconds: Annotated[float, Field(ge=0), OPERATIONAL] = 20.0
    """At most this much training is lost to a kill; 0 writes a checkpoint after every epoch."""

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


class TrainSettings(RecipeSettings):
    """Fit a projector from stored features to the embeddings of emotion words."""

    opening = "train: a model into {model}"

    presets: ClassVar[Presets] = {
        **RecipeSettings.presets,
        "best": {
            "loss": "contrastive",
            "targets": "labels",
            "label_text": "thesaurus",
            "center_labels": True,
            "affect": 0.5,
        },
    }

    preset: Annotated[Literal["paper", "reference", "best"], READING] = "best"  # type: ignore[assignment]
    """All readings at once: what the bench found best, the paper's, or its published code's; single settings win."""
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
