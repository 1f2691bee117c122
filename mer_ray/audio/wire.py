"""What a decoder's process and who asks it say to each other, over one socket.

A request is a line of JSON that brings the song along as an open file; an answer is such a line, with the scale of each
window and its bytes, then the int16 samples of all. No pickles.
"""

from __future__ import annotations

import json
import socket
from typing import Any

Row = dict[str, Any]

MEMORY_EXIT = 77
"""Exit code of a child that needs more memory than it may have."""
_REQUEST_BYTES = 4_096


def failed(error_class: str, message: str) -> Row:
    """The columns of a song that could not be decoded."""
    text = message.encode("utf-8", "replace").decode()  # a lone surrogate cannot go into a table
    return {"status": "failed", "error_class": error_class, "error": text, "truncated": False, "bad_packets": 0}


def send_json(connection: socket.socket, row: Row) -> None:
    """A line of the conversation."""
    connection.sendall(json.dumps(row).encode() + b"\n")


def send_song(connection: socket.socket, options: Row, descriptor: int) -> None:
    """Ask for a song; the other side gets a descriptor of its own."""
    socket.send_fds(connection, [json.dumps(options).encode()], [descriptor])


def receive_song(connection: socket.socket) -> tuple[Row, int] | None:
    """What is asked and the song's descriptor; None once the other side has hung up."""
    data, descriptors, *_ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
    return (json.loads(data), descriptors[0]) if data else None
