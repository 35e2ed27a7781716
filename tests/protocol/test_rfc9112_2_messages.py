"""Tests of RFC 9112, section 2: how messages are parsed."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, post, statuses

CLOSE = "Connection: close"


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\r\n" * 50])
async def test_empty_lines_before_a_request_are_ignored(before: bytes) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(before + get("/a") + before + get("/b", CLOSE))

    assert statuses(response) == [200, 200]
    assert [path for _, path, _, _ in echo.requests] == ["/a", "/b"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\nGET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\r\n\nGET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET / HTTP/1.1\nHost: here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\n\n",
        b"GET / HTTP/1.1\nHost: here\n\n",
        b"GET / HTTP/1.1\r\nHost: here\r\n\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nX: a\rY: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\n\rX: b\r\n\r\n",
        b"GET /\rHTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: here\r\n\r\n",
    ],
)
async def test_a_line_must_end_with_cr_and_lf(sent: bytes) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(sent)

    assert statuses(response) == [400]
    assert echo.requests == []


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"\xff", b"\0", b" GET / HTTP/1.1\r\n", b"\tGET", b"(GET", b":"]
)
async def test_an_invalid_first_byte_is_rejected_at_once(sent: bytes) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(sent)

    assert statuses(response) == [400]


@pytest.mark.parametrize("after", [b"\r\n", b"\r\n\r\n", b"x", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"\0" * 1000])
@pytest.mark.parametrize(
    "request_",
    [
        post(b"body", CLOSE),
        get("/", CLOSE),
        get("/health", version="1.0"),
        get("/", "Connection: keep-alive, close"),
        get("/", "Connection: keep-alive", CLOSE),
    ],
)
async def test_data_after_the_last_request_is_ignored(request_: bytes, after: bytes) -> None:
    """The last request itself gets its response."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request_ + after)

    assert statuses(response) == [200]
    assert b"connection: close\r\n" in response
    assert echo.outcomes == ["complete"]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("where", ["target", "header", "headers"])
async def test_a_head_can_have_65536_bytes(size: int, where: str) -> None:
    if where == "target":
        request = get("/" + "a" * (size - len(get("/", CLOSE))), CLOSE)
    elif where == "header":
        request = get("/", CLOSE, "X: " + "a" * (size - len(get("/", CLOSE, "X: "))))
    else:
        lines = ["X: a"] * ((size - len(get("/", CLOSE)) - 100) // 6)
        request = get("/", CLOSE, *lines, "Y: " + "a" * (size - len(get("/", CLOSE, *lines, "Y: "))))
    assert len(request) == size
    async with connected(Echo()) as client:
        response = await client.exchange(request)

    assert statuses(response) == [200 if size <= 65_536 else 431]


async def test_a_head_that_does_not_end_is_rejected_at_its_limit() -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"a" * 65_536)

    assert statuses(response) == [431]
