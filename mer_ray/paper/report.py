"""The reproduction on paper: tables with ours and the paper's figures, the cluster graph, the sweep, one page."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mer_ray import storage
from mer_ray.catalog.annotations import Annotations
from mer_ray.learning.training import word_space
from mer_ray.pages import html_image, html_list, html_table, page, table
from mer_ray.paper.reproduction import FIGURE, Measured, Results, facts
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS, LAMBDAS, SHORT, Table
from mer_ray.words.labelspace import LabelSpace

NOT_RUN = "not run"
SPREAD = "Mean cosine between segments of different clusters, last training epoch"
COLOURS = {"jamendo": "#3b6ea5", "cal500": "#d98032", "emotify": "#4d9157"}
SHARED = "#7d4f9e"


def write_report(settings: ReproduceSettings, tables: Sequence[Table], results: Results) -> None:
    """Write ``report.md``, ``report.html`` and the figures as PNG."""
    about = [f"{name}: {value}" for name, value in facts(settings).items()]
    images = _images(settings, results)
    for name, (_, image) in images.items():
        storage.write_bytes(storage.join(settings.output, f"{name}.png"), image)
    how = "Macro F1 at the paper's k: ours with its 95 % interval, the paper's figure, and what random labels score."
    markdown = ["# The paper's tables", "", how, "", *(f"- {line}" for line in about), ""]
    markdown += [
        markdown_tables(tables, results),
        *(f"## {title}\n\n![{title}]({name}.png)\n" for name, (title, _) in images.items()),
    ]
    storage.write_bytes(storage.join(settings.output, "report.md"), "\n".join(markdown).encode())
    sections = [("", f"<p>{how}</p>" + html_list(about))]
    for one in tables:
        header, rows = grid(one, results[one.name])
        sections.append((one.title, html_table(header, rows) + (f"<p>{one.note}</p>" if one.note else "")))
        if one.name == "sweep":
            sections.append((SPREAD, html_table(*spread_grid(one, results[one.name]))))
    sections += [(title, html_image(image, title)) for title, image in images.values()]
    storage.write_bytes(storage.join(settings.output, "report.html"), page("The paper's tables", sections).encode())


def markdown_tables(tables: Sequence[Table], results: Results) -> str:
    """All tables, each under its title."""
    parts = []
    for one in tables:
        parts += [f"## {one.title}", "", table(*grid(one, results[one.name]))]
        parts += [one.note, ""] if one.note else []
        if one.name == "sweep":
            parts += [f"## {SPREAD}", "", table(*spread_grid(one, results[one.name]))]
    return "\n".join(parts)


def grid(one: Table, rows: dict[str, list[Measured]]) -> tuple[list[str], list[list[str]]]:
    """A table's header and cells: ours [interval], the paper's beside it, chance in a row of its own."""
    printed = any(cell.paper is not None for cells in rows.values() for cell in cells)
    header = ["trained on" if one.columns[0] in SHORT.values() else ""]
    for column in one.columns:
        header += [column, "paper"] if printed else [column]
    body = []
    for name, cells in rows.items():
        line = [name]
        for cell in cells:
            line += [_ours(cell), _short(cell.paper)] if printed else [_ours(cell)]
        body.append(line)
    chance = ["random labels"]
    for at in range(len(one.columns)):
        known = next((cells[at].chance for cells in rows.values() if cells[at].chance is not None), None)
        chance += [_short(known), ""] if printed else [_short(known)]
    return header, [*body, chance]


def spread_grid(one: Table, rows: dict[str, list[Measured]]) -> tuple[list[str], list[list[str]]]:
    """What the regularization does to what it acts on, for each model of the sweep."""
    header = ["", *(column.split(" → ")[0] for column in one.columns)]
    return header, [
        [name, *(NOT_RUN if cell.spread is None else f"{cell.spread:+.3f}" for cell in cells)]
        for name, cells in rows.items()
    ]


def _ours(cell: Measured) -> str:
    if cell.ours is None:
        return NOT_RUN
    interval = "" if cell.low is None or cell.high is None else f" [{_short(cell.low)}, {_short(cell.high)}]"
    return f"{_short(cell.ours)}{interval}"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def _images(settings: ReproduceSettings, results: Results) -> dict[str, tuple[str, bytes]]:
    images = {}
    if "sweep" in results and any(cell.ours is not None for cells in results["sweep"].values() for cell in cells):
        images["sweep"] = ("Regularization and zero-shot transfer", sweep_figure(results["sweep"]))
    if not settings.only or FIGURE in settings.only:
        for datasets, space, vocabularies in label_spaces(settings):
            name = "+".join(SHORT[dataset] for dataset in datasets)
            title = f"Figure 2: label clusters of {name}"
            images[f"clusters_{name}"] = (title, cluster_figure(title, space, vocabularies))
    return images


def label_spaces(settings: ReproduceSettings) -> list[tuple[tuple[str, ...], LabelSpace, dict[str, set[str]]]]:
    """The label space of each pair of given datasets, and of all three."""
    given = {
        name: set(Annotations.read(uri, settings.seed).vocabulary)
        for name in DATASETS
        if (uri := getattr(settings, name)) is not None
    }
    space = word_space(settings)
    groups = [*combinations(given, 2), *([DATASETS] if len(given) == len(DATASETS) else [])]
    spaces = []
    for group in groups:
        words = [sorted(given[name]) for name in group]
        labels = LabelSpace.build(words, space, settings.bandwidth)
        spaces.append((tuple(group), labels, {name: given[name] for name in group}))
    return spaces


def cluster_figure(title: str, space: LabelSpace, vocabularies: dict[str, set[str]]) -> bytes:
    """A PNG: each cluster of several words as a star, its words coloured by dataset; single words below."""
    groups = space.describe()["clusters"]
    stars = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)
    alone = sorted(group[0] for group in groups if len(group) == 1)
    columns = min(4, max(1, len(stars)))
    rows = max(1, math.ceil(len(stars) / columns))
    lines = math.ceil(sum(len(word) + 2 for word in alone) / 150) + 1
    figure = Figure(figsize=(13, 2.5 * rows + 0.24 * lines + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid_spec = figure.add_gridspec(rows + 1, columns, height_ratios=[*[2.5] * rows, 0.24 * lines + 0.2])
    for at, group in enumerate(stars):
        _star(figure.add_subplot(grid_spec[at // columns, at % columns]), group, vocabularies)
    below = figure.add_subplot(grid_spec[rows, :])
    below.axis("off")
    text = f"Words alone ({len(alone)}): {' · '.join(alone)}" if alone else "No word is alone."
    below.text(0, 1, _wrapped(text, 160), va="top", fontsize=9, color="#555555", transform=below.transAxes)
    facts = f"{len(space.words)} words, {len(groups)} clusters, bandwidth {space.clusters.bandwidth:g}"
    figure.suptitle(f"{title}: {facts}", x=0.01, ha="left")
    handles = [
        below.plot([], [], "o", color=COLOURS[name], label=f"{name} ({len(words)} words)")[0]
        for name, words in vocabularies.items()
    ]
    if set.intersection(*vocabularies.values()) or len(vocabularies) > 2:
        handles += below.plot([], [], "o", color=SHARED, label="in several")
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=4)
    return _png(figure)


def sweep_figure(rows: dict[str, list[Measured]]) -> bytes:
    """A PNG: macro F1 on the dataset left out against the weight of the regularization."""
    transfers = len(next(iter(rows.values())))
    figure = Figure(figsize=(4.2 * transfers, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    weights = [0.0, *LAMBDAS]
    for at in range(transfers):
        cells = [cells[at] for cells in rows.values()]
        ran = [(weight, cell) for weight, cell in zip(weights, cells, strict=True) if cell.ours is not None]
        axes = figure.add_subplot(1, transfers, at + 1)
        trained_on = cells[0].training.split("-")[0]
        axes.set(title=f"{trained_on} → {SHORT[cells[0].test]}", xlabel="λ", xticks=weights)
        axes.spines[["top", "right"]].set_visible(False)
        if not ran:
            axes.text(0.5, 0.5, NOT_RUN, ha="center", transform=axes.transAxes)
            continue
        axes.plot(
            [weight for weight, _ in ran], [cell.ours or 0 for _, cell in ran], "o-", color="#3b6ea5", label="ours"
        )
        axes.fill_between(
            [weight for weight, _ in ran],
            [cell.low or 0 for _, cell in ran],
            [cell.high or 0 for _, cell in ran],
            color="#3b6ea5",
            alpha=0.15,
            label="95 % over songs",
        )
        axes.axhline(ran[0][1].chance or 0, color="#d1495b", ls="--", lw=1, label="random labels")
        axes.set_ylim(bottom=0)
        if at == 0:
            axes.set_ylabel("macro F1, songs")
            axes.legend(frameon=False, fontsize=8)
    return _png(figure)


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


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
