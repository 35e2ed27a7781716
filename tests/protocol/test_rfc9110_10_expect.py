"""Tests of RFC 9110, section 10.1.1: Expect.

`statuses` would include a 100, so a test that expects only another status proves that no 100 was sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire import BODY, LENGTH, Echo, connected, get, head, responding_with, settle, statuses

CLOSE = "Connection: close"


def head_with_expect(length: int, version: str = "1.1", value: str = "100-continue") -> bytes:
    """Return the head of a request whose client waits for a 100 before it sends the body."""
    return get("/", f"Content-Length: {length}", f"Expect: {value}", CLOSE, method="POST", version=version)


@pytest.mark.parametrize(
    "value", ["100-continue", "100-Continue", "100-continue,", "other, 100-continue", "100-continue ,other=1"]
)
async def test_100_is_sent_when_the_application_reads_the_body(value: str) -> None:
    """An unknown expectation is ignored. The RFC allows a 417 for it, but does not require one."""
    async with connected(Echo()) as client:
        await client.send(head_with_expect(4, value=value))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        response = await client.exchange(b"body")

    assert statuses(response) == [200]
    assert response.endswith(b"body")


async def test_no_100_is_sent_if_the_application_does_not_read_the_body() -> None:
    async with connected(responding_with(head(LENGTH, status=404), BODY)) as client:
        response = await client.exchange(head_with_expect(4))

    assert statuses(response) == [404]
    assert b"connection: close" in response


async def test_no_100_is_sent_for_a_body_that_is_too_large() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        receiving = asyncio.create_task(receive())
        await settle()
        await responding_with(head(LENGTH, status=413), BODY)(scope, receive, send)
        await receiving

    async with connected(application, body_bytes=100) as client:
        response = await client.exchange(head_with_expect(101))

    assert statuses(response) == [413]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_no_100_is_sent_if_the_client_does_not_wait_for_it(version: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(head_with_expect(4, version=version) + b"body")

    assert statuses(response) == [200]


async def test_no_100_is_sent_for_a_request_without_a_body() -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", "Expect: 100-continue", CLOSE))

    assert statuses(response) == [200]


async def test_no_100_is_sent_once_the_response_has_started() -> None:
    """The client may send the body together with the head, or later."""
    receive_called = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head(LENGTH))
        receiving = asyncio.create_task(receive())
        await settle()
        receive_called.set()
        assert (await receiving)["body"] == b"body"
        await send(BODY)

    async with connected(application) as client:
        response_to_both = await client.exchange(head_with_expect(4) + b"body")
    receive_called.clear()
    async with connected(application) as client:
        await client.send(head_with_expect(4))
        await receive_called.wait()
        response_to_late_body = await client.exchange(b"body")

    assert statuses(response_to_both) == [200]
    assert statuses(response_to_late_body) == [200]


async def test_no_100_is_sent_before_a_response_that_is_ready_at_once() -> None:
    """Frameworks such as Quart call `receive` before they look at the request."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        receiving = asyncio.create_task(receive())
        await asyncio.sleep(0)  # the task calls `receive`
        await responding_with(head(LENGTH, status=404), BODY)(scope, receive, send)
        await receiving

    async with connected(application) as client:
        response = await client.exchange(head_with_expect(4))

    assert statuses(response) == [404]
