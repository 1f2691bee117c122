"""A training without a cluster: its recipe, its data and learner, its epochs, and the model directory it ends in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save, save_file

from mer_ray import __version__, storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.errors import InputError
from mer_ray.features import Store, open_stores
from mer_ray.fingerprints import canonical, text_sha256
from mer_ray.learning.card import card, loss_curve
from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, read_checkpoint
from mer_ray.learning.model import Model
from mer_ray.learning.presence import songs_present
from mer_ray.learning.projector import Projector, ProjectorShape, song_vectors
from mer_ray.learning.ridge import RIDGE, ridge_file
from mer_ray.learning.sampling import thinned
from mer_ray.learning.scratch import Scratch
from mer_ray.learning.seen import SEEN
from mer_ray.learning.settings import RecipeSettings, TrainSettings
from mer_ray.settings import OPERATIONAL, READING, marked
from mer_ray.words.embedding import label_weights
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import Word, read_labels
from mer_ray.words.published import read_label_embeddings
from mer_ray.words.thesaurus import Thesaurus, load_thesaurus
from mer_ray.words.wordspace import WordSpace

SONGS = "songs"
_NOT_ITS_FEATURES = ("name", "dim", "licence", "dtype")
"""What an encoder's identity says that the fingerprint has already, or that makes no other features."""
_BY_CONTENT = ("preset", "experiment", "label_text", "label_embeddings", "clusters")
STATE = "state.safetensors"
"""A checkpoint's file."""
BACKGROUND_SONGS = 10_000
"""At most so many mean unit projections of training songs, evenly thinned, are a model's yardstick."""
HISTORY = "history.jsonl"
"""A line an epoch, in the model directory."""
REFERENCE_QUANTILES = {
    frozenset(("jamendo", "cal500")): 0.03,
    frozenset(("emotify", "jamendo")): 0.025,
    frozenset(("cal500", "emotify")): 0.04,
}
"""The published code's quantile of Mean Shift for each pair; 0.03 for all three, and here for any others."""
EARLIER: dict[str, Any] = {
    **{"width": 768, "depth": 2, "heads": 8, "activation": "gelu", "weight_decay": 0.01, "clip_norm": 0.0},
    **{"cycle": True, "contrast": "dataset", "negative": "label"},
    **{"keep": "macro_f1", "stop_patience": 0, "select_on": "windows", "select_over": "first", "ranking": "cosine"},
}
"""What trainings did before it was a setting; those that were begun then go on so."""


def word_space(settings: RecipeSettings, lexicon: Thesaurus | None = None) -> WordSpace:
    """How this training reads words, with the packaged thesaurus if no other is given.

    Raises:
        InputError: the file of phrases or the sentence encoder is not there.
    """
    text, lexicon = settings.label_text, lexicon or load_thesaurus()
    given = {word.label: word.phrases for word in ([] if text in ("plain", "thesaurus") else read_labels(text))}
    space = WordSpace(settings.label_model, given, None if text == "plain" else lexicon)
    space = space.measured(lexicon, center=settings.center_labels, affect=settings.affect)
    if not settings.label_embeddings:
        return space
    width = space.embed([Word.of("music")]).shape[1]
    return replace(space, published=read_label_embeddings(settings.label_embeddings, width))


def label_space(
    settings: TrainSettings, datasets: Sequence[Annotations], lexicon: Thesaurus | None = None
) -> LabelSpace:
    """The words of these datasets as the training reads and groups them, with a thesaurus as for :func:`word_space`.

    Raises:
        InputError: a file of words, or a bandwidth, that does not serve.
    """
    space = word_space(settings, lexicon)
    for one in datasets:
        for label in one.vocabulary if space.published else ():
            if label not in space.published:
                raise InputError(
                    f"--label-embeddings: none of the files has '{label}' of {one.dataset}; give the file of that "
                    "dataset too, or leave the flag out."
                )
    clustered = settings.targets == "clusters" or settings.lambda_ > 0 or settings.contrast == "training"
    bandwidth = settings.bandwidth if clustered else "none"
    if bandwidth == "reference":
        bandwidth = f"reference:{REFERENCE_QUANTILES.get(frozenset(one.dataset for one in datasets), 0.03)}"
    published = settings.clusters if clustered else None
    return LabelSpace.build([one.vocabulary for one in datasets], space, bandwidth, published)


