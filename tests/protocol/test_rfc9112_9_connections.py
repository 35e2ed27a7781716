"""Tests of RFC 9112, section 9: how connections are reused, pipelined and closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
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
    read_body,
    read_until_disconnect,
    responding_with,
    serve_in_memory,
    settle,
    statuses,
    until,
)

from hello_service.serving.connections import Connections, Limits

CLOSE = "Connection: close"


class SlowApplication:
    """An application that responds once the test sets `respond`.

    Attributes:
        first_messages: messages to send before that; without any, the head is sent with the body.
        requests: the number of requests.
        started: an event that is set when a request has been read and `first_messages` have been sent.
        finished: an event that is set at the end of a request.
        received: for each finished request, the type of the message that `receive` returned after the body.
    """

    def __init__(self, *first_messages: dict[str, Any]) -> None:
        self.first_messages = first_messages
        self.requests = 0
        self.started, self.respond, self.finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.received: list[str] = []

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        await read_body(receive)
        for message in self.first_messages:
            await send(message)
        self.started.set()
        disconnected = asyncio.create_task(receive())
        responding = asyncio.create_task(self.respond.wait())
        await asyncio.wait({disconnected, responding}, return_when=asyncio.FIRST_COMPLETED)
        if responding.done():
            if not self.first_messages:
                await send(head(LENGTH))
            await send(BODY)
        self.received.append((await disconnected)["type"])
        self.finished.set()


async def test_pipelined_requests_get_their_responses_in_order() -> None:
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


async def test_a_malformed_pipelined_request_is_rejected_after_the_previous_response() -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/1") + b"nonsense\r\n\r\n" + get("/2"))

    assert statuses(response) == [200, 400]
    assert response.index(b"GET /1") < response.index(b" 400 ")


async def test_a_pipelined_request_waits_for_the_previous_response() -> None:
    slow = SlowApplication()
    async with connected(slow) as client:
        await client.send(get("/1") + get("/2", CLOSE))
        await slow.started.wait()
        assert slow.requests == 1
        slow.respond.set()
        response = await client.rest()

    assert statuses(response) == [200, 200]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_only_an_http_1_1_connection_is_reused(version: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", version=version) + get("/", CLOSE))

    assert statuses(response) == ([200] if version == "1.0" else [200, 200])


async def test_pipelined_requests_beyond_the_maximum_number_are_not_served() -> None:
    async with connected(Echo(), requests=3) as client:
        response = await client.exchange(get() * 5)

    assert statuses(response) == [200] * 3
    assert response.count(b"connection: close") == 1


@pytest.mark.parametrize("status", [404, 413])
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_a_response_sent_before_the_whole_body_can_be_read(status: int, framing: str) -> None:
    """A client that sends 10 MB before it reads gets the response, not a reset."""
    application = responding_with(head(LENGTH, status=status), BODY)
    body = b"a" * 10_000_000
    request = post(body) if framing == "content-length" else chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    async with connected(application) as client:
        response = await client.exchange(request)

    assert statuses(response) == [status]
    assert b"connection: close\r\n" in response


async def test_a_client_that_never_stops_sending_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hello_service.serving.http1.LINGER_BYTES", 1_000_000)
    async with connected(responding_with(head(LENGTH, status=413), BODY)) as client:
        await client.send(get("/", "Content-Length: 1000000000000", method="POST"))
        with pytest.raises(ConnectionError):
            await client.send(b"a" * 100_000_000)


@pytest.mark.parametrize("last", [b"", get("/", CLOSE)])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_client_that_has_closed_its_side_gets_its_responses(count: int, last: bytes) -> None:
    """`nc -N` and old probes close their side after the request."""
    async with connected(Echo()) as client:
        await client.send(get("/a") * count + last)
        client.half_close()
        response = await client.rest()

    assert statuses(response) == [200] * (count + bool(last))


@pytest.mark.parametrize("started", [True, False])
async def test_a_stream_is_finished_for_a_client_that_has_closed_its_side(started: bool) -> None:
    """The stream has started by then, or starts in time."""
    slow, transport = SlowApplication(head()), MemoryTransport()
    serving = serve_in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get())
    if started:
        await slow.started.wait()
    assert transport.protocol.eof_received()
    await pass_time(20)  # longer than half_close_seconds
    slow.respond.set()
    await serving

    assert transport.written.endswith(b"hello\r\n0\r\n\r\n")
    assert slow.received == ["http.disconnect"]


async def test_a_silent_stream_to_a_client_that_has_closed_its_side_is_aborted() -> None:
    """The client may have disconnected, which only a write would reveal."""
    slow, transport, connections = SlowApplication(head()), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get())
    assert transport.protocol.eof_received()  # before the response has started
    await slow.started.wait()
    for _ in range(5):
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    transport.unwritten = 5
    for left in (4, 3, 2, 1):
        await pass_time(connections.limits.write_seconds - 1)
        transport.unwritten = left
    aborted_early = transport.closing
    for _ in range(2):
        await pass_time(connections.limits.write_seconds)
    await serving

    assert not aborted_early
    assert slow.received == ["http.disconnect"]
    assert connections.rejections.counts == {}


@pytest.mark.parametrize("length", [2, 3])
async def test_a_pipelined_request_of_a_client_that_has_closed_its_side_is_limited_in_time(length: int) -> None:
    """If its body is complete, the response must start within half_close_seconds. If not, that is a disconnect."""
    slow, echo, transport, connections = SlowApplication(), Echo(), MemoryTransport(), Connections()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await (echo if scope["path"] == "/1" else slow)(scope, receive, send)

    serving = serve_in_memory(application, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + post(b"ab", target="/2", length=length))
    assert transport.protocol.eof_received()
    await settle()
    closed_at_once = transport.closing
    await pass_time(connections.limits.half_close_seconds)
    await serving

    assert closed_at_once is (length == 3)
    assert slow.received == ["http.disconnect"]
    assert statuses(transport.written) == [200]


@pytest.mark.parametrize("request_", [get(), b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n"])
async def test_pipelined_requests_of_a_slow_reader_that_has_closed_its_side_are_served(request_: bytes) -> None:
    """They wait until the client has read the earlier responses."""
    transport = MemoryTransport()
    serving = serve_in_memory(Echo(), transport)
    await settle()
    transport.protocol.data_received(request_)
    await settle()
    transport.protocol.pause_writing()
    transport.protocol.data_received(request_ * 2)
    stays_open = transport.protocol.eof_received()
    await settle()
    assert statuses(transport.written) == [200]
    transport.protocol.resume_writing()
    await serving

    assert stays_open
    assert statuses(transport.written) == [200] * 3


async def test_a_response_must_start_soon_after_the_client_has_closed_its_side() -> None:
    """The server can't tell whether the client waits or has disconnected."""
    slow = SlowApplication()
    async with connected(slow, half_close_seconds=0.01) as client:
        await client.send(get())
        await slow.started.wait()
        client.half_close()
        response = await client.rest()
        await slow.finished.wait()

    assert response == b""
    assert slow.received == ["http.disconnect"]


