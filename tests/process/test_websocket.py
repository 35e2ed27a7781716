"""Tests of backpressure on WebSockets: a client that sends more than its handler reads has to wait."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import BIN, ROOT, Running, service

NO_AGENT = "http://127.0.0.1:1"  # nothing listens on this port
ENVIRONMENT = {"GRACEFUL_SECONDS": "0", "PYTHONPATH": str(ROOT / "tests")}
COMMAND = [str(BIN / "ddtrace-run"), sys.executable, str(Path(__file__).with_name("websocket_server.py"))]
FLOOD_BYTES = 120_000_000  # more than the memory may grow, so a server that reads without a bound fails the test
# The spans of messages that fit into the kernel's buffers take up to 40 MiB. Without a bound, the growth is 118 MiB.
MAX_GROWTH_MIB = 60
SILENCE_SECONDS = 5.0  # if the server accepts no data for this time, it has stopped reading


def frame(payload: bytes) -> bytes:
    """Return a text frame (RFC 6455, section 5.2) whose mask is 0. `payload` has at most 65,535 bytes."""
    size = len(payload)
    # 0x80 in the length marks a masked frame. The length 126 means that two bytes with the true length follow.
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + payload  # 0x81 marks a text message in a single frame


# The replies to small messages soon fill the buffers on the way to a client that doesn't read. Large messages would
# soon fill the memory of a server that reads without a bound.
SMALL = frame(b"A" * 200)
LARGE = frame(b"x" * 60_000)


@contextmanager
def open_websocket(running: Running, path: str) -> Iterator[socket.socket]:
    """Open a WebSocket, and read no more than the start of the response."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # small, so that the server's replies fill it
        client.settimeout(SILENCE_SECONDS)
        client.connect((host, int(port)))
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: here",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==",  # any 16 bytes in base64
        ]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        assert client.recv(12) == b"HTTP/1.1 101"
        yield client


def flood(client: socket.socket) -> int:
    """Send small and large messages until the server stops reading, but at most `FLOOD_BYTES`.

    Returns:
        The number of bytes sent.
    """
    chunk = SMALL * 50 + LARGE
    sent = 0
    while sent < FLOOD_BYTES:
        try:
            sent += client.send(chunk[sent % len(chunk) :])  # continues where the last `send` stopped
        except TimeoutError:
            break
    return sent


def memory_mib(running: Running, name: str) -> float:
    """Return the server's resident memory. `name` is VmRSS for the current value, or VmHWM for the peak."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    assert match
    return int(match[1]) / 1024


@pytest.mark.parametrize("path", ["/api/hello/ws", "/reads-nothing"])
def test_a_client_that_sends_and_never_reads_has_to_wait(path: str) -> None:
    with service(NO_AGENT, ENVIRONMENT, COMMAND) as running, open_websocket(running, path) as client:
        before = memory_mib(running, "VmRSS")
        sent = flood(client)
        growth = memory_mib(running, "VmHWM") - before

    assert sent < FLOOD_BYTES
    assert growth <= MAX_GROWTH_MIB


def test_the_connection_is_closed_when_a_handler_returns_with_messages_unread() -> None:
    with service(NO_AGENT, ENVIRONMENT, COMMAND) as running:
        with open_websocket(running, "/leaves-messages-unread") as client:
            client.sendall(SMALL * 100)  # more than the server reads ahead for a handler
            received = b""
            while data := client.recv(65536):
                received += data
        code = running.stop()

    assert b"\x88\x02\x03\xe8" in received  # a close frame with code 1000
    assert code == 0
