"""Tests of timeouts, of a server that stops, and of how rejections are counted (RFC 9110, 15.5.9; RFC 9112, 9.6)."""

from __future__ import annotations

import asyncio
import errno
import struct
from contextlib import suppress
from typing import Any

import pytest
from drills.hostile_requests import frame
from structlog.testing import capture_logs
from wire import (
    BODY,
    LENGTH,
    Echo,
    MemoryTransport,
    chunked,
    connected,
    get,
    head,
    pass_time,
    post,
    read_until_disconnect,
    serve_in_memory,
    settle,
    statuses,
    until,
)

from hello_service.serving.connections import Connections, Limits
from hello_service.serving.rejections import LINES_PER_SECOND, Rejections
from hello_service.serving.timeout import Timeout
from hello_service.serving.websocket import IDLE_SECONDS

HANDSHAKE = get(
    "/ws",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
TEXT = 1  # the opcode of a WebSocket frame with text


@pytest.mark.parametrize("data", [b"", b"\r\n", get()])
async def test_an_idle_connection_is_closed_without_a_response(data: bytes) -> None:
    """A client that sent a request first receives only the response to that request."""
    async with connected(Echo(), keep_alive_seconds=0.05) as client:
        response = await client.exchange(data)

    assert statuses(response) == ([200] if data == get() else [])


@pytest.mark.parametrize("incomplete_head", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: here\r\nX"])
async def test_a_head_that_is_not_completed_in_time_is_a_408(incomplete_head: bytes) -> None:
    """`keep_alive_seconds` also limits the time until a head is complete, which a part of the head does not extend."""
    connections = Connections(Limits(keep_alive_seconds=0.05))
    async with connected(Echo(), connections) as client:
        response = await client.exchange(incomplete_head)

    assert statuses(response) == [408]
    assert connections.rejections.counts == {"head-timeout": 1}


@pytest.mark.parametrize("request_", [post(b"ab", length=3), chunked(b"2\r\nab\r\n")])
async def test_a_stalled_body_is_a_408(request_: bytes) -> None:
    echo = Echo()
    connections = Connections(Limits(body_seconds=0.05))
    async with connected(echo, connections) as client:
        response = await client.exchange(request_)

    assert statuses(response) == [408]
    assert echo.outcomes == ["disconnected"]
    assert connections.rejections.counts == {"body-timeout": 1}


async def test_a_body_that_makes_progress_is_read_however_long_it_takes() -> None:
    """The timeout counts the time without progress, not the total."""
    transport, connections = MemoryTransport(), Connections()
    serving = serve_in_memory(Echo(), transport, connections)
    await settle()
    transport.protocol.data_received(post(b"", "Connection: close", length=10))
    for _ in range(10):
        await pass_time(connections.limits.body_seconds - 1)
        transport.protocol.data_received(b"a")
    await settle()
    transport.close()
    await serving

    assert statuses(transport.written) == [200]


async def test_the_body_timeout_is_stopped_while_the_application_is_slow() -> None:
    """The server has paused reading, so the client can't send more."""
    proceed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        while (await receive())["more_body"]:
            pass
        await send(head(LENGTH))
        await send(BODY)

    transport, connections = MemoryTransport(), Connections()
    serving = serve_in_memory(application, transport, connections)
    await settle()
    # More than the server buffers, so it pauses reading.
    transport.protocol.data_received(post(b"a" * 100_000, "Connection: close", length=100_001))
    await pass_time(connections.limits.body_seconds * 2)
    proceed.set()
    await settle()
    transport.protocol.data_received(b"a")
    await settle()
    transport.close()
    await serving

    assert statuses(transport.written) == [200]


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_response_that_the_client_does_not_read_is_aborted(version: str, has_length: bool) -> None:
    """The client gets a reset. Without a Content-Length, an HTTP/1.0 client would mistake a close for the end."""
    finished = asyncio.Event()
    body = b"a" * 50_000_000  # more than the socket buffers of both sides hold
    headers = [(b"content-length", b"%d" % len(body))] if has_length else []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        receiving = asyncio.create_task(read_until_disconnect(receive))
        await send(head(*headers))
        await send({**BODY, "body": body})
        await receiving
        finished.set()

    connections = Connections(Limits(write_seconds=0.05))
    async with connected(application, connections) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        await client.send(get(version=version))
        await finished.wait()
        await until(lambda: not connections.open)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        with pytest.raises(ConnectionResetError):
            await client.rest()

    assert connections.rejections.counts == {"write-timeout": 1}


async def test_a_timeout_can_be_restarted_stopped_and_closed() -> None:
    calls: list[str] = []
    timeout = Timeout(asyncio.get_running_loop())

    timeout.start(10, lambda: calls.append("replaced"))
    timeout.start(30, lambda: calls.append("restarted for later"))
    await pass_time(20)
    assert calls == []
    await pass_time(10)

    timeout.start(10, lambda: calls.append("stopped"))
    timeout.stop()
    await pass_time(10)

    timeout.start(500, lambda: calls.append("replaced"))
    timeout.start(10, lambda: calls.append("restarted for sooner"))
    await pass_time(10)

    timeout.start(10, lambda: calls.append("closed"))
    timeout.close()
    timeout.close()  # has no effect
    await pass_time(1000)

    assert calls == ["restarted for later", "restarted for sooner"]


async def test_a_request_that_arrives_during_the_grace_period_is_served() -> None:
    """The request is the last one of its connection, so a request pipelined behind it is not served."""
    connections, echo = Connections(), Echo()
    async with connected(echo, connections) as client:
        await until(lambda: bool(connections.open))
        connections.stop(grace_seconds=10)
        response = await client.exchange(get("/1") + get("/2"))

    assert statuses(response) == [200]
    assert b"connection: close\r\n" in response
    assert [path for _, path, _, _ in echo.requests] == ["/1"]


@pytest.mark.parametrize("sent_before", [b"", b"GET / HT", get()])
async def test_no_request_is_executed_after_the_grace_period(sent_before: bytes) -> None:
    """The server closes its side but keeps reading, so that a late request does not turn the close into a reset."""
    is_whole_request = sent_before == get()
    connections, echo = Connections(), Echo()
    async with connected(echo, connections) as client:
        await client.send(sent_before)
        if is_whole_request:
            await client.until(b"GET / ")  # the body that `Echo` returns
        await until(lambda: bool(connections.open))
        connections.stop(grace_seconds=0)
        response = await client.rest()
        await client.send(get("/late"))
        client.half_close()
        await until(lambda: not connections.open)

    assert response == b""
    assert len(echo.scopes) == (1 if is_whole_request else 0)


async def test_the_grace_period_ends_for_every_connection_even_if_clients_reset_theirs() -> None:
    """`write_eof` fails if a reset is not reported yet. The server must still close the other connections."""

    class ResetTransport(MemoryTransport):
        def write_eof(self) -> None:
            self.eof_written = True
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    connections = Connections()
    transports = [ResetTransport() for _ in range(3)]
    for transport in transports:
        serve_in_memory(Echo(), transport, connections)
    await settle()
    connections.stop(grace_seconds=0)
    await settle()

    assert all(transport.eof_written for transport in transports)
    connections.abort()
    await until(lambda: not connections.open)


async def test_a_connection_accepted_after_the_grace_period_is_closed() -> None:
    connections, echo = Connections(), Echo()
    connections.stopping, connections.accepting = True, False  # as `stop` leaves them after the grace period
    async with connected(echo, connections) as client:
        response = await client.exchange(get())

    assert response == b""
    assert echo.scopes == []


async def test_a_request_in_flight_is_finished_when_the_server_stops() -> None:
    connections = Connections()
    started, proceed = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await proceed.wait()
        await send(head(LENGTH))
        await send(BODY)

    async with connected(application, connections) as client:
        await client.send(get())
        await started.wait()
        connections.stop(grace_seconds=0)
        await until(lambda: not connections.accepting)
        proceed.set()
        response = await client.rest()

    assert statuses(response) == [200]
    assert b"connection: close\r\n" in response


async def test_connections_can_be_aborted() -> None:
    connections = Connections()
    async with connected(Echo(), connections) as client:
        await until(lambda: bool(connections.open))
        connections.abort()
        received = b""
        with suppress(ConnectionError):  # the client may receive a reset
            received = await client.rest()

    assert received == b""


@pytest.mark.parametrize("stop_before_accept", [True, False])
async def test_an_idle_websocket_is_closed_when_the_server_stops(stop_before_accept: bool) -> None:
    """The close code is 1012, service restart. While messages are sent, the WebSocket stays open."""
    connections = Connections()
    started, proceed = asyncio.Event(), asyncio.Event()
    disconnects: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        await proceed.wait()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        disconnects.append(message)

    async with connected(application, connections) as client:
        await client.send(HANDSHAKE)
        await started.wait()
        if stop_before_accept:
            connections.stop(grace_seconds=0)
        proceed.set()
        await client.until(b"\r\n\r\n")
        if not stop_before_accept:
            connections.stop(grace_seconds=0)
        for _ in range(5):
            await client.send(frame(TEXT, b"Ada"))
            assert await client.until(b"Ada") == frame(TEXT, b"Ada", masked=False)
            await pass_time(0.6 * IDLE_SECONDS)  # too short to be idle
        await pass_time(IDLE_SECONDS)
        response = await client.until(b"stopping")  # the last word of the reason
        await until(lambda: bool(disconnects))

    assert response[2:4] == struct.pack("!H", 1012)  # a Close frame has its code after the first two bytes
    assert disconnects[0]["code"] == 1012


async def test_every_rejection_is_counted_and_ten_a_second_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("hello_service.serving.rejections.monotonic", lambda: now)
    rejections = Rejections()
    with capture_logs() as lines:
        for _ in range(25):
            rejections.add(400, "host", "The host is not valid.", client="192.0.2.1")
        now += 1
        rejections.add(501, "method", "The method is not known.", client=None)

    assert rejections.counts == {"host": 25, "method": 1}
    assert len(lines) == LINES_PER_SECOND + 1
    assert lines[0] == {
        "event": "request rejected",
        "log_level": "warning",
        "reason": "host",
        "status": 400,
        "detail": "The host is not valid.",
        "client": "192.0.2.1",
    }
    assert lines[-1]["unlogged_before"] == 25 - LINES_PER_SECOND


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"\x16\x03\x01", "malformed"),  # the start of a TLS handshake
        (get(host=None), "host"),
        (get(method="get"), "method"),
        (get(version="2.0"), "version"),
        (get("api"), "target"),
        (get("/", "Transfer-Encoding: gzip, chunked"), "length"),  # the body's length is unknown
        (get("/", "X: " + "a" * 70_000), "head-size"),
        (get("/" + "a" * 70_000), "target-size"),
        (HANDSHAKE.replace(b"13", b"12"), "handshake"),
    ],
)
async def test_a_rejected_request_is_counted_by_its_reason_and_logged(request_: bytes, reason: str) -> None:
    connections = Connections()
    with capture_logs() as lines:
        async with connected(Echo(), connections) as client:
            await client.exchange(request_)

    assert connections.rejections.counts == {reason: 1}
    assert [(line["reason"], line["client"]) for line in lines] == [(reason, "127.0.0.1")]
    assert lines[0]["detail"].endswith(".")
