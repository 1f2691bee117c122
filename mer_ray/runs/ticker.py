"""A clock of its own beside the work."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ticker:
    """Calls a function every so many seconds, on a thread of its own, between start and stop."""

    def __init__(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._seconds, self._call = seconds, call
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after the first interval."""
        self._thread.start()

    def stop(self) -> None:
        """Return once no call is under way and none will follow."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tick(self) -> None:
        while not self._over.wait(self._seconds):
            self._call()
