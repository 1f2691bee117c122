"""One line every few seconds: how far a run is, how fast, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mer_ray.threads import Ticker

EVERY_SECONDS = 5.0


@dataclass
class Progress:
    """Counts a run's songs and prints a line every few seconds while used as a context.

    ``done`` counts those of earlier runs too; a RuntimeError of ``watch``, called at each tick, is kept in ``trouble``.
    """

    job: str
    total: int
    done: int = 0
    watch: Callable[[], None] | None = None
    failed: int = 0
    audio_s: float = 0.0
    trouble: Exception | None = None
    _started: float = field(default_factory=time.monotonic)
    _first: tuple[float, int] | None = None
    """When this run's first commit came, and the songs done by then."""

    def __enter__(self) -> Progress:
        self._ticker = Ticker("progress", EVERY_SECONDS, self._tick)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.stop()
        print(self.line(), flush=True)

    def add(self, songs: int, failed: int = 0, audio_s: float = 0.0) -> None:
        """Count songs that have been committed."""
        self.done += songs
        self._first = self._first or (time.monotonic(), self.done)
        self.failed += failed
        self.audio_s += audio_s

    @property
    def seconds(self) -> float:
        """Seconds since the run began to work."""
        return time.monotonic() - self._started

    def line(self) -> str:
        """The line to print."""
        parts = [f"{self.job}: {self.done:,} of {self.total:,} songs", f"{self.failed:,} failed"]
        if self.audio_s:
            parts.append(f"{self.audio_s / self.seconds:,.0f} audio hours per hour")
        if (left := self._left()) is not None:
            parts.append(f"about {clock(left)} left")
        return ", ".join([*parts, f"{clock(self.seconds)} elapsed"])

    def _left(self) -> float | None:
        """Seconds to the end, by the songs after the first commit: what came before it was start-up for the most."""
        if self._first is None or not self._first[1] < self.done < self.total:
            return None
        moment, done = self._first
        return (time.monotonic() - moment) / (self.done - done) * (self.total - self.done)

    def _tick(self) -> None:
        print(self.line(), flush=True)
        try:
            with suppress(OSError):  # storage that does not answer for a moment
                if self.watch is not None:
                    self.watch()
        except RuntimeError as error:
            self.trouble = error


class EpochLines:
    """Prints where a training is every few seconds, from what its first worker notes down."""

    def __init__(self, epochs: int, noted: Callable[[], dict[str, Any] | None]) -> None:
        self._epochs, self._noted = epochs, noted
        self._first: tuple[int, float] | None = None
        self._printed = -1
        self._ticker = Ticker("progress", EVERY_SECONDS, self._print)

    def __enter__(self) -> EpochLines:
        noted = self._noted()
        self._printed = int(noted["epoch"]) + 1 if noted else 0
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ticker.stop()
        self._print()

    def _print(self) -> None:
        noted = self._noted()
        if noted is None or int(noted["epoch"]) + 1 == self._printed:
            return
        done = self._printed = int(noted["epoch"]) + 1
        first, since = self._first = self._first or (done, time.monotonic())
        left = ""
        if done > first:
            left = f", {clock((time.monotonic() - since) / (done - first) * (self._epochs - done))} left"
        print(
            f"train: epoch {done} of {self._epochs}, loss {noted['loss']:.4f}, validation macro F1 "
            f"{noted['macro_f1']:.3f} (best {noted['best']['macro_f1']:.3f} in epoch {noted['best']['epoch'] + 1:.0f})"
            f"{left if done < self._epochs else ''}",
            flush=True,
        )


def clock(seconds: float) -> str:
    """Seconds as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
