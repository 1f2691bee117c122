"""What an operator's Prometheus can scrape of a run, and the failures its console shows.

The driver alone counts: each committed part comes back as a receipt that holds all there is to count, so
workers need no metrics of their own, and work done twice after a kill is counted once. Ray serves the
metrics, with ``ray_`` before each name, at the metrics port of the driver's node.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mer_ray.runs.receipts import Receipt

SHOWN = 20
"""So many failures are printed as they come; a night of broken songs must not drown the console."""


class RunMetrics:
    """Counts the receipts of one run.

    ``mer_songs`` by status and error class, ``mer_audio_seconds``, ``mer_decode_seconds`` and
    ``mer_encode_seconds`` (of all workers together), and the gauge ``mer_songs_left``; all tagged with the job.
    """

    def __init__(self, job: str, left: int, counter: Callable[..., Any], gauge: Callable[..., Any]) -> None:
        """``counter`` and ``gauge`` make instruments of a name, a description and the keys of its tags."""
        self._left = left
        self._tags = {"job": job}
        self._songs = counter("mer_songs", "Songs committed.", ("job", "status", "error_class"))
        self._seconds = {
            "audio_s": counter("mer_audio_seconds", "Seconds of music in committed songs.", ("job",)),
            "decode_s": counter("mer_decode_seconds", "Seconds spent fetching and decoding.", ("job",)),
            "encode_s": counter("mer_encode_seconds", "Seconds spent encoding.", ("job",)),
        }
        self._gauge = gauge("mer_songs_left", "Songs that this run still has to commit.", ("job",))
        self._gauge.set(left, self._tags)

    def add(self, receipt: Receipt) -> None:
        """Count a committed part."""
        counts = Counter(("failed", song["error_class"]) for song in receipt.failures)
        counts["ok", ""] = receipt.songs - counts.total()
        for (status, error_class), songs in counts.items():
            if songs:
                self._songs.inc(songs, {**self._tags, "status": status, "error_class": error_class})
        for name, counter in self._seconds.items():
            if (seconds := getattr(receipt, name)) > 0:
                counter.inc(seconds, self._tags)
        self._left -= receipt.songs
        self._gauge.set(self._left, self._tags)


class FailureLines:
    """Prints a line for each of a run's first failures, on standard error."""

    def __init__(self, run: str) -> None:
        """``run`` is the URI of the output directory, where all failures can be found."""
        self._run, self._printed = run, 0

    def add(self, failures: Sequence[Mapping[str, str]]) -> None:
        """Print failed songs (``track_id``, ``error_class``, ``error``) while there is room."""
        if self._printed > SHOWN:
            return
        room = SHOWN - self._printed
        for song in failures[:room]:
            print(one_line(f"{song['track_id']}: {song['error_class']}: {song['error']}"), file=sys.stderr, flush=True)
        self._printed += len(failures)
        if self._printed > SHOWN:
            more = f"jobs/status.py --run {self._run} counts them, _run/failures.parquet lists them at the end."
            print(f"More songs failed than are shown here: {more}", file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """Text of strangers as one line: what would move the cursor or end the line is written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
