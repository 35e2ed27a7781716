"""Tests of RFC 6455: the handshake (section 4), frames (5), messages (6), closing (7) and limits (10)."""

from __future__ import annotations

import asyncio
import struct
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
    pass_time,
    post,
    serve_in_memory,
    settle,
    statuses,
    until,
)

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")
CLOSE_NORMAL = frame(8, b"\x03\xe8")


def handshake(*extra: str, key: str = KEY, version: str = VERSION, path: str = "/ws") -> bytes:
    """Return a WebSocket's opening request."""
    return get(path, *UPGRADE, *(line for line in (key, version) if line), *extra)


class EchoSocket:
    """An application that sends each message back.

    Attributes:
        messages: the received messages.
        end: the disconnect message; None until it is received.
    """

    def __init__(self, accept: dict[str, Any] | None = None) -> None:
        self.accept = accept or {}
        self.scope: Any = None
        self.messages: list[str | bytes] = []
        self.end: Any = None
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        if scope["type"] == "http":
            await Echo()(scope, receive, send)
            return
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept", **self.accept})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.end = message
                self.over.set()
                return
            content = message["text"] if message["bytes"] is None else message["bytes"]
            self.messages.append(content)
            await send({"type": "websocket.send", "text" if isinstance(content, str) else "bytes": content})


async def open_websocket(client: Client, *extra: str) -> bytes:
    """Open a WebSocket and return the head of the response."""
    await client.send(handshake(*extra))
    response = await client.until(b"\r\n\r\n")
    assert statuses(response) == [101]
    return response


def close_code(received: bytes) -> int:
    """Return the code of the Close frame with which `received` begins."""
    assert received[:1] == b"\x88", received
    return int(struct.unpack("!H", received[2:4])[0])


async def test_the_handshake_response_is_the_one_in_the_rfc() -> None:
    """The key and its response are those of section 1.3."""
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
        (handshake(key="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTEyMw=="), 400),
        (handshake(KEY), 400),
        (handshake(version=""), 426),
        (handshake(version="Sec-WebSocket-Version: 12"), 426),
        (handshake(version="Sec-WebSocket-Version: 99"), 426),
        (handshake(version="Sec-WebSocket-Version: 13, 8"), 426),
        (handshake("Content-Length: 5") + b"hello", 400),
        (handshake("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
        (handshake() + frame(1, b"early"), 400),
        (handshake().replace(b"here", b"a..b"), 400),
        (handshake().replace(b"Host: here\r\n", b""), 400),
    ],
)
async def test_an_invalid_handshake_is_rejected(request_: bytes, status: int) -> None:
    echo = EchoSocket()
    async with connected(echo) as client:
        response = await client.exchange(request_)

    assert statuses(response) == [status]
    assert b"application/problem+json" in response
    assert (b"sec-websocket-version: 13\r\n" in response) is (status == 426)
    assert (b"connection: close, upgrade\r\n" in response) is (status == 426)
    assert echo.scope is None


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (get("/", "Connection: Upgrade", "Upgrade: h2c"), b"GET / "),
        (get("/", "Upgrade: websocket"), b"GET / "),
        (get("/", *UPGRADE, "Upgrade: h2c"), b"GET / "),
        (get("/", "Connection: Upgrade", "Upgrade: websocket, h2c"), b"GET / "),
        (get("/", *UPGRADE, version="1.0"), b"GET / "),
        (post(b"body", "Connection: Upgrade", "Upgrade: h2c"), b"POST / body"),
        (post(b"body", *UPGRADE), b"POST / body"),
        (chunked(b"4\r\nbody\r\n0\r\n\r\n", "Connection: Upgrade", "Upgrade: TLS/1.0"), b"POST / body"),
    ],
)
async def test_another_upgrade_is_served_as_http(request_: bytes, body: bytes) -> None:
    """The body and the requests that follow are read as usual."""
    async with connected(Echo()) as client:
        response = await client.exchange(request_ + get("/next", "Connection: close"))

    assert response.split(b"HTTP/1.1 ")[1].endswith(body)
    assert statuses(response) == ([200] if b"HTTP/1.0" in request_ else [200, 200])


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("Sec-WebSocket-Protocol: chat, superchat", ["chat", "superchat"]),
        ("Sec-WebSocket-Protocol: \xff", []),
        ("Sec-WebSocket-Protocol: a b", []),
        ("X: y", []),
    ],
)
async def test_the_application_chooses_the_subprotocol(line: str, proposed: list[str]) -> None:
    echo = EchoSocket({"subprotocol": "chat"} if proposed else {})
    async with connected(echo) as client:
        response = await open_websocket(client, line)

    assert echo.scope["subprotocols"] == proposed
    assert (b"sec-websocket-protocol: chat\r\n" in response) is bool(proposed)


