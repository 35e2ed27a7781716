"""Files over a real socket: a client that leaves with its last byte has not disconnected, whatever serves."""

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

@app.get("/sent")
async def sent():
    return await quart.send_file(pathlib.Path(app.root_path) / "static" / "file", conditional=True)
"""
SIZES = {"small": 100, "large": 300_000}
TIMES = 50
SERVERS = {
    "hypercorn": ["hypercorn", "-w", "0", "app:app", "--bind", "127.0.0.1:{port}"],
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
    program, *arguments = [each.format(port=port) for each in SERVERS[server]]
    command = [str(BIN / "ddtrace-run"), str(BIN / program), *arguments]
    environment = {**QUIET, "PYTHONPATH": str(tmp_path), "DD_TRACE_AGENT_URL": agent.url}

    def serves() -> bool:
        try:
            return get(port, "/nothing").startswith("HTTP/1.1 404")
        except OSError:
            return False

    with started(command, clean_environment(environment), cwd=tmp_path):
        eventually(serves, timeout=60)
        agent.wait_for_spans(1)
        agent.clear()
        yield port


def get(port: int, path: str, *headers: str, method: str = "GET") -> str:
    """Return the head of a response. The connection is closed with the last byte that Content-Length promises."""
    lines = [f"{method} {path} HTTP/1.1", "host: here", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536) or pytest.fail(f"no head in {received!r}")
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        left = int(length[1]) - len(body) if length and method != "HEAD" else 0
        while left > 0:
            left -= len(connection.recv(left) or pytest.fail(f"{left} bytes are missing"))
    return head.decode()


def described(span: Span) -> tuple[str, str, str | None, str | None, int]:
    meta = span["meta"]
    incomplete, disconnected = meta.get(tracing.INCOMPLETE), meta.get(tracing.CLIENT_DISCONNECTED)
    return span["resource"], meta["http.status_code"], incomplete, disconnected, span["error"]


def test_a_client_that_leaves_with_its_last_byte_has_not_disconnected(port: int, agent: Agent) -> None:
    for _ in range(TIMES):
        assert get(port, "/static/file").startswith("HTTP/1.1 200")
        assert get(port, "/sent").startswith("HTTP/1.1 200")
    spans = agent.wait_for_spans(2 * TIMES)

    assert sorted(described(span) for span in spans) == [
        *[("GET /sent", "200", None, None, 0)] * TIMES,
        *[("GET /static/<path:filename>", "200", None, None, 0)] * TIMES,
    ]
    assert len({span["trace_id"] for span in spans}) == 2 * TIMES


def test_a_part_of_a_file_a_head_and_a_file_that_is_known_are_what_they_are(port: int, agent: Agent) -> None:
    etag = re.search(r"etag: (.+)", get(port, "/sent"), re.IGNORECASE)
    assert etag is not None
    heads = [
        get(port, "/sent", "range: bytes=0-9"),
        get(port, "/sent", "range: bytes=9999999-"),
        get(port, "/sent", f"if-none-match: {etag[1].strip()}"),
        get(port, "/sent", method="HEAD"),
        get(port, "/static/file", f"if-none-match: {etag[1].strip()}"),
    ]
    spans = agent.wait_for_spans(6)

    assert [head.split()[1] for head in heads] == ["206", "416", "304", "200", "304"]
    assert [described(span) for span in sorted(spans, key=lambda span: span["start"])] == [
        ("GET /sent", "200", None, None, 0),
        ("GET /sent", "206", None, None, 0),
        ("GET /sent", "416", None, None, 0),
        ("GET /sent", "304", None, None, 0),
        ("HEAD /sent", "200", None, None, 0),
        ("GET /static/<path:filename>", "304", None, None, 0),
    ]
