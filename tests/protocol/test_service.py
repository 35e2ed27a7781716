"""Tests of the application on a real HTTP connection: hostile clients, and the parts of RFC 9110 that it implements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from drills.hostile_requests import FRAMES, HANDSHAKES, REQUESTS, frame, get, handshake
from quart import Quart, redirect
from quart.typing import ResponseReturnValue
from routes import ENDPOINTS
from structlog.testing import capture_logs
from wire import connected, statuses

from hello_service.app import create_app
from hello_service.settings import Settings

CLOSE = b"Connection: close\r\n"
CLOSE_FRAME = b"\x88"  # the first byte of a WebSocket's Close frame


@asynccontextmanager
async def service() -> AsyncIterator[Quart]:
    """Run the application without a tracer. It has an additional route that redirects to another host."""
    app = create_app(Settings(), environ={}, endpoints=ENDPOINTS)

    @app.get("/with-slash/")
    async def with_slash() -> ResponseReturnValue:
        return redirect("https://elsewhere.example/", 302)

    await app.startup()
    yield app
    await app.shutdown()


async def show_name(name: str) -> str:
    """Return the name in the path."""
    return name


async def test_every_hostile_request_gets_its_expected_response() -> None:
    """Each request gets one response. The service closes the connection unless another request can follow."""
    async with service() as app:
        for attack in REQUESTS:
            async with connected(app) as client:
                await client.send(attack.data)
                if attack.closes:
                    response = await client.rest()  # returns when the service closes the connection
                else:
                    response = await client.until(b"\r\n\r\n")

            assert statuses(response) == [attack.status], attack.name


async def test_every_hostile_frame_closes_its_websocket() -> None:
    """The service discards the data that follows. A reset would make the client's `send` fail."""
    async with service() as app:
        for name, frames in FRAMES.items():
            async with connected(app) as client:
                await client.send(handshake())
                assert statuses(await client.until(b"\r\n\r\n")) == [101]
                sending = asyncio.create_task(client.send(frames))
                response = await client.rest()
                await asyncio.wait({sending})

            assert response[:1] == CLOSE_FRAME, name
            assert sending.exception() is None, name


@pytest.mark.parametrize("header", HANDSHAKES)
async def test_an_unusable_handshake_header_is_ignored(header: bytes) -> None:
    async with service() as app, connected(app) as client:
        await client.send(handshake(header))
        await client.until(b"\r\n\r\n")
        await client.send(frame(2, b"") + frame(1, b"Ada"))  # a binary message and a text message
        hint = await client.until(b".")  # the last character of the hint
        greeting = await client.until(b"!")

    assert b"as text" in hint
    assert b"Hello, Ada" in greeting


@pytest.mark.parametrize("path", [b"/health", b"/ready", b"/api/hello", b"/nope", b"/api/hello/ws"])
@pytest.mark.parametrize("host", [b"a..b", b".", b"a" * 64])  # a label has at most 63 characters
async def test_an_invalid_host_is_rejected_on_every_path(path: bytes, host: bytes) -> None:
    if path == b"/api/hello/ws":
        request = handshake(path=path).replace(b"localhost", host)
    else:
        request = get(path, b"Host: " + host + b"\r\n")
    with capture_logs() as lines:
        async with service() as app, connected(app) as client:
            response = await client.exchange(request)

    assert statuses(response) == [400]
    assert [line["reason"] for line in lines if line["event"] == "request rejected"] == ["host"]


@pytest.mark.parametrize("path", [b"//info", b"///info", b"//api/hello", b"/api//hello", b"//", b"/api/hello//stream"])
async def test_a_path_with_empty_segments_is_a_404(path: bytes) -> None:
    async with service() as app, connected(app) as client:
        response = await client.exchange(get(path, b"Host: localhost\r\n" + CLOSE))

    assert statuses(response) == [404]


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:80", b"[::1]:8080"])
async def test_a_redirect_does_not_contain_the_host_that_the_client_sent(host: bytes) -> None:
    """The service does not change a handler's own redirect to another host."""
    async with service() as app:
        async with connected(app) as client:
            slash_redirect = await client.exchange(get(b"/with-slash?a=b", b"Host: " + host + b"\r\n" + CLOSE))
        async with connected(app) as client:
            other_host_redirect = await client.exchange(get(b"/with-slash/", b"Host: " + host + b"\r\n" + CLOSE))

    assert statuses(slash_redirect) == [308]
    assert b"location: /with-slash/?a=b\r\n" in slash_redirect
    assert host not in slash_redirect
    assert b"location: https://elsewhere.example/\r\n" in other_host_redirect


@pytest.mark.parametrize(
    ("target", "location"),
    [
        (b"http://evil.example/with-slash?a=//b", b"/with-slash/?a=//b"),
        (b"http://evil.example/ada", b"/ada/"),
        (b"/\\evil.example", b"/%5Cevil.example/"),
        (b"/%5C%5Cevil.example", b"/%5C%5Cevil.example/"),
        (b"/http:evil.example", b"/http:evil.example/"),
        (b"/named/a%0D%0ALocation:b", b"/named/a%0D%0ALocation:b/"),
        (b"//evil.example", None),
        (b"//evil.example/with-slash", None),
        (b"/%2Fevil.example", None),
        (b"/%2F/evil.example", None),
        (b"http://evil.example//with-slash", None),
    ],
)
async def test_a_redirect_stays_on_its_host(target: bytes, location: bytes | None) -> None:
    """A Location that begins with two slashes, or a slash and a backslash, would lead a browser to another host."""
    async with service() as app, connected(app) as client:
        app.add_url_rule("/<name>/", "named", show_name)
        app.add_url_rule("/named/<name>/", "named", show_name)
        response = await client.exchange(get(target, b"Host: evil.example\r\n" + CLOSE))

    if location is None:
        assert statuses(response) == [404]
        assert b"location: " not in response
    else:
        assert statuses(response) == [308]
        assert b"location: %b\r\n" % location in response


@pytest.mark.parametrize(("path", "status"), [(b"/api/hello", 413), (b"/nope", 404)])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_that_is_too_large_gets_a_response_and_is_read(path: bytes, status: int, expect: bytes) -> None:
    """The service reads the body to its end. Otherwise a reset could destroy the response."""
    length = 10_000_000
    headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % length
    async with service() as app, connected(app) as client:
        await client.send(get(path, headers + expect, method=b"POST"))
        if not expect:  # with Expect, a client sends no body, because no 100 (Continue) arrives
            await client.send(b"a" * length)
        response = await client.rest()

    assert statuses(response) == [status]
    assert b"connection: close\r\n" in response


@pytest.mark.parametrize(
    ("method", "path", "status"), [(b"POST", b"/nope", 404), (b"PUT", b"/api/hello", 405), (b"GET", b"/health", 200)]
)
async def test_no_100_is_sent_if_no_handler_reads_the_body(method: bytes, path: bytes, status: int) -> None:
    """Quart calls `receive` for every request before it looks for a handler, so the call alone must not send a 100."""
    headers = b"Host: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n"
    async with service() as app, connected(app) as client:
        response = await client.exchange(get(path, headers, method=method))

    assert statuses(response) == [status]
    assert b"connection: close\r\n" in response


async def test_100_is_sent_if_a_handler_reads_the_body() -> None:
    body = b'{"name": "Ada"}'
    headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    async with service() as app, connected(app) as client:
        await client.send(get(b"/api/hello", headers + CLOSE + b"Expect: 100-continue\r\n", method=b"POST"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        response = await client.exchange(body)

    assert statuses(response) == [200]
