"""A decoder in a process of its own, so that a song can take down a decoder and never a night.

    decoder = SongDecoder(Limits(seconds=600, memory_mb=2500))
    row = decoder.decode("s3://music/a.mp3", max_seconds=7200)

Codecs are C that reads what strangers uploaded: some files make one crash, spin or allocate for ever. The
child that runs them is a bare interpreter with neither Ray nor torch in it, is kept from song to song, and
is replaced when it dies. What it did to its song becomes the song's row: ``crashed`` (after retries),
``timeout`` or ``too_much_memory``.

Parent and child speak over one socket: a request is a JSON frame (4 bytes of length, then text); an answer
is such a frame, then each window as a head (bytes, scale) and its int16 samples. No pickles.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from mer_ray.errors import StorageError

Row = dict[str, Any]

CRASH_RETRIES = 2
"""A song is tried this many times more when its decoder dies: a full machine kills the innocent too."""
START_SECONDS = 60.0
"""A child that is not ready by then does not start; half a second is usual."""

START_ATTEMPTS = 3
"""Tries to bring a child up before its song fails for it."""

MEMORY_EXIT = 77
_REAP_SECONDS = 5.0
_MAX_FRAME = 1 << 24
LENGTH = struct.Struct("<I")
PIECE = struct.Struct("<Id")
_START = "import sys; from mer_ray.audio.child import serve; serve(*sys.argv[1:])"


@dataclass(frozen=True)
class Limits:
    """What one song may cost before its decoder is ended.

    Attributes:
        seconds: to fetch and decode it.
        memory_mb: of private memory (10^6 bytes) of the decoder, which needs some 100 before any song.
    """

    seconds: float = 600.0
    memory_mb: int = 2_500


def room_for(max_seconds: float, sample_rate: int) -> int:
    """MB that a decoder needs for songs capped at ``max_seconds``.

    Twice the decoded samples, because a damaged file is decoded by both libraries and the better result
    kept; 1,000 for an object fetched whole and for the libraries themselves.
    """
    return 1_000 + round(2 * 4 * sample_rate * max_seconds / 1e6)


@cache
def shared_decoder(limits: Limits) -> SongDecoder:
    """This process's decoder with these limits, the same one at every call: a child a song would cost too much."""
    return SongDecoder(limits)


class SongDecoder:
    """Decodes songs one after another in a child process, started with the first song.

    Not for several threads at once.
    """

    def __init__(self, limits: Limits, reader: str = "mer_ray.audio.child:read_song") -> None:
        """``reader`` names what the child runs, ``module:function`` with the contract of
        :func:`mer_ray.audio.child.read_song`."""
        self._limits = limits
        self._reader = reader
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process.pid if self._child else None

    def decode(self, uri: str, **options: Any) -> Row:
        """One song's decoded columns; whatever goes wrong with it becomes its status.

        Args:
            uri: where it lies.
            options: of :func:`mer_ray.audio.decode_windows`.

        Raises:
            StorageError: no song can be fetched any more, see :func:`mer_ray.audio.fetch`.
        """
        ends: list[str] = []
        while len(ends) <= CRASH_RETRIES:
            try:
                with self._connected() as child:
                    row = child.ask({"uri": uri, "options": options}, self._limits.seconds)
                if row["status"] == "refused":
                    raise StorageError(row["error"])
                return row
            except TimeoutError:
                limit = f"{self._limits.seconds:g} s (--song-timeout-s)"
                return failed("timeout", f"{uri}: not decoded within {limit}; raise the limit or replace the file.")
            except _NotStarted as error:
                return failed("decoder_error", f"No decoder starts on {os.uname().nodename}: {error}. See its log.")
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

    @contextmanager
    def _connected(self) -> Iterator[_Child]:
        """The child, which does not outlive any failure: half an answer must not become the next song's."""
        if self._child is not None and self._child.process.poll() is not None:
            self.close()
        if self._child is None:
            self._child = self._started()
        try:
            yield self._child
        except BaseException:
            self.close()
            raise

    def _started(self) -> _Child:
        for attempt in range(1, START_ATTEMPTS):
            with suppress(_NotStarted):
                return _Child(self._limits, self._reader)
            time.sleep(attempt)  # a machine out of processes or memory may recover
        return _Child(self._limits, self._reader)


class _Ended(Exception):  # noqa: N818 - what became of a child, never seen by a caller
    """The child died while it had a song."""

    def __init__(self, code: int | None) -> None:
        super().__init__(_cause(code))
        self.code = code


class _NotStarted(Exception):  # noqa: N818 - as above
    """No child could be brought up."""


class _Child:
    """A running child and the socket to it."""

    def __init__(self, limits: Limits, reader: str) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            arguments = (theirs.fileno(), os.getpid(), limits.memory_mb, limits.seconds, reader)
            # As the spawn of multiprocessing does: what this process can import, the child can.
            paths = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
            # A pool of BLAS threads costs 40 MB a core, and what they would share is small.
            threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, *map(str, arguments)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **paths, **threads},
                )
            except OSError as error:
                self._socket.close()
                raise _NotStarted(str(error)) from error
        try:
            self._deadline = time.monotonic() + START_SECONDS
            self._receive_json()
        except (_Ended, TimeoutError) as error:
            self.end()
            raise _NotStarted(str(error) or "it hangs") from error

    def ask(self, request: Row, seconds: float) -> Row:
        """Send a request and wait for the whole answer. Raises TimeoutError or _Ended."""
        self._deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            send_json(self._socket, request)
        except ConnectionError:
            raise self._ended() from None
        row = self._receive_json()
        if row["status"] == "ok":
            pieces = [self._receive_piece() for _ in range(row.pop("pieces"))]
            row["scales"], row["windows"] = [scale for scale, _ in pieces], [window for _, window in pieces]
        return row

    def end(self) -> None:
        """Kill the child, unless it is dead, and let go of it."""
        self._socket.close()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in a read that the kernel does not give up
            self.process.wait(_REAP_SECONDS)

    def _receive_json(self) -> Row:
        size = LENGTH.unpack(self._receive(LENGTH.size))[0]
        try:
            row: Row = json.loads(self._receive(size))
        except ValueError:
            raise self._ended() from None
        return row

    def _receive_piece(self) -> tuple[float, bytearray]:
        size, scale = PIECE.unpack(self._receive(PIECE.size))
        return scale, self._receive(size)

    def _receive(self, size: int) -> bytearray:
        if size > _MAX_FRAME:  # a child whose memory is damaged talks nonsense before it dies
            raise self._ended()
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._socket.settimeout(max(1e-3, self._deadline - time.monotonic()))
            try:
                count = self._socket.recv_into(view)
            except ConnectionError:
                count = 0
            if not count:
                raise self._ended()
            view = view[count:]
        return data

    def _ended(self) -> _Ended:
        try:
            return _Ended(self.process.wait(_REAP_SECONDS))
        except subprocess.TimeoutExpired:
            return _Ended(None)


def failed(error_class: str, message: str) -> Row:
    """The columns of a song that could not be decoded."""
    text = message.encode("utf-8", "replace").decode()  # a lone surrogate cannot go into a table
    return {"status": "failed", "error_class": error_class, "error": text, "truncated": False, "bad_packets": 0}


def send_json(connection: socket.socket, row: Row) -> None:
    """A frame of the conversation."""
    text = json.dumps(row).encode()
    connection.sendall(LENGTH.pack(len(text)) + text)


def _cause(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "an answer that makes no sense"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as when the machine runs out of memory" if name == "SIGKILL" else name
