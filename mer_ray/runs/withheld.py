"""Failed songs of a run, held back until it is known that they failed by themselves, and written apart from the others.

Parts of their own also keep a later ``--retry-failed`` from rewriting nearly every part.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from mer_ray.runs.breaker import RECENT, Breaker, Failure
from mer_ray.runs.receipts import Receipt

ROWS = 256
"""Failed songs in a part."""


class Withheld:
    """Takes the failed songs of receipts and writes them by ``write`` once ``breaker`` has seen enough."""

    def __init__(self, write: Callable[[Sequence[Failure]], None], breaker: Breaker) -> None:
        self._write, self._breaker = write, breaker
        self._rows: deque[tuple[int, Failure]] = deque()
        self._seen = 0
        self._read_by: Counter[str] = Counter()
        self._failed_on: Counter[tuple[str, str]] = Counter()

    def add(self, receipt: Receipt) -> None:
        """Take the failed songs of a receipt.

        Raises:
            InputError: (nearly) all songs fail; what is held back is forgotten.
        """
        failures = receipt.failures
        nodes = {one["node"]: one["songs"] for one in receipt.nodes}
        self._breaker.add(failures, receipt.songs - len(failures), receipt.witness, nodes)
        self._read_by.update(nodes)
        self._failed_on.update((failure["node"], failure["error_class"]) for failure in failures)
        self._seen += receipt.songs
        self._rows.extend((self._seen, failure) for failure in failures)
        settled = len(self._rows)
        if not self._breaker.check():
            settled = sum(seen <= self._seen - RECENT for seen, _ in self._rows)
        while settled >= ROWS:
            self._flush(ROWS)
            settled -= ROWS

    def close(self) -> None:
        """Write what is left: the run has come to its end."""
        while self._rows:
            self._flush(ROWS)

    def _flush(self, most: int) -> None:
        rows = [self._rows[at][1] for at in range(min(most, len(self._rows)))]
        self._write(rows)  # before they are let go: it may fail
        for _ in rows:
            self._rows.popleft()

    def ids(self) -> pa.Array:
        """The songs that are held back: they are done, though no part holds them yet."""
        return pa.array([row["track_id"] for _, row in self._rows], pa.string())

    def nodes(self) -> dict[str, dict[str, Any]]:
        """By node: ``songs`` that it read, and of these the ``failed`` ones by class."""
        read_by, failed_on = self._read_by.copy(), self._failed_on.copy()  # asked while a run goes on
        return {
            node: {"songs": songs, "failed": {name: n for (on, name), n in failed_on.items() if on == node}}
            for node, songs in read_by.most_common()
        }
