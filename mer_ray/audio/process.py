"""A decoder in a process of its own, so that a song can take down a decoder and never a night.

    decoder = SongDecoder(Limits(seconds=600, memory_mb=2500))
    row = decoder.decode("s3://music/a.mp3", max_seconds=7200)

Codecs are C that reads what strangers uploaded: some files make one crash, spin or allocate for ever. The
child that runs them is a bare interpreter with neither Ray nor torch in it, is kept from song to song, and
is replaced when it dies. What it did to its song becomes the song's row: ``crashed`` (after retries),
``timeout`` or ``too_much_memory``.

The child gets the song as an open file: fetching is the parent's. It has nothing of the parent's environment but what a
library needs, so no credentials, and no more of the machine than :mod:`mer_ray.audio.confinement` cannot keep from it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from mer_ray.audio.fetching import FETCH_ATTEMPTS, Repeats, as_descriptor, fetch
from mer_ray.audio.formats import AudioError
from mer_ray.audio.wire import MEMORY_EXIT, Row, failed, send_song
from mer_ray.threads import aside

CRASH_RETRIES = 2
"""A song is tried this many times more when its decoder dies: a full machine kills the innocent too."""
START_SECONDS = 60.0
"""A child that is not ready by then does not start; half a second is usual."""
START_ATTEMPTS = 3
"""Tries to bring a child up before its song fails for it."""
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONHOME")
"""All that a child gets of its parent's environment."""
_REAP_SECONDS = 5.0
_MAX_LINE = 1 << 24
_START = "import sys; from mer_ray.audio.child import serve; serve(*sys.argv[1:])"


@dataclass(frozen=True)
class Limits:
    """What one song may cost before its decoder is ended."""

    seconds: float = 600.0
    """To fetch and decode it."""
    memory_mb: int = 2_500
    """Private memory (10^6 bytes) of the decoder, which needs some 100 before any song; an object may have as much."""


def room_for(max_seconds: float, sample_rate: int) -> int:
    """MB that a decoder needs for songs capped at ``max_seconds``.

    Twice the decoded samples, because a damaged file is decoded by both libraries and the better result
    kept; 1,000 for an object fetched whole and for the libraries themselves.
    """
    return 1_000 + round(2 * 4 * sample_rate * max_seconds / 1e6)


class SongDecoder:
    """Decodes songs one after another in a child process, started with the first song.

    Not for several threads at once.
    """

    def __init__(self, limits: Limits, reader: str = "mer_ray.audio.child:read_song") -> None:
        """``reader`` names what the child runs, with the contract of :func:`mer_ray.audio.child.read_song`."""
        self._limits = limits
        self._reader = reader
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process.pid if self._child else None

    @property
    def walls(self) -> list[str]:
        """What of the machine is closed off from the child (:func:`mer_ray.audio.confinement.wall_off`)."""
        return self._child.walls if self._child else []

    def decode(self, uri: str, *, attempts: int = FETCH_ATTEMPTS, **options: Any) -> Row:
        """Fetch and decode one song to its columns; whatever goes wrong with it becomes its status.

        ``attempts`` are those of :func:`mer_ray.audio.fetch`, ``options`` those of
        :func:`mer_ray.audio.decode_windows`.

        Raises:
            StorageError: no song can be fetched any more, see :func:`mer_ray.audio.fetch`.
        """
        repeats, deadline = Repeats(), time.monotonic() + self._limits.seconds
        get = partial(fetch, uri, repeats, attempts=attempts, most=self._limits.memory_mb * 1_000_000)
        try:
            descriptor = aside(lambda: as_descriptor(get()), self._limits.seconds)
        except AudioError as error:
            row = failed(error.error_class, str(error))
        except TimeoutError:
            limit = f"{self._limits.seconds:g} s (--song-timeout-s)"
            row = failed("timeout", f"{uri}: not fetched within {limit}; raise the limit or see to the storage.")
        else:
            try:
                row = self._decode(uri, descriptor, options, deadline)
            finally:
                os.close(descriptor)
        return row | {"fetch_retries": repeats.count, "fetch_retry_s": repeats.seconds}

    def _decode(self, uri: str, descriptor: int, options: Row, deadline: float) -> Row:
        ends: list[str] = []
        while len(ends) <= CRASH_RETRIES:
            try:
                return self._attempt(options, descriptor, deadline)
            except TimeoutError:
                limit = f"{self._limits.seconds:g} s (--song-timeout-s)"
                return failed("timeout", f"{uri}: not decoded within {limit}; raise the limit or replace the file.")
            except ChildProcessError as error:
                return failed("no_decoder", f"No decoder starts on {os.uname().nodename}: {error}. See its log.")
            except _Ended as end:
                if end.code == MEMORY_EXIT:
                    limit = f"{self._limits.memory_mb:,} MB (--decoder-memory-mb)"
                    return failed("too_much_memory", f"{uri}: needs more than {limit}; raise it or replace the file.")
                ends.append(str(end))
        return failed(
            "crashed", f"{uri}: {len(ends)} decoders died of it, the last by {ends[-1]}; replace or convert the file."
        )

    def close(self) -> None:
        """End the child; another decode starts a new one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _attempt(self, options: Row, descriptor: int, deadline: float) -> Row:
        """Ask the child, which does not outlive any failure: half an answer must not become the next song's."""
        if self._child is not None and self._child.process.poll() is not None:
            self.close()
        self._child = self._child or self._started()
        try:
            return self._child.ask(max(1.0, deadline - time.monotonic()), lambda to: send_song(to, options, descriptor))
        except BaseException:
            self.close()
            raise

    def _started(self) -> _Child:
        for attempt in range(1, START_ATTEMPTS):
            with suppress(ChildProcessError):
                return _Child(self._limits, self._reader)
            time.sleep(attempt)  # a machine out of processes or memory may recover
        return _Child(self._limits, self._reader)


