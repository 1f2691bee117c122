"""The reproduction on paper: tables with ours and the paper's figures, the cluster graph, the sweep, one page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain, combinations, repeat

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mer_ray.evaluation.report import write_report
from mer_ray.learning.training import word_space
from mer_ray.pages import Grid, Picture, Section, png
from mer_ray.paper.reproduction import FIGURE, Measured, Results, datasets, facts
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS, LAMBDAS, SHORT, Table, short
from mer_ray.words.labelspace import LabelSpace

TITLE = "The paper's tables"
HOW = "Macro F1 at the paper's k: ours with its 95 % interval, the paper's figure, and what random labels score."
NOT_RUN = "not run"
SPREAD = "Mean cosine between segments of different clusters, last training epoch"
COLOURS = {"jamendo": "#3b6ea5", "cal500": "#d98032", "emotify": "#4d9157"}
SHARED = "#7d4f9e"


def write_paper_report(settings: ReproduceSettings, tables: Sequence[Table], results: Results) -> None:
    """Write ``report.md``, ``report.html`` and the figures as PNG."""
    about = [f"{name}: {value}" for name, value in facts(settings).items()]
    figures = [Section(picture.alt, [picture]) for picture in _pictures(settings, results)]
    write_report(settings.output, TITLE, [Section("", [HOW, about]), *table_sections(tables, results), *figures])


def table_sections(tables: Sequence[Table], results: Results) -> list[Section]:
    """All tables, each under its title."""
    sections = []
    for one in tables:
        rows = results[one.name]
        sections.append(Section(one.title, [grid(one, rows), *([one.note] if one.note else [])]))
        if one.name == "sweep":
            sections.append(Section(SPREAD, [spread_grid(one, rows)]))
    return sections


def grid(one: Table, rows: dict[str, list[Measured]]) -> Grid:
    """A table's header and cells: ours [interval], the paper's beside it, chance in a row of its own."""
    printed = any(cell.paper is not None for cells in rows.values() for cell in cells)

    def row(name: str, ours: Iterable[str], papers: Iterable[str]) -> list[str]:
        return [name, *(chain(*zip(ours, papers, strict=False)) if printed else ours)]

    chances = []
    for at in range(len(one.columns)):
        known = (cells[at].chance for cells in rows.values() if cells[at].chance is not None)
        chances.append(_short(next(known, None)))
    header = row("trained on" if one.columns[0] in SHORT.values() else "", one.columns, repeat("paper"))
    body = [row(name, map(_ours, cells), (_short(cell.paper) for cell in cells)) for name, cells in rows.items()]
    return Grid(header, [*body, row("random labels", chances, repeat(""))])


def spread_grid(one: Table, rows: dict[str, list[Measured]]) -> Grid:
    """What the regularization does to what it acts on, for each model of the sweep."""
    body = [
        [name, *(NOT_RUN if cell.spread is None else f"{cell.spread:+.3f}" for cell in cells)]
        for name, cells in rows.items()
    ]
    return Grid(["", *(column.split(" → ")[0] for column in one.columns)], body)


def _ours(cell: Measured) -> str:
    if cell.ours is None:
        return NOT_RUN
    interval = "" if cell.low is None or cell.high is None else f" [{_short(cell.low)}, {_short(cell.high)}]"
    return f"{_short(cell.ours)}{interval}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def _pictures(settings: ReproduceSettings, results: Results) -> list[Picture]:
    pictures = []
    if any(cell.ours is not None for cells in results.get("sweep", {}).values() for cell in cells):
        pictures.append(Picture("sweep", "Regularization and zero-shot transfer", sweep_figure(results["sweep"])))
    if settings.only and FIGURE not in settings.only:
        return pictures
    given = {name: set(one.vocabulary) for name, one in datasets(settings).items()}
    space = word_space(settings)
    for group in [*combinations(given, 2), *([DATASETS] if len(given) == len(DATASETS) else [])]:
        own = {name: given[name] for name in group}
        labels = LabelSpace.build([*map(sorted, own.values())], space, settings.bandwidth)
        title = f"Figure 2: label clusters of {short(group)}"
        pictures.append(Picture(f"clusters_{short(group)}", title, cluster_figure(title, labels, own)))
    return pictures


def cluster_figure(title: str, space: LabelSpace, vocabularies: dict[str, set[str]]) -> bytes:
    """A PNG: each cluster of several words as a star, its words coloured by dataset; single words below."""
    groups = space.describe()["clusters"]
    stars = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)
    alone = sorted(group[0] for group in groups if len(group) == 1)
    columns = min(4, max(1, len(stars)))
    rows = max(1, math.ceil(len(stars) / columns))
    lines = math.ceil(sum(len(word) + 2 for word in alone) / 150) + 1
    figure = Figure(figsize=(13, 2.5 * rows + 0.24 * lines + 0.9), layout="constrained")
    grid_spec = figure.add_gridspec(rows + 1, columns, height_ratios=[*[2.5] * rows, 0.24 * lines + 0.2])
    for at, group in enumerate(stars):
        _star(figure.add_subplot(grid_spec[at // columns, at % columns]), group, vocabularies)
    below = figure.add_subplot(grid_spec[rows, :])
    below.axis("off")
    text = f"Words alone ({len(alone)}): {' · '.join(alone)}" if alone else "No word is alone."
    below.text(0, 1, textwrap.fill(text, 160), va="top", fontsize=9, color="#555555", transform=below.transAxes)
    facts = f"{len(space.words)} words, {len(groups)} clusters, bandwidth {space.clusters.bandwidth:g}"
    figure.suptitle(f"{title}: {facts}", x=0.01, ha="left")
    handles = [
        below.plot([], [], "o", color=COLOURS[name], label=f"{name} ({len(words)} words)")[0]
        for name, words in vocabularies.items()
    ]
    if set.intersection(*vocabularies.values()) or len(vocabularies) > 2:
        handles += below.plot([], [], "o", color=SHARED, label="in several")
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=4)
    return png(figure)


def sweep_figure(rows: dict[str, list[Measured]]) -> bytes:
    """A PNG: macro F1 on the dataset left out against the weight of the regularization."""
    transfers = len(next(iter(rows.values())))
    figure = Figure(figsize=(4.2 * transfers, 3.4), layout="constrained")
    weights = [0.0, *LAMBDAS]
    for at in range(transfers):
        cells = [cells[at] for cells in rows.values()]
        ran = [(weight, cell) for weight, cell in zip(weights, cells, strict=True) if cell.ours is not None]
        axes = figure.add_subplot(1, transfers, at + 1)
        title = f"{cells[0].training.split('-')[0]} → {SHORT[cells[0].test]}"
        axes.set(title=title, xlabel="λ", xticks=weights)
        axes.spines[["top", "right"]].set_visible(False)
        if not ran:
            axes.text(0.5, 0.5, NOT_RUN, ha="center", transform=axes.transAxes)
            continue
        x = [weight for weight, _ in ran]
        ours, low, high = ([getattr(cell, name) or 0 for _, cell in ran] for name in ("ours", "low", "high"))
        axes.plot(x, ours, "o-", color=COLOURS["jamendo"], label="ours")
        axes.fill_between(x, low, high, color=COLOURS["jamendo"], alpha=0.15, label="95 % over songs")
        axes.axhline(ran[0][1].chance or 0, color="#d1495b", ls="--", lw=1, label="random labels")
        axes.set_ylim(bottom=0)
        if at == 0:
            axes.set_ylabel("macro F1, songs")
            axes.legend(frameon=False, fontsize=8)
    return png(figure)


def _star(axes: Axes, group: list[str], vocabularies: dict[str, set[str]]) -> None:
    axes.set(xlim=(-1.9, 1.9), ylim=(-1.5, 1.5))
    axes.axis("off")
    for at, word in enumerate(group):
        angle = math.pi / 2 + 2 * math.pi * at / len(group)
        x, y = math.cos(angle), math.sin(angle)
        holders = [name for name, words in vocabularies.items() if word in words]
        colour = COLOURS[holders[0]] if len(holders) == 1 else SHARED
        axes.plot([0, x], [0, y], color="#cccccc", lw=1, zorder=1)
        axes.plot(x, y, "o", color=colour, ms=9, zorder=2)
        axes.text(x, y + (0.16 if y >= 0 else -0.16), word, ha="center", va="bottom" if y >= 0 else "top", fontsize=9)
    axes.plot(0, 0, "o", color="#888888", ms=4, zorder=2)