def describe(
    settings: TrainSettings, datasets: Sequence[Annotations], stores: Sequence[Store], space: LabelSpace
) -> dict[str, Any]:
    """``config.json`` of the model to be: shape, readings, encoder, label model, and their fingerprint."""
    encoder, names = stores[0].encoder, [one.dataset for one in datasets]
    shape = projector_shape(settings, stores[0].dim, space.embeddings.shape[1])
    operational = marked(settings, OPERATIONAL)
    resolved = {name.rstrip("_"): value for name, value in settings.resolved().items() if name not in operational}
    chosen = canonical(resolved)
    truth = [(one.track_ids, one.vocabulary, one.truth.tolist(), one.splits.tolist()) for one in datasets]
    words = space.describe()
    return {
        "version": __version__,
        "projector": asdict(shape),
        "encoder": {**encoder, "dim": stores[0].dim},
        "label_model": {
            "name": settings.label_model,
            "weights_sha256": label_weights(settings.label_model),
        },
        "readings": {
            **{name: chosen[name] for name in (mark.rstrip("_") for mark in marked(settings, READING))},
            "label_text": settings.label_text if settings.label_text in ("plain", "thesaurus") else "phrases",
            **{name: "published" for name in ("clusters", "label_embeddings") if chosen[name]},
            **{key: encoder[key] for key in ("layers", "pooling", "keep_tail") if key in encoder},
            **{f"{one.dataset} {name}": value for one in datasets for name, value in one.readings.items()},
        },
        "settings": chosen,
        "datasets": names,
        # A preset counts by what it sets, a file by what is in it.
        "fingerprint": {
            **{name: value for name, value in chosen.items() if name not in _BY_CONTENT},
            "datasets": ", ".join(names),
            "truth": text_sha256(json.dumps(truth))[:16],
            "phrases": text_sha256(json.dumps([words["phrases"], words["reading"]]))[:16],
            **({"groups": text_sha256(json.dumps(words["clusters"]))[:16]} if settings.clusters else {}),
            "encoder": f"{encoder.get('name')}, D = {stores[0].dim}",
            **{f"encoder {key}": value for key, value in encoder.items() if key not in _NOT_ITS_FEATURES},
            SONGS: songs_present(stores, datasets),
        },
    }


def of_store(name: str) -> bool:
    """Whether a key of a fingerprint tells the features of a store."""
    return name == SONGS or name.startswith("encoder ")


def projector_shape(settings: TrainSettings, input_dim: int, output_dim: int) -> ProjectorShape:
    """The projector that the settings ask for.

    Raises:
        InputError: its heads cannot share its width.
    """
    return ProjectorShape(
        input_dim,
        output_dim,
        hidden_dim=settings.width,
        layers=settings.depth,
        heads=settings.heads,
        dropout=settings.dropout,
        context=settings.context,
        positions=settings.positions,
        activation=settings.activation,
    )


def as_begun(settings: TrainSettings, found: Mapping[str, Any]) -> TrainSettings:
    """The settings of a training whose directory states ``found``: what was none of them then stays as it was."""
    unsaid = EARLIER.keys() - found.keys() - settings.model_fields_set if found else set()
    fields = TrainSettings.model_fields.keys()
    return settings.model_copy(update={name: EARLIER[name] for name in unsaid & fields})


