"""Tests of responses as they reach the client: RFC 9110, sections 7.6, 8 and 15; RFC 9112, sections 4, 6, 7."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import BODY, LENGTH, chunked, connected, get, head, read_until_disconnect, responding_with, statuses, until

from hello_service.serving.connections import Connections, Limits
from hello_service.serving.http1 import Connection

CLOSE = "Connection: close"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_response_with_a_length_is_sent_in_one_write(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write has both head and body, or only the head in response to HEAD."""
    writes = []
    original_write = Connection.write

    def record(self: Connection, data: bytes) -> None:
        writes.append(bytes(data))
        original_write(self, data)

    monkeypatch.setattr(Connection, "write", record)
    async with connected(responding_with(head(LENGTH), BODY)) as client:
        await client.send(get("/", CLOSE, method=method))
        response = await client.rest()

    assert writes == [response]
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"hello" if method == "GET" else b"close\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        (head(), {**BODY, "more_body": True}, {**BODY, "body": b""}),
        (head(LENGTH), {**BODY, "body": b"hel", "more_body": True}, {**BODY, "body": b"lo"}),
        (head(LENGTH, status=304), BODY),
    ],
    ids=["no length", "in parts", "not modified"],
)
async def test_the_connection_is_reused_however_the_response_is_framed(messages: tuple[dict[str, Any], ...]) -> None:
    async with connected(responding_with(*messages)) as client:
        await client.send(get())
        await client.send(get("/", CLOSE))
        responses = await client.rest()

    assert responses.count(b"HTTP/1.1 ") == 2
    assert responses.count(b"connection: close") == 1


async def test_the_connection_is_closed_after_the_maximum_number_of_requests() -> None:
    async with connected(responding_with(head(LENGTH), BODY), requests=2) as client:
        await client.send(get())
        await client.send(get())
        responses = await client.rest()

    assert responses.count(b"HTTP/1.1 200 ") == 2
    assert responses.count(b"connection: close") == 1


async def test_the_head_of_a_stream_is_sent_at_once() -> None:
    """The head of a response without a length is sent as soon as the application starts it."""
    proceed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await proceed.wait()
        await send(BODY)

    async with connected(application) as client:
        await client.send(get())
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        proceed.set()
        await client.until(b"hello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("messages", "beginning"),
    [
        ((head(LENGTH),), b"HTTP/1.1 200 "),
        ((head(LENGTH, (b"bad name", b"")), BODY), b"HTTP/1.1 500 "),
        ((head((b"content-length", b"6")), BODY), b"HTTP/1.1 200 "),
        ((head((b"content-length", b"x")), BODY), b"HTTP/1.1 500 "),
        ((head(LENGTH), head(LENGTH, status=500), BODY), b"HTTP/1.1 200 "),
    ],
    ids=["no body", "invalid header", "wrong length", "invalid length", "two heads"],
)
async def test_a_broken_response_ends_its_connection(messages: tuple[dict[str, Any], ...], beginning: bytes) -> None:
    """The client receives one response or a part of one, and then the end of the connection."""
    async with connected(responding_with(*messages)) as client:
        await client.send(get())
        response = await client.rest()

    assert response.startswith(beginning)
    assert response.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("cause", ["the application", "the client"])
async def test_a_broken_response_without_a_length_is_reset_on_http_1_0(cause: str) -> None:
    """An HTTP/1.0 client, such as nginx by default, would mistake a close for the end of the response.

    The application breaks the response off, or the client does, because it sends no body within `body_seconds`.
    """
    proceed = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await send({**BODY, "more_body": True})
        await (proceed.wait() if cause == "the application" else read_until_disconnect(receive))

    async with connected(application, body_seconds=0.05) as client:
        await client.send(get("/", "Content-Length: 5", method="POST", version="1.0"))
        await client.until(b"hello")
        proceed.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_response_that_stops_for_a_half_closed_client_ends_with_a_reset() -> None:
    """An HTTP/1.0 client would mistake a close for the end of the response."""

    async def application(_: Any, receive: Any, send: Any) -> None:
        await send(head())
        await send({**BODY, "more_body": True})
        await read_until_disconnect(receive)

    async with connected(application, half_close_seconds=0.01, write_seconds=0.05) as client:
        await client.send(get("/", version="1.0"))
        await client.until(b"hello")
        client.half_close()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_complete_response_is_not_reset_although_its_request_stalls() -> None:
    """The application has responded early, and the client reads slowly."""
    body = b"a" * 50_000_000  # more than the socket buffers of both sides hold
    connections = Connections(Limits(body_seconds=0.05))
    async with connected(responding_with(head(), {**BODY, "body": body}), connections) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        await client.send(get("/", "Content-Length: 5", method="POST", version="1.0"))
        await until(lambda: bool(connections.rejections.counts))
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        response = await client.rest()

    assert response.endswith(body)
    assert connections.rejections.counts == {"body-timeout": 1}


