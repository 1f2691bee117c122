"""Settings of evaluate."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from mer_ray.settings import JobSettings, ModelUri, Uri

Split = Literal["test", "validation", "train", "all"]


class EvaluateSettings(JobSettings):
    """Score a model on songs whose labels are known."""

    opening = "evaluate: {model} into {output}"

    model: ModelUri
    """Directory of a trained model, or the name of one that ships: gems."""
    test: Annotated[list[Uri], Field(min_length=1)]
    """Manifest with labels; repeat the flag for several datasets."""
    features: Annotated[list[Uri], Field(min_length=1)]
    """Feature store with the songs' features; repeat the flag for several."""
    output: Uri
    """Directory for metrics.json, report.md and figures."""
    split: Split = "test"
    """Songs to score, without those that the model learned from or that chose its epoch; train and validation are these
    songs, and yield no calibration. A manifest without the split asked for is scored as far as the model has not seen
    it."""
    k: PositiveInt | None = None
    """Labels a song is given; if not given, the dataset's own (2 Jamendo, 4 CAL500, 3 Emotify, else its average)."""
    ranking: Literal["auto", "cosine", "standardized"] = "auto"
    """The score of a word for a song: the cosine (the paper), or standardized over a yardstick of songs; auto is the
    model's own, by which its epoch was chosen."""
    yardstick: Literal["auto", "catalog", "model"] = "auto"
    """What standardizes: the scored songs themselves, without their truth, or the model's training songs; auto is the
    songs if there are 100."""
    calibration: Uri | None = None
    """Directory of an earlier evaluation of the model: how right it expects these tags to be is told beside how right
    they are."""
    label_text: Uri | None = None
    """YAML file of 'label: phrase, phrase' for labels the model was not trained on."""
    seed: int = 0
    """Seed of the random baseline."""
