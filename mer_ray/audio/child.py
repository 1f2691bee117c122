"""The decoder's own process, the child's side of :mod:`mer_ray.audio.process`: answers until the parent hangs up."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from mer_ray.audio.decoding import DecodedTrack, decode_windows
from mer_ray.audio.fetching import Repeats, fetch
from mer_ray.audio.formats import AudioError
from mer_ray.audio.process import MEMORY_EXIT, Row, failed, send_json
from mer_ray.errors import StorageError

ORPHAN_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


def read_song(uri: str, repeats: Repeats | None = None, **options: Any) -> DecodedTrack:
    """Fetch and decode a song; what the child runs. Raises what :func:`mer_ray.audio.fetch` does."""
    return decode_windows(fetch(uri, repeats), **options)


def serve(descriptor: str, parent: str, memory_mb: str, seconds: str, reader: str) -> None:
    """The child: answer requests until the parent hangs up."""
    _confine(int(parent), int(memory_mb))
    module, _, name = reader.partition(":")
    read: Callable[..., DecodedTrack] = getattr(importlib.import_module(module), name)
    connection = socket.socket(fileno=int(descriptor))
    send_json(connection, {"status": "ready"})
    for line in connection.makefile("rb"):
        # Should the parent die unnoticed, this ends even a codec that never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, float(seconds) + ORPHAN_SECONDS)
        try:
            _answer(connection, read, json.loads(line))
        except MemoryError:
            os._exit(MEMORY_EXIT)  # saying more would need memory
        except ConnectionError:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)


def _confine(parent: int, memory_mb: int) -> None:
    """Bound the memory of this process, and tie its life to the parent's.

    RLIMIT_DATA counts what is private and writable, which is what a song makes grow. RLIMIT_AS would also
    count mapped libraries and reserved addresses, hundreds of MB that differ from machine to machine.
    Without Linux the kernel enforces neither, and time limit and crashes are all that is guarded.
    """
    faulthandler.enable()  # a crash leaves the line that called the codec in the worker's log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    hard, limit = resource.getrlimit(resource.RLIMIT_DATA)[1], memory_mb * 1_000_000
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a night of bad songs must not fill the disk with dumps
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, rather this process than Ray's
    if os.getppid() != parent:
        os._exit(1)


def _answer(connection: socket.socket, read: Callable[..., DecodedTrack], request: Row) -> None:
    repeats, scaled = Repeats(), []
    try:
        track = read(request["uri"], repeats=repeats, **request["options"])
        pieces = [*track.windows, *([] if track.tail is None else [track.tail])]
        # float32 samples become int16 ones and a scale, whose product they are to their peak's 15 bits.
        scaled = [(piece, float(np.abs(piece).max()) / 32767 or 1.0) for piece in pieces]
        row = {name: getattr(track, name) for name in ("duration_s", "truncated", "bad_packets")}
        row |= {"status": "ok", "scales": [scale for _, scale in scaled], "windows": [2 * len(one) for one in pieces]}
    except AudioError as error:
        row = failed(error.error_class, str(error))
    except StorageError as error:
        row = {"status": "refused", "error": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a song that cannot be read is data, never the end of a night
        row = failed("decoder_error", f"{type(error).__name__}: {error}"[:500])
    send_json(connection, row | {"fetch_retries": repeats.count, "fetch_retry_s": repeats.seconds})
    for piece, scale in scaled:  # one at a time: a long song never stands in memory a second time
        connection.sendall(np.rint(piece / scale).astype(np.int16).data)
