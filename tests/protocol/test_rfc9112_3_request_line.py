"""Tests of RFC 9112, section 3: the request line."""

from __future__ import annotations

import pytest
from wire import Echo, connected, get, post, statuses

CLOSE = "Connection: close"


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1 x",
        "GET /a b HTTP/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / http/1.1",
        "GET / RTSP/1.0",  # llhttp also parses RTSP and ICE
        "GET / ICE/1.0",
        "GET /",
        "GET",
        "G@T / HTTP/1.1",
        "GET /\xe9 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET ?x=1 HTTP/1.1",
        "GET api HTTP/1.1",
        "GET * HTTP/1.1",
        "GET here:80 HTTP/1.1",
        "GET ftp://here/ HTTP/1.1",
        "GET http:/here/ HTTP/1.1",
        "GET http://user@here/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET https://a..b/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://?a HTTP/1.1",
        "GET http://:80/ HTTP/1.1",
    ],
)
async def test_a_malformed_request_line_is_rejected(line: str) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(f"{line}\r\nHost: here\r\n\r\n".encode("latin-1"))

    assert statuses(response) == [400]
    assert b"application/problem+json" in response
    assert echo.scopes == []


@pytest.mark.parametrize("version", ["0.9", "1.2", "1.9", "2.0", "3.0", "9.9"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_unsupported_version_is_rejected(version: str, method: str) -> None:
    """RFC 9110, section 2.5, recommends treating 1.2 as 1.1, but no such version exists.

    A response to HEAD has no body.
    """
    async with connected(Echo()) as client:
        response = await client.exchange(get("/", method=method, version=version))

    assert statuses(response) == [505]
    assert response.endswith(b"}") is (method == "GET")


@pytest.mark.parametrize("method", ["get", "Get", "CONNECT", "PROPFIND", "!#$", "GETT", "X" * 500])
async def test_an_unsupported_method_is_rejected(method: str) -> None:
    """Methods are case-sensitive, and CONNECT is only for proxies."""
    target = "here:80" if method == "CONNECT" else "/"  # CONNECT requires a host and a port
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(get(target, method=method))

    assert statuses(response) == [501]
    assert echo.scopes == []


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://other/a?b=c", "/a", b"b=c", b"other"),
        ("HTTP://[::1]:80?x=1", "/", b"x=1", b"[::1]:80"),
        ("https://other", "/", b"", b"other"),  # the load balancer terminates TLS (RFC 9110, section 7.4)
        ("http://other:8080/a//b?", "/a//b", b"", b"other:8080"),
    ],
)
async def test_an_absolute_target_overrides_the_host_header(target: str, path: str, query: bytes, host: bytes) -> None:
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(get(target, CLOSE))

    assert statuses(response) == [200]
    (scope,) = echo.scopes
    assert (scope["path"], scope["query_string"]) == (path, query)
    assert [value for name, value in scope["headers"] if name == b"host"] == [host]


# In an OPTIONS request, a URL without a path means the same as * (RFC 9112, section 3.2.4).
@pytest.mark.parametrize("target", ["*", "http://here"])
async def test_options_for_the_server_itself_does_not_reach_the_application(target: str) -> None:
    # So many that the stack would overflow if they were served recursively. A connection serves up to 1,000 requests.
    count = 900
    options_requests = get(target, method="OPTIONS") * count
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(options_requests + get("/", CLOSE))

    assert statuses(response) == [200] * (count + 1)
    assert b"allow: GET, " in response
    assert len(echo.requests) == 1


async def test_the_path_is_decoded_and_not_normalized() -> None:
    echo = Echo()
    async with connected(echo) as client:
        await client.exchange(get("//info/%2e%2E/%C3%A9?a=%20&b", CLOSE))

    (scope,) = echo.scopes
    assert (scope["path"], scope["raw_path"]) == ("//info/../é", b"//info/%2e%2E/%C3%A9")
    assert scope["query_string"] == b"a=%20&b"


async def test_options_with_a_body_for_the_server_itself_ends_the_connection() -> None:
    """The server does not read the body, and must not treat it as the next request."""
    options_request = post(get("/in-the-body"), target="*").replace(b"POST", b"OPTIONS")
    echo = Echo()
    async with connected(echo) as client:
        response = await client.exchange(options_request + get("/next"))

    assert statuses(response) == [200]
    assert b"connection: close\r\n" in response
    assert echo.requests == []
