"""Tests of the service behind the real HTTP class: hostile clients, and what RFC 9110 leaves to an application."""

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
from wire import Client, connected, statuses

from hello_service.app import create_app
from hello_service.settings import Settings

CLOSE = b"Connection: close\r\n"


@asynccontextmanager
async def service() -> AsyncIterator[Quart]:
    """Run the application without a tracer."""
    app = create_app(Settings(), {}, endpoints=ENDPOINTS)

    @app.get("/with-slash/")
    async def with_slash() -> ResponseReturnValue:
        return redirect("https://elsewhere.example/", 302)

    await app.startup()
    yield app
    await app.shutdown()


async def with_name(name: str) -> str:
    """Handle a request to a route that ends with a slash."""
    return name


@asynccontextmanager
async def client_of(app: Quart) -> AsyncIterator[Client]:
    """Connect to `app`."""
    async with connected(app, body_bytes=65_536) as client:
        yield client


async def test_every_hostile_request_gets_its_expected_response() -> None:
    """Each gets one response, and no response is a 500. The connection is closed where no request can follow."""
    async with service() as app:
        for form in REQUESTS:
            async with client_of(app) as client:
                await client.send(form.data)
                response = await (client.rest() if form.closes else client.until(b"\r\n\r\n"))

            assert statuses(response) == [form.status], form.name


async def test_every_hostile_frame_closes_its_websocket() -> None:
    async with service() as app:
        for name, frames in FRAMES.items():
            async with client_of(app) as client:
                await client.send(handshake())
                assert statuses(await client.until(b"\r\n\r\n")) == [101]
                sending = asyncio.create_task(client.send(frames))
                response = await client.rest()
                await asyncio.wait({sending})

            assert response[:1] == b"\x88", name
            assert sending.exception() is None


@pytest.mark.parametrize("extra", HANDSHAKES)
async def test_an_unusable_handshake_header_is_ignored(extra: bytes) -> None:
    async with service() as app, client_of(app) as client:
        await client.send(handshake(extra))
        await client.until(b"\r\n\r\n")
        await client.send(frame(2, b"") + frame(1, b"Ada"))

        assert b"as text" in await client.until(b".")
        assert b"Hello, Ada" in await client.until(b"!")


@pytest.mark.parametrize("path", [b"/health", b"/ready", b"/api/hello", b"/nope", b"/api/hello/ws"])
@pytest.mark.parametrize("host", [b"a..b", b".", b"a" * 64])
async def test_an_invalid_host_is_rejected_on_every_path(path: bytes, host: bytes) -> None:
    upgrade = path.endswith(b"ws")
    request = handshake().replace(b"localhost", host) if upgrade else get(path, b"Host: " + host + b"\r\n")
    with capture_logs() as lines:
        async with service() as app, client_of(app) as client:
            response = await client.exchange(request)

    assert statuses(response) == [400]
    assert [line["reason"] for line in lines if line["event"] == "request rejected"] == ["host"]


@pytest.mark.parametrize("path", [b"//info", b"///info", b"//api/hello", b"/api//hello", b"//", b"/api/hello//stream"])
async def test_a_path_with_empty_segments_is_a_404(path: bytes) -> None:
    async with service() as app, client_of(app) as client:
        response = await client.exchange(get(path, b"Host: localhost\r\n" + CLOSE))

    assert statuses(response) == [404]


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:80", b"[::1]:8080"])
async def test_a_redirect_does_not_contain_the_host_that_the_client_sent(host: bytes) -> None:
    async with service() as app:
        async with client_of(app) as client:
            to_slash = await client.exchange(get(b"/with-slash?a=b", b"Host: " + host + b"\r\n" + CLOSE))
        async with client_of(app) as client:
            to_other_host = await client.exchange(get(b"/with-slash/", b"Host: " + host + b"\r\n" + CLOSE))

    assert statuses(to_slash) == [308]
    assert b"location: /with-slash/?a=b\r\n" in to_slash
    assert host not in to_slash
    assert b"location: https://elsewhere.example/\r\n" in to_other_host


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
    """A Location that begins with two slashes, or a slash and a backslash, leads a browser to another host."""
    async with service() as app, client_of(app) as client:
        app.add_url_rule("/<name>/", "named", with_name)
        app.add_url_rule("/named/<name>/", "named", with_name)
        response = await client.exchange(get(target, b"Host: evil.example\r\n" + CLOSE))

    assert statuses(response) == [308 if location else 404]
    assert (b"location: %b\r\n" % (location or b"") in response) is (location is not None)


@pytest.mark.parametrize("path", [b"/api/hello", b"/nope"])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_that_is_too_large_gets_a_response_and_is_read(path: bytes, expect: bytes) -> None:
    """The body is read to its end, so that no reset destroys the response."""
    length = 10_000_000
    headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % length
    async with service() as app, client_of(app) as client:
        await client.send(get(path, headers + expect, method=b"POST"))
        if not expect:
            await client.send(b"a" * length)
        response = await client.rest()

    assert statuses(response) == [413 if path == b"/api/hello" else 404]
    assert b"connection: close\r\n" in response


@pytest.mark.parametrize(
    ("method", "path", "status"), [(b"POST", b"/nope", 404), (b"PUT", b"/api/hello", 405), (b"GET", b"/health", 200)]
)
async def test_no_100_is_sent_if_no_handler_reads_the_body(method: bytes, path: bytes, status: int) -> None:
    """Quart calls `receive()` for every request, even before it looks for a handler."""
    headers = b"Host: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n"
    async with service() as app, client_of(app) as client:
        response = await client.exchange(get(path, headers, method=method))

    assert statuses(response) == [status]
    assert b"connection: close\r\n" in response


async def test_100_is_sent_if_a_handler_reads_the_body() -> None:
    body = b'{"name": "Ada"}'
    headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    async with service() as app, client_of(app) as client:
        await client.send(get(b"/api/hello", headers + CLOSE + b"Expect: 100-continue\r\n", method=b"POST"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        response = await client.exchange(body)

    assert statuses(response) == [200]
