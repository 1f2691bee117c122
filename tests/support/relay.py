"""From one network namespace to a server in another: over a Unix socket, which knows no networks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit


@contextlib.contextmanager
def unix_relay(path: str, endpoint: str) -> Iterator[None]:
    """Hand on what comes in by a Unix socket to a server of this network."""
    where = urlsplit(endpoint)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with _serving(listener, lambda: socket.create_connection((where.hostname or "", where.port or 0))):
            yield


@contextlib.contextmanager
def relayed(path: str) -> Iterator[str]:
    """An endpoint on this network's loopback, which hands on to a Unix socket."""

    def connect() -> socket.socket:
        onward = socket.socket(socket.AF_UNIX)
        onward.connect(path)
        return onward

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with _serving(listener, connect):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _serving(listener: socket.socket, connect: Callable[[], socket.socket]) -> Iterator[None]:
    listener.listen(128)

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed: it is over
            while True:
                here, onward = listener.accept()[0], connect()
                for source, target in ((here, onward), (onward, here)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
