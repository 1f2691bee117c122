"""What a training is made of, before and after: the model's description, its fingerprint, its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save

from mer_ray import __version__, storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.errors import InputError
from mer_ray.evaluation.report import model_card
from mer_ray.features import Store
from mer_ray.fingerprints import differences, text_sha256, weights_sha256
from mer_ray.learning.learner import read_checkpoint
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape
from mer_ray.learning.settings import RecipeSettings, TrainSettings
from mer_ray.storage import as_json, read_json
from mer_ray.words.labels import label_model, read_labels
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.thesaurus import Thesaurus, load_thesaurus
from mer_ray.words.wordspace import WordSpace

STATE = "state.safetensors"
"""A checkpoint's file."""

READINGS = (
    *("preset", "loss", "temperature", "targets", "lambda_", "regularizer", "margin", "positive", "negatives"),
    *("bandwidth", "label_text", "center_labels", "affect", "standardize", "context", "positions"),
)
"""The settings that are readings of the paper; a result always says which it used."""

STORE_READINGS = ("layers", "pooling", "keep_tail")
"""The readings of extraction, as a feature store states them."""

_NOT_RESULTS = {"model", "workers", "gpus", "settings", "train", "features", "checkpoint_seconds"}


def describe(
    settings: TrainSettings, datasets: Sequence[Annotations], stores: Sequence[Store], space: LabelSpace
) -> dict[str, Any]:
    """``config.json`` of the model to be: shape, readings, encoder, label model, and their fingerprint."""
    shape = ProjectorShape(
        stores[0].dim,
        space.embeddings.shape[1],
        dropout=settings.dropout,
        context=settings.context,
        positions=settings.positions,
    )
    chosen = settings.model_dump(exclude=_NOT_RESULTS)
    truth = [(one.track_ids, one.vocabulary, one.truth.tolist(), one.splits.tolist()) for one in datasets]
    return {
        "version": __version__,
        "projector": asdict(shape),
        "encoder": {**stores[0].encoder, "dim": stores[0].dim},
        "label_model": {
            "name": settings.label_model,
            "weights_sha256": weights_sha256(label_model(settings.label_model)),
        },
        "readings": {
            **{name.rstrip("_"): chosen[name] for name in READINGS},
            "label_text": _text_reading(settings.label_text),
            **{key: stores[0].encoder[key] for key in STORE_READINGS if key in stores[0].encoder},
            **{f"{one.dataset} {name}": value for one in datasets for name, value in one.readings.items()},
        },
        "settings": {name.rstrip("_"): value for name, value in chosen.items()},
        "datasets": [one.dataset for one in datasets],
        "fingerprint": {
            **{name.rstrip("_"): value for name, value in chosen.items() if name not in ("preset", "label_text")},
            "datasets": ", ".join(one.dataset for one in datasets),
            "truth": text_sha256(json.dumps(truth))[:16],
            "phrases": text_sha256(json.dumps([space.phrases, space.reading.describe()]))[:16],
            "encoder": f"{stores[0].encoder.get('name')}, D = {stores[0].dim}",
        },
    }


def read_words(settings: RecipeSettings, thesaurus: Thesaurus | None = None) -> WordSpace:
    """How this training reads words, with the packaged thesaurus if no other is given.

    Raises:
        InputError: the file of phrases or the sentence encoder is not there.
    """
    plain, lexicon = settings.label_text == "plain", thesaurus or load_thesaurus()
    given = {} if settings.label_text in ("plain", "thesaurus") else read_labels(settings.label_text)
    return WordSpace.build(
        settings.label_model,
        given=given,
        thesaurus=None if plain else lexicon,
        lexicon=lexicon,
        center=settings.center_labels,
        affect=settings.affect,
    )


def _text_reading(label_text: str) -> str:
    """Which text it was; a file's place does not matter, its phrases are kept."""
    return label_text if label_text in ("plain", "thesaurus") else "phrases"


def begin(model: str, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
    """The metrics of a finished model of the same settings; None if there is training to do.

    Raises:
        InputError: the directory belongs to other settings.
    """
    before = read_json(storage.join(model, "_run", "settings.json"))
    if before is not None:
        unlike = differences(fingerprint, before["fingerprint"])
        if unlike:
            raise InputError(f"model {model}: begun with other settings: {'; '.join(unlike)}; use another directory.")
        if storage.exists(storage.join(model, "config.json")):
            return read_json(storage.join(model, "metrics.json"))
    elif storage.exists(storage.join(model, "config.json")):
        raise InputError(f"model {model}: holds a model already; use another directory.")
    storage.write_bytes(storage.join(model, "_run", "settings.json"), as_json({"fingerprint": fingerprint}))
    return None


def write_model(
    uri: str, config: dict[str, Any], space: LabelSpace, datasets: Sequence[Annotations], final: Path
) -> dict[str, Any]:
    """Assemble the model directory from the final checkpoint in a local folder; returns its metrics."""
    tensors, state = read_checkpoint(final / STATE)
    notes = json.loads((final / "notes.json").read_text())
    projector = Projector(ProjectorShape(**config["projector"]))
    projector.load_state_dict({name[5:]: value for name, value in tensors.items() if name.startswith("best.")})
    background = load_file(final / "background.safetensors")["songs"].numpy()
    labels = {**space.describe(), "datasets": {one.dataset: list(one.vocabulary) for one in datasets}}
    metrics = {"best": state["best"], "epochs": len(state["history"]), **notes, "history": state["history"]}
    last = {name[5:]: value for name, value in tensors.items() if name.startswith("last.")}
    storage.write_bytes(storage.join(uri, "last.safetensors"), save(last))
    storage.write_bytes(storage.join(uri, "metrics.json"), as_json(metrics))
    model = Model(projector.eval(), config, labels, background, space.reading)
    storage.write_bytes(storage.join(uri, "README.md"), model_card(config, labels, metrics).encode())
    model.save(uri)
    return metrics
