"""The reproduction on paper: tables with ours and the paper's figures, the cluster graph, the sweep, one page."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations, repeat
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mer_ray.evaluation.report import write_report
from mer_ray.learning.training import word_space
from mer_ray.pages import Grid, Picture, Section, png
from mer_ray.paper.measures import Choice, Difference, Measured
from mer_ray.paper.reproduction import Reproduction
from mer_ray.paper.settings import ReproduceSettings
from mer_ray.paper.tables import DATASETS, LAMBDAS, SHORT, TRANSFERS, Differences, Table, short
from mer_ray.words.labelspace import LabelSpace

TITLE = "The paper's tables"
HOW = (
    "Macro F1 at the paper's k: our mean over seeds ± the deviation over them, the 95 % interval over songs in "
    "brackets, the paper's figure, and what random labels score."
)
HOW_APART = (
    "One model's figure less the other's, on the same songs and seeds. It is higher or lower where the 95 % interval "
    "over songs leaves out zero and the mean is more than two standard errors over the seeds from zero; one seed tells "
    "nothing of what another training would give."
)
HOW_RATED = (
    "Spearman's rank correlation of a label's scores with how strongly listeners heard it, over the test songs, mean "
    "over the labels; 0 is chance."
)
HOW_CHOSEN = (
    "Macro F1 of songs, meaned over the validation songs of the two datasets trained on. λ is the best of its column, "
    "marked *; only the model at that λ is tested on the dataset left out."
)
FIGURE, NOT_RUN = "figure2", "not run"
REGULARIZATION = {
    "negative": "Mean cosine between segments of different clusters, last training epoch",
    "positive": "Mean cosine distance between segments of one cluster, last training epoch",
    "reference": "The reference's regularizer, last training epoch: 1 + an anchor's mean cosine with the segments of "
    "other clusters, not below 0, averaged over anchors (1 where they are orthogonal)",
}
"""What the last epoch's figure is, by the form of the regularizer that made it."""
COLOURS = {"jamendo": "#3b6ea5", "cal500": "#d98032", "emotify": "#4d9157"}
SHARED = "#7d4f9e"


def write_paper_report(settings: ReproduceSettings, made: Reproduction) -> None:
    """Write ``report.md``, ``report.html`` and the figures as PNG."""
    about = [f"{name}: {value}" for name, value in made.facts.items()]
    figures = [Section(picture.alt, [picture]) for picture in _pictures(settings, made)]
    tables = table_sections(settings, made)
    write_report(settings.output, TITLE, [Section("", [verdict(made), HOW, about]), *tables, *figures])


def table_sections(settings: ReproduceSettings, made: Reproduction) -> list[Section]:
    """All tables, each under its title; then what tells models apart, and how λ was chosen."""
    sections = [
        Section(one.title, [grid(one, rows), *([one.note] if one.note else [])]) for one, rows in made.tables.values()
    ]
    for asked, found in made.differences:
        sections.append(Section(asked.title, [difference_grid(asked, found), HOW_APART]))
    if made.ratings:
        sections.append(Section("Soft truth: listeners' ratings", [rating_grid(made.ratings), HOW_RATED]))
    if made.choices:
        sections.append(Section("λ, chosen on validation songs", [choice_grid(made.choices), HOW_CHOSEN]))
        sections.append(Section("Zero-shot at the chosen λ", [chosen_grid(made.choices)]))
        sections.append(Section(REGULARIZATION[settings.regularizer], [regularization_grid(made.choices)]))
    return sections


def verdict(made: Reproduction) -> list[str]:
    """What a reader takes home, in a few sentences."""
    cells = [cell for _, rows in made.tables.values() for row in rows.values() for cell in row]
    ran = [cell for cell in cells if cell.ours is not None and cell.low is not None and cell.high is not None]
    sure = [cell for cell in ran if cell.chance is not None and cell.low is not None and cell.low > cell.chance]
    held = [cell for cell in ran if cell.paper is not None]
    above, below = (sum(_sign(cell) == sign for cell in held) for sign in (1, -1))
    told = [f"{len(ran)} of {len(cells)} cells ran; {len(sure)} of them are above random labels beyond their interval."]
    if held:
        within = len(held) - above - below
        told.append(
            f"The paper's figure lies within our interval in {within} of {len(held)} cells; ours is above it in "
            f"{above} and below it in {below}."
        )
    for asked, found in made.differences:
        for row, differences in found.items():
            counted = Counter(one.verdict for one in differences if one.ours is not None)
            parts = [f"{name} on {count}" for name, count in counted.items()]
            told += [f"{asked.title.partition(':')[0]}, {row}: {', '.join(parts)} of {counted.total()}."] * bool(parts)
    return told


def _sign(cell: Measured) -> int:
    """Where our interval lies as against the paper's figure: above it, below it, or around it."""
    if cell.low is None or cell.high is None or cell.paper is None:
        return 0
    return (cell.low > cell.paper) - (cell.high < cell.paper)


def grid(one: Table, rows: dict[str, list[Measured]]) -> Grid:
    """A table's header and cells: ours ± [interval], the paper's beside it, chance in a row of its own."""

    def row(name: str, ours: Iterable[str], papers: Iterable[str]) -> list[str]:
        return [name, *chain(*zip(ours, papers, strict=False))]

    header = row("trained on" if one.columns[0] in SHORT.values() else "", one.columns, repeat("paper"))
    body = [row(name, map(_ours, cells), (_short(cell.paper) for cell in cells)) for name, cells in rows.items()]
    return Grid(header, [*body, row("random labels", _chances([*rows.values()]), repeat(""))])


