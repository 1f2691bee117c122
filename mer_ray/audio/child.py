"""The decoder's own process, the child's side of :mod:`mer_ray.audio.process`: answers until the parent hangs up."""

from __future__ import annotations

import importlib
import io
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from mer_ray.audio.confinement import bound, wall_off
from mer_ray.audio.decoding import DecodedTrack, decode_windows
from mer_ray.audio.formats import AudioError
from mer_ray.audio.wire import MEMORY_EXIT, Row, failed, receive_song, send_json

ORPHAN_SECONDS = 30.0


def read_song(file: BinaryIO, **options: Any) -> DecodedTrack:
    """Decode a song; what the child runs. Raises what :func:`mer_ray.audio.decode_windows` does."""
    return decode_windows(file, **options)


def serve(descriptor: str, parent: str, memory_mb: str, seconds: str, reader: str) -> None:
    """The child: answer requests until the parent hangs up."""
    bound(int(parent), int(memory_mb))
    module, _, name = reader.partition(":")
    read: Callable[..., DecodedTrack] = getattr(importlib.import_module(module), name)
    connection = socket.socket(fileno=int(descriptor))
    send_json(connection, {"status": "ready", "walls": wall_off()})
    while (asked := receive_song(connection)) is not None:
        # Should the parent die unnoticed, this ends even a codec that never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, float(seconds) + ORPHAN_SECONDS)
        try:
            _answer(connection, read, *asked)
        except MemoryError:
            os._exit(MEMORY_EXIT)  # saying more would need memory
        except ConnectionError:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(connection: socket.socket, read: Callable[..., DecodedTrack], options: Row, descriptor: int) -> None:
    scaled = []
    try:
        with io.FileIO(descriptor) as raw, io.BufferedReader(raw) as file:
            file.seek(0)  # where an earlier decoder died of it
            track = read(file, **options)
        pieces = [*track.windows, *([] if track.tail is None else [track.tail])]
        # float32 samples become int16 ones and a scale, whose product they are to their peak's 15 bits.
        scaled = [(piece, float(np.abs(piece).max()) / 32767 or 1.0) for piece in pieces]
        row = {name: getattr(track, name) for name in ("duration_s", "truncated", "bad_packets")}
        row |= {"status": "ok", "scales": [scale for _, scale in scaled], "windows": [2 * len(one) for one in pieces]}
    except AudioError as error:
        row = failed(error.error_class, str(error))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a song that cannot be read is data, never the end of a night
        row = failed("decoder_error", f"{type(error).__name__}: {error}"[:500])
    send_json(connection, row)
    for piece, scale in scaled:  # one at a time: a long song never stands in memory a second time
        connection.sendall(np.rint(piece / scale).astype(np.int16).data)