shared_decoder = cache(SongDecoder)
"""This process's decoder with these limits, the same one at every call: a child a song would cost too much."""


class _Ended(Exception):  # noqa: N818 - what became of a child, never seen by a caller
    """The child died while it had a song."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        names = {-one: one.name for one in signal.Signals}
        names[-signal.SIGKILL] += ", as when the machine runs out of memory"
        if code is None:
            super().__init__("an answer that makes no sense")
        else:
            super().__init__(names.get(code, f"{'exit code' if code >= 0 else 'signal'} {abs(code)}"))


class _Child:
    """A running child and the socket to it."""

    def __init__(self, limits: Limits, reader: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._stream = self._socket.makefile("rb")
        with theirs:
            arguments = (theirs.fileno(), os.getpid(), limits.memory_mb, limits.seconds, reader)
            # As the spawn of multiprocessing does: what this process can import, the child can.
            paths = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
            kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            # A pool of BLAS threads costs 40 MB a core, and what they would share is small.
            threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**kept, **paths, **threads},
                )
            except OSError as error:
                self._hang_up()
                raise ChildProcessError(str(error)) from error
        try:
            self.walls: list[str] = self.ask(START_SECONDS)["walls"]
        except (_Ended, TimeoutError) as error:
            self.end()
            raise ChildProcessError(str(error) or "it hangs") from error

    def ask(self, seconds: float, send: Callable[[socket.socket], None] | None = None) -> Row:
        """Send a request, if there is one, and wait for the whole answer. Raises TimeoutError or _Ended."""
        deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            if send is not None:
                send(self._socket)
            row: Row = json.loads(self._stream.readline(_MAX_LINE))
            if row["status"] == "ok":
                row["windows"] = [self._receive(size, deadline) for size in row["windows"]]
            return row
        except (ConnectionError, ValueError):  # a child whose memory is damaged talks nonsense before it dies
            try:
                code = self.process.wait(_REAP_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            raise _Ended(code) from None

    def end(self) -> None:
        """Kill the child, unless it is dead, and let go of it."""
        self._hang_up()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in a read that the kernel does not give up
            self.process.wait(_REAP_SECONDS)

    def _hang_up(self) -> None:
        self._stream.close()
        self._socket.close()

    def _receive(self, size: int, deadline: float) -> bytes:
        self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionResetError
        return data
