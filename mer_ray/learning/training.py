"""A training without a cluster: its recipe, its data and learner, its epochs, and the model directory it ends in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file

from mer_ray import __version__, storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.features import Store, open_stores
from mer_ray.fingerprints import canonical, text_sha256
from mer_ray.learning.corpus import Corpus
from mer_ray.learning.learner import Learner, read_checkpoint
from mer_ray.learning.model import Model
from mer_ray.learning.projector import Projector, ProjectorShape, project
from mer_ray.learning.settings import RecipeSettings, TrainSettings
from mer_ray.pages import table
from mer_ray.settings import OPERATIONAL, READING, marked
from mer_ray.words.embedding import label_weights
from mer_ray.words.labelspace import LabelSpace
from mer_ray.words.lists import read_labels
from mer_ray.words.thesaurus import Thesaurus, load_thesaurus
from mer_ray.words.wordspace import WordSpace

STATE = "state.safetensors"
"""A checkpoint's file."""
BACKGROUND_SONGS = 10_000
"""At most so many mean unit projections of training songs, evenly thinned, are a model's yardstick."""


def word_space(settings: RecipeSettings, lexicon: Thesaurus | None = None) -> WordSpace:
    """How this training reads words, with the packaged thesaurus if no other is given.

    Raises:
        InputError: the file of phrases or the sentence encoder is not there.
    """
    text, lexicon = settings.label_text, lexicon or load_thesaurus()
    given = {word.label: word.phrases for word in ([] if text in ("plain", "thesaurus") else read_labels(text))}
    space = WordSpace(settings.label_model, given, None if text == "plain" else lexicon)
    return space.measured(lexicon, center=settings.center_labels, affect=settings.affect)


def describe(
    settings: TrainSettings, datasets: Sequence[Annotations], stores: Sequence[Store], space: LabelSpace
) -> dict[str, Any]:
    """``config.json`` of the model to be: shape, readings, encoder, label model, and their fingerprint."""
    encoder, names = stores[0].encoder, [one.dataset for one in datasets]
    shape = ProjectorShape(
        stores[0].dim,
        space.embeddings.shape[1],
        dropout=settings.dropout,
        context=settings.context,
        positions=settings.positions,
    )
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
            **{key: encoder[key] for key in ("layers", "pooling", "keep_tail") if key in encoder},
            **{f"{one.dataset} {name}": value for one in datasets for name, value in one.readings.items()},
        },
        "settings": chosen,
        "datasets": names,
        # A preset counts by what it sets, a file of phrases by the phrases.
        "fingerprint": {
            **{name: value for name, value in chosen.items() if name not in ("preset", "label_text")},
            "datasets": ", ".join(names),
            "truth": text_sha256(json.dumps(truth))[:16],
            "phrases": text_sha256(json.dumps([words["phrases"], words["reading"]]))[:16],
            "encoder": f"{encoder.get('name')}, D = {stores[0].dim}",
        },
    }


def prepare(settings: TrainSettings, space: LabelSpace, shape: ProjectorShape) -> tuple[Learner, Corpus]:
    """Read the data and build the learner; the same on every worker."""
    datasets = [Annotations.read(uri, settings.seed) for uri in settings.train]
    corpus = Corpus.load(open_stores(settings.features), datasets, space, settings)
    return build_learner(settings, corpus, shape), corpus


def build_learner(settings: TrainSettings, corpus: Corpus, shape: ProjectorShape) -> Learner:
    """A learner at its first epoch; the same for the same settings and corpus."""
    torch.manual_seed(settings.seed)
    projector = Projector(shape)
    if settings.standardize:
        projector.set_feature_scale(*corpus.feature_scale())
    return Learner(projector, corpus.sets, corpus.validation, settings)


def run_epochs(learner: Learner, note: Callable[[dict[str, Any]], None], save: Callable[[], None]) -> None:
    """Train to the last epoch; the first worker notes each, and all save now and then."""
    saved = time.monotonic()
    while learner.next_epoch < learner.recipe.epochs:
        learner.run_epoch()
        if learner.workers.rank == 0:
            note({**learner.history[-1], "best": learner.best})
        if learner.workers.from_first(time.monotonic() - saved) > learner.recipe.checkpoint_seconds:
            save()
            saved = time.monotonic()


