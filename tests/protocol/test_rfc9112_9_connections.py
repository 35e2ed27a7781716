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
EXCESSIVE_PIPELINE = get("/2") * 4_000  # more than a connection buffers


class SlowApplication:
    """An application that responds when the test sets `respond`, unless the client disconnects first.

    Attributes:
        first_messages: messages to send before it waits for `respond`; without them, the head is sent with the body.
        request_count: the number of requests.
        started: an event that is set when a request has been read and `first_messages` have been sent.
        finished: an event that is set at the end of a request.
        received: for each finished request, the type of the message that `receive` returned after the body.
    """

    def __init__(self, *first_messages: dict[str, Any]) -> None:
        self.first_messages = first_messages
        self.request_count = 0
        self.started, self.respond, self.finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.received: list[str] = []

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        self.request_count += 1
        await read_body(receive)
        for message in self.first_messages:
            await send(message)
        self.started.set()
        receiving = asyncio.create_task(receive())
        waiting = asyncio.create_task(self.respond.wait())
        await asyncio.wait({receiving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            if not self.first_messages:
                await send(head(LENGTH))
            await send(BODY)
        self.received.append((await receiving)["type"])
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
        assert slow.request_count == 1
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
async def test_a_response_sent_before_the_end_of_the_body_reaches_the_client(status: int, framing: str) -> None:
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


@pytest.mark.parametrize("last_request", [b"", get("/", CLOSE)])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_client_that_has_closed_its_side_gets_its_responses(count: int, last_request: bytes) -> None:
    """`nc -N` and old probes close their side after the request."""
    async with connected(Echo()) as client:
        await client.send(get("/a") * count + last_request)
        client.half_close()
        response = await client.rest()

    expected_count = count + 1 if last_request else count
    assert statuses(response) == [200] * expected_count


@pytest.mark.parametrize("started", [True, False])
async def test_a_stream_is_finished_for_a_client_that_has_closed_its_side(started: bool) -> None:
    """The stream has started before the client closes its side, or starts soon afterwards."""
    slow, transport = SlowApplication(head()), MemoryTransport()
    serving = serve_in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get())
    if started:
        await slow.started.wait()
    assert transport.protocol.eof_received()
    await pass_time(20)  # longer than half_close_seconds, and shorter than write_seconds
    slow.respond.set()
    await serving

    assert transport.written.endswith(b"hello\r\n0\r\n\r\n")
    assert slow.received == ["http.disconnect"]


async def test_a_silent_stream_to_a_client_that_has_closed_its_side_is_aborted() -> None:
    """The client may have disconnected. Only a write would reveal this."""
    slow, transport, connections = SlowApplication(head()), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get())
    assert transport.protocol.eof_received()  # before the response has started
    await slow.started.wait()
    for _ in range(5):  # the server sends something in time
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    transport.unwritten = 5
    for unwritten in (4, 3, 2, 1):  # the client reads something in time
        await pass_time(connections.limits.write_seconds - 1)
        transport.unwritten = unwritten
    aborted_early = transport.closing
    for _ in range(2):  # twice, because the last byte counts as progress
        await pass_time(connections.limits.write_seconds)
    await serving

    assert not aborted_early
    assert slow.received == ["http.disconnect"]
    assert connections.rejections.counts == {}


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_pipelined_request_of_a_client_that_has_closed_its_side_has_a_time_limit(is_complete: bool) -> None:
    """The response must start within half_close_seconds. With an incomplete body, the connection is closed at once."""
    length = len(b"ab") if is_complete else len(b"ab") + 1
    slow, echo, transport, connections = SlowApplication(), Echo(), MemoryTransport(), Connections()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        responder = echo if scope["path"] == "/1" else slow
        await responder(scope, receive, send)

    serving = serve_in_memory(application, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + post(b"ab", target="/2", length=length))
    assert transport.protocol.eof_received()
    await settle()
    closed_at_once = transport.closing
    await pass_time(connections.limits.half_close_seconds)
    await serving

    assert closed_at_once == (not is_complete)
    assert slow.received == (["http.disconnect"] if is_complete else [])  # an incomplete request is not executed
    assert statuses(transport.written) == [200]


