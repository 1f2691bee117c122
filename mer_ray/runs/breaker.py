"""Whether it is the songs that fail or the world: a look at the songs that a run saw last, whatever node read them.

When (nearly) all of them fail, one that was read before is read again. Can it not be read either, the world has
changed: a role was lost, a storage went away. Can it still be read, a folder of bad songs was met, and the run goes on.
A run that has read no song at all needs no such witness. What fails for the world's sake is written nowhere.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mer_ray.errors import InputError, StorageError
from mer_ray.songs import WORLDLY

RECENT = 200
"""So many songs are looked back on."""
LEAST = 50
"""Of fewer nothing is concluded: a short run that fails as a whole is told by its exit code."""
NEARLY_ALL = 0.95

Failure = Mapping[str, Any]
"""The row of a song that is not ok, with the ``node`` that found it so."""


class Breaker:
    """Looks at each song of a run as it is done, and says when to stop."""

    def __init__(self, read: Callable[[str], str | None], *, all_may_fail: bool = False) -> None:
        """Args:
        read: why a song cannot be read now, by its uri; None if it can.
        all_may_fail: go on while no song at all can be read, unless that may be the world's fault.
        """
        self._read, self._all_may_fail = read, all_may_fail
        self._recent: deque[Failure | None] = deque(maxlen=RECENT)
        self._nodes: set[str] = set()
        self._witness: str | None = None

    def add(self, failures: Sequence[Failure], ok: int, witness: str | None, nodes: Iterable[str] = ()) -> None:
        """Look at the songs of a receipt: the failed ones, how many are ok, the uri of one of these, their nodes."""
        self._recent.extend([None] * min(ok, RECENT))
        self._recent.extend(failures)
        self._nodes.update(nodes)
        self._witness = self._witness or witness

    def check(self) -> bool:
        """Whether songs that failed up to now failed by themselves; False as long as that is not known.

        Raises:
            StorageError: they failed for the world's sake.
            InputError: no song of this run could be read.
        """
        failures = [failure for failure in self._recent if failure is not None]
        if len(self._recent) < LEAST or len(failures) < NEARLY_ALL * len(self._recent):
            return False
        worldly = sum(failure["error_class"] in WORLDLY for failure in failures) >= NEARLY_ALL * len(failures)
        if self._witness is None:
            if self._all_may_fail and not worldly:
                return True
            why = "and none of this run could be"
        else:
            reason = self._read(self._witness)
            if reason is None:
                self._recent.clear()
                return True
            why = f"and {self._witness}, which could be before, no longer can ({reason.rstrip('.')})"
        more = "" if worldly else "; where all may fail, --max-failure-rate 1 goes on"
        message = (
            f"{len(failures)} of the last {len(self._recent)} songs could not be read, {why}: "
            f"{self._common(failures)}; they are not written as failed: mend that and run the same command again{more}."
        )
        raise StorageError(message) if worldly else InputError(message)

    def _common(self, failures: Sequence[Failure]) -> str:
        """What the failures have in common, and one of them."""
        classes = Counter(failure["error_class"] for failure in failures)
        uris = [failure["uri"] for failure in failures]
        nodes = {failure["node"] for failure in failures}
        said = ["all " + next(iter(classes)) if len(classes) == 1 else _listed(classes)]
        if place := os.path.commonprefix(uris).rpartition("/")[0]:  # noqa: RUF071 - and cut at a slash
            said.append(f"below {place}/")
        if len(extensions := {os.path.splitext(uri)[1] for uri in uris}) == 1:
            said.append(f"named *{extensions.pop()}")
        if len(nodes) == 1 and len(self._nodes) > 1:
            said.append(f"on node {nodes.pop()} of {len(self._nodes)}")
        first = next(failure for failure in failures if failure["error_class"] == classes.most_common(1)[0][0])
        return f"{', '.join(said)} (such as: {first['error'].rstrip('.')})"


def _listed(classes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in classes.most_common(3))
