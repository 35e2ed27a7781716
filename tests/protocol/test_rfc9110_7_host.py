"""Tests of RFC 9110, section 7.2: the Host header."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, statuses

CLOSE = "Connection: close"
INVALID_HOSTS = [
    "a..b",
    ".",
    "..",
    ".a",
    "a" * 64,  # a label has at most 63 characters
    "x." + "a" * 64,
    ("a" * 60 + ".") * 5,  # a name has at most 255 characters
    "a b",
    "a/b",
    "a/../b",
    "a?b",
    "a#b",
    "a\\b",
    "a@b",
    "user:password@a",
    "a:b",
    "a:-1",
    "a:65536",
    "a:999999",
    "a:1:2",
    "[",
    "[]",
    "[1:2]",
    "[::1",
    "::1",
    "[::1]x",
    "[v1.a]",  # IPvFuture: allowed by RFC 3986, but no version of it is defined
    "a,b c",
    "\xe9",
    "a\x7f",
    "<a>",
    '"a"',
    "{a}",
    "a|b",
    "a^b",
    "a`b",
    "%",
    "a%2",
    "a%zz",
    "%20%",
    "a%%20",
]
VALID_HOSTS = [
    "here",
    "here:8080",
    "here:",
    "HERE.example",
    "example.com.",
    "a-b_c.example",
    "127.0.0.1:80",
    "[::1]",
    "[::1]:8080",
    "xn--bcher-kva.example",
    "a" * 63,
    "",  # the header of a target without a host (RFC 9112, section 3.2)
    "a%20b",
    "a~!$&'()*+,;=",
]
# A host with one of these characters can't be tested in a target: it would end there, or make the target malformed.
UNTESTABLE_CHARACTERS = " /?#\xe9\x7f"
INVALID_HOSTS_IN_A_TARGET = [host for host in INVALID_HOSTS if not set(host) & set(UNTESTABLE_CHARACTERS)]


async def assert_rejected(request: bytes) -> None:
    """Assert that `request` gets a 400 and does not reach the application."""
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request)

    assert statuses(response) == [400]
    assert b"urn:hello-service:problem:bad-request" in response
    assert echo.scopes == []


@pytest.mark.parametrize("host", INVALID_HOSTS)
async def test_an_invalid_host_header_is_rejected(host: str) -> None:
    await assert_rejected(get("/", host=host))


@pytest.mark.parametrize("host", INVALID_HOSTS_IN_A_TARGET)
async def test_an_invalid_host_in_the_target_is_rejected(host: str) -> None:
    await assert_rejected(get(f"http://{host}/"))


@pytest.mark.parametrize("host", VALID_HOSTS)
async def test_a_valid_host_is_accepted(host: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", CLOSE, host=host))

    assert statuses(response) == [200]


@pytest.mark.parametrize(
    ("version", "count", "status"),
    [("1.1", 0, 400), ("1.1", 2, 400), ("1.1", 3, 400), ("1.0", 0, 200), ("1.0", 1, 200), ("1.0", 2, 400)],
)
async def test_http_1_1_requires_one_host_header_and_http_1_0_at_most_one(
    version: str, count: int, status: int
) -> None:
    host_headers = ["host: here"] * count
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", CLOSE, *host_headers, version=version, host=None))

    assert statuses(response) == [status]


@pytest.mark.parametrize("target", ["/", "http://here/"])
async def test_an_invalid_host_header_is_rejected_even_with_an_absolute_target(target: str) -> None:
    """RFC 9112, section 3.2, requires this, although an absolute target overrides a valid header."""
    async with connected(Echo()) as client:
        response = await client.exchange(get(target, host="a..b"))

    assert statuses(response) == [400]