def save_final(folder: Path, learner: Learner, corpus: Corpus) -> None:
    """Write the last checkpoint and what else the model directory needs of a training."""
    learner.save(folder / STATE)
    projector = learner.best_projector().to(learner.device)
    songs = np.concatenate(
        [one.song_means(project(projector, one.features, one.counts, learner.device)) for one in corpus.windows]
    )
    thinned = songs[np.linspace(0, len(songs) - 1, min(len(songs), BACKGROUND_SONGS)).astype(int)]
    save_file({"songs": torch.from_numpy(thinned)}, folder / "background.safetensors")
    (folder / "notes.json").write_text(json.dumps({"absent": corpus.absent, "songs": corpus.songs}))


def write_model(
    uri: str, config: dict[str, Any], space: LabelSpace, datasets: Sequence[Annotations], final: Path
) -> dict[str, Any]:
    """Assemble the model directory from what :func:`save_final` left in a local folder; returns its metrics."""
    tensors, state = read_checkpoint(final / STATE)
    notes = json.loads((final / "notes.json").read_text())
    projector = Projector(ProjectorShape(**config["projector"]))
    projector.load_state_dict(tensors["best"])
    background = load_file(final / "background.safetensors")["songs"].numpy()
    labels = {**space.describe(), "datasets": {one.dataset: list(one.vocabulary) for one in datasets}}
    metrics = {"best": state["best"], "epochs": len(state["history"]), **notes, "history": state["history"]}
    storage.write_bytes(storage.join(uri, "last.safetensors"), save(tensors["last"]))
    storage.write_bytes(storage.join(uri, "metrics.json"), storage.as_json(metrics))
    storage.write_bytes(storage.join(uri, "README.md"), _card(config, labels, metrics).encode())
    Model(projector.eval(), config, labels, background, space.space).save(uri)
    return metrics


def _card(config: dict[str, Any], labels: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The README of a model directory: what it is, what made it, how it may be used."""
    encoder = config["encoder"]
    songs = [[name, f"{count:,}"] for name, count in metrics["songs"].items()]
    absent = [
        f"- {name}: {count:,} songs without features ({reason})"
        for name, reasons in metrics["absent"].items()
        for reason, count in reasons.items()
    ]
    groups = [group for group in labels["clusters"] if len(group) > 1]
    readings = [[name, f"`{value}`"] for name, value in sorted(config["readings"].items())]
    best = metrics["best"]
    return "\n".join(
        [
            "# A mer_ray model",
            "",
            f"Projects features of {encoder.get('name')} (D = {encoder['dim']}) into the space of sentence "
            "embeddings, where any list of emotion words can be ranked for a song.",
            "",
            f"- Encoder: {encoder.get('name')}, revision {encoder.get('revision')}, licence of its weights: "
            f"**{encoder.get('licence')}**. What is made with them is bound by it.",
            f"- Label model: all-MiniLM-L6-v2 or as given (`{config['label_model']['name']}`, weights "
            f"{config['label_model']['weights_sha256'][:12]}).",
            f"- Trained with mer_ray {config['version']} for {metrics['epochs']} epochs; best validation macro F1 "
            f"(windows, first dataset) {best['macro_f1']:.3f} in epoch {best['epoch'] + 1:.0f}.",
            "",
            "## Songs",
            "",
            table(["dataset and split", "songs"], songs),
            *absent,
            "",
            "## Readings of the paper",
            "",
            table(["reading", "value"], readings),
            "## Words",
            "",
            f"{len(labels['words'])} words in {len(labels['clusters'])} clusters (bandwidth {labels['bandwidth']:g}). "
            "Words that share a cluster, antonyms among them where sentence embeddings put them together:",
            "",
            *(f"- {', '.join(group)}" for group in groups),
            "" if groups else "- none\n",
        ]
    )