async def test_headers_may_come_from_an_iterator() -> None:
    """ASGI requires only an iterable."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({**head(), "headers": iter([(b"x-first", b"1"), LENGTH])})
        await send(BODY)

    async with connected(application) as client:
        await client.send(get("/", CLOSE))
        response = await client.rest()

    assert b"x-first: 1\r\n" in response
    assert b"content-length: 5\r\n" in response


async def test_a_client_that_reads_nothing_gets_no_further_response() -> None:
    """If the application abandons a response while it waits for the client to read, the connection ends."""
    body = b"x" * 8_000_000  # more than the buffers on the way hold, so `send` waits
    abandoned = asyncio.Event()
    paths = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await send(head((b"content-length", str(len(body)).encode())))
        try:
            async with asyncio.timeout(0.1):
                await send({**BODY, "body": body})
        except TimeoutError:
            abandoned.set()

    async with connected(application) as client:
        await client.send(get())
        await client.send(get())
        await abandoned.wait()
        response = await client.rest()

    assert len(paths) == 1
    assert response.count(b"HTTP/1.1 200 ") == 1


async def test_a_response_after_a_malformed_body_is_dropped() -> None:
    """The server has already sent a 400. The application can still send its own response without an exception."""
    errors: list[Any] = []
    started = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await responding_with(head(LENGTH), BODY)(scope, receive, send)
        except BaseException as error:
            errors.append(error)
            raise

    async with connected(application) as client:
        await client.send(chunked(b""))
        await started.wait()
        await client.send(b"no chunk\r\n")
        response = await client.rest()

    assert response.startswith(b"HTTP/1.1 400 ")
    assert errors == []


@pytest.mark.parametrize(
    "headers", [[(b"x", b"a\r\nb: c")], [(b"x", b"a\nb")], [(b"x\r\n", b"")], [(b"", b"a")], [LENGTH, LENGTH]]
)
async def test_an_invalid_header_of_the_application_is_a_500(headers: list[tuple[bytes, bytes]]) -> None:
    """A line break or a second Content-Length could split the response into two."""
    async with connected(responding_with(head(*headers), BODY)) as client:
        response = await client.exchange(get())

    assert statuses(response) == [500]
    assert b"\r\nb: c" not in response


@pytest.mark.parametrize(("option", "count"), [(b"keep-alive", 2), (b"x-option", 2), (b"Close", 1)])
async def test_only_close_in_the_connection_header_of_a_response_ends_the_connection(option: bytes, count: int) -> None:
    """The server writes this header itself, and sends no other option of the application (RFC 9110, section 7.6.1)."""
    async with connected(responding_with(head(LENGTH, (b"connection", option)), BODY)) as client:
        response = await client.exchange(get() + get("/", CLOSE))

    assert statuses(response) == [200] * count
    assert response.count(b"connection: close\r\n") == 1
    assert b"keep-alive" not in response
    assert b"x-option" not in response


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("headers", [(), (LENGTH,)])
async def test_a_204_and_a_304_have_no_body(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """The connection is reused. Unlike a 304, a 204 must not have a Content-Length (RFC 9110, section 8.6)."""
    async with connected(responding_with(head(*headers, status=status), BODY)) as client:
        response = await client.exchange(get() + get("/", CLOSE))

    assert statuses(response) == [status] * 2
    assert b"hello" not in response
    assert b"transfer-encoding" not in response
    if status == 204:
        assert b"content-length" not in response


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("headers", [(), (LENGTH,)])
async def test_a_205_has_a_length_of_0(version: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """A 205 must not have content (RFC 9110, section 15.3.6)."""
    async with connected(responding_with(head(*headers, status=205), BODY)) as client:
        response = await client.exchange(get("/", CLOSE, version=version))

    assert b"\r\ncontent-length: 0\r\n" in response
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_without_a_length_is_chunked_or_ends_with_the_connection(method: str, version: str) -> None:
    """A Transfer-Encoding of the application is dropped."""
    async with connected(responding_with(head((b"transfer-encoding", b"gzip")), BODY)) as client:
        response = await client.exchange(get("/", CLOSE, method=method, version=version))

    fields, _, body = response.partition(b"\r\n\r\n")
    body_for_get = b"5\r\nhello\r\n0\r\n\r\n" if version == "1.1" else b"hello"
    assert body == (body_for_get if method == "GET" else b"")
    assert b"gzip" not in fields


async def test_an_exception_in_the_application_is_a_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken on purpose")

    async with connected(application) as client:
        response = await client.exchange(get())

    assert statuses(response) == [500]
    assert b"urn:hello-service:problem:internal-error" in response
    assert b"purpose" not in response
    assert "broken on purpose" in caplog.text


@pytest.mark.parametrize("status", [100, 101, 199, 1000])
async def test_an_invalid_status_is_a_500(status: int) -> None:
    async with connected(responding_with(head(LENGTH, status=status), BODY)) as client:
        response = await client.exchange(get())

    assert statuses(response) == [500]


async def test_an_unusual_status_is_sent() -> None:
    """Without a reason phrase, the space before it is still required (RFC 9112, section 4)."""
    async with connected(responding_with(head(LENGTH, status=599), BODY)) as client:
        response = await client.exchange(get("/", CLOSE))

    assert response.startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize("message", [BODY, {"type": "websocket.accept"}])
async def test_an_invalid_first_asgi_message_is_a_500(message: dict[str, Any]) -> None:
    async with connected(responding_with(message)) as client:
        response = await client.exchange(get())

    assert statuses(response) == [500]


async def test_a_body_longer_than_its_content_length_is_not_sent() -> None:
    async with connected(responding_with(head(LENGTH), {**BODY, "body": b"hello, world"})) as client:
        response = await client.exchange(get())

    assert statuses(response) == [200]
    assert response.endswith(b"\r\n\r\n")


async def test_the_application_can_close_the_connection() -> None:
    async with connected(responding_with(head(LENGTH, (b"connection", b"close")), BODY)) as client:
        response = await client.exchange(get() * 2)

    assert statuses(response) == [200]
    assert response.count(b"connection: close") == 1


async def test_a_date_header_of_the_application_is_kept() -> None:
    async with connected(responding_with(head(LENGTH, (b"date", b"today")), BODY)) as client:
        response = await client.exchange(get("/", CLOSE))

    assert response.count(b"date: ") == 1
    assert b"date: today\r\n" in response
