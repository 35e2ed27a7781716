"""Tests of RFC 9112, section 9: how connections are kept, pipelined and closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import (
    BODY,
    LENGTH,
    Echo,
    Memory,
    chunked,
    connected,
    get,
    head,
    in_memory,
    pass_time,
    post,
    read_body,
    read_gone,
    sending,
    settle,
    statuses,
    until,
)

from hello_service.serving.connections import Connections, Limits

CLOSE = "Connection: close"


class Slow:
    """An application that responds when the test sets its event.

    Attributes:
        started: how many requests have begun.
        received: the message that `receive` returned after the request.
    """

    def __init__(self, *before: dict[str, Any]) -> None:
        self.before = before
        self.started = 0
        self.begun, self.go, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.received: list[str] = []

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        self.started += 1
        await read_body(receive)
        for message in self.before:
            await send(message)
        self.begun.set()
        disconnected = asyncio.create_task(receive())
        going = asyncio.create_task(self.go.wait())
        await asyncio.wait({disconnected, going}, return_when=asyncio.FIRST_COMPLETED)
        if going.done():
            if not self.before:
                await send(head(LENGTH))
            await send(BODY)
        self.received.append((await disconnected)["type"])
        self.over.set()


async def test_pipelined_requests_are_answered_in_order() -> None:
    echo = Echo()
    requests = b"".join([get("/1"), post(b"a"), chunked(b"1\r\nb\r\n0\r\n\r\n"), get("/2"), get("/3", CLOSE)])
    async with connected(echo) as client:
        response = await client.exchange(requests)

    assert statuses(response) == [200] * 5
    assert [(path, body) for _, path, _, body in echo.requests] == [
        ("/1", b""),
        ("/", b"a"),
        ("/", b"b"),
        ("/2", b""),
        ("/3", b""),
    ]


async def test_a_bad_request_behind_a_good_one_is_rejected_after_its_response() -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/1") + b"nonsense\r\n\r\n" + get("/2"))

    assert statuses(response) == [200, 400]
    assert response.index(b"GET /1") < response.index(b" 400 ")


async def test_the_next_request_waits_for_the_response() -> None:
    slow = Slow()
    async with connected(slow) as client:
        await client.send(get("/1") + get("/2", CLOSE))
        await slow.begun.wait()
        assert slow.started == 1
        slow.go.set()
        response = await client.rest()

    assert statuses(response) == [200, 200]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_http_1_0_is_closed_and_1_1_is_kept(version: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", version=version) + get("/", CLOSE))

    assert statuses(response) == ([200] if version == "1.0" else [200, 200])


async def test_a_connection_is_kept_for_so_many_requests() -> None:
    async with connected(Echo(), requests=3) as client:
        response = await client.exchange(get() * 5)

    assert statuses(response) == [200] * 3
    assert response.count(b"connection: close") == 1


@pytest.mark.parametrize("status", [404, 413])
@pytest.mark.parametrize("framed", ["counted", "chunked"])
async def test_an_early_response_can_be_read(status: int, framed: str) -> None:
    """A client that sends 10 MB before it reads gets the response, not a reset."""
    application = sending(head(LENGTH, status=status), BODY)
    body = b"a" * 10_000_000
    request = post(body) if framed == "counted" else chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    async with connected(application) as client:
        response = await client.exchange(request)

    assert statuses(response) == [status]
    assert b"connection: close\r\n" in response


async def test_a_client_that_sends_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hello_service.serving.http1.LINGER_BYTES", 1_000_000)
    async with connected(sending(head(LENGTH, status=413), BODY)) as client:
        await client.send(get("/", "Content-Length: 1000000000000", method="POST"))
        with pytest.raises(ConnectionError):
            await client.send(b"a" * 100_000_000)


@pytest.mark.parametrize("last", [b"", get("/", CLOSE)])
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_client_that_closed_its_side_gets_its_responses(pieces: int, last: bytes) -> None:
    """`nc -N` and old probes do that."""
    async with connected(Echo()) as client:
        await client.send(get("/a") * pieces + last)
        client.half_close()
        response = await client.rest()

    assert statuses(response) == [200] * (pieces + bool(last))


@pytest.mark.parametrize("begun", [True, False])
async def test_a_stream_is_finished_for_a_client_that_closed_its_side(begun: bool) -> None:
    """The stream has begun, or begins in time."""
    slow, transport = Slow(head()), Memory()
    serving = in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get())
    if begun:
        await slow.begun.wait()
    assert transport.protocol.eof_received()
    await pass_time(20)  # longer than a response has to start
    slow.go.set()
    await serving

    assert transport.written.endswith(b"hello\r\n0\r\n\r\n")
    assert slow.received == ["http.disconnect"]


async def test_a_silent_stream_of_a_client_that_closed_its_side_is_given_up() -> None:
    """The client may be gone, and only a write would tell."""
    slow, transport, connections = Slow(head()), Memory(), Connections()
    serving = in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get())
    assert transport.protocol.eof_received()  # before the response has begun
    await slow.begun.wait()
    for _ in range(5):
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    transport.unwritten = 5
    for left in (4, 3, 2, 1):
        await pass_time(connections.limits.write_seconds - 1)
        transport.unwritten = left
    lost = transport.closing
    for _ in range(2):
        await pass_time(connections.limits.write_seconds)
    await serving

    assert not lost
    assert slow.received == ["http.disconnect"]
    assert connections.rejections.counts == {}


@pytest.mark.parametrize("length", [2, 3])
async def test_a_pipelined_body_of_a_client_that_closed_its_side(length: int) -> None:
    """With a whole body the response must start in time; half a body is a disconnect."""
    slow, echo, transport, connections = Slow(), Echo(), Memory(), Connections()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await (echo if scope["path"] == "/1" else slow)(scope, receive, send)

    serving = in_memory(application, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + post(b"ab", target="/2", length=length))
    assert transport.protocol.eof_received()
    await settle()
    before = transport.closing
    await pass_time(connections.limits.half_close_seconds)
    await serving

    assert before is (length == 3)
    assert slow.received == ["http.disconnect"]
    assert statuses(transport.written) == [200]


async def test_a_response_that_does_not_start_is_given_up() -> None:
    """The server can't tell whether the client waits or has disconnected."""
    slow = Slow()
    async with connected(slow, half_close_seconds=0.01) as client:
        await client.send(get())
        await slow.begun.wait()
        client.half_close()
        response = await client.rest()
        await slow.over.wait()

    assert response == b""
    assert slow.received == ["http.disconnect"]


