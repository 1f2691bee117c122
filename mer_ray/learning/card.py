"""A model's card, the README of its directory: what it is, what made it, how it may be used; and its loss curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mer_ray.pages import Picture, png, table


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
    """The README of a model directory."""
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
            f"- Trained with mer_ray {config['version']} for {metrics['epochs']} epochs; the weights are those "
            f"of epoch {best['epoch'] + 1:.0f}, validation macro F1 {best['macro_f1']:.3f} "
            f"({_chosen_by(config['settings'])}).",
            "",
            "![Loss and validation macro F1 by epoch](history.png)",
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
            f"{len(labels['words'])} words in {len(labels['clusters'])} clusters ({_found_by(labels['bandwidth'])}). "
            "Words that share a cluster, antonyms among them where sentence embeddings put them together:",
            "",
            *(f"- {', '.join(group)}" for group in groups),
            "" if groups else "- none\n",
        ]
    )


def _chosen_by(settings: Mapping[str, Any]) -> str:
    level = "songs as they are tagged" if settings["select_on"] == "songs" else "windows by cosine"
    over = "the first dataset" if settings["select_over"] == "first" else "mean over the datasets"
    return f"{level}, {over}; kept by {'lowest loss' if settings['keep'] == 'loss' else 'highest macro F1'}"


def _found_by(bandwidth: float | None) -> str:
    if bandwidth is None:
        return "as published"
    return f"Mean Shift, bandwidth {bandwidth:g}" if bandwidth else "each word its own: none were asked for, or found"