def difference_grid(asked: Differences, rows: dict[str, list[Difference]]) -> Grid:
    """A row a comparison and dataset: the difference ±, its interval, the paper's, and what can be said of it."""
    body = [
        [f"{name}, {column}", _spread(cell, _signed), _interval(cell, _signed), _signed(cell.paper), cell.verdict]
        for name, cells in rows.items()
        for column, cell in zip(asked.columns, cells, strict=True)
    ]
    return Grid(["", "ours", "95 % over songs", "paper", ""], body)


def rating_grid(ratings: Mapping[str, Mapping[str, Sequence[float]]]) -> Grid:
    """Rank correlations with the ratings, a row a model, its mean over seeds ± the deviation."""
    rated = [name for name in DATASETS if any(name in own for own in ratings.values())]

    def shown(seeds: Sequence[float]) -> str:
        spread = f" ± {stdev(seeds):.3f}" if len(seeds) > 1 else ""
        return f"{fmean(seeds):+.3f}{spread}" if seeds else NOT_RUN

    body = [[name, *(shown(own.get(dataset, ())) for dataset in rated)] for name, own in ratings.items()]
    return Grid(["model", *(SHORT[name] for name in rated)], body)


def choice_grid(choices: Sequence[Choice]) -> Grid:
    """Validation figures by λ, the chosen of each pair marked."""

    def shown(one: Choice, weight: float) -> str:
        if weight not in one.validation:
            return NOT_RUN
        spread = one.deviation[weight]
        return (
            f"{one.validation[weight]:.3f}{'' if spread is None else f' ± {spread:.3f}'}{' *' * (weight == one.chosen)}"
        )

    return Grid(
        ["trained on", *(one.pair for one in choices)],
        [[f"λ = {weight:g}", *(shown(one, weight) for one in choices)] for weight in LAMBDAS],
    )


def chosen_grid(choices: Sequence[Choice]) -> Grid:
    """What the chosen models do on the datasets left out."""
    tests = [one.test for one in choices]
    names = ["–" if one.chosen is None else f"λ = {one.chosen:g}" for one in choices]
    ours = [NOT_RUN if test is None else _ours(test) for test in tests]
    return Grid(
        ["", *TRANSFERS],
        [
            ["chosen", *names],
            ["macro F1, songs", *ours],
            ["random labels", *(_short(None if test is None else test.chance) for test in tests)],
        ],
    )


def regularization_grid(choices: Sequence[Choice]) -> Grid:
    """What the regularization does to what it acts on, for each model of the sweep."""
    body = [
        [f"λ = {weight:g}", *(_signed(one.regularization.get(weight), NOT_RUN) for one in choices)]
        for weight in LAMBDAS
    ]
    return Grid(["trained on", *(one.pair for one in choices)], body)


def _chances(rows: Sequence[Sequence[Measured]]) -> list[str]:
    return [
        _short(next((cell.chance for cell in cells if cell.chance is not None), None))
        for cells in zip(*rows, strict=True)
    ]


def _ours(cell: Measured) -> str:
    return NOT_RUN if cell.ours is None else f"{_spread(cell, _short)} {_interval(cell, _short)}"


def _spread(cell: Measured | Difference, written: Callable[[float | None], str]) -> str:
    if cell.ours is None or cell.deviation is None:
        return written(cell.ours)
    return f"{written(cell.ours)} ± {cell.deviation:.{len(written(cell.ours).partition('.')[2])}f}"


def _interval(cell: Measured | Difference, written: Callable[[float | None], str]) -> str:
    return "–" if cell.low is None or cell.high is None else f"[{written(cell.low)}, {written(cell.high)}]"


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def _signed(value: float | None, missing: str = "–") -> str:
    return missing if value is None else f"{value:+.3f}"


def _pictures(settings: ReproduceSettings, made: Reproduction) -> list[Picture]:
    pictures = []
    if any(one.validation for one in made.choices):
        pictures.append(Picture("sweep", "λ and validation songs", sweep_figure(made.choices)))
    if settings.only and FIGURE not in settings.only:
        return pictures
    given = {name: set(one.annotations.vocabulary) for name, one in made.given.items()}
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


def sweep_figure(choices: Sequence[Choice]) -> bytes:
    """A PNG: macro F1 on validation songs against the weight of the regularization, the chosen weight marked."""
    figure = Figure(figsize=(4.2 * len(choices), 3.4), layout="constrained")
    for at, one in enumerate(choices, 1):
        axes = figure.add_subplot(1, len(choices), at)
        axes.set(title=one.pair, xlabel="λ", xticks=LAMBDAS)
        axes.spines[["top", "right"]].set_visible(False)
        if one.chosen is None:
            axes.text(0.5, 0.5, NOT_RUN, ha="center", transform=axes.transAxes)
            continue
        weights = list(one.validation)
        spread = [one.deviation[weight] or 0.0 for weight in weights]
        axes.errorbar(weights, [*one.validation.values()], spread, fmt="o-", capsize=3, color=COLOURS["jamendo"])
        axes.plot(one.chosen, one.validation[one.chosen], "o", ms=13, mfc="none", color="#d1495b", label="chosen")
        axes.legend(frameon=False, fontsize=8)
        if at == 1:
            axes.set_ylabel("macro F1, validation songs")
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