@pytest.mark.parametrize("request_", [get(), get("*", method="OPTIONS")])
async def test_pipelined_requests_of_a_slow_reader_that_has_closed_its_side_are_served(request_: bytes) -> None:
    """The requests wait until the client has read the earlier responses."""
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
    async with connected(echo, half_close_seconds=1000) as client:  # too long for the test to wait
        await client.send(request_)
        await until(lambda: len(echo.scopes) == 1)
        getattr(client, end)()
        await until(lambda: echo.outcomes == ["disconnected"])

    assert echo.requests == []


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("sent_after", [b"", b"x", b"GET /", get("/2"), b"\r\n"])
async def test_a_disconnect_ends_a_stream(end: str, sent_after: bytes) -> None:
    """Data that the client has sent after its request makes no difference."""
    stream_ended = asyncio.Event()
    scopes = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        disconnected = asyncio.create_task(read_until_disconnect(receive))
        await send(head())
        while not disconnected.done():
            await send({**BODY, "more_body": True})
            await asyncio.sleep(0)
        stream_ended.set()

    async with connected(stream) as client:
        await client.send(get("/stream") + sent_after)
        await client.until(b"hello")
        getattr(client, end)()
        async with asyncio.timeout(10):
            await stream_ended.wait()

    assert len(scopes) == 1


@pytest.mark.parametrize("data", [b"", b"GET", b"GET / HTTP/1.1\r\n", b"\r\n", get("/") + b"GE"])
async def test_a_client_that_closes_its_side_without_a_whole_request_is_disconnected(data: bytes) -> None:
    """A whole request before that gets its response."""
    async with connected(Echo()) as client:
        await client.send(data)
        client.half_close()
        response = await client.rest()

    assert statuses(response) == ([200] if data.startswith(get()) else [])


async def test_pipelined_requests_are_read_up_to_a_limit() -> None:
    """Beyond the limit, the server does not read while a response is in progress."""
    slow, transport = SlowApplication(), MemoryTransport()
    serving = serve_in_memory(slow, transport)
    await settle()
    transport.protocol.data_received(get("/1"))
    transport.protocol.data_received(EXCESSIVE_PIPELINE)
    paused = transport.paused
    slow.respond.set()
    await until(lambda: transport.eof_written)
    transport.close()
    await serving

    assert paused
    assert slow.request_count == Limits.requests  # further requests on the connection are not served


@pytest.mark.parametrize("first_messages", [(), (head(),)])
async def test_a_silent_response_with_too_much_pipelined_behind_it_is_aborted(
    first_messages: tuple[dict[str, Any], ...],
) -> None:
    """The server doesn't read, so it can't detect whether the client has disconnected."""
    slow, transport, connections = SlowApplication(*first_messages), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + EXCESSIVE_PIPELINE)
    await slow.started.wait()
    for _ in range(2):  # twice, because a head that is sent counts as progress
        await pass_time(connections.limits.write_seconds)
    await serving

    assert slow.received == ["http.disconnect"]
    assert slow.request_count == 1
    assert connections.rejections.counts == {"pipelining": 1}


async def test_a_response_is_not_aborted_while_it_makes_progress_whatever_is_pipelined_behind_it() -> None:
    slow, transport, connections = SlowApplication(), MemoryTransport(), Connections()
    serving = serve_in_memory(slow, transport, connections)
    await settle()
    transport.protocol.data_received(get("/1") + EXCESSIVE_PIPELINE)
    for _ in range(5):
        await pass_time(connections.limits.write_seconds - 1)
        transport.protocol.write(b"progress")
    counts_during_progress = dict(connections.rejections.counts)
    for _ in range(2):  # twice, because the last write counts as progress
        await pass_time(connections.limits.write_seconds)
    await serving

    assert counts_during_progress == {}
    assert connections.rejections.counts == {"pipelining": 1}


async def test_a_complete_body_that_is_not_read_does_not_hide_a_disconnect() -> None:
    """After a complete body, the server goes on reading, even if the application has not read the body."""
    transport = MemoryTransport()
    proceed, disconnected = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        await read_until_disconnect(receive)
        disconnected.set()

    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(post(b"a" * 200_000))  # more than is buffered of an incomplete body
    paused = transport.paused
    proceed.set()
    transport.close()
    await serving

    assert not paused
    assert disconnected.is_set()


