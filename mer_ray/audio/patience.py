"""Telling a song that cannot be fetched from a world in which nothing can: by the songs after it, and by waiting.

A song that fails as if the network were gone is doubtful. Can the next one be read, it is tried once more and was at
fault itself. Are several in a row doubtful, the world is: they are tried again with growing waits until one can be
read, and then all of them again, so that an hour's outage costs an hour and no song. After a bound of time they are
given up, and until a song can be read again the others are tried only once, so that who looks on hears of it soon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle
from typing import TypeVar

from mer_ray.audio.fetching import FETCH_ATTEMPTS
from mer_ray.audio.wire import Row
from mer_ray.errors import StorageError

Song = TypeVar("Song")

DOUBTFUL = frozenset({"io_error", "no_decoder"})
STREAK = 3
"""Doubtful songs in a row that make it the world."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Patience:
    """Of one process, which has it once, whatever songs it is given.

    Not for several threads at once.
    """

    def __init__(
        self,
        seconds: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``seconds`` of failing in a row before songs are given up."""
        self._seconds, self._sleep, self._clock = seconds, sleep, clock
        self._streak, self._since, self._wait = 0, 0.0, FIRST_WAIT_S

    def read(self, songs: Sequence[Song], decode: Callable[[Song, int], Row]) -> Iterator[tuple[Song, Row]]:
        """Each song's row, in their order.

        Args:
            songs: to decode.
            decode: gives a song's row, with so many tries of its fetch.

        Raises:
            StorageError: credentials were refused for as long as the patience lasts.
        """
        doubtful: list[tuple[Song, Row]] = []
        for song in songs:
            row = self._decoded(song, decode)
            if row.get("error_class") in DOUBTFUL:
                doubtful.append((song, row))
                if self._streak >= STREAK and not self._spent:
                    yield from self._waited(doubtful, decode)
                    doubtful = []
            else:
                yield from [(each, self._decoded(each, decode)) for each, _ in doubtful]
                doubtful = []
                yield song, row
        yield from doubtful

    def _waited(
        self, doubtful: Sequence[tuple[Song, Row]], decode: Callable[[Song, int], Row]
    ) -> Iterator[tuple[Song, Row]]:
        """The songs' rows from when one of them can be read again, or as they are once the patience is spent."""
        for song, _ in cycle(doubtful):
            self._pause()
            row = self._decoded(song, decode)
            if row.get("error_class") not in DOUBTFUL:
                yield from ((each, row if each is song else self._decoded(each, decode)) for each, _ in doubtful)
                return
            if self._spent:
                yield from doubtful
                return

    @property
    def _spent(self) -> bool:
        return self._streak > 0 and self._clock() - self._since >= self._seconds

    def _pause(self) -> None:
        left = self._since + self._seconds - self._clock()
        self._sleep(max(0.0, min(self._wait, left)))
        self._wait = min(2 * self._wait, LONGEST_WAIT_S)

    def _decoded(self, song: Song, decode: Callable[[Song, int], Row]) -> Row:
        """One song's row; where credentials are refused, the one that new ones bring."""
        while True:
            try:
                row = decode(song, 1 if self._spent else FETCH_ATTEMPTS)
            except StorageError:
                self._failed()
                if self._spent:
                    raise
                self._pause()
                continue
            if row.get("error_class") in DOUBTFUL:
                self._failed()
            else:
                self._streak, self._wait = 0, FIRST_WAIT_S
            return row

    def _failed(self) -> None:
        if not self._streak:
            self._since = self._clock()
        self._streak += 1


shared_patience = cache(Patience)
"""This process's own, the same at every call."""
