"""Tests of RFC 9110, section 10.1.1: Expect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import BODY, LENGTH, Echo, connected, get, head, sending, statuses

CLOSE = "Connection: close"


def expecting(length: int, version: str = "1.1", value: str = "100-continue") -> bytes:
    """Return the head of a request whose client waits before it sends the body."""
    return get("/", f"Content-Length: {length}", f"Expect: {value}", CLOSE, method="POST", version=version)


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
async def test_the_client_is_asked_for_its_body_when_it_is_wanted(value: str) -> None:
    async with connected(Echo()) as client:
        await client.send(expecting(4, value=value))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = await client.exchange(b"body")

    assert statuses(answer) == [200]
    assert answer.endswith(b"body")


async def test_a_body_that_nobody_wants_is_not_asked_for() -> None:
    async with connected(sending(head(LENGTH, status=404), BODY)) as client:
        answer = await client.exchange(expecting(4))

    assert statuses(answer) == [404]
    assert b"connection: close" in answer


async def test_a_body_that_is_too_large_is_not_asked_for() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        reading = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await sending(head(LENGTH, status=413), BODY)(scope, receive, send)
        await reading

    async with connected(application, body_bytes=100) as client:
        answer = await client.exchange(expecting(101))

    assert statuses(answer) == [413]


@pytest.mark.parametrize(("version", "body"), [("1.0", b"body"), ("1.1", b"body")])
async def test_a_client_that_does_not_wait_is_not_asked(version: str, body: bytes) -> None:
    async with connected(Echo()) as client:
        answer = await client.exchange(expecting(4, version) + body)

    assert statuses(answer) == [200]


async def test_a_request_without_a_body_is_not_asked_for_it() -> None:
    async with connected(Echo()) as client:
        answer = await client.exchange(get("/", "Expect: 100-continue", CLOSE))

    assert statuses(answer) == [200]


async def test_a_body_is_not_asked_for_once_the_response_has_started() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head(LENGTH))
        assert (await receive())["body"] == b"body"
        await send(BODY)

    async with connected(application) as client:
        answer = await client.exchange(expecting(4) + b"body")
        late = await client.rest()
    async with connected(application) as client:
        await client.send(expecting(4))
        await asyncio.sleep(0.01)
        silent = await client.exchange(b"body")

    assert statuses(answer + late) == [200]
    assert statuses(silent) == [200]
