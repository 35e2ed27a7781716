"""Tests of RFC 9110, section 10.1.1: Expect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import BODY, LENGTH, Echo, connected, get, head, responding_with, settle, statuses

CLOSE = "Connection: close"


def expecting(length: int, version: str = "1.1", value: str = "100-continue") -> bytes:
    """Return the head of a request whose client waits for a 100 before it sends the body."""
    return get("/", f"Content-Length: {length}", f"Expect: {value}", CLOSE, method="POST", version=version)


@pytest.mark.parametrize(
    "value", ["100-continue", "100-Continue", "100-continue,", "other, 100-continue", "100-continue ,other=1"]
)
async def test_100_is_sent_when_the_application_reads_the_body(value: str) -> None:
    async with connected(Echo()) as client:
        await client.send(expecting(4, value=value))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        response = await client.exchange(b"body")

    assert statuses(response) == [200]
    assert response.endswith(b"body")


async def test_no_100_is_sent_if_the_application_does_not_read_the_body() -> None:
    async with connected(responding_with(head(LENGTH, status=404), BODY)) as client:
        response = await client.exchange(expecting(4))

    assert statuses(response) == [404]
    assert b"connection: close" in response


async def test_no_100_is_sent_for_a_body_that_is_too_large() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        reading = asyncio.create_task(receive())
        await settle()
        await responding_with(head(LENGTH, status=413), BODY)(scope, receive, send)
        await reading

    async with connected(application, body_bytes=100) as client:
        response = await client.exchange(expecting(101))

    assert statuses(response) == [413]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_no_100_is_sent_if_the_client_does_not_wait_for_it(version: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(expecting(4, version) + b"body")

    assert statuses(response) == [200]


async def test_no_100_is_sent_for_a_request_without_a_body() -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", "Expect: 100-continue", CLOSE))

    assert statuses(response) == [200]


async def test_no_100_is_sent_once_the_response_has_started() -> None:
    waiting = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head(LENGTH))
        reading = asyncio.create_task(receive())
        await settle()
        waiting.set()
        assert (await reading)["body"] == b"body"
        await send(BODY)

    async with connected(application) as client:
        with_body = await client.exchange(expecting(4) + b"body")
    waiting.clear()
    async with connected(application) as client:
        await client.send(expecting(4))
        await waiting.wait()
        body_later = await client.exchange(b"body")

    assert statuses(with_body) == [200]
    assert statuses(body_later) == [200]


async def test_no_100_is_sent_before_a_response_that_is_ready_at_once() -> None:
    """Frameworks call `receive` before they look at the request."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reading = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await responding_with(head(LENGTH, status=404), BODY)(scope, receive, send)
        await reading

    async with connected(application) as client:
        response = await client.exchange(expecting(4))

    assert statuses(response) == [404]
