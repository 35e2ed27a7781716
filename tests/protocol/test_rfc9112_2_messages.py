"""Tests of RFC 9112, section 2: how messages are parsed."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, post, statuses

CLOSE = "Connection: close"


@pytest.mark.parametrize("empty_lines", [b"\r\n", b"\r\n\r\n", b"\r\n" * 50])
async def test_empty_lines_before_a_request_are_ignored(empty_lines: bytes) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(empty_lines + get("/a") + empty_lines + get("/b", CLOSE))

    assert statuses(response) == [200, 200]
    assert [path for _, path, _, _ in echo.requests] == ["/a", "/b"]


@pytest.mark.parametrize(
    "request_",
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
async def test_a_line_must_end_with_cr_and_lf(request_: bytes) -> None:
    """Section 2.2 allows a server to accept LF alone, but two servers could then see different lines (smuggling)."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request_)

    assert statuses(response) == [400]
    assert echo.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",  # the beginning of a TLS connection
        b"\xff",
        b"\0",
        b" GET / HTTP/1.1\r\n",
        b"\tGET",
        b"(GET",
        b":",
    ],
)
async def test_an_invalid_first_byte_is_rejected_at_once(data: bytes) -> None:
    """The server does not wait for the end of the line."""
    async with connected(Echo()) as client:
        response = await client.exchange(data)

    assert statuses(response) == [400]


@pytest.mark.parametrize("extra", [b"\r\n", b"\r\n\r\n", b"x", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"\0" * 1000])
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
async def test_data_after_the_last_request_is_ignored(request_: bytes, extra: bytes) -> None:
    """Each of these requests is the last one of its connection, and gets its response."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request_ + extra)

    assert statuses(response) == [200]
    assert b"connection: close\r\n" in response
    assert echo.outcomes == ["complete"]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("padded_part", ["target", "one header", "many headers"])
async def test_a_head_can_have_at_most_65536_bytes(size: int, padded_part: str) -> None:
    def request_with(padding: str) -> bytes:
        if padded_part == "target":
            return get("/" + padding, CLOSE)
        if padded_part == "one header":
            return get("/", CLOSE, f"X: {padding}")
        short_headers = ["X: a"] * ((size - 200) // len("X: a\r\n"))  # 200 bytes are left for the other lines
        return get("/", CLOSE, *short_headers, f"Y: {padding}")

    request = request_with("a" * (size - len(request_with(""))))
    assert len(request) == size
    async with connected(Echo()) as client:
        response = await client.exchange(request)

    too_large = 414 if padded_part == "target" and size == 200_000 else 431  # only there, the line alone is too long
    assert statuses(response) == [200 if size <= 65_536 else too_large]


@pytest.mark.parametrize(
    ("start", "status"), [(b"GET / HTTP/1.1\r\nHost: here\r\nX: ", 431), (b"GET /", 414), (b"", 501)]
)
async def test_a_head_that_does_not_end_is_rejected_at_the_limit(start: bytes, status: int) -> None:
    """RFC 9112, section 3, requires 414 for a target and recommends 501 for a method."""
    async with connected(Echo()) as client:
        response = await client.exchange(start + b"a" * 65_536)

    assert statuses(response) == [status]
