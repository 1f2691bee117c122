"""Threads beside the work: a clock of its own, and a call that is waited for elsewhere than where it runs."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NoReturn, TypeVar
from weakref import WeakSet

Outcome = TypeVar("Outcome")


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


def aside(function: Callable[[], Outcome], seconds: float | None = None) -> Outcome:
    """Call a function in a thread and wait for it: one that may hang, or that takes Ctrl-C for itself in the main one.

    Raises:
        TimeoutError: it has not returned after so many seconds, and is left behind.
    """
    outcome: Future[Outcome] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            outcome.set_exception(error)

    thread = threading.Thread(target=call, name="aside", daemon=True)
    _ASIDE.add(thread)
    thread.start()
    return outcome.result(seconds)


def still_called() -> bool:
    """Whether a function that was called :func:`aside` has not returned: its caller was interrupted, or gave it up."""
    return any(thread.is_alive() for thread in _ASIDE)


def leave(code: int) -> NoReturn:
    """End the process, as it would at its end, but without taking the interpreter down under such a function.

    In native code it would crash, and the exit code would tell of that.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_ASIDE: WeakSet[threading.Thread] = WeakSet()