@pytest.mark.parametrize("request_", [post(b"ab", length=3), chunked(b"2\r\nab"), chunked(b"2\r\nab\r\n")])
@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
async def test_half_a_body_is_never_whole(request_: bytes, end: str) -> None:
    """The application receives the disconnect at once."""
    echo = Echo()
    async with connected(echo, half_close_seconds=1000) as client:
        await client.send(request_)
        await until(lambda: len(echo.scopes) == 1)
        getattr(client, end)()
        await until(lambda: echo.ended == ["disconnected"])

    assert echo.requests == []


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("more", [b"", b"x", b"GET /", get("/2"), b"\r\n"])
async def test_a_client_that_goes_away_leaves_nothing(end: str, more: bytes) -> None:
    """This holds whatever the client sent after its request, even during a stream."""
    ended = asyncio.Event()
    started = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        started.append(scope)
        gone = asyncio.create_task(read_gone(receive))
        await send(head())
        while not gone.done():
            await send({**BODY, "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    async with connected(stream) as client:
        await client.send(get("/stream") + more)
        await client.until(b"hello")
        getattr(client, end)()
        async with asyncio.timeout(10):
            await ended.wait()

    assert len(started) == 1


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"\r\n", get("/") + b"GE"])
async def test_a_client_that_closes_before_a_request_is_closed(sent: bytes) -> None:
    async with connected(Echo()) as client:
        await client.send(sent)
        client.half_close()
        response = await client.rest()

    assert statuses(response) == ([200] if sent.startswith(get()) else [])


async def test_pipelining_does_not_read_without_bounds() -> None:
    """The client has to wait while a response is in progress."""
    slow, transport = Slow(), Memory()
    serving = in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get("/1"))
    transport.protocol.data_received(get("/2") * 4_000)
    paused = transport.paused
    slow.go.set()
    await until(lambda: transport.ended)
    transport.close()
    await serving

    assert paused
    assert slow.started == Limits.requests


@pytest.mark.parametrize("before", [(), (head(),)])
async def test_a_silent_response_with_too_much_pipelined_behind_it_is_given_up(before: tuple[dict[str, Any]]) -> None:
    """The server doesn't read, so it can't see whether the client has disconnected."""
    slow, transport, connections = Slow(*before), Memory(), Connections()
    serving = in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + get("/2") * 4_000)
    await slow.begun.wait()
    for _ in range(2):  # the head is progress
        await pass_time(connections.limits.write_seconds)
    await serving

    assert slow.received == ["http.disconnect"]
    assert slow.started == 1
    assert connections.rejections.counts == {"pipelining": 1}


async def test_a_response_that_makes_progress_is_finished_whatever_is_pipelined_behind_it() -> None:
    slow, transport, connections = Slow(), Memory(), Connections()
    serving = in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + get("/2") * 4_000)
    for _ in range(5):
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    before = dict(connections.rejections.counts)
    for _ in range(2):
        await pass_time(connections.limits.write_seconds)
    await serving

    assert (before, connections.rejections.counts) == ({}, {"pipelining": 1})


async def test_a_complete_body_that_is_not_read_does_not_hide_a_disconnect() -> None:
    slow, transport = Slow(), Memory()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await slow.go.wait()
        await read_gone(receive)
        slow.over.set()

    serving = in_memory(application, transport)
    await settle()
    transport.protocol.data_received(post(b"a" * 200_000))
    paused = transport.paused
    slow.go.set()
    transport.close()
    await serving

    assert not paused
    assert slow.over.is_set()


