"""A small HTTP server that records the requested paths, and sends a prepared response."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHTTP(ThreadingHTTPServer):
    """The server. If its body is None, it accepts requests and never responds.

    Attributes:
        body: the body of every response, sent as JSON.
        status: the usual status of a response.
        headers: additional headers of every response.
        status_of_other_methods: the status for all methods except GET. If it is None, they also get `status`.
        missing_paths: the paths to which the server responds with 404.
        paths: the path of each request that arrived.
        closing: an event that ends the requests that get no response.
    """

    daemon_threads = True
    block_on_close = False  # the thread of a request that gets no response may still run

    def __init__(self, body: Any, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.status, self.headers = body, status, headers
        self.status_of_other_methods: int | None = None
        self.missing_paths: set[str] = set()
        self.paths: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHTTP

    def _respond(self) -> None:
        self.server.paths.append(self.path)
        if self.server.body is None:
            self.server.closing.wait()
            return
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(self.server.body).encode()
        self.send_response_only(self._status())
        for name, value in {"Content-Length": str(len(body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _status(self) -> int:
        if self.path in self.server.missing_paths:
            return 404
        if self.command != "GET" and self.server.status_of_other_methods is not None:
            return self.server.status_of_other_methods
        return self.server.status

    do_GET = do_POST = do_PUT = do_CONNECT = _respond  # noqa: N815 - the names that http.server calls


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run `server` in a thread until the block ends, and yield its URL."""
    # `shutdown` waits for the end of a poll, so a short interval makes it fast.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def fake_http(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Iterator[FakeHTTP]:
    """Run a server that responds to every request with `body` as JSON. If `body` is None, it never responds."""
    server = FakeHTTP(body, status, headers or {})
    with served(server):
        try:
            yield server
        finally:
            server.closing.set()
