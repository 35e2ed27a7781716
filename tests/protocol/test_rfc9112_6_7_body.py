"""Tests of RFC 9112, sections 5 to 7: header fields, and where a body ends."""

from __future__ import annotations

import pytest
from wire import Echo, MemoryTransport, chunked, connected, get, post, serve_in_memory, settle, statuses, until

CLOSE = "Connection: close"


@pytest.mark.parametrize(
    "field",
    [
        "X : a",
        " X: a",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X",
        ": a",
        "X\xe9: a",
        "X: a\0b",
        "X: a\x0bb",
        "X: a\x7fb",
        "X(: a",
        "Transfer-Encoding : chunked",
    ],
)
async def test_a_malformed_header_field_is_rejected(field: str) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(get("/", field))

    assert statuses(response) == [400]
    assert echo.scopes == []


async def test_whitespace_around_a_field_value_is_removed() -> None:
    """Bytes beyond ASCII are passed on unchanged."""
    echo = Echo()
    async with connected(echo) as client:
        await client.exchange(get("/", "X-Name: \t a b \t ", "X-Raw: \xe9", CLOSE))

    headers = dict(echo.scopes[0]["headers"])
    assert headers[b"x-name"] == b"a b"
    assert headers[b"x-raw"] == b"\xe9"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Content-Length: 4", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 4"], 400),
        (["Content-Length: 4", "Content-Length: 4"], 400),  # RFC 9110, section 8.6, also allows accepting equal values
        (["Content-Length: 4", "Content-Length: 5"], 400),
        (["Content-Length: 4, 4"], 400),  # equal values in one header
        (["Content-Length: 4 4"], 400),
        (["Content-Length: +4"], 400),
        (["Content-Length: -4"], 400),
        (["Content-Length: 0x4"], 400),
        (["Content-Length: 4.0"], 400),
        (["Content-Length: "], 400),
        (["Content-Length: " + "9" * 5000], 400),  # too large for llhttp, and too many digits for `int`
        (["Transfer-Encoding: chunked, chunked"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked, gzip"], 400),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], 400),
        (["Transfer-Encoding: "], 400),
        (["Transfer-Encoding: xchunked"], 501),
        (["Transfer-Encoding: identity"], 501),
        (["Transfer-Encoding: gzip, chunked"], 501),
        (["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], 501),
        # Stricter than RFC 9110, section 5.6.1.2, because servers differ in how they treat an empty list element.
        (["Transfer-Encoding: ,chunked"], 501),
        (["Transfer-Encoding: chunked;q=1"], 501),
        (["Transfer-Encoding: \x0bchunked"], 400),
    ],
)
async def test_an_ambiguous_or_unsupported_body_length_is_rejected(fields: list[str], status: int) -> None:
    """A 501 means that the transfer coding isn't supported (RFC 9112, section 6.1)."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(get("/", *fields, method="POST") + b"4\r\nbody\r\n0\r\n\r\n")

    assert statuses(response) == [status]
    assert echo.scopes == []


async def test_transfer_encoding_in_http_1_0_is_rejected() -> None:
    """RFC 9112, section 6.1, requires a server to treat it as faulty."""
    async with connected(Echo()) as client:
        response = await client.exchange(
            get("/", "Transfer-Encoding: chunked", method="POST", version="1.0") + b"0\r\n\r\n"
        )

    assert statuses(response) == [400]


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (post(b"body"), b"body"),
        (post(b""), b""),
        (post(b"GET / HTTP/1.1\r\n\r\n"), b"GET / HTTP/1.1\r\n\r\n"),
        (chunked(b"4\r\nbody\r\n0\r\n\r\n"), b"body"),
        (chunked(b"0\r\n\r\n"), b""),
        (chunked(b"000000000004\r\nbody\r\n0\r\n\r\n"), b"body"),
        (chunked(b'2;a=b\r\nbo\r\n2;c="d"\r\ndy\r\n0;e\r\n\r\n'), b"body"),
        (chunked(b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), b"\r\n\r\n"),
        (chunked(b"4\r\nbody\r\n0\r\nTrailer: x\r\nHost: evil\r\n\r\n"), b"body"),
        (get("/", "transfer-ENCODING: CHUNKED", method="POST") + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        # The limit of 64 KiB applies only to framing without data in between.
        pytest.param(
            chunked(b"1\r\na\r\n" * 14_000 + b"0\r\n\r\n"), b"a" * 14_000, id="70,000 bytes of framing in total"
        ),
    ],
)
async def test_the_next_request_starts_where_the_body_ends(request_: bytes, body: bytes) -> None:
    """Trailers are not added to the headers."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request_ + get("/next", CLOSE))

    assert statuses(response) == [200, 200]
    assert [(path, received) for _, path, _, received in echo.requests] == [("/", body), ("/next", b"")]
    assert b"trailer" not in dict(echo.scopes[0]["headers"])


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b"1 \r\na\r\n",
        b" 1\r\na\r\n",
        b"1\t\r\na\r\n",
        b"1_0\r\n",
        b"f" * 40 + b"\r\n",  # a size too large for llhttp
        b"1\na\r\n",
        b"1\r\na\n",
        b"1\r\nab\r\n",
        b"1;a\rb\r\na\r\n",
        b"1;a\nb\r\na\r\n",
        b"\r\n",
        b"1\r\na\r\n0\r\n\n",
        b"1\r\na\r\n0\r\nX : y\r\n\r\n",
        b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n",
        # Extensions and trailers beyond the limit of 64 KiB.
        b"1;" + b"a" * 200_000,
        b"0\r\nX: " + b"a" * 200_000,
    ],
)
async def test_a_malformed_chunk_is_rejected(chunks: bytes) -> None:
    """The application, which is waiting for the body, receives a disconnect."""
    valid_ends = b"0\r\n\r\n" * 3  # with these, a lenient parser may accept the body
    echo = Echo()
    async with connected(echo) as client:
        await client.send(chunked(b""))
        await until(lambda: len(echo.scopes) == 1)
        response = await client.exchange(chunks + valid_ends)

    assert statuses(response) == [400]
    assert echo.requests == []
    assert echo.outcomes == ["disconnected"]


@pytest.mark.parametrize("excess", [b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"1;" + b"a" * 100_000 + b"\r\na\r\n"])
@pytest.mark.parametrize("size", [1000, 1_000_000])
async def test_too_much_chunk_overhead_after_body_data_is_rejected(excess: bytes, size: int) -> None:
    """The result does not depend on how much the server receives at once."""
    transport = MemoryTransport()
    serving = serve_in_memory(Echo(), transport)
    await settle()
    data = chunked(b"1\r\na\r\n" + excess + b"0\r\n\r\n")
    for start in range(0, len(data), size):
        transport.protocol.data_received(data[start : start + size])
    await settle()
    transport.close()
    await serving

    assert statuses(transport.written) == [400]


@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"1\r\na\r\n0\r\nX : 1\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", get("/1")])
async def test_a_request_whose_body_is_rejected_together_with_its_head_is_not_executed(
    before: bytes, body: bytes
) -> None:
    """The application could otherwise execute a request that gets a 400, and its span would have another status."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(before + chunked(body))

    assert statuses(response) == ([200, 400] if before else [400])
    assert [scope["path"] for scope in echo.scopes] == (["/1"] if before else [])
