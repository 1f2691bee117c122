"""A proxy on the loopback before a real S3 server, which does on request what object storage does at night.

    with FaultyProxy(server.endpoint) as proxy:
        proxy.inject(Fault("503", path=r"\\.mp3$", share=0.3))     # and point AWS_ENDPOINT_URL to proxy.url
    proxy.injected                                                  # Counter({"503": 17})
    proxy.requests, proxy.fetched                                   # Counter({"GET": 40}), bytes of their answers

Without faults it is transparent: it hands on each request with the Host it was signed for.
Whether a request is struck depends on the seed, its path and how often that path was asked for, and so not
on the order in which threads come by.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
ANSWERS = {
    "404": (404, _XML.format("NoSuchKey", "The specified key does not exist.")),
    "403": (403, _XML.format("AccessDenied", "Access Denied")),
    "500": (500, _XML.format("InternalError", "We encountered an internal error. Please try again.")),
    "501": (501, _XML.format("NotImplemented", "A header you provided implies functionality that is not implemented.")),
    "503": (503, _XML.format("SlowDown", "Please reduce your request rate.")),
    "503 page": (503, "<html><body><h1>503 Service Unavailable</h1><br>No server is available.</body></html>"),
    "unknown key": (403, _XML.format("InvalidAccessKeyId", "The access key Id you provided does not exist.")),
    "wrong key": (403, _XML.format("SignatureDoesNotMatch", "The request signature does not match.")),
    "expired": (400, _XML.format("ExpiredToken", "The provided token has expired.")),
}
"""Kinds of fault that are an answer: its status and body."""

BROKEN = ("hang up", "reset", "truncated", "stalled", "slow")
"""Kinds that are none: closed before an answer, reset or closed in the middle of a body, no answer at all,
and a late one."""


@dataclass
class Fault:
    """What to do to which requests.

    Attributes:
        kind: of ANSWERS or BROKEN.
        method: regular expression of the whole HTTP method.
        path: regular expression found in ``/bucket/key?query``, unquoted.
        share: of the requests that match, drawn with the seed.
        times: at most so many for each path, None without end.
        after: so many matching requests pass first.
        seconds: of a ``slow`` answer.
    """

    kind: str
    method: str = "GET"
    path: str = ""
    share: float = 1.0
    times: int | None = None
    after: int = 0
    seconds: float = 0.5
    seed: int = 0
    _asked: Counter[str] = field(default_factory=Counter)
    _struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        assert self.kind in (*ANSWERS, *BROKEN), self.kind

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is struck; counts it."""
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self._asked[path] += 1
        if self._asked.total() <= self.after or (self.times is not None and self._struck[path] >= self.times):
            return False
        struck = random.Random(f"{self.seed} {path} {self._asked[path]}").random() < self.share
        self._struck[path] += struck
        return struck


class FaultyProxy:
    """The proxy, while used as a context.

    Attributes:
        url: the endpoint for clients.
        injected: how many faults of each kind it has done.
        requests: how many of each method came by since the last :meth:`inject`.
        fetched: bytes of the bodies of its answers since then.
    """

    def __init__(self, endpoint: str) -> None:
        self._target = urlsplit(endpoint).netloc
        self._faults: list[Fault] = []
        self._guard = threading.Lock()
        self._over = threading.Event()
        self.inject()

    def __enter__(self) -> FaultyProxy:
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def inject(self, *faults: Fault) -> None:
        """Begin to do these, and nothing else; the first that strikes a request is done to it."""
        with self._guard:
            self._faults = list(faults)
            self.injected: Counter[str] = Counter()
            self.requests: Counter[str] = Counter()
            self.fetched = 0

    def count(self, fetched: int) -> None:
        """Note the body of an answer."""
        with self._guard:
            self.fetched += fetched

    def chosen(self, method: str, path: str) -> Fault | None:
        """The fault that strikes this request."""
        with self._guard:
            self.requests[method] += 1
            for fault in self._faults:
                if fault.strikes(method, path):
                    self.injected[fault.kind] += 1
                    return fault
        return None

    def forward(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer to a request: status, headers, body."""
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def wait(self, seconds: float | None) -> None:
        """Do nothing for so long, or until the proxy ends."""
        self._over.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyProxy

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Leave it to the request's own method, which may not want to answer at all."""
        return True

    def do_GET(self) -> None:
        fault = self.faulty.chosen(self.command, unquote(self.path))
        kind = fault.kind if fault else ""
        if kind == "stalled":
            self.faulty.wait(None)
            self.close_connection = True
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if kind in ANSWERS:
            status, text = ANSWERS[kind]
            self._answer(status, [("Content-Type", "application/xml")], text.encode())
        elif kind != "hang up":
            if fault is not None and kind == "slow":
                self.faulty.wait(fault.seconds)
            status, headers, content = self.faulty.forward(self.command, self.path, self.headers, body)
            self._answer(status, headers, content, cut=kind in ("reset", "truncated"))
        if kind in ("hang up", "reset"):
            # Closing with a linger of zero seconds sends a reset instead of an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if kind in ("hang up", "reset", "truncated"):
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of a HEAD, whose body is not there
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.faulty.count(len(content))
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.wfile.flush()
