"""One run at a time in an output directory, and nothing written by a run whose time is over.

The lock is a file that says who holds it, kept fresh by a heartbeat. It is taken, kept and taken over by conditional
writes, and how old it is the storage's clock says (:mod:`mer_ray.storage.conditional`): hosts may share a name, and
their clocks may be minutes apart. A lock whose heartbeat has stopped for a minute is another run's to take.

A run that was only stalled may wake up afterwards. So its workers put the bytes of a part down beside the parts first,
then look at the lock, then let the storage move them to their name (:func:`publish`); and who takes a lock deletes what
was put down so. However late a writer wakes up between its look and its move, what it would move is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from datetime import UTC, datetime
from functools import cache
from typing import Any

from mer_ray import storage
from mer_ray.errors import InputError, StorageError
from mer_ray.threads import Ticker

HEARTBEAT_SECONDS = 10.0
EXPIRES_SECONDS = 60.0
POLL_SECONDS = 5.0
SETTLE_SECONDS = 0.5
"""Where a storage knows no conditions: of several runs that take a lock at once, the last to write it has it."""

ATTEMPTS = 5
STAGED = "staged"

Holder = dict[str, Any]
"""Who holds a lock, as ``--json`` prints it; ``alive`` is false for a run that died: the next one takes it over."""


class LockLostError(RuntimeError, InputError):
    """Another run has taken the lock, as it may while a machine stalls; this one must write nothing more."""


class RunLock:
    """The lock of a run directory, kept fresh by a heartbeat while it is held.

    The ``token`` tells this run from any other that held or will hold it: its workers show it to commit parts.
    """

    def __init__(self, folder: str, job: str) -> None:
        self._folder, self._uri = folder, storage.join(folder, "lock")
        self.token = uuid.uuid4().hex
        self._holder = {"token": self.token, "job": job, **_this_process(), "since": time.time()}
        self._version = ""
        self._conditional = True
        self._lost = False
        self._heartbeat = Ticker("lock-heartbeat", HEARTBEAT_SECONDS, self._beat)

    def acquire(self, *, wait: bool = False) -> None:
        """Take the lock, and delete what a run that held it may have left half-written.

        Raises:
            InputError: another live run holds it, saying which; not if it is to ``wait`` for its end.
        """
        said = None
        while (other := self._take()) is not None:
            if not wait:
                output = self._uri.rpartition("/_run/")[0]
                raise InputError(f"output {output}: in use by {_named(other)}; wait for it (--wait) or stop it.")
            if said != (said := _named(other)):
                print(f"{self._holder['job']}: waiting for {said}", flush=True)
            time.sleep(POLL_SECONDS)
        storage.remove_temporaries(self._folder)
        self._heartbeat.start()
        try:
            storage.remove_folder(storage.join(self._folder, STAGED))
            self.check()
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Raise LockLostError if another run has taken the lock."""
        if self._lost or not _has(storage.read_json(self._uri), self.token):
            raise LockLostError(
                f"{self._uri}: taken over by another run; this one stops, so that no song is done twice."
            )

    def release(self) -> None:
        """Give the lock back."""
        self._heartbeat.stop()
        with contextlib.suppress(StorageError):  # a lock that is left expires; why the run ends matters more
            seen = storage.look(self._uri)
            if seen is not None and _has(_read(seen), self.token):
                storage.discard(self._uri, seen.version)

    def _take(self) -> dict[str, Any] | None:
        """Take the lock if it is free or left by a dead run; returns who holds it otherwise."""
        found: dict[str, Any] = {}
        for _ in range(ATTEMPTS):
            seen = storage.look(self._uri, touch=True)
            found = _read(seen)
            if _has(found, self.token):  # the answer to the last attempt was lost
                return None if self._settled() else found
            if seen is not None and found and _alive(found, seen.age_s):
                return found
            if storage.swap(self._uri, self._content(), seen.version if seen else None) is not None:
                return None if self._settled() else _read(storage.look(self._uri))
        return found

    def _settled(self) -> bool:
        """Whether the lock just written is this run's, also where the storage passes over conditions."""
        self._conditional = storage.swaps_hold(self._uri, self._content())
        if not self._conditional:
            time.sleep(SETTLE_SECONDS)
        return self._mine()

    def _beat(self) -> None:
        # A storage that does not answer for a moment costs one heartbeat, not the run.
        with contextlib.suppress(OSError):
            if self._lost:  # it must not be written over the new holder's
                return
            if self._conditional or self._mine():
                version = storage.swap(self._uri, self._content(), self._version)
                if version is not None:
                    self._version = version
                    return
            self._lost = not self._mine()

    def _mine(self) -> bool:
        """Whether the lock is still this run's, of which version it takes note."""
        seen = storage.look(self._uri)
        if seen is None or not _has(_read(seen), self.token):
            return False
        self._version = seen.version
        return True

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "heartbeat": time.time()}).encode()


