"""What a person reads: model cards and evaluation reports, as Markdown, as one HTML page, on the console."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mer_ray.evaluation.metrics import AREA_RESAMPLES, RESAMPLES, Level

LEVELS = {
    "window": "windows",
    "song_vote": "songs, majority vote",
    "song_mean": "songs, mean score",
    "random": "chance (random labels)",
    "frequent": "most frequent labels",
}
_METRICS = {
    "macro_f1": "macro F1",
    "cluster_macro_f1": "cluster F1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}
_LABEL_METRICS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}
_NOTES = (
    f"[low, high]: 95 % percentile intervals over resamples of the songs ({RESAMPLES:,} for F1, {AREA_RESAMPLES} for "
    "ROC-AUC), each song with all its windows. They tell what other songs of the kind would change, not what another "
    "training would. A label that a resample loses keeps the F1 it has on all songs.",
    "Macro F1 depends on how many labels are given and how common they are: read it against the two baselines. "
    "ROC-AUC does not; 0.5 is chance.",
    "Reliability: a percentile says where a song stands among the yardstick's for a word, not how likely the word is "
    "true; the figure says that, for these songs and words. A rare word at its 95th percentile may still be wrong.",
)
_CLUSTER_NOTE = (
    "Cluster F1: the same windows and truth scored over the model's clusters of labels, where a near word counts as "
    "right: mostly the easier task. The reference code reports it in-domain; chance is higher too."
)


class Grid(NamedTuple):
    """A table before it is written down: the first column names a row."""

    header: list[str]
    rows: list[list[str]]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column left, the others right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows]) + "\n"


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """The same for a console: columns aligned, the first left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        for cells in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in lines) + "\n"


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """The same for a page, all text escaped."""

    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    return f'<div class="wide"><table>\n<thead>{row(header, "th")}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def html_image(png: bytes, alt: str) -> str:
    """A picture that travels inside the page."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def html_list(items: Sequence[str]) -> str:
    """Paragraph-sized remarks, all text escaped."""
    return "<ul>\n" + "\n".join(f"<li>{html.escape(item)}</li>" for item in items) + "\n</ul>"


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """One HTML page that needs no other file and no network.

    Args:
        title: plain text.
        sections: heading (plain text; none if empty) and body (HTML) of each.
    """
    named = [(heading, f"s{at}", body) for at, (heading, body) in enumerate(sections)]
    links = " ".join(f'<a href="#{name}">{html.escape(heading)}</a>' for heading, name, _ in named if heading)
    bodies = "\n".join(
        f'<section id="{name}">\n' + (f"<h2>{html.escape(heading)}</h2>\n" if heading else "") + f"{body}\n</section>"
        for heading, name, body in named
    )
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n<nav>{links}</nav>\n{bodies}\n</body>\n</html>\n"
    )


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
        lines += [f"## {heading(dataset, levels)}", "", table(*summary_grid(levels))]
        lines += [f"![Each label](per_label_{dataset}.png)", ""]
        lines += [f"![Reliability](reliability_{dataset}.png)", "", "### Labels (songs, majority vote)", ""]
        lines += [table(*label_grid(levels["song_vote"]))]
    return "\n".join([*lines, "## Reading the figures", "", *(f"- {note}" for note in _notes(results)), ""])


def evaluation_page(
    results: Mapping[str, Mapping[str, Level]], facts: Mapping[str, str], figures: Mapping[str, Mapping[str, bytes]]
) -> str:
    """``report.html``: the same with the figures (PNG, by dataset and name) inside."""
    sections = []
    for dataset, levels in results.items():
        body = [
            html_table(*summary_grid(levels)),
            html_image(figures[dataset]["per_label"], f"{dataset}: F1 and ROC-AUC by label"),
        ]
        body += [html_image(figures[dataset]["reliability"], f"{dataset}: how often a percentile is right")]
        body += ["<h3>Labels (songs, majority vote)</h3>", html_table(*label_grid(levels["song_vote"]))]
        sections.append((heading(dataset, levels), "\n".join(body)))
    sections.append(("Reading the figures", html_list(_notes(results))))
    sections.append(("What was evaluated", html_list([f"{name}: {value}" for name, value in facts.items()])))
    return page("Evaluation", sections)


def heading(dataset: str, levels: Mapping[str, Level]) -> str:
    """The dataset, its songs and k."""
    facts = levels["song_vote"].metrics
    return f"{dataset}: {facts['songs']:,.0f} songs, {facts['k']:.0f} labels each"


def summary_grid(levels: Mapping[str, Level]) -> Grid:
    """One row a level of prediction, baselines last; a metric that no level has gets no column."""
    defined = [name for name in _METRICS if any(_is_number(level.metrics.get(name)) for level in levels.values())]
    rows = [
        [LEVELS[name], *(with_interval(level.metrics, metric) for metric in defined)]
        for name, level in levels.items()
        if name in LEVELS
    ]
    return Grid(["", *(_METRICS[name] for name in defined)], rows)


def label_grid(level: Level) -> Grid:
    """One row a label, the best first."""
    ordered = sorted(level.per_label.items(), key=lambda item: (-item[1]["f1"], -item[1]["support"]))
    rows = [
        [label, f"{values['support']:.0f}", *(with_interval(values, name) for name in _LABEL_METRICS)]
        for label, values in ordered
    ]
    return Grid(["label", "songs", *_LABEL_METRICS.values()], rows)


def with_interval(values: Mapping[str, float], name: str) -> str:
    """``0.417 [0.371, 0.466]`` where the interval is known, ``0.417`` where not, a dash for what is not defined."""
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    text = _number(values.get(name))
    return f"{text} [{_number(low)}, {_number(high)}]" if _is_number(low) and _is_number(high) else text


def _notes(results: Mapping[str, Mapping[str, Level]]) -> list[str]:
    clusters = any(_is_number(levels["song_vote"].metrics.get("cluster_macro_f1")) for levels in results.values())
    return [*_NOTES, _CLUSTER_NOTE] if clusters else list(_NOTES)


def _is_number(value: float | None) -> bool:
    return value is not None and value == value


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 1000px; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 2px solid #1f2933; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
nav a { color: #2b5a8c; margin-right: 1.25rem; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
th, td { padding: .28rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e1e6eb; }
th { font-weight: 600; border-bottom: 2px solid #9aa5b1; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody tr:hover { background: #f2f5f8; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
"""
