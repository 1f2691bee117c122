"""What the benchmarks share: their flags, timings that take turns, and the lines they end in."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mer_ray.pages import table


def flags(doc: str | None, **defaults: Any) -> Namespace:
    """What a command is asked: a flag a default, of its type; of a list any number, of a list of words some of them.

    A flag without a default is a path, such as the folder of ``--music``, without which songs are composed.
    """
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        kind: Any = Path if default is None else type(default)
        more: dict[str, Any] = {}
        if isinstance(default, list):
            kind = type(default[0]) if default else float
            more = {"nargs": "+", "choices": default if kind is str else None}
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"({default})", **more)
    return parser.parse_args()


@dataclass(frozen=True)
class Line:
    """One figure beside its baseline.

    Attributes:
        what: what is compared.
        figures: the baseline's and ours, with their unit.
        ratio: of the two, the way round that more is better unless ``what`` says otherwise.
        asked: the ratio aimed at, empty if there is none.
    """

    what: str
    figures: Sequence[str]
    ratio: float
    asked: str = ""


def as_table(measured: Mapping[str, Iterable[Line]]) -> str:
    """Lines by the command that makes them again, as Markdown."""
    rows = [
        [one.what, *one.figures, f"{one.ratio:.2f}", one.asked, f"`python -m benchmarks.{command}`"]
        for command, lines in measured.items()
        for one in lines
    ]
    return table(["what, baseline", "baseline", "ours", "ratio", "aimed at", "command"], rows)


@dataclass(frozen=True)
class Pair:
    """Medians of two timings that took turns, in seconds, and the median of their ratios (baseline / ours)."""

    baseline_s: float
    ours_s: float
    ratio: float

    @classmethod
    def of(cls, times: Iterable[tuple[float, float]]) -> Pair:
        """What came of several turns, each the seconds of the baseline and ours."""
        baselines, ours = zip(*times, strict=True)
        ratios = [one / two for one, two in zip(baselines, ours, strict=True)]
        return cls(median(baselines), median(ours), median(ratios))

    def line(self, what: str, amount: float, unit: str, asked: str = "", digits: int = 0) -> Line:
        """Both as rates of what was done in that time."""
        rates = [f"{amount / spent:,.{digits}f} {unit}" for spent in (self.baseline_s, self.ours_s)]
        return Line(what, rates, self.ratio, asked)


def take_turns(
    baseline: Callable[[], object],
    ours: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> Pair:
    """Time two functions in turn, so that a busy machine is as unfair to one as to the other.

    ``clock`` is the CPU seconds of this process; ``time.perf_counter`` where other processes do the work.
    """
    times = []
    for at in range(rounds):
        seconds = {}
        for function in (baseline, ours) if at % 2 == 0 else (ours, baseline):
            started = clock()
            function()
            seconds[function] = clock() - started
        times.append((seconds[baseline], seconds[ours]))
    return Pair.of(times)