async def test_a_body_is_read_ahead_of_the_application_only_up_to_a_limit() -> None:
    proceed = asyncio.Event()
    sizes = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await proceed.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await send(head(LENGTH))
        await send(BODY)

    transport, piece = MemoryTransport(), b"a" * 100_000  # more than a connection buffers
    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(post(piece, CLOSE, length=2 * len(piece)))
    paused = transport.paused
    proceed.set()
    await settle()
    resumed = not transport.paused
    transport.protocol.data_received(piece)
    await settle()
    transport.close()
    await serving

    assert paused
    assert resumed
    assert sizes == [len(piece), len(piece)]
    assert statuses(transport.written) == [200]


async def test_receive_returns_a_disconnect_as_soon_as_the_response_is_complete() -> None:
    """An application that waits for the disconnect doesn't block its connection."""
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        receiving = asyncio.create_task(read_until_disconnect(receive))
        await send(head(LENGTH))
        await send(BODY)
        await receiving
        received.append(await receive())

    async with connected(application) as client:
        await client.send(get())
        await client.until(b"hello")
        await until(lambda: bool(received))
        response = await client.exchange(get("/", CLOSE))

    assert statuses(response) == [200]
    assert received[0] == {"type": "http.disconnect"}


async def test_a_client_can_disconnect_once_it_has_every_byte() -> None:
    """The application receives no disconnect if only its empty last message is missing.

    A file server is in this state after it has sent the last chunk of a file.
    """
    disconnected_early = True
    received = []
    closed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal disconnected_early
        await read_body(receive)
        await send(head(LENGTH))
        await send({**BODY, "more_body": True})
        receiving = asyncio.create_task(receive())
        await closed.wait()
        await settle()
        disconnected_early = receiving.done()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        received.append((await receiving)["type"])

    transport = MemoryTransport()
    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(get())
    await settle()
    transport.close()
    await settle()
    closed.set()
    await serving

    assert not disconnected_early
    assert received == ["http.disconnect"]


async def test_a_malformed_body_ends_a_response_that_has_started() -> None:
    """A 400 can't follow, because it would be a second response."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await read_until_disconnect(receive)

    async with connected(application) as client:
        await client.send(chunked(b"1\r\na\r\n"))
        response_head = await client.until(b"\r\n\r\n")
        rest = await client.exchange(b"nonsense\r\n")

    assert statuses(response_head) == [200]
    assert rest == b""


async def disconnect_during_send(application: Any, transport: MemoryTransport, *, cancel: bool = False) -> None:
    """Serve one request, and disconnect while `application` waits in `send`. With `cancel`, cancel the server first."""
    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(get())
    await settle()
    if cancel:
        serving.cancel()
    transport.close()
    await asyncio.wait({serving})
    await settle()


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"6"),)], ids=["complete", "too short"])
async def test_a_client_can_disconnect_while_send_waits_for_it(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    transport, received = MemoryTransport(), []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head(*headers))
        await send(BODY)
        received.append((await receive())["type"])

    await disconnect_during_send(application, transport)

    assert received == ["http.disconnect"]


async def test_send_can_be_canceled_while_it_waits_for_the_client() -> None:
    transport, send_returned = MemoryTransport(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        transport.protocol.pause_writing()
        await send(head())
        send_returned.set()

    await disconnect_during_send(application, transport, cancel=True)

    assert not send_returned.is_set()


async def test_requests_wait_while_the_client_does_not_read() -> None:
    """Even `OPTIONS *` waits, although the server itself responds to it.

    A write to the closed connection has no effect.
    """
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

    assert written_before == b""
    assert statuses(transport.written) == [200] * 3
    assert b"late" not in transport.written


async def test_a_client_that_reads_slowly_is_not_disconnected() -> None:
    transport, connections = MemoryTransport(), Connections()
    serving = serve_in_memory(Echo(), transport, connections)
    await settle()
    transport.unwritten = 5
    transport.protocol.pause_writing()
    for unwritten in (4, 3, 2, 1):  # the client reads one byte in time
        transport.unwritten = unwritten
        await pass_time(connections.limits.write_seconds)
    counts_during_progress = dict(connections.rejections.counts)
    await pass_time(connections.limits.write_seconds)  # and now nothing
    await serving

    assert counts_during_progress == {}
    assert connections.rejections.counts == {"write-timeout": 1}


async def test_a_pipelined_request_waits_for_a_client_that_reads_slowly() -> None:
    """The request is not rejected, however long the client takes to read the previous response."""
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

    assert written_before == b""
    assert statuses(transport.written) == [200]


async def test_data_received_before_the_connection_was_taken_over_is_served() -> None:
    """The data is in the reader that Hypercorn passes on."""
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