@pytest.mark.parametrize("extension", ["permessage-deflate; server_max_window_bits=abc", "permessage-deflate", "\xff"])
async def test_no_extension_is_negotiated(extension: str) -> None:
    async with connected(EchoSocket()) as client:
        response = await open_websocket(client, f"Sec-WebSocket-Extensions: {extension}")

    assert b"sec-websocket-extensions" not in response


async def test_messages_are_echoed_however_they_are_split() -> None:
    sent = (
        frame(1, b"Ada")
        + frame(2, b"\0\xff")
        + frame(1, "é".encode()[:1], last=False)
        + frame(9, b"ping")
        + frame(0, b"", last=False)
        + frame(0, "é".encode()[1:])
        + frame(1, b"")
        + frame(2, b"", last=False)
        + frame(0, b"ab", last=False)
        + frame(0, b"c")
        + CLOSE_NORMAL
    )
    for size in (1, 3, len(sent)):
        echo = EchoSocket()
        async with connected(echo) as client:
            await open_websocket(client)
            for start in range(0, len(sent), size):
                await client.send(sent[start : start + size])
            response = await client.rest()

        assert echo.messages == ["Ada", b"\0\xff", "é", "", b"abc"]
        assert echo.end["code"] == 1000
        assert b"\x8a\x04ping" in response
        assert close_code(response[-4:]) == 1000


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(1, b"Ada", masked=False), 1002),
        (frame(1, b"Ada", reserved=4), 1002),
        (frame(1, b"Ada", reserved=2), 1002),
        (frame(1, b"Ada", reserved=1), 1002),
        (frame(1, b"Ada", reserved=7), 1002),
        (frame(3, b""), 1002),
        (frame(11, b""), 1002),
        (frame(9, b"a" * 126), 1002),
        (frame(9, b"a", last=False), 1002),
        (frame(8, b"", last=False), 1002),
        (frame(0, b"a"), 1002),
        (frame(1, b"a", last=False) + frame(1, b"b"), 1002),
        (frame(8, b"\0"), 1002),
        *[(frame(8, struct.pack("!H", code)), 1002) for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)],
        (frame(8, b"\x03\xe8\xff"), 1007),
        (b"\x81\xfe\0\x7d" + bytes(4) + b"a" * 125, 1002),
        (b"\x81\xff" + struct.pack("!Q", 150) + bytes(4) + b"a" * 150, 1002),
        (frame(1, b"\xff"), 1007),
        (frame(1, b"\xc3"), 1007),
        (frame(1, b"\xed\xa0\x80"), 1007),
        (frame(1, b"\xf4\x90\x80\x80"), 1007),
        (frame(1, b"ab\xc3", last=False) + frame(0, b"x", last=False), 1007),
        (frame(1, b"ab\xc3", last=False) + frame(0, b""), 1007),
        (frame(1, b"a" * 201), 1009),
        (frame(2, b"a" * 160, last=False) + frame(0, b"a" * 41), 1009),
        (b"\x82\xff" + struct.pack("!Q", 2**62) + bytes(4), 1009),
        (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1009),
    ],
)
async def test_a_protocol_violation_closes_with_its_code(sent: bytes, code: int) -> None:
    echo = EchoSocket()
    async with connected(echo, body_bytes=200) as client:
        await open_websocket(client)
        response = await client.exchange(sent + frame(1, b"after"))
        await echo.over.wait()

    assert close_code(response) == code
    assert (echo.messages, echo.end["code"]) == ([], code)


