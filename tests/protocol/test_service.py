"""Tests of the service behind the real HTTP class: hostile clients, and what RFC 9110 leaves to an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from drills.forms import FRAMES, HANDSHAKES, REQUESTS, frame, get, handshake
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


@asynccontextmanager
async def client_of(app: Quart) -> AsyncIterator[Client]:
    """Connect to `app`."""
    async with connected(app, body_bytes=65_536) as client:
        yield client


async def test_every_hostile_request_has_its_response() -> None:
    """Each gets one response, and no response is a 500. The connection is closed where no request can follow."""
    async with service() as app:
        for form in REQUESTS:
            async with client_of(app) as client:
                await client.send(form.sent)
                response = await (client.rest() if form.cut else client.until(b"\r\n\r\n"))

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
async def test_a_header_that_asks_for_nothing_known_breaks_no_websocket(extra: bytes) -> None:
    async with service() as app, client_of(app) as client:
        await client.send(handshake(extra))
        await client.until(b"\r\n\r\n")
        await client.send(frame(2, b"") + frame(1, b"Ada"))

        assert b"as text" in await client.until(b".")
        assert b"Hello, Ada" in await client.until(b"!")


@pytest.mark.parametrize("path", [b"/health", b"/ready", b"/api/hello", b"/nope", b"/api/hello/ws"])
@pytest.mark.parametrize("host", [b"a..b", b".", b"a" * 64])
async def test_no_path_takes_a_host_that_is_none(path: bytes, host: bytes) -> None:
    upgrade = path.endswith(b"ws")
    request = handshake().replace(b"localhost", host) if upgrade else get(path, b"Host: " + host + b"\r\n")
    with capture_logs() as lines:
        async with service() as app, client_of(app) as client:
            response = await client.exchange(request)

    assert statuses(response) == [400]
    assert [line["reason"] for line in lines if line["event"] == "request rejected"] == ["host"]


@pytest.mark.parametrize("path", [b"//info", b"///info", b"//api/hello", b"/api//hello", b"//", b"/api/hello//stream"])
async def test_a_path_with_empty_segments_is_another_path(path: bytes) -> None:
    async with service() as app, client_of(app) as client:
        response = await client.exchange(get(path, b"Host: localhost\r\n" + CLOSE))

    assert statuses(response) == [404]


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:80", b"[::1]:8080"])
async def test_a_redirect_does_not_name_the_host_that_the_client_made_up(host: bytes) -> None:
    async with service() as app:
        async with client_of(app) as client:
            added = await client.exchange(get(b"/with-slash?a=b", b"Host: " + host + b"\r\n" + CLOSE))
        async with client_of(app) as client:
            elsewhere = await client.exchange(get(b"/with-slash/", b"Host: " + host + b"\r\n" + CLOSE))

    assert statuses(added) == [308]
    assert b"location: /with-slash/?a=b\r\n" in added
    assert host not in added
    assert b"location: https://elsewhere.example/\r\n" in elsewhere


@pytest.mark.parametrize("path", [b"/api/hello", b"/nope"])
@pytest.mark.parametrize("waits", [b"", b"Expect: 100-continue\r\n"])
async def test_a_body_that_is_too_large_is_answered_and_read(path: bytes, waits: bytes) -> None:
    """The body is read to its end, so that no reset destroys the response."""
    length = 10_000_000
    headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % length
    async with service() as app, client_of(app) as client:
        await client.send(get(path, headers + waits, method=b"POST"))
        if not waits:
            await client.send(b"a" * length)
        response = await client.rest()

    assert statuses(response) == [413 if path == b"/api/hello" else 404]
    assert b"connection: close\r\n" in response