@pytest.mark.parametrize("request_", [post(b"ab", length=3), chunked(b"2\r\nab"), chunked(b"2\r\nab\r\n")])
@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
async def test_the_end_of_the_connection_within_a_body_is_a_disconnect(request_: bytes, end: str) -> None:
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
async def test_a_disconnect_ends_a_stream(end: str, more: bytes) -> None:
    """This holds whatever the client has sent after its request."""
    ended = asyncio.Event()
    scopes = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        disconnected = asyncio.create_task(read_until_disconnect(receive))
        await send(head())
        while not disconnected.done():
            await send({**BODY, "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    async with connected(stream) as client:
        await client.send(get("/stream") + more)
        await client.until(b"hello")
        getattr(client, end)()
        async with asyncio.timeout(10):
            await ended.wait()

    assert len(scopes) == 1


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"\r\n", get("/") + b"GE"])
async def test_the_connection_is_closed_if_the_client_closes_its_side_before_a_request(sent: bytes) -> None:
    async with connected(Echo()) as client:
        await client.send(sent)
        client.half_close()
        response = await client.rest()

    assert statuses(response) == ([200] if sent.startswith(get()) else [])


async def test_pipelined_requests_are_read_up_to_a_limit() -> None:
    """The client must wait while a response is in progress."""
    slow, transport = SlowApplication(), MemoryTransport()
    serving = serve_in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get("/1"))
    transport.protocol.data_received(get("/2") * 4_000)
    paused = transport.paused
    slow.respond.set()
    await until(lambda: transport.ended)
    transport.close()
    await serving

    assert paused
    assert slow.requests == Limits.requests


@pytest.mark.parametrize("sent", [(), (head(),)])
async def test_a_silent_response_with_too_much_pipelined_behind_it_is_aborted(sent: tuple[dict[str, Any]]) -> None:
    """The server doesn't read, so it can't detect whether the client has disconnected."""
    slow, transport, connections = SlowApplication(*sent), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + get("/2") * 4_000)
    await slow.started.wait()
    for _ in range(2):  # twice, because the head counts as progress
        await pass_time(connections.limits.write_seconds)
    await serving

    assert slow.received == ["http.disconnect"]
    assert slow.requests == 1
    assert connections.rejections.counts == {"pipelining": 1}


async def test_a_response_that_makes_progress_is_finished_whatever_is_pipelined_behind_it() -> None:
    slow, transport, connections = SlowApplication(), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + get("/2") * 4_000)
    for _ in range(5):
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    counts_before = dict(connections.rejections.counts)
    for _ in range(2):
        await pass_time(connections.limits.write_seconds)
    await serving

    assert (counts_before, connections.rejections.counts) == ({}, {"pipelining": 1})


