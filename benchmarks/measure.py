"""What the benchmarks share: pairs of timings from one run, and the lines they end in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from mer_ray.pages import table


@dataclass(frozen=True)
class Line:
    """One figure beside its baseline.

    Attributes:
        what: what is compared.
        baseline: its figure, with the unit.
        ours: ours.
        ratio: of the two, the way round that more is better unless ``what`` says otherwise.
        asked: the ratio aimed at, empty if there is none.
        command: makes this line again.
    """

    what: str
    baseline: str
    ours: str
    ratio: float
    asked: str
    command: str


def as_table(lines: Iterable[Line]) -> str:
    """Lines as Markdown."""
    rows = [[one.what, one.baseline, one.ours, f"{one.ratio:.2f}", one.asked, f"`{one.command}`"] for one in lines]
    return table(["what, baseline", "baseline", "ours", "ratio", "aimed at", "command"], rows)


@dataclass(frozen=True)
class Pair:
    """Medians of two timings that took turns, in seconds, and the median of their ratios (baseline / ours)."""

    baseline_s: float
    ours_s: float
    ratio: float


def take_turns(
    baseline: Callable[[], object],
    ours: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> Pair:
    """Time two functions in turn, so that a busy machine is as unfair to one as to the other.

    Args:
        baseline: the one to compare with.
        ours: the other.
        rounds: turns of each.
        clock: CPU seconds of this process by default; ``time.perf_counter`` where other processes do the work.
    """
    times: list[tuple[float, float]] = []
    for at in range(rounds):
        order = (baseline, ours) if at % 2 == 0 else (ours, baseline)
        seconds = {}
        for function in order:
            started = clock()
            function()
            seconds[function] = clock() - started
        times.append((seconds[baseline], seconds[ours]))
    return Pair(
        median(one for one, _ in times), median(two for _, two in times), median(one / two for one, two in times)
    )
