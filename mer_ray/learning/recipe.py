"""What a training is made of: how words are read, and the model's description with its fingerprint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mer_ray import __version__
from mer_ray.catalog.annotations import Annotations
from mer_ray.features import Store
from mer_ray.fingerprints import canonical, text_sha256, weights_sha256
from mer_ray.learning.projector import ProjectorShape
from mer_ray.learning.settings import RecipeSettings, TrainSettings
from mer_ray.settings import OPERATIONAL, READING, marked
from mer_ray.words.embedding import label_model
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import read_labels
from mer_ray.words.thesaurus import Thesaurus, load_thesaurus
from mer_ray.words.wordspace import WordSpace

STORE_READINGS = ("layers", "pooling", "keep_tail")
"""The readings of extraction, as a feature store states them."""


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
    operational, readings = marked(settings, OPERATIONAL), [name.rstrip("_") for name in marked(settings, READING)]
    resolved = canonical({name: value for name, value in settings.resolved().items() if name not in operational})
    chosen = {name.rstrip("_"): value for name, value in resolved.items()}
    truth = [(one.track_ids, one.vocabulary, one.truth.tolist(), one.splits.tolist()) for one in datasets]
    words = space.describe()
    return {
        "version": __version__,
        "projector": asdict(shape),
        "encoder": {**stores[0].encoder, "dim": stores[0].dim},
        "label_model": {
            "name": settings.label_model,
            "weights_sha256": weights_sha256(label_model(settings.label_model)),
        },
        "readings": {
            **{name: chosen[name] for name in readings},
            "label_text": settings.label_text if settings.label_text in ("plain", "thesaurus") else "phrases",
            **{key: stores[0].encoder[key] for key in STORE_READINGS if key in stores[0].encoder},
            **{f"{one.dataset} {name}": value for one in datasets for name, value in one.readings.items()},
        },
        "settings": chosen,
        "datasets": [one.dataset for one in datasets],
        # A preset counts by what it sets, a file of phrases by the phrases.
        "fingerprint": {
            **{name: value for name, value in chosen.items() if name not in ("preset", "label_text")},
            "datasets": ", ".join(one.dataset for one in datasets),
            "truth": text_sha256(json.dumps(truth))[:16],
            "phrases": text_sha256(json.dumps([words["phrases"], words["reading"]]))[:16],
            "encoder": f"{stores[0].encoder.get('name')}, D = {stores[0].dim}",
        },
    }


def word_space(settings: RecipeSettings, thesaurus: Thesaurus | None = None) -> WordSpace:
    """How this training reads words, with the packaged thesaurus if no other is given.

    Raises:
        InputError: the file of phrases or the sentence encoder is not there.
    """
    plain, lexicon = settings.label_text == "plain", thesaurus or load_thesaurus()
    given = [] if settings.label_text in ("plain", "thesaurus") else read_labels(settings.label_text)
    return WordSpace.build(
        settings.label_model,
        given={word.label: word.phrases for word in given},
        thesaurus=None if plain else lexicon,
        lexicon=lexicon,
        center=settings.center_labels,
        affect=settings.affect,
    )