async def test_a_body_is_not_read_without_bounds() -> None:
    go = asyncio.Event()
    sizes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await send(head(LENGTH))
        await send(BODY)

    transport, piece = Memory(), b"a" * 100_000
    serving = in_memory(application, transport)
    await settle()
    transport.protocol.data_received(post(piece, CLOSE, length=2 * len(piece)))
    paused = transport.paused
    go.set()
    await settle()
    resumed = not transport.paused
    transport.protocol.data_received(piece)
    await settle()
    transport.close()
    await serving

    assert (paused, resumed, sizes) == (True, True, [len(piece)] * 2)
    assert statuses(transport.written) == [200]


async def test_http_disconnect_comes_as_soon_as_the_response_is_complete() -> None:
    """An application that waits for the disconnect doesn't hold its connection."""
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        waiting = asyncio.create_task(read_gone(receive))
        await send(head(LENGTH))
        await send(BODY)
        await waiting
        received.append(await receive())

    async with connected(application) as client:
        await client.send(get())
        await client.until(b"hello")
        await until(lambda: bool(received))
        response = await client.exchange(get("/", CLOSE))

    assert statuses(response) == [200]
    assert received[0] == {"type": "http.disconnect"}


async def test_a_client_that_has_every_byte_does_not_disturb_the_end() -> None:
    """A file's last chunk is sent before the application knows that it was the last."""
    events = []
    gone = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await send(head(LENGTH))
        await send({**BODY, "more_body": True})
        waiting = asyncio.create_task(receive())
        await gone.wait()
        await settle()
        events.append(waiting.done())
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        events.append((await waiting)["type"])

    transport = Memory()
    serving = in_memory(application, transport)
    await settle()
    transport.protocol.data_received(get())
    await settle()
    transport.close()
    await settle()
    gone.set()
    await serving

    assert events == [False, "http.disconnect"]


async def test_a_malformed_body_ends_a_response_that_has_begun() -> None:
    """A second response can't follow."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await read_gone(receive)

    async with connected(application) as client:
        await client.send(chunked(b"1\r\na\r\n"))
        begun = await client.until(b"\r\n\r\n")
        response = await client.exchange(b"nonsense\r\n")

    assert (statuses(begun), response) == ([200], b"")


async def test_a_client_that_goes_while_the_end_waits_for_it_disturbs_nobody() -> None:
    ended = []
    transport = Memory()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head())
        ended.append("never")

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head())
        await send(BODY)
        ended.append((await receive())["type"])

    async def short(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head((b"content-length", b"6")))
        await send(BODY)

    for served in (whole, short, application):
        transport = Memory()
        serving = in_memory(served, transport)
        await settle()
        transport.protocol.data_received(get())
        await settle()
        if served is application:
            serving.cancel()
        transport.close()
        await asyncio.wait({serving})
        await settle()

    assert ended == ["http.disconnect"]


async def test_requests_wait_while_the_client_does_not_read() -> None:
    """This includes requests that the server itself responds to."""
    transport = Memory()
    serving = in_memory(Echo(), transport)
    await settle()
    transport.protocol.pause_writing()
    transport.protocol.data_received(get("*", method="OPTIONS") * 3)
    before = transport.written
    transport.protocol.resume_writing()
    transport.close()
    await serving
    transport.protocol.write(b"late")

    assert (before, statuses(transport.written)) == (b"", [200] * 3)
    assert b"late" not in transport.written


async def test_a_client_that_reads_a_little_is_not_given_up() -> None:
    transport, connections = Memory(), Connections()
    serving = in_memory(Echo(), transport, connections)
    await settle()
    transport.unwritten = 5
    transport.protocol.pause_writing()
    for left in (4, 3, 2, 1):
        transport.unwritten = left
        await pass_time(connections.limits.write_seconds)
    before = dict(connections.rejections.counts)
    await pass_time(connections.limits.write_seconds)
    await serving

    assert (before, connections.rejections.counts) == ({}, {"write-timeout": 1})


async def test_a_pipelined_request_waits_for_a_client_that_reads_slowly() -> None:
    """The request has been received, however long the previous response takes."""
    transport, connections, echo = Memory(), Connections(), Echo()
    serving = in_memory(echo, transport, connections)
    await settle()
    transport.protocol.pause_writing()
    transport.protocol.data_received(get("/1"))
    await pass_time(connections.limits.keep_alive_seconds)
    before = transport.written
    transport.protocol.resume_writing()
    await settle()
    transport.close()
    await serving

    assert (before, statuses(transport.written)) == (b"", [200])


async def test_what_came_before_the_connection_was_taken_over_is_read() -> None:
    transport, reader = Memory(), asyncio.StreamReader()
    reader.feed_data(get("/", CLOSE))
    serving = in_memory(Echo(), transport, reader=reader)
    await settle()
    transport.close()
    await serving

    assert statuses(transport.written) == [200]


async def test_a_connection_that_is_gone_at_once_is_not_served() -> None:
    transport, connections = Memory(), Connections()
    transport.closing = True
    await in_memory(Echo(), transport, connections)

    assert connections.open == set()