async def test_a_complete_body_that_is_not_read_does_not_hide_a_disconnect() -> None:
    slow, transport = SlowApplication(), MemoryTransport()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await slow.respond.wait()
        await read_until_disconnect(receive)
        slow.finished.set()

    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(post(b"a" * 200_000))
    paused = transport.paused
    slow.respond.set()
    transport.close()
    await serving

    assert not paused
    assert slow.finished.is_set()


async def test_a_body_is_read_up_to_a_limit_ahead_of_the_application() -> None:
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

    transport, piece = MemoryTransport(), b"a" * 100_000
    serving = serve_in_memory(application, transport)
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


async def test_receive_returns_a_disconnect_as_soon_as_the_response_is_complete() -> None:
    """An application that waits for the disconnect doesn't block its connection."""
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        waiting = asyncio.create_task(read_until_disconnect(receive))
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


async def test_a_client_can_disconnect_once_it_has_every_byte() -> None:
    """The application may send the last chunk of a file before it reads the end of the file, and ends the response."""
    events = []
    closed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        await send(head(LENGTH))
        await send({**BODY, "more_body": True})
        receiving = asyncio.create_task(receive())
        await closed.wait()
        await settle()
        events.append(receiving.done())
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        events.append((await receiving)["type"])

    transport = MemoryTransport()
    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(get())
    await settle()
    transport.close()
    await settle()
    closed.set()
    await serving

    assert events == [False, "http.disconnect"]


async def test_a_malformed_body_ends_a_response_that_has_started() -> None:
    """A 400 can't follow, because it would be a second response."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await read_until_disconnect(receive)

    async with connected(application) as client:
        await client.send(chunked(b"1\r\na\r\n"))
        started = await client.until(b"\r\n\r\n")
        response = await client.exchange(b"nonsense\r\n")

    assert (statuses(started), response) == ([200], b"")


async def test_a_client_can_disconnect_while_send_waits_for_it() -> None:
    ended = []
    transport = MemoryTransport()

    async def cancelled(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head())
        ended.append("never")

    async def complete(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head())
        await send(BODY)
        ended.append((await receive())["type"])

    async def too_short(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head((b"content-length", b"6")))
        await send(BODY)

    for application in (complete, too_short, cancelled):
        transport = MemoryTransport()
        serving = serve_in_memory(application, transport)
        await settle()
        transport.protocol.data_received(get())
        await settle()
        if application is cancelled:
            serving.cancel()
        transport.close()
        await asyncio.wait({serving})
        await settle()

    assert ended == ["http.disconnect"]


async def test_requests_wait_while_the_client_does_not_read() -> None:
    """This includes requests that the server itself responds to."""
    transport = MemoryTransport()
    serving = serve_in_memory(Echo(), transport)
    await settle()
    transport.protocol.pause_writing()
    transport.protocol.data_received(get("*", method="OPTIONS") * 3)
    written_before = transport.written
    transport.protocol.resume_writing()
    transport.close()
    await serving
    transport.protocol.write(b"late")

    assert (written_before, statuses(transport.written)) == (b"", [200] * 3)
    assert b"late" not in transport.written


async def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    transport, connections = MemoryTransport(), Connections()
    serving = serve_in_memory(Echo(), transport, connections)
    await settle()
    transport.unwritten = 5
    transport.protocol.pause_writing()
    for left in (4, 3, 2, 1):
        transport.unwritten = left
        await pass_time(connections.limits.write_seconds)
    counts_before = dict(connections.rejections.counts)
    await pass_time(connections.limits.write_seconds)
    await serving

    assert (counts_before, connections.rejections.counts) == ({}, {"write-timeout": 1})


async def test_a_pipelined_request_waits_for_a_client_that_reads_slowly() -> None:
    """It is not rejected, however long the client takes to read the previous response."""
    transport, connections, echo = MemoryTransport(), Connections(), Echo()
    serving = serve_in_memory(echo, transport, connections)
    await settle()
    transport.protocol.pause_writing()
    transport.protocol.data_received(get("/1"))
    await pass_time(connections.limits.keep_alive_seconds)
    written_before = transport.written
    transport.protocol.resume_writing()
    await settle()
    transport.close()
    await serving

    assert (written_before, statuses(transport.written)) == (b"", [200])


async def test_data_received_before_the_connection_was_taken_over_is_served() -> None:
    transport, reader = MemoryTransport(), asyncio.StreamReader()
    reader.feed_data(get("/", CLOSE))
    serving = serve_in_memory(Echo(), transport, reader=reader)
    await settle()
    transport.close()
    await serving

    assert statuses(transport.written) == [200]


async def test_a_connection_that_is_already_closed_is_not_served() -> None:
    transport, connections = MemoryTransport(), Connections()
    transport.closing = True
    await serve_in_memory(Echo(), transport, connections)

    assert connections.open == set()
