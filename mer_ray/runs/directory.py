"""A directory that one run at a time works on: its lock, what was asked of it, and its files in ``_run``.

_run/settings.json        what was asked: the fingerprint of all that changes results
_run/lock                 one run at a time; a dead run's lock expires
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from mer_ray import storage
from mer_ray.errors import InputError
from mer_ray.fingerprints import differences
from mer_ray.runs.lock import RunLock, publish

SETTINGS, SUMMARY, PROGRESS = "settings.json", "summary.json", "progress.json"
MANIFEST, PENDING, FAILURES = "manifest.parquet", "pending.parquet", "failures.parquet"
TRIED, AUDIO, FORGOTTEN = "tries.parquet", "audio.parquet", "forgotten.parquet"
ASKED, DONE = "asked.json", "done.json"
NODES, DEATHS, LOGS = "nodes.json", "deaths.json", "logs"


def run_file(uri: str, name: str) -> str:
    """A file in the ``_run`` of a directory."""
    return storage.join(uri, "_run", name)


@dataclass
class RunDirectory:
    """The directory of one job, which a refusal calls by its ``kind``. Inside its context the lock is held.

    With ``wait`` it is entered once the run that is at work there has ended. The lock lies in ``folder``.
    """

    uri: str
    job: str
    kind: str = "output"
    wait: bool = False
    folder: str = "_run"

    def __enter__(self) -> Self:
        self.lock = RunLock(storage.join(self.uri, self.folder), self.job)
        self.lock.acquire(wait=self.wait)
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def earlier(self, fingerprint: Mapping[str, Any], holds: Callable[[], str]) -> dict[str, Any] | None:
        """The settings that earlier runs left; None if this run is the first.

        Args:
            fingerprint: of all that changes results.
            holds: asked where no settings are: what stands there that an earlier run must have written, if anything.

        Raises:
            InputError: it was begun with other settings, or nothing says with which.
        """
        before = self.read_json(SETTINGS)
        if before is None:
            if found := holds():
                raise InputError(f"{self.kind} {self.uri}: holds {found}; use another directory.")
        elif unlike := differences(fingerprint, before.get("fingerprint", {})):
            raise InputError(
                f"{self.kind} {self.uri}: begun with other settings: {'; '.join(unlike)}; use another directory."
            )
        return before

    def file(self, name: str) -> str:
        """The URI of a file in ``_run``."""
        return run_file(self.uri, name)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object in ``_run``, None where there is none or a torn one."""
        return storage.read_json(self.file(name))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a JSON object in ``_run``."""
        self.publish(f"_run/{name}", storage.as_json(value))

    def publish(self, name: str, data: bytes) -> None:
        """Write a file of the directory while the lock is held (:func:`mer_ray.runs.lock.publish`)."""
        publish(self.uri, name, data, self.lock.token, self.folder)
