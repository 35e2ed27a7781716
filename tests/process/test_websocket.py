"""Tests that a WebSocket client that sends more than its handler reads has to wait."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import BIN, ROOT, Running, service

NO_AGENT = "http://127.0.0.1:1"
ENVIRONMENT = {"GRACEFUL_SECONDS": "0", "PYTHONPATH": str(ROOT / "tests")}
SERVED = [str(BIN / "ddtrace-run"), sys.executable, str(Path(__file__).with_name("websockets_served.py"))]
SENT = 120_000_000
GROWTH_MIB = 40
SILENCE_SECONDS = 5.0  # without progress, the server has stopped reading


def frame(payload: bytes) -> bytes:
    """Return a text frame (RFC 6455, section 5.2) whose mask is 0."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload


# The responses to small messages fill the buffers to a client that does not read.
SMALL, LARGE = frame(b"A" * 200), frame(b"x" * 60_000)


@contextmanager
def opened(running: Running, path: str) -> Iterator[socket.socket]:
    """Open a WebSocket and read only the head of the response."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # smaller than the server's responses
        client.settimeout(SILENCE_SECONDS)
        client.connect((host, int(port)))
        lines = (f"GET {path} HTTP/1.1", "Host: here", "Connection: Upgrade", "Upgrade: websocket")
        key = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==", "", "")
        client.sendall("\r\n".join(lines + key).encode())
        assert client.recv(12) == b"HTTP/1.1 101"
        yield client


def flood(client: socket.socket) -> int:
    """Send small and large messages until `SENT` bytes are sent or the server stops reading; return the number of
    bytes.
    """
    sent, chunk = 0, SMALL * 50 + LARGE
    while sent < SENT:
        try:
            sent += client.send(chunk[sent % len(chunk) :])
        except TimeoutError:
            break
    return sent


def memory_mib(running: Running, name: str) -> float:
    """Return VmRSS (current) or VmHWM (peak) of the server."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


@pytest.mark.parametrize("path", ["/api/hello/ws", "/reads-nothing"])
def test_a_client_that_sends_and_never_reads_has_to_wait(path: str) -> None:
    with service(NO_AGENT, ENVIRONMENT, SERVED) as running, opened(running, path) as client:
        before = memory_mib(running, "VmRSS")
        sent = flood(client)
        grown = memory_mib(running, "VmHWM") - before

    assert sent < SENT
    assert grown <= GROWTH_MIB


def test_a_handler_that_returns_while_messages_wait_ends_the_connection() -> None:
    with service(NO_AGENT, ENVIRONMENT, SERVED) as running:
        with opened(running, "/ends") as client:
            client.sendall(SMALL * 100)
            received = b""
            while more := client.recv(65536):
                received += more
        code = running.stop()

    assert b"\x88\x02\x03\xe8" in received  # Close, 1000
    assert code == 0
