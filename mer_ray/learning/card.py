"""A model's card, the README of its directory: what it is, what made it, how it may be used; and its loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mer_ray.pages import Picture, png, table
from mer_ray.songs import untrained
from mer_ray.words.embedding import LABEL_MODEL


def loss_curve(history: Sequence[Mapping[str, float]], best: Mapping[str, float]) -> Picture:
    """A training at a glance: loss of training and validation by epoch, and the macro F1 that chose the epoch kept.

    ``history`` are the lines of ``history.jsonl``; models before version 0.3 have no validation loss.
    """
    from matplotlib.figure import Figure

    epochs = [line["epoch"] + 1 for line in history]
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    curves = {"training": "align", "validation": "validation_loss"}
    for (name, key), style in zip(curves.items(), ("-", "--"), strict=True):
        if key in history[0]:
            losses.plot(epochs, [line[key] for line in history], style, color="#1f2933", label=name)
    losses.set_title("Loss, without the regularization", loc="left", fontsize=10)
    losses.legend(frameon=False)
    scores.plot(epochs, [line["macro_f1"] for line in history], color="#2b5a8c")
    scores.set_title("Validation macro F1", loc="left", fontsize=10)
    kept = best["epoch"] + 1
    for axes in (losses, scores):
        axes.axvline(kept, color="#9aa5b1", linewidth=0.8)
        axes.set_xlabel(f"epoch (kept: {kept:.0f})")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return Picture("history", f"Loss and validation macro F1 over {len(history)} epochs", png(figure))


def card(config: dict[str, Any], labels: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The README of a model directory: first what it is for and how to use it, last what only its makers ask."""
    encoder, best, words = config["encoder"], metrics["best"], labels["words"]
    care = untrained(encoder)
    songs = [[name, f"{count:,}"] for name, count in metrics["songs"].items()]
    absent = [
        f"- {name}: {count:,} songs without features ({reason})"
        for name, reasons in metrics["absent"].items()
        for reason, count in reasons.items()
    ]
    alike = [f"- {', '.join(group)}" for group in labels["clusters"] if len(group) > 1]
    readings = [[name, f"`{value}`"] for name, value in sorted(config["readings"].items()) if value not in (None, "")]
    label_model = config["label_model"]["name"]
    sections = {
        "": [
            f"Gives songs emotion words: any list of them, also words it was never trained on. It was trained on "
            f"{', '.join(config['datasets'])} ({len(words)} words) from features of {encoder.get('name')}.",
            *(["**The encoder is untrained: what this model says of music means nothing.**"] if care else []),
        ],
        "Use": [_USE],
        "Results": [
            f"Validation macro F1 {best['macro_f1']:.3f} in epoch {best['epoch'] + 1:.0f} of {metrics['epochs']} "
            f"({_chosen_by(config['settings'])}). That epoch was chosen by it, so other songs will score lower: "
            "`mer-ray evaluate` says how much, beside chance.",
            "![Loss and validation macro F1 by epoch](history.png)",
            table(["dataset and split", "songs"], songs).rstrip(),
            *absent,
        ],
        "Intended use": ["Sorting and searching catalogues of music by mood; playlists; research."],
        "Limits": [
            "- Moods as those heard them who labelled the training songs; other listeners and cultures hear others.\n"
            "- A word far from all trained words is a guess: `mer-ray labels` says which are.\n"
            f"- Words are read by {_reader(label_model)}.\n"
            "- A percentile says where a song stands among others, not how likely a word is true.\n"
            "- Not for judgements about people, such as who wrote a song or listens to it.",
        ],
        "Licence": [
            f"The weights of {encoder.get('name')} are under **{encoder.get('licence') or 'a licence not known'}**; "
            "what is made with them, this model and its tags among it, is bound by that."
        ],
        "Words": [
            f"{', '.join(words)}.",
            *(["Words that it hardly tells apart:", "\n".join(alike)] if alike else []),
            f"Grouped by: {_found_by(labels['bandwidth'])}.",
        ],
        "How it was made": [f"By mer_ray {config['version']}.", table(["reading of the paper", "value"], readings)],
    }
    parts = ["# A mer_ray model"]
    for heading, paragraphs in sections.items():
        parts += [f"## {heading}"] if heading else []
        parts += paragraphs
    return "\n\n".join(parts).rstrip() + "\n"


_USE = """```sh
mer-ray tag --catalog ~/Music --features features/ --model . --labels happy,sad,tense --output tags/
mer-ray page tags/ --output page.html
```

```python
from mer_ray.tagging import Tagger

Tagger.load(".").rank(features, ["happy", "sad", "tense"])  # features [windows, D] of one song
```"""


def _reader(label_model: str) -> str:
    return f"{LABEL_MODEL}, which knows English alone" if label_model in ("auto", LABEL_MODEL) else f"`{label_model}`"


def _chosen_by(settings: Mapping[str, Any]) -> str:
    level = "songs as they are tagged" if settings["select_on"] == "songs" else "windows by cosine"
    over = "the first dataset" if settings["select_over"] == "first" else "mean over the datasets"
    return f"{level}, {over}; kept by {'lowest loss' if settings['keep'] == 'loss' else 'highest macro F1'}"


def _found_by(bandwidth: float | None) -> str:
    if bandwidth is None:
        return "as published"
    return f"Mean Shift, bandwidth {bandwidth:g}" if bandwidth else "each word its own: none were asked for, or found"