@pytest.mark.parametrize(
    ("sent", "code", "echoed"),
    [
        (frame(8, b""), 1005, b"\x88\x00"),
        (CLOSE_NORMAL, 1000, b"\x88\x02\x03\xe8"),
        (frame(8, b"\x03\xe9bye"), 1001, b"\x88\x05\x03\xe9bye"),
        (frame(8, b"\x0f\xa0"), 4000, b"\x88\x02\x0f\xa0"),
        (frame(1, b"unfinished", last=False) + CLOSE_NORMAL, 1000, b"\x88\x02\x03\xe8"),
        (frame(2, b"a", last=False) + frame(0, b"b", last=False) + frame(8, b""), 1005, b"\x88\x00"),
    ],
)
async def test_a_close_frame_is_echoed(sent: bytes, code: int, echoed: bytes) -> None:
    echo = EchoSocket()
    async with connected(echo) as client:
        await open_websocket(client)
        response = await client.exchange(sent + frame(1, b"after"))
        await echo.over.wait()

    assert response == echoed
    assert (echo.end["code"], echo.messages) == (code, [])


@pytest.mark.parametrize("end", ["half_close", "close", "reset"])
async def test_a_disconnect_without_a_close_frame_is_1006(end: str) -> None:
    echo = EchoSocket()
    async with connected(echo) as client:
        await open_websocket(client)
        getattr(client, end)()
        await echo.over.wait()

    assert echo.end["code"] == 1006


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1008, "policy"), (4999, "é")])
async def test_the_application_closes_with_a_code(code: int, reason: str) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": code, "reason": reason})
        assert (await receive())["code"] == code

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.until(reason.encode() or struct.pack("!H", code))
        await client.send(frame(8, struct.pack("!H", code)))
        assert await client.rest() == b""

    assert close_code(response) == code


async def test_the_connection_is_closed_if_the_client_sends_no_close_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hello_service.serving.websocket.CLOSING_SECONDS", 0.01)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.rest()

    assert close_code(response) == 1000


@pytest.mark.parametrize(("accepted", "expected"), [(True, 1011), (False, 500)])
async def test_an_exception_in_the_application_is_1011_or_500(accepted: bool, expected: int) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if accepted:
            await send({"type": "websocket.accept"})
        raise RuntimeError("broken on purpose")

    async with connected(application) as client:
        await client.send(handshake())
        if accepted:
            await client.until(b"\r\n\r\n")
        response = await client.until(struct.pack("!H", 1011) if accepted else b"}")

    assert (close_code(response) if accepted else statuses(response)[0]) == expected


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        (({"type": "websocket.close"},), 403),
        (({"type": "websocket.http.response.start", "status": 404, "headers": []}, BODY), 404),
        ((), 500),
        (({"type": "websocket.send", "text": "early"},), 500),
        (({"type": "websocket.accept", "headers": [(b"a b", b"")]},), 500),
    ],
)
async def test_the_application_can_reject_a_handshake(messages: Any, status: int) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(
                {**message, "type": message["type"].replace("http.response.body", "websocket.http.response.body")}
            )

    async with connected(application) as client:
        response = await client.exchange(handshake())

    assert statuses(response) == [status]


@pytest.mark.parametrize("then", ["return", "raise", "accept", "close", "wait"])
async def test_a_handshake_gets_one_response_even_if_the_application_breaks_it_off(then: str) -> None:
    started = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        started.set()
        if then == "wait":
            await receive()
        elif then == "raise":
            raise RuntimeError("broken on purpose")
        elif then != "return":
            await send({"type": f"websocket.{then}"})

    async with connected(application) as client:
        await client.send(handshake())
        await started.wait()
        response = await client.exchange(frame(1, b"early") if then == "wait" else b"")

    assert statuses(response) == [404]
    assert response.endswith(b"\r\n\r\n")


