"""Tests of RFC 9110, section 7.2: the Host header."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, statuses

CLOSE = "Connection: close"
BAD = [
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
]
GOOD = [
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
IN_A_TARGET = [host for host in BAD if not any(character in host for character in " /?#\xe9\x7f")]


@pytest.mark.parametrize(
    ("host", "absolute"), [*((host, False) for host in BAD), *((host, True) for host in IN_A_TARGET)]
)
async def test_a_host_that_is_none_is_rejected(host: str, absolute: bool) -> None:
    request = get(f"http://{host}/") if absolute else get("/", host=host)
    echo = Echo()
    async with connected(echo) as client:
        answer = await client.exchange(request)

    assert statuses(answer) == [400]
    assert b"urn:hello-service:problem:bad-request" in answer
    assert echo.scopes == []


@pytest.mark.parametrize("host", GOOD)
async def test_a_host_is_a_name_or_an_address(host: str) -> None:
    async with connected(Echo()) as client:
        answer = await client.exchange(get("/", CLOSE, host=host))

    assert statuses(answer) == [200]


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 0, 400), ("1.1", 2, 400), ("1.1", 3, 400), ("1.0", 0, 200), ("1.0", 1, 200), ("1.0", 2, 400)],
)
async def test_there_is_one_host(version: str, hosts: int, status: int) -> None:
    async with connected(Echo()) as client:
        answer = await client.exchange(get("/", CLOSE, *["host: here"] * hosts, version=version, host=None))

    assert statuses(answer) == [status]


@pytest.mark.parametrize("target", ["/", "http://here/"])
async def test_a_bad_host_header_is_rejected_beside_an_absolute_target_too(target: str) -> None:
    async with connected(Echo()) as client:
        answer = await client.exchange(get(target, host="a..b"))

    assert statuses(answer) == [400]
