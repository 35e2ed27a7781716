"""Tests of RFC 6455: the handshake (section 4), frames (5), messages (6), closing (7) and limits (10)."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from typing import Any

import pytest
from drills.hostile_requests import frame
from wire import (
    BODY,
    Client,
    Echo,
    MemoryTransport,
    chunked,
    connected,
    get,
    head,
    pass_time,
    post,
    serve_in_memory,
    settle,
    statuses,
    until,
)

from hello_service.serving.connections import Limits

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
# The opcodes of frames.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# Codes out of range, or reserved (section 7.4).
INVALID_CLOSE_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)
CLOSE_NORMAL = frame(CLOSE, struct.pack("!H", 1000))
PING_FROM_SERVER = frame(PING, b"", masked=False)  # only a client masks its frames
REJECTION_HEAD = {"type": "websocket.http.response.start", "status": 404, "headers": []}
REJECTION_BODY = {**BODY, "type": "websocket.http.response.body"}


def handshake(*extra: str, key: str = KEY, version: str = VERSION, path: str = "/ws") -> bytes:
    """Return the request that opens a WebSocket, with the header lines `extra`.

    An empty `key` or `version` leaves out that header.
    """
    return get(path, *UPGRADE, *(line for line in (key, version) if line), *extra)


class EchoSocket:
    """An application that sends each message back.

    Attributes:
        accept: additional fields of the message that accepts the handshake.
        scope: the scope; None until the application is called.
        messages: the received messages.
        disconnect: the disconnect message; None until it is received.
        disconnected: an event that is set when the disconnect message is received.
    """

    def __init__(self, accept: dict[str, Any] | None = None) -> None:
        self.accept = accept or {}
        self.scope: Any = None
        self.messages: list[str | bytes] = []
        self.disconnect: Any = None
        self.disconnected = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **self.accept})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.disconnect = message
                self.disconnected.set()
                return
            content = message["text"] if message["bytes"] is None else message["bytes"]
            self.messages.append(content)
            await send({"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content})


async def open_websocket(client: Client, *extra: str) -> bytes:
    """Open a WebSocket with the header lines `extra`, and return the head of the response."""
    await client.send(handshake(*extra))
    response = await client.until(b"\r\n\r\n")
    assert statuses(response) == [101]
    return response


def close_code(received: bytes) -> int:
    """Return the code of the Close frame at the beginning of `received`."""
    assert received[:1] == b"\x88", received  # the first byte of a Close frame
    return int(struct.unpack("!H", received[2:4])[0])


async def test_the_handshake_response_is_the_one_in_the_rfc() -> None:
    """Section 1.3 has this key and its accept value."""
    async with connected(EchoSocket({"headers": [(b"x-app", b"1")]})) as client:
        response = await open_websocket(client)

    assert response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"x-app: 1\r\n" in response
    assert b"sec-websocket-extensions" not in response


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (handshake(key=""), 400),
        (handshake(key="Sec-WebSocket-Key: abc"), 400),
        (handshake(key="Sec-WebSocket-Key: "), 400),
        (handshake(key="Sec-WebSocket-Key: !!!hIHNhbXBsZSBub25jZQ=="), 400),
        (handshake(key="Sec-WebSocket-Key: \xe9"), 400),
        (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw=="), 400),  # 19 bytes, not 16
        (handshake(KEY), 400),  # two keys
        (handshake(version=""), 426),
        (handshake(version="Sec-WebSocket-Version: 12"), 426),
        (handshake(version="Sec-WebSocket-Version: 99"), 426),
        (handshake(version="Sec-WebSocket-Version: 13, 8"), 426),
        (handshake("Content-Length: 5") + b"hello", 400),
        (handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (handshake() + frame(TEXT, b"early"), 400),
        (handshake().replace(b"here", b"a..b"), 400),  # an invalid host
        (handshake().replace(b"Host: here\r\n", b""), 400),
    ],
)
async def test_an_invalid_handshake_is_rejected(request_: bytes, status: int) -> None:
    """Only the headers of a 426 (Upgrade Required) contain the supported version."""
    is_wrong_version = status == 426
    echo = EchoSocket()
    async with connected(echo) as client:
        response = await client.exchange(request_)

    assert statuses(response) == [status]
    assert b"application/problem+json" in response
    assert (b"sec-websocket-version: 13\r\n" in response) is is_wrong_version
    assert (b"connection: close, upgrade\r\n" in response) is is_wrong_version
    assert echo.scope is None


@pytest.mark.parametrize(
    ("request_", "echoed"),
    [
        (get("/", "Connection: Upgrade", "Upgrade: h2c"), b"GET / "),
        (get("/", "Upgrade: websocket"), b"GET / "),
        (get("/", "Proxy-Connection: Upgrade", "Upgrade: websocket"), b"GET / "),
        (get("/", "Proxy-Connection: Upgrade", "Connection: keep-alive", "Upgrade: websocket"), b"GET / "),
        (get("/", *UPGRADE, "Upgrade: h2c"), b"GET / "),
        (get("/", "Connection: Upgrade", "Upgrade: websocket, h2c"), b"GET / "),
        (get("/", *UPGRADE, version="1.0"), b"GET / "),
        (post(b"body", "Connection: Upgrade", "Upgrade: h2c"), b"POST / body"),
        (post(b"body", *UPGRADE), b"POST / body"),
        (chunked(b"4\r\nbody\r\n0\r\n\r\n", "Connection: Upgrade", "Upgrade: TLS/1.0"), b"POST / body"),
    ],
)
async def test_an_upgrade_that_opens_no_websocket_is_ignored(request_: bytes, echoed: bytes) -> None:
    """The request, its body and the next request are served as usual. The server reuses no HTTP/1.0 connection."""
    async with connected(Echo()) as client:
        responses = await client.exchange(request_ + get("/next", "Connection: close"))

    first_response = responses.split(b"HTTP/1.1 ")[1]
    assert first_response.endswith(echoed)
    assert statuses(responses) == ([200] if b"HTTP/1.0" in request_ else [200, 200])


@pytest.mark.parametrize(
    ("line", "subprotocols"),
    [
        ("Sec-WebSocket-Protocol: chat, superchat", ["chat", "superchat"]),
        ("Sec-WebSocket-Protocol: \xff", []),
        ("Sec-WebSocket-Protocol: a b", []),
        ("X: y", []),  # an unrelated header
    ],
)
async def test_the_application_chooses_the_subprotocol(line: str, subprotocols: list[str]) -> None:
    """A malformed header proposes no subprotocol."""
    echo = EchoSocket({"subprotocol": "chat"} if subprotocols else {})
    async with connected(echo) as client:
        response = await open_websocket(client, line)

    assert echo.scope["subprotocols"] == subprotocols
    assert (b"sec-websocket-protocol: chat\r\n" in response) is bool(subprotocols)


@pytest.mark.parametrize("extension", ["permessage-deflate; server_max_window_bits=abc", "permessage-deflate", "\xff"])
async def test_no_extension_is_negotiated(extension: str) -> None:
    async with connected(EchoSocket()) as client:
        response = await open_websocket(client, f"Sec-WebSocket-Extensions: {extension}")

    assert b"sec-websocket-extensions" not in response


async def test_messages_are_echoed_however_they_are_split() -> None:
    frames = (
        frame(TEXT, b"Ada")
        + frame(BINARY, b"\0\xff")
        + frame(TEXT, "é".encode()[:1], last=False)
        + frame(PING, b"ping")
        + frame(CONTINUATION, b"", last=False)
        + frame(CONTINUATION, "é".encode()[1:])
        + frame(TEXT, b"")
        + frame(BINARY, b"", last=False)
        + frame(CONTINUATION, b"ab", last=False)
        + frame(CONTINUATION, b"c")
        + CLOSE_NORMAL
    )
    for size in (1, 3, len(frames)):
        echo = EchoSocket()
        async with connected(echo) as client:
            await open_websocket(client)
            for start in range(0, len(frames), size):
                await client.send(frames[start : start + size])
            response = await client.rest()

        assert echo.messages == ["Ada", b"\0\xff", "é", "", b"abc"]
        assert echo.disconnect["code"] == 1000
        assert frame(PONG, b"ping", masked=False) in response
        assert close_code(response[-4:]) == 1000  # a Close frame with a code has 4 bytes


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(TEXT, b"Ada", masked=False), 1002),
        # The three reserved bits, one by one and together.
        (frame(TEXT, b"Ada", reserved=4), 1002),
        (frame(TEXT, b"Ada", reserved=2), 1002),
        (frame(TEXT, b"Ada", reserved=1), 1002),
        (frame(TEXT, b"Ada", reserved=7), 1002),
        (frame(3, b""), 1002),  # a reserved opcode
        (frame(11, b""), 1002),  # a reserved opcode
        (frame(PING, b"a" * 126), 1002),  # a control frame has at most 125 bytes
        (frame(PING, b"a", last=False), 1002),  # a control frame must not be fragmented
        (frame(CLOSE, b"", last=False), 1002),
        (frame(CONTINUATION, b"a"), 1002),
        (frame(TEXT, b"a", last=False) + frame(TEXT, b"b"), 1002),
        (frame(CLOSE, b"\0"), 1002),  # half a code
        *[(frame(CLOSE, struct.pack("!H", code)), 1002) for code in INVALID_CLOSE_CODES],
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        # Lengths that are not minimally encoded: 125 in two bytes, and 150 in eight.
        (b"\x81\xfe\0\x7d" + bytes(4) + b"a" * 125, 1002),
        (b"\x81\xff" + struct.pack("!Q", 150) + bytes(4) + b"a" * 150, 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),  # a surrogate
        (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),  # U+110000, beyond Unicode
        (frame(TEXT, b"ab\xc3", last=False) + frame(CONTINUATION, b"x", last=False), 1007),
        (frame(TEXT, b"ab\xc3", last=False) + frame(CONTINUATION, b""), 1007),
        (frame(TEXT, b"a" * 201), 1009),
        (frame(BINARY, b"a" * 160, last=False) + frame(CONTINUATION, b"a" * 41), 1009),
        # Only the heads of frames, with huge lengths.
        (b"\x82\xff" + struct.pack("!Q", 2**62) + bytes(4), 1009),
        (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1009),
    ],
)
async def test_a_protocol_violation_closes_with_its_code(frames: bytes, code: int) -> None:
    """1002 is a protocol error, 1007 is text that is not UTF-8, and 1009 is a message that is too large."""
    echo = EchoSocket()
    async with connected(echo, body_bytes=200) as client:
        await open_websocket(client)
        response = await client.exchange(frames + frame(TEXT, b"after"))
        await echo.disconnected.wait()

    assert close_code(response) == code
    assert echo.disconnect["code"] == code
    assert echo.messages == []


@pytest.mark.parametrize(
    "unfinished_message",
    [
        b"",
        frame(TEXT, b"a", last=False),
        frame(BINARY, b"a", last=False) + frame(CONTINUATION, b"b", last=False),
    ],
)
@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", 1005),  # 1005 means that the frame has no code
        (struct.pack("!H", 1000), 1000),
        (struct.pack("!H", 1001) + b"bye", 1001),
        (struct.pack("!H", 4000), 4000),
    ],
)
async def test_a_close_frame_is_echoed(unfinished_message: bytes, payload: bytes, code: int) -> None:
    """A Close frame is echoed even within an unfinished message."""
    echo = EchoSocket()
    async with connected(echo) as client:
        await open_websocket(client)
        response = await client.exchange(unfinished_message + frame(CLOSE, payload) + frame(TEXT, b"after"))
        await echo.disconnected.wait()

    assert response == frame(CLOSE, payload, masked=False)
    assert echo.disconnect["code"] == code
    assert echo.messages == []


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
async def test_a_disconnect_without_a_close_frame_is_1006(end: str) -> None:
    echo = EchoSocket()
    async with connected(echo) as client:
        await open_websocket(client)
        getattr(client, end)()
        await echo.disconnected.wait()

    assert echo.disconnect["code"] == 1006


@pytest.mark.parametrize("unread_bytes", [0, 1000])
async def test_no_websocket_is_opened_for_a_client_that_has_closed_its_side(unread_bytes: int) -> None:
    """The handshake was pipelined behind a request, and the client closed its side before the response to that request.

    A client that does not read that response is disconnected after `write_seconds`.
    """
    kinds: list[str] = []
    closed = asyncio.Event()

    async def application(scope: Any, _: Any, send: Any) -> None:
        kinds.append(scope["type"])
        await closed.wait()
        if scope["type"] == "http":
            await send(head())
            await send(BODY)

    transport = MemoryTransport()
    serving = serve_in_memory(application, transport)
    await settle()
    transport.protocol.data_received(get() + handshake())
    assert transport.protocol.eof_received()
    transport.unwritten = unread_bytes
    closed.set()
    await settle()
    await pass_time(Limits.write_seconds)
    await serving

    assert statuses(transport.written) == [200]
    assert kinds == ["http"]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1008, "policy"), (4999, "é")])
async def test_the_application_closes_with_a_code(code: int, reason: str) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code, "reason": reason})
        assert (await receive())["code"] == code

    async with connected(application) as client:
        await open_websocket(client)
        last_bytes = reason.encode() or struct.pack("!H", code)  # a Close frame ends with its reason or its code
        response = await client.until(last_bytes)
        await client.send(frame(CLOSE, struct.pack("!H", code)))
        assert await client.rest() == b""

    assert close_code(response) == code


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_empty_frames_of_a_message_take_no_memory(opcode: int) -> None:
    """The limit on a message's size does not limit their number."""
    echo, transport = EchoSocket(), MemoryTransport()
    serving = serve_in_memory(echo, transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    tracemalloc.start()
    transport.protocol.data_received(frame(opcode, b"", last=False))
    empty_frames = frame(CONTINUATION, b"", last=False) * 100
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(100):
        transport.protocol.data_received(empty_frames)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    transport.protocol.data_received(frame(CONTINUATION, b"Ada") + CLOSE_NORMAL)
    await settle()
    transport.close()
    await serving

    assert after - before < 10_000  # less than one byte for each of the 100 * 100 frames
    assert echo.messages == ["Ada" if opcode == TEXT else b"Ada"]


async def test_the_connection_is_closed_if_the_client_sends_no_close_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the application returns, the server sends a Close frame, and waits CLOSING_SECONDS for the client's."""
    monkeypatch.setattr("hello_service.serving.websocket.CLOSING_SECONDS", 0.01)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.rest()

    assert close_code(response) == 1000


async def test_an_exception_in_an_open_websocket_closes_with_1011() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise RuntimeError("broken on purpose")

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.until(struct.pack("!H", 1011))

    assert close_code(response) == 1011


async def test_an_exception_before_the_handshake_response_is_a_500() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken on purpose")

    async with connected(application) as client:
        response = await client.exchange(handshake())

    assert statuses(response) == [500]


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        (({"type": "websocket.close"},), 403),
        ((REJECTION_HEAD, REJECTION_BODY), 404),
        ((), 500),
        (({"type": "websocket.send", "text": "early"},), 500),
        (({"type": "websocket.accept", "headers": [(b"a b", b"")]},), 500),
    ],
)
async def test_a_handshake_that_is_not_accepted_gets_an_error_status(
    messages: tuple[dict[str, Any], ...], status: int
) -> None:
    """A rejection has the application's status, or 403. If the application neither accepts nor rejects, it is a 500."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    async with connected(application) as client:
        response = await client.exchange(handshake())

    assert statuses(response) == [status]


@pytest.mark.parametrize("next_step", ["return", "raise", "accept", "close", "receive"])
async def test_a_handshake_gets_one_response_even_if_the_application_does_not_finish_it(next_step: str) -> None:
    started = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(REJECTION_HEAD)
        started.set()
        if next_step == "receive":
            await receive()
        elif next_step == "raise":
            raise RuntimeError("broken on purpose")
        elif next_step != "return":
            await send({"type": f"websocket.{next_step}"})

    async with connected(application) as client:
        await client.send(handshake())
        await started.wait()
        if next_step == "receive":
            await client.send(frame(TEXT, b"early"))  # `receive` returns, because the server rejects early data
        response = await client.rest()

    assert statuses(response) == [404]
    assert response.endswith(b"\r\n\r\n")


async def test_a_client_that_sends_pings_and_does_not_read_gets_only_the_latest_pong() -> None:
    """The pongs to all of its pings would fill the memory. Section 5.5.3 allows the server to send only the latest."""
    transport, echo = MemoryTransport(), EchoSocket()
    serving = serve_in_memory(echo, transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    response = transport.written
    transport.protocol.pause_writing()
    transport.protocol.data_received(b"".join(frame(PING, b"%d" % number) for number in range(1000)))
    assert transport.written == response
    for _ in range(2):  # the second call must not send the pong again
        transport.protocol.resume_writing()
    transport.protocol.data_received(frame(PING, b"next"))

    pongs = frame(PONG, b"999", masked=False) + frame(PONG, b"next", masked=False)
    assert transport.written == response + pongs
    transport.close()
    await serving


async def test_reading_is_paused_while_the_application_is_slow() -> None:
    count = 50_000  # messages; more bytes than all buffers on the way hold
    proceed = asyncio.Event()
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await proceed.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message)

    async with connected(application) as client:
        await open_websocket(client)
        sending = asyncio.create_task(client.send(frame(TEXT, b"a" * 100) * count + CLOSE_NORMAL))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done  # because the server does not read
        proceed.set()
        response = await client.rest()

    assert len(received) == count
    assert close_code(response) == 1000


async def test_a_websocket_stays_open_while_its_client_sends_pongs() -> None:
    echo = EchoSocket()
    async with connected(echo, ping_seconds=0.1) as client:
        await open_websocket(client)
        for _ in range(5):
            assert await client.until(PING_FROM_SERVER) == PING_FROM_SERVER
            await client.send(frame(PONG, b""))

        assert not echo.disconnected.is_set()


async def test_a_websocket_whose_client_sends_no_pong_is_closed() -> None:
    echo = EchoSocket()
    async with connected(echo, ping_seconds=0.1) as client:
        await open_websocket(client)
        assert await client.until(PING_FROM_SERVER) == PING_FROM_SERVER
        assert not echo.disconnected.is_set()
        response = await client.rest()
        await echo.disconnected.wait()

    assert close_code(response) == 1011
    assert echo.disconnect["code"] == 1006


async def test_no_ping_is_sent_while_the_client_has_not_read_all_data() -> None:
    """The ping would arrive only after the data. If the client stops reading, the write timeout ends the connection."""
    transport, ping_seconds = MemoryTransport(), Limits.ping_seconds
    serving = serve_in_memory(EchoSocket(), transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    await pass_time(ping_seconds)
    assert transport.written.endswith(b"\r\n\r\n" + PING_FROM_SERVER)
    written_before = transport.written
    transport.protocol.pause_writing()
    for _ in range(3):
        await pass_time(ping_seconds)
    assert transport.written == written_before
    transport.protocol.data_received(frame(PONG, b""))
    transport.protocol.resume_writing()
    await pass_time(ping_seconds)

    assert transport.written == written_before + PING_FROM_SERVER
    transport.close()
    await serving


async def test_a_closed_websocket_sends_no_ping_when_its_client_reads_again() -> None:
    transport, echo, ping_seconds = MemoryTransport(), EchoSocket(), Limits.ping_seconds
    serving = serve_in_memory(echo, transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    await pass_time(ping_seconds)  # a ping is sent
    await pass_time(ping_seconds)  # without a pong, the WebSocket is closed
    written_before = transport.written
    transport.protocol.resume_writing()
    await pass_time(ping_seconds)
    _, _, frames = transport.written.partition(b"\r\n\r\n")

    assert transport.written == written_before
    assert frames.startswith(PING_FROM_SERVER)
    assert close_code(frames.removeprefix(PING_FROM_SERVER)) == 1011
    assert echo.disconnect["code"] == 1006
    transport.close()
    await serving


async def test_messages_sent_after_the_close_are_dropped() -> None:
    messages_sent = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.send", "text": "late"})
        await send({"type": "websocket.close"})
        messages_sent.set()

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.exchange(CLOSE_NORMAL)
        await messages_sent.wait()

    assert response == frame(CLOSE, struct.pack("!H", 1000), masked=False)


async def test_a_second_accept_message_closes_with_1011() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await open_websocket(client)
        assert close_code(await client.until(struct.pack("!H", 1011))) == 1011


async def test_a_client_can_disconnect_before_its_handshake_is_accepted() -> None:
    disconnects = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        disconnects.append(await receive())
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await client.send(handshake())
        client.close()
        await until(lambda: bool(disconnects))

    assert disconnects[0]["code"] == 1006


async def test_data_before_the_handshake_response_is_rejected() -> None:
    """The client must wait for the response (section 4.1)."""
    started, disconnects = asyncio.Event(), []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        disconnects.append(await receive())
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await client.send(handshake())
        await started.wait()
        response = await client.exchange(frame(TEXT, b"early"))
        await until(lambda: bool(disconnects))

    assert statuses(response) == [400]
    assert disconnects[0]["code"] == 1006
