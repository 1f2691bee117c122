"""What a person reads: model cards, evaluation reports and figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from mer_ray.evaluation import Level

LEVELS = {
    "window": "windows",
    "song_vote": "songs, majority vote",
    "song_mean": "songs, mean score",
    "random": "random labels",
    "frequent": "most frequent labels",
}
_METRICS = {
    "macro_f1": "macro F1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column left, the others right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows]) + "\n"


def model_card(config: dict[str, Any], labels: dict[str, Any], metrics: dict[str, Any]) -> str:
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


def evaluation_report(results: Mapping[str, Mapping[str, Level]], facts: Mapping[str, str]) -> str:
    """``report.md`` of an evaluation."""
    lines = ["# Evaluation", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for dataset, levels in results.items():
        first = levels["song_vote"].metrics
        lines += [f"## {dataset}: {first['songs']:,.0f} songs, {first['k']:.0f} labels each", "", summary_table(levels)]
        lines += [f"![F1 of each label](per_label_{dataset}.png)", "", "### Labels (songs, majority vote)", ""]
        lines += [label_table(levels["song_vote"])]
    return "\n".join(lines)


def summary_table(levels: Mapping[str, Level]) -> str:
    """One row a level of prediction, baselines last."""
    rows = [
        [LEVELS[name], *(_number(level.metrics[metric]) for metric in _METRICS)]
        for name, level in levels.items()
        if name in LEVELS
    ]
    return table(["", *_METRICS.values()], rows)


def label_table(level: Level) -> str:
    """One row a label, the best first."""
    names = ("f1", "precision", "recall", "roc_auc", "pr_auc")
    ordered = sorted(level.per_label.items(), key=lambda item: -item[1]["f1"])
    rows = [
        [label, f"{values['support']:.0f}", *(_number(values[name]) for name in names)] for label, values in ordered
    ]
    return table(["label", "songs", "F1", "precision", "recall", "ROC-AUC", "PR-AUC"], rows)


def per_label_figure(dataset: str, levels: Mapping[str, Level]) -> bytes:
    """A PNG: each label's F1 by song vote, beside what random labels score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ours, chance = levels["song_vote"].per_label, levels["random"].per_label
    labels = sorted(ours, key=lambda label: ours[label]["f1"])
    figure = Figure(figsize=(7, 1.4 + 0.26 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh(labels, [ours[label]["f1"] for label in labels], color="#3b6ea5", label="songs, majority vote")
    axes.plot(
        [chance[label]["f1"] for label in labels], labels, "|", color="#d1495b", ms=11, mew=2, label="random labels"
    )
    axes.set(xlabel="F1", xlim=(0, 1), title=f"{dataset}: F1 of each label")
    axes.margins(y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"
