"""Figures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mer_ray.evaluation.metrics import Level
from mer_ray.pages import headed, png
from mer_ray.tagging.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _BAR, _CHANCE = "#2b5a8c", "#9dbfe0", "#d1495b"
_INCHES_A_LABEL = 0.24


def per_label_figure(dataset: str, levels: Mapping[str, Level]) -> bytes:
    """A PNG: each label's F1 and ROC-AUC by song vote, the best F1 on top, beside what random labels score."""
    from matplotlib.figure import Figure

    ours, chance = levels["song_vote"].per_label, levels["random"].per_label
    labels = sorted(ours, key=lambda label: (ours[label]["f1"], ours[label]["support"]))
    figure = Figure(figsize=(9.5, 1.7 + _INCHES_A_LABEL * len(labels)), layout="constrained")
    f1_axes, area_axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw_f1(f1_axes, [ours[label] for label in labels], [chance[label]["f1"] for label in labels])
    area_axes.axvline(0.5, color=_CHANCE, lw=1.2)
    area_axes.plot([ours[label]["roc_auc"] for label in labels], range(len(labels)), "o", color=_OURS, ms=4.5)
    area_axes.set(xlabel="ROC-AUC (chance 0.5)", xlim=(0, 1.02))
    area_axes.tick_params(axis="y", labelleft=False)
    _bare(area_axes)
    f1_axes.set_yticks(range(len(labels)), [f"{label}  ({ours[label]['support']:.0f})" for label in labels], fontsize=9)
    f1_axes.set_ylim(-0.7, len(labels) - 0.3)
    headed(f1_axes, f"{dataset}: F1 of each word (songs that have it)")
    headed(area_axes, "ROC-AUC of each word")
    handles, names = f1_axes.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def reliability_figure(dataset: str, measured: Reliability) -> bytes:
    """A PNG: how often a word at each percentile is true, and the precision of a threshold there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 1 / len(measured.edges)
    share, base = measured.share, measured.right.sum() / max(1, measured.pairs.sum())
    axes.bar(measured.edges + width / 2, share, 0.9 * width, color=_BAR, label="true at this percentile")
    axes.plot(measured.edges, measured.precision, color=_OURS, marker="o", ms=3, label="true from here up")
    axes.axhline(base, color=_CHANCE, lw=1.2, label="chance (all songs and words)")
    axes.set(xlabel="percentile of the word for the song", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    headed(axes, f"{dataset}: how often a word is right, by its percentile")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    _bare(axes)
    return png(figure)


def _draw_f1(axes: Axes, ours: list[dict[str, float]], chance: list[float]) -> None:
    rows = range(len(ours))
    f1, low, high = ([values.get(name, values["f1"]) for values in ours] for name in ("f1", "f1_low", "f1_high"))
    axes.barh(rows, f1, height=0.68, color=_BAR, label="F1")
    axes.plot(f1, rows, "o", color=_OURS, ms=4, clip_on=False)  # a word never given right has no bar, but a point at 0
    axes.hlines(rows, low, high, color=_OURS, lw=1.4, label="95 % interval over songs")
    axes.plot(chance, rows, "|", color=_CHANCE, ms=9, mew=2, label="chance (random labels)")
    axes.set(xlabel="F1", xlim=(0, min(1.02, 1.08 * max(*high, *chance, 0.1))))
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#d9dee3", lw=0.7)
    axes.set_axisbelow(True)
