"""Tests of responses with a file, over real sockets: a close after the last byte doesn't count as a disconnect.

They run under Hypercorn and Uvicorn.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import BIN, QUIET, Agent, Span, clean_environment, eventually, free_port, started

from hello_service.observability import tracing

APP = """
import pathlib, quart, tracing

app = tracing.trace(quart.Quart(__name__))

@app.get("/file")
async def file():
    return await quart.send_file(pathlib.Path(app.root_path) / "static" / "file", conditional=True)
"""
SIZES = {"small": 100, "large": 300_000}  # bytes; Quart sends at most 8,192 at a time
REPETITIONS = 50  # the server may handle its last write or the close first, so one request proves little
SERVERS = {
    # Without worker processes, Hypercorn serves in the process that ddtrace-run starts.
    "hypercorn": ["hypercorn", "--workers", "0", "app:app", "--bind", "127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}"],
}


@pytest.fixture(params=[(server, size) for server in SERVERS for size in SIZES], ids="-".join)
def port(request: pytest.FixtureRequest, tmp_path: Path, agent: Agent) -> Iterator[int]:
    """The port of an application with one file, served under ddtrace-run."""
    server, size = request.param
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "file").write_bytes(b"x" * SIZES[size])
    (tmp_path / "app.py").write_text(APP)
    shutil.copy(tracing.__file__, tmp_path)
    port = free_port()
    program, *arguments = [argument.format(port=port) for argument in SERVERS[server]]
    command = [str(BIN / "ddtrace-run"), str(BIN / program), *arguments]
    environment = {**QUIET, "PYTHONPATH": str(tmp_path), "DD_TRACE_AGENT_URL": agent.url}

    def responds() -> bool:
        try:
            return send_request(port, "/nothing").startswith("HTTP/1.1 404")
        except OSError:
            return False

    with started(command, clean_environment(environment), cwd=tmp_path):
        eventually(responds, timeout=60)
        agent.wait_for_spans(1)  # the span of the 404
        agent.clear()
        yield port


def send_request(port: int, path: str, *headers: str, method: str = "GET") -> str:
    """Send a request, close the connection right after the last byte of the response, and return the response's head."""
    lines = [f"{method} {path} HTTP/1.1", "host: here", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            assert data, f"no head in {received!r}"
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        missing = 0
        if length and method != "HEAD":  # a response to HEAD has a length, but no body
            missing = int(length[1]) - len(body)
        while missing > 0:
            data = connection.recv(missing)
            assert data, f"{missing} bytes are missing"
            missing -= len(data)
    return head.decode()


def summary(span: Span) -> tuple[str, str, str | None, str | None, int]:
    """Return the resource, the status, the tags of an incomplete response and of a disconnect, and the error flag."""
    meta = span["meta"]
    incomplete, disconnected = meta.get(tracing.INCOMPLETE), meta.get(tracing.CLIENT_DISCONNECTED)
    return span["resource"], meta["http.status_code"], incomplete, disconnected, span["error"]


def test_a_close_after_the_last_byte_is_not_a_disconnect(port: int, agent: Agent) -> None:
    for _ in range(REPETITIONS):
        assert send_request(port, "/static/file").startswith("HTTP/1.1 200")
        assert send_request(port, "/file").startswith("HTTP/1.1 200")
    spans = agent.wait_for_spans(2 * REPETITIONS)

    assert sorted(summary(span) for span in spans) == [
        *[("GET /file", "200", None, None, 0)] * REPETITIONS,
        *[("GET /static/<path:filename>", "200", None, None, 0)] * REPETITIONS,
    ]
    assert len({span["trace_id"] for span in spans}) == 2 * REPETITIONS


def test_responses_to_range_head_and_conditional_requests_are_complete(port: int, agent: Agent) -> None:
    """Their spans have the response's status, no error, and no tag of an incomplete response or a disconnect."""
    etag = re.search(r"etag: (.+)", send_request(port, "/file"), re.IGNORECASE)
    assert etag is not None
    heads = [
        send_request(port, "/file", "range: bytes=0-9"),
        send_request(port, "/file", "range: bytes=9999999-"),
        send_request(port, "/file", f"if-none-match: {etag[1].strip()}"),
        send_request(port, "/file", method="HEAD"),
        send_request(port, "/static/file", f"if-none-match: {etag[1].strip()}"),
    ]
    spans = agent.wait_for_spans(6)

    assert [head.split()[1] for head in heads] == ["206", "416", "304", "200", "304"]
    assert [summary(span) for span in sorted(spans, key=lambda span: span["start"])] == [
        ("GET /file", "200", None, None, 0),
        ("GET /file", "206", None, None, 0),
        ("GET /file", "416", None, None, 0),
        ("GET /file", "304", None, None, 0),
        ("HEAD /file", "200", None, None, 0),
        ("GET /static/<path:filename>", "304", None, None, 0),
    ]
