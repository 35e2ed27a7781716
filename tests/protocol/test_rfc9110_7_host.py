"""Tests of RFC 9110, section 7.2: the Host header."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, statuses

CLOSE = "Connection: close"
INVALID = [
    "a..b",
    ".",
    "..",
    ".a",
    "a" * 64,
    "x." + "a" * 64,
    ("a" * 60 + ".") * 5,
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
    "[v1.a]",
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
VALID = [
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
    "",
    "a%20b",
    "a~!$&'()*+,;=",
]


# In a target, these characters would end the host or the target.
INVALID_IN_A_TARGET = [host for host in INVALID if not any(character in host for character in " /?#\xe9\x7f")]


@pytest.mark.parametrize(
    ("host", "absolute"), [*((host, False) for host in INVALID), *((host, True) for host in INVALID_IN_A_TARGET)]
)
async def test_an_invalid_host_is_rejected(host: str, absolute: bool) -> None:
    request = get(f"http://{host}/") if absolute else get("/", host=host)
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(request)

    assert statuses(response) == [400]
    assert b"urn:hello-service:problem:bad-request" in response
    assert echo.scopes == []


@pytest.mark.parametrize("host", VALID)
async def test_a_valid_host_is_accepted(host: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", CLOSE, host=host))

    assert statuses(response) == [200]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 0, 400), ("1.1", 2, 400), ("1.1", 3, 400), ("1.0", 0, 200), ("1.0", 1, 200), ("1.0", 2, 400)],
)
async def test_a_request_has_one_host_header_which_is_optional_in_http_1_0(
    version: str, hosts: int, status: int
) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", CLOSE, *["host: here"] * hosts, version=version, host=None))

    assert statuses(response) == [status]


@pytest.mark.parametrize("target", ["/", "http://here/"])
async def test_an_invalid_host_header_is_rejected_even_with_an_absolute_target(target: str) -> None:
    async with connected(Echo()) as client:
        response = await client.exchange(get(target, host="a..b"))

    assert statuses(response) == [400]