def prepare(settings: TrainSettings, space: LabelSpace, shape: ProjectorShape, token: str) -> tuple[Learner, Corpus]:
    """Read the data and build the learner; the same on every worker. ``token`` tells this run from any other."""
    datasets = [Annotations.read(uri, settings.seed) for uri in settings.train]
    scratch = Scratch(token, settings.scratch)
    try:
        corpus = Corpus.load(open_stores(settings.features), datasets, space, settings, scratch)
        learner = build_learner(settings, corpus, shape)
        learner.workers.wait()
    finally:
        scratch.remove()
    return learner, corpus


def build_learner(settings: TrainSettings, corpus: Corpus, shape: ProjectorShape) -> Learner:
    """A learner at its first epoch; the same for the same settings and corpus."""
    torch.manual_seed(settings.seed)
    projector = Projector(shape)
    if settings.standardize:
        projector.set_feature_scale(*corpus.feature_scale())
    return Learner(projector, corpus.sets, corpus.validation, settings)


def run_epochs(learner: Learner, note: Callable[[Learner], None], save: Callable[[], None]) -> None:
    """Train to the last epoch; the first worker notes each, and all save now and then."""
    saved = time.monotonic()
    while not learner.finished:
        learner.run_epoch()
        if learner.workers.rank == 0:
            note(learner)
        if learner.workers.from_first(time.monotonic() - saved) > learner.recipe.checkpoint_seconds:
            save()
            saved = time.monotonic()


def save_final(folder: Path, learner: Learner, corpus: Corpus) -> None:
    """Write the last checkpoint and what else the model directory needs of a training."""
    learner.save(folder / STATE)
    projector = learner.best_projector().to(learner.device)
    songs = np.concatenate(
        [
            song_vectors(projector, one.features_ND.numpy(), one.counts, songs, learner.device)
            for one, songs in thinned(corpus.sets, BACKGROUND_SONGS)
        ]
    )
    save_file({"songs": torch.from_numpy(songs)}, folder / "background.safetensors")
    pq.write_table(pa.concat_tables(corpus.seen), folder / SEEN)
    (folder / RIDGE).write_bytes(ridge_file(corpus.ridges()))
    notes = {"absent": corpus.absent, "songs": corpus.songs, "priors": corpus.priors()}
    (folder / "notes.json").write_text(json.dumps(notes))


def write_model(
    uri: str, config: dict[str, Any], space: LabelSpace, datasets: Sequence[Annotations], final: Path
) -> dict[str, Any]:
    """Assemble the model directory from what :func:`save_final` left in a local folder; returns its metrics."""
    tensors, state = read_checkpoint(final / STATE)
    notes = json.loads((final / "notes.json").read_text())
    projector = Projector(ProjectorShape(**config["projector"]))
    projector.load_state_dict(tensors["best"])
    background = load_file(final / "background.safetensors")["songs"].numpy()
    vocabularies = {one.dataset: list(one.vocabulary) for one in datasets}
    labels = {**space.describe(), "datasets": vocabularies, "priors": notes.pop("priors")}
    metrics = {"best": state["best"], "epochs": len(state["history"]), **notes, "history": state["history"]}
    curve = loss_curve(state["history"], state["best"])
    for name in (SEEN, RIDGE):
        storage.write_bytes(storage.join(uri, name), (final / name).read_bytes())
    storage.write_bytes(storage.join(uri, "last.safetensors"), save(tensors["last"]))
    storage.write_bytes(storage.join(uri, "metrics.json"), storage.as_json(metrics))
    storage.write_bytes(storage.join(uri, HISTORY), as_lines(state["history"]))
    storage.write_bytes(storage.join(uri, f"{curve.name}.png"), curve.png)
    storage.write_bytes(storage.join(uri, "README.md"), card(config, labels, metrics).encode())
    Model(projector.eval(), config, labels, background, space.space).save(uri)
    return metrics


def as_lines(history: Iterable[Mapping[str, float]]) -> bytes:
    """A history as ``history.jsonl`` holds it."""
    return "".join(json.dumps(line) + "\n" for line in history).encode()
