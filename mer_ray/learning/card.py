"""The card that lies in a model's directory: what it is, what made it, how it may be used."""

from __future__ import annotations

from typing import Any

from mer_ray.pages import table


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
