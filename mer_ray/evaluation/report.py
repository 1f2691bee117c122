"""What a person reads of an evaluation, as Markdown, as one HTML page, on the console."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from mer_ray import storage
from mer_ray.evaluation.metrics import AREA_RESAMPLES, RESAMPLES, Level
from mer_ray.evaluation.ratings import CORRELATION
from mer_ray.pages import Block, Grid, Picture, Player, Section, Verdict, markdown, page
from mer_ray.songs import Identity, untrained

LEVELS = {
    "window": "windows",
    "song_vote": "songs, majority vote",
    "song_mean": "songs, k labels each",
    "song": "songs as they are tagged",
    "ridge": "ridge regression on the features",
    "random": "chance (random labels)",
    "frequent": "most frequent labels",
}
_LABEL_METRICS = {"f1": "F1", "precision": "precision", "recall": "recall", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
_METRICS = {
    "macro_f1": "macro F1",
    "cluster_macro_f1": "cluster F1",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    CORRELATION: "ρ with ratings",
}
_NOTES = [
    f"[low, high]: 95 % percentile intervals over resamples of the songs ({RESAMPLES:,} for F1, {AREA_RESAMPLES} for "
    "ROC-AUC), each song with all its windows. They tell what other songs of the kind would change, not what another "
    "training would. A label that a resample loses keeps the F1 it has on all songs.",
    "Macro F1 depends on how many labels are given and how common they are: read it against the two baselines. "
    "ROC-AUC does not; 0.5 is chance.",
    "Reliability: a percentile says where a song stands among the yardstick's for a word, not how likely the word is "
    "true; the figure says that, for these songs and words. A rare word at its 95th percentile may still be wrong.",
]
_JUDGED = (
    (0.85, "tells its words well"),
    (0.7, "tells its words fairly well"),
    (0.0, "better than chance, not by much"),
)
"""By ROC-AUC, where its interval lies above chance."""
_CLUSTER_NOTE = (
    "Cluster F1: the same windows and truth scored over the model's clusters of labels, where a near word counts as "
    "right: mostly the easier task. The reference code reports it in-domain; chance is higher too."
)


_RATINGS_NOTE = (
    "ρ with ratings: Spearman's rank correlation between a label's scores and how strongly listeners heard it, over "
    "the songs, mean over the labels; 0 is chance, 1 the listeners' own order."
)


def write_report(folder: str, title: str, sections: Sequence[Section]) -> None:
    """Write ``report.md`` with its pictures beside it, and ``report.html`` with them inside."""
    for picture in (block for section in sections for block in section.blocks if isinstance(block, Picture)):
        storage.write_bytes(storage.join(folder, f"{picture.name}.png"), picture.png)
    storage.write_bytes(storage.join(folder, "report.md"), markdown(title, sections).encode())
    storage.write_bytes(storage.join(folder, "report.html"), page(title, sections).encode())


def report_title(model: str, datasets: Iterable[str]) -> str:
    """Which model, on what."""
    return f"{model.rstrip('/').rsplit('/', 1)[-1]}: how well it tags {', '.join(datasets)}"


def report_sections(
    results: Mapping[str, Mapping[str, Level]],
    facts: Mapping[str, str],
    figures: Mapping[str, Sequence[Picture]],
    examples: Mapping[str, Sequence[Player]],
    encoder: Identity,
) -> list[Section]:
    """The verdict, each dataset with figures and songs, how to read them, and what made them."""
    care = untrained(encoder)
    first: list[Block] = [Verdict(verdict(dataset, levels), care) for dataset, levels in results.items()]
    if care:
        care_why = f"The encoder {encoder.get('name')} is untrained: these figures say nothing of trained features."
        first.append(Verdict(care_why, True))
    else:
        first.append(f"The encoder is {encoder.get('name')}.")
    sections = [Section("", first)]
    for dataset, levels in results.items():
        labels = label_grid(levels["song_vote"])
        blocks: list[Block] = [summary_grid(levels), *figures[dataset], "Labels (songs, majority vote):", labels]
        if examples[dataset]:
            blocks += ["Songs, those told best first, those told worst last:", *examples[dataset]]
        sections.append(Section(heading(dataset, levels), blocks))
    clusters = any(_is_number(levels["song_vote"].metrics.get("cluster_macro_f1")) for levels in results.values())
    rated = any(CORRELATION in levels["song_mean"].metrics for levels in results.values())
    notes = [*_NOTES, *([_CLUSTER_NOTE] if clusters else []), *([_RATINGS_NOTE] if rated else [])]
    made: list[Block] = [[f"{name}: {value}" for name, value in facts.items()]]
    return [*sections, Section("Reading the figures", [notes]), Section("What made them", made)]


def verdict(dataset: str, levels: Mapping[str, Level]) -> str:
    """One sentence: how well the songs are told as they are tagged, beside chance and beside a ridge regression."""
    ours, chance = levels.get("song_mean", levels["song_vote"]).metrics, levels["random"].metrics
    area, low = (ours.get(name, math.nan) for name in ("roc_auc", "roc_auc_low"))
    if math.isnan(area):
        judged = "too few songs to tell from chance"
    elif low > 0.5:
        judged = next(words for least, words in _JUDGED if area >= least)
    else:
        judged = "not shown to be better than chance" if area > 0.5 else "no better than chance"
    ridge = levels["ridge"].metrics if "ridge" in levels else None
    beside = f"; a ridge regression on the same features has {_number(ridge.get('roc_auc'))}" if ridge else ""
    return (
        f"{dataset}: {judged}. Over {ours['songs']:,.0f} songs ROC-AUC is {with_interval(ours, 'roc_auc')} (chance "
        f"0.5{beside}), macro F1 {with_interval(ours, 'macro_f1')} (chance {_number(chance.get('macro_f1'))})."
    )


def heading(dataset: str, levels: Mapping[str, Level]) -> str:
    """The dataset, its songs and k."""
    facts = levels["song_vote"].metrics
    return f"{dataset}: {facts['songs']:,.0f} songs, {facts['k']:.0f} labels each"


def summary_grid(levels: Mapping[str, Level]) -> Grid:
    """One row a level of prediction, baselines last; a metric that no level has gets no column."""
    defined = [name for name in _METRICS if any(_is_number(level.metrics.get(name)) for level in levels.values())]
    rows = [
        [text, *(with_interval(levels[name].metrics, one) for one in defined)]
        for name, text in LEVELS.items()
        if name in levels
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


def _is_number(value: float | None) -> bool:
    return value is not None and value == value


def _number(value: float | None) -> str:
    return f"{value:.3f}" if _is_number(value) else "–"