async def test_a_client_that_sends_pings_and_does_not_read_gets_only_the_latest_pong() -> None:
    """Otherwise its pongs would fill the memory (section 5.5.3)."""
    transport, echo = MemoryTransport(), EchoSocket()
    serving = serve_in_memory(echo, transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    response = transport.written
    transport.protocol.pause_writing()
    transport.protocol.data_received(b"".join(frame(9, b"%d" % number) for number in range(1000)))
    assert transport.written == response
    for _ in range(2):
        transport.protocol.resume_writing()
    transport.protocol.data_received(frame(9, b"next"))

    assert transport.written == response + b"\x8a\x03999" + b"\x8a\x04next"
    transport.close()
    await serving


async def test_reading_is_paused_while_the_application_is_slow() -> None:
    go = asyncio.Event()
    received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message)

    async with connected(application) as client:
        await open_websocket(client)
        sending = asyncio.create_task(client.send(frame(1, b"a" * 100) * 50_000 + CLOSE_NORMAL))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        go.set()
        response = await client.rest()

    assert len(received) == 50_000
    assert close_code(response) == 1000


async def test_a_websocket_stays_open_only_if_its_client_sends_pongs() -> None:
    for sends_pongs in (True, False):
        echo = EchoSocket()
        async with connected(echo, ping_seconds=0.1) as client:
            await open_websocket(client)
            for _ in range(5 if sends_pongs else 1):
                assert await client.until(b"\x89\x00") == b"\x89\x00"
                if sends_pongs:
                    await client.send(frame(10, b""))
            assert not echo.over.is_set()
            if not sends_pongs:
                assert close_code(await client.rest()) == 1011
                await echo.over.wait()
                assert echo.end["code"] == 1006


async def test_no_pong_is_due_while_the_client_is_still_reading_a_large_message() -> None:
    """The ping would arrive only after the message. If the client stops reading, the write timeout closes the socket."""
    transport, echo = MemoryTransport(), EchoSocket()
    serving = serve_in_memory(echo, transport)
    await settle()
    transport.protocol.data_received(handshake())
    await settle()
    await pass_time(21)
    assert transport.written.endswith(b"\r\n\r\n\x89\x00")
    written = len(transport.written)
    transport.protocol.pause_writing()
    for _ in range(3):
        await pass_time(21)
    assert transport.written[written:] == b""
    transport.protocol.data_received(frame(10, b""))
    transport.protocol.resume_writing()
    await pass_time(21)
    assert transport.written[written:] == b"\x89\x00"
    await pass_time(21)
    closed = transport.written
    transport.protocol.resume_writing()
    await pass_time(21)

    assert close_code(closed[written + 2 :]) == 1011
    assert transport.written == closed
    assert echo.end["code"] == 1006
    transport.close()
    await serving


async def test_messages_sent_after_the_close_are_dropped() -> None:
    sent = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.send", "text": "late"})
        await send({"type": "websocket.close"})
        sent.set()

    async with connected(application) as client:
        await open_websocket(client)
        response = await client.exchange(CLOSE_NORMAL)
        await sent.wait()

    assert response == b"\x88\x02\x03\xe8"


async def test_an_asgi_message_that_is_not_allowed_closes_with_1011() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await open_websocket(client)
        assert close_code(await client.until(struct.pack("!H", 1011))) == 1011


async def test_a_client_can_disconnect_before_it_is_accepted() -> None:
    ended = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        ended.append(await receive())
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await client.send(handshake())
        client.close()
        await until(lambda: bool(ended))

    assert ended[0]["code"] == 1006


async def test_data_before_the_handshake_response_is_rejected() -> None:
    """The client must wait for the response (section 4.1)."""
    started, ended = asyncio.Event(), []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        ended.append((await receive())["code"])
        await send({"type": "websocket.accept"})

    async with connected(application) as client:
        await client.send(handshake())
        await started.wait()
        response = await client.exchange(frame(1, b"early"))
        await until(lambda: bool(ended))

    assert (statuses(response), ended) == ([400], [1006])
