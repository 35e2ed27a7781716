"""A small HTTP server with one prepared response, which records the requests that arrive. Without a response it hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHTTP(ThreadingHTTPServer):
    """The server. `paths` has the path of each request that arrived."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, body: Any, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.status, self.headers = body, status, headers
        self.refused: int | None = None  # the status for all methods but GET, if it is not `status`
        self.missing: set[str] = set()  # paths that get 404
        self.paths: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """The URL that it listens on."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHTTP

    def _respond(self) -> None:
        self.server.paths.append(self.path)
        if self.server.body is None:
            self.server.over.wait()
            return
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(self.server.body).encode()
        self.send_response_only(self._status())
        for name, value in {"Content-Length": str(len(body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _status(self) -> int:
        if self.path in self.server.missing:
            return 404
        return self.server.refused if self.server.refused and self.command != "GET" else self.server.status

    do_GET = do_POST = do_PUT = do_CONNECT = _respond  # noqa: N815 - the names that http.server calls


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve from a thread until the block ends; yields the URL."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def fake_http(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Iterator[FakeHTTP]:
    """Respond to every request with `body` as JSON; None: accept every request and never respond."""
    server = FakeHTTP(body, status, headers or {})
    with served(server):
        try:
            yield server
        finally:
            server.over.set()