def publish(output: str, name: str, data: bytes, token: str, folder: str = "_run") -> None:
    """Write a file of an output directory while the lock in its ``folder`` is held with this token, or nothing.

    Raises:
        LockLostError: it is not.
    """
    run = storage.join(output, folder)
    staged = storage.join(run, STAGED, f"{name.replace('/', '.')}.{uuid.uuid4().hex}")
    try:
        storage.write_bytes(staged, data)
        check_held(run, token)
        storage.move(staged, storage.join(output, name))
    except LockLostError:
        storage.remove(staged)
        raise
    except OSError as error:  # because what was put down is gone, if another run has taken the lock
        check_held(run, token)
        if isinstance(error, FileNotFoundError):
            raise storage.refusal(staged, "moved", error) from error
        raise


def check_held(folder: str, token: str) -> None:
    """Raise LockLostError unless the lock of a run directory is held with this token."""
    if not _has(storage.read_json(storage.join(folder, "lock")), token):
        raise LockLostError(f"{folder}: the run that began this work has lost its lock; it writes nothing more.")


def read_holder(folder: str) -> Holder | None:
    """Who holds the lock of a run directory; None if nobody does."""
    seen = storage.look(storage.join(folder, "lock"))
    found = _read(seen)
    if seen is None or not found:
        return None
    return {
        "job": str(found.get("job")),
        "process": int(found.get("pid", 0)),
        "host": str(found.get("host")),
        "since": timestamp(float(found.get("since", 0))),
        "heartbeat_age_s": round(seen.age_s, 1),
        "alive": _alive(found, seen.age_s),
    }


def named(job: object, process: object, host: object) -> str:
    """A run, as a person is told of it."""
    return f"the {job} run with process {process} on {host}"


def timestamp(seconds: float) -> str:
    """A moment in seconds since 1970 as the run files state it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _read(seen: storage.Seen | None) -> dict[str, Any]:
    """What a lock says; {} if it is torn, and so nobody's."""
    try:
        found = json.loads(seen.data) if seen else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _named(holder: dict[str, Any]) -> str:
    return named(holder.get("job"), holder.get("pid"), holder.get("host"))


def _has(holder: dict[str, Any] | None, token: str) -> bool:
    return holder is not None and holder.get("token") == token


def _alive(holder: dict[str, Any], age_s: float) -> bool:
    here = holder.get("machine") == _machine()
    if here and _process_gone(int(holder.get("pid", 0)), holder.get("process_started")):
        return False
    return age_s < EXPIRES_SECONDS


def _this_process() -> dict[str, Any]:
    """Who a lock is held by, as a person and as another process of the machine knows it."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "machine": _machine(),
        "process_started": (_process_stat(pid) or ("", ""))[1],
    }


@cache
def _machine() -> str:
    """Where a process id means one process: this boot of this machine and the container, whatever its name."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{uuid.getnode():012x}"


def _process_stat(pid: int) -> tuple[str, str] | None:
    """State and time of start of a process of this machine, as far as it lets one know."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        return fields[0], fields[19]
    return None


def _process_gone(pid: int, started: Any) -> bool:
    """Whether the process has ended, not yet waited for perhaps, or another has its id now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # of another user
    stat = _process_stat(pid)
    return stat is not None and (stat[0] == "Z" or stat[1] != started)
