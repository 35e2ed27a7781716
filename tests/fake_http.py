"""A small HTTP server that answers as it was told, and can be asked what arrived. Without an answer it never gives one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHTTP(ThreadingHTTPServer):
    """The paths that were asked for are in `paths`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Any, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.status, self.headers = answer, status, headers
        self.refused: int | None = None  # status for what is sent here, where it is not that of the answers
        self.missing: set[str] = set()  # paths that are not there
        self.paths: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHTTP

    def _answer(self) -> None:
        self.server.paths.append(self.path)
        if self.server.answer is None:
            self.server.over.wait()
            return
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps(self.server.answer).encode()
        self.send_response_only(self._status())
        for name, value in {"Content-Length": str(len(body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _status(self) -> int:
        if self.path in self.server.missing:
            return 404
        return self.server.refused if self.server.refused and self.command != "GET" else self.server.status

    do_GET = do_POST = do_PUT = do_CONNECT = _answer  # noqa: N815 - the names that http.server calls


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
def fake_http(answer: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Iterator[FakeHTTP]:
    """Answer every request with `answer` as JSON; None: take every request and answer none."""
    server = FakeHTTP(answer, status, headers or {})
    with served(server):
        try:
            yield server
        finally:
            server.over.set()
