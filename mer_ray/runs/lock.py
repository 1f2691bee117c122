"""One run at a time in an output directory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mer_ray import storage
from mer_ray.errors import InputError, StorageError
from mer_ray.runs.ticker import Ticker

HEARTBEAT_SECONDS = 10.0
EXPIRES_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""Of several runs that take over one dead lock at once, the last to write it by then has it."""


class RunLock:
    """A lock file kept fresh by a heartbeat; a dead run's lock expires after a minute.

    A lock held by a process of this machine that is gone is taken over at once. The ``token`` tells this run from any
    other that held or will hold it: its workers show it to commit parts.
    """

    def __init__(self, folder: str, job: str) -> None:
        self._uri = storage.join(folder, "lock")
        self.token = uuid.uuid4().hex
        who = {"job": job, "host": socket.gethostname(), "pid": os.getpid()}
        self._holder = {"token": self.token, **who, "since": time.time()}
        self._lost: dict[str, Any] | None = None
        self._heartbeat = Ticker("lock-heartbeat", HEARTBEAT_SECONDS, self._beat)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InputError: another live run holds it, saying which.
        """
        if not storage.create_bytes(self._uri, self._content()):
            self._refuse_if_held()
            storage.write_bytes(self._uri, self._content())
            time.sleep(SETTLE_SECONDS)
            self._refuse_if_held()
        self.check()
        self._heartbeat.start()

    def check(self) -> None:
        """Raise RuntimeError if another run has taken the lock, as it may while a machine stalls."""
        holder = self._lost or storage.read_json(self._uri)
        if holder is None or holder.get("token") != self.token:
            raise RuntimeError(f"{self._uri}: taken over by another run; this one stops so that no song is done twice.")

    def release(self) -> None:
        """Give the lock back."""
        self._heartbeat.stop()
        with contextlib.suppress(StorageError):  # a lock that is left expires; why the run ends matters more
            holder = storage.read_json(self._uri)
            if holder is not None and holder.get("token") == self.token:
                storage.remove(self._uri)

    def _refuse_if_held(self) -> None:
        holder = storage.read_json(self._uri)
        if holder is not None and holder.get("token") != self.token and _alive(holder):
            raise InputError(
                f"output {self._uri.removesuffix('/_run/lock')}: in use by the {holder.get('job')} run with "
                f"process {holder.get('pid')} on {holder.get('host')}; wait for it or stop it."
            )

    def _beat(self) -> None:
        # A storage that does not answer for a moment costs one heartbeat, not the run.
        with contextlib.suppress(OSError):
            holder = storage.read_json(self._uri)
            if holder is None or holder.get("token") != self.token:
                self._lost = holder or {}
            if self._lost is None:  # once lost, it must not be written over the new holder's
                storage.write_bytes(self._uri, self._content())

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "heartbeat": time.time()}).encode()


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; ``alive`` is false for a run that died, whose lock the next run takes over."""

    job: str
    process: int
    host: str
    since: str
    heartbeat_age_s: float
    alive: bool


def read_holder(folder: str) -> Holder | None:
    """Who holds the lock of a run directory; None if nobody does."""
    found = storage.read_json(storage.join(folder, "lock"))
    if found is None:
        return None
    age = max(0.0, time.time() - float(found.get("heartbeat", 0)))
    who = str(found.get("job")), int(found.get("pid", 0)), str(found.get("host"))
    return Holder(*who, timestamp(float(found.get("since", 0))), round(age, 1), _alive(found))


def check_held(folder: str, token: str) -> None:
    """Raise RuntimeError unless the lock of a run directory is held with this token."""
    holder = storage.read_json(storage.join(folder, "lock"))
    if holder is None or holder.get("token") != token:
        raise RuntimeError(f"{folder}: the run that began this work has lost its lock; it writes nothing more.")


def timestamp(seconds: float) -> str:
    """A moment in seconds since 1970 as the run files state it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") == socket.gethostname() and _gone(holder.get("pid", 0)):
        return False
    return bool(time.time() - float(holder.get("heartbeat", 0)) < EXPIRES_SECONDS)


def _gone(pid: Any) -> bool:
    """Whether no process of this machine has the id, or only one that has ended and was not yet waited for."""
    try:
        os.kill(int(pid), 0)
        with open(f"/proc/{int(pid)}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, ValueError):
        return True
    except OSError:
        return False
