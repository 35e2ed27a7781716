"""An httpx transport that sends through aiohttp, because httpx's own transport is slow at high concurrency.

This module turns every exception of aiohttp into a problem. The span of the call is still open at that point, so the
span gets the same error as the caller.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Self

import aiohttp
import httpx
from aiohttp.connector import Connection

from hello_service.problems import (
    Problem,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamReadError,
    UpstreamTimeout,
    UpstreamTooLarge,
)

KEEP_ALIVE_SECONDS = 15.0  # maximum idle time of a connection to the upstream, as in aiohttp itself

# RFC 9110, section 9.2.2: sending one of these twice has the same effect as sending it once.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# Every exception type that aiohttp raises for a call. A bad URL or header is a ValueError.
AIOHTTP_ERRORS = (aiohttp.ClientError, OSError, ValueError)

# Each row has aiohttp's exception, the problem and its detail. The first match applies. UpstreamConnectError means that
# nothing was sent.
ERRORS: tuple[tuple[type[Exception], type[Problem], str], ...] = (
    (aiohttp.ClientConnectorDNSError, UpstreamConnectError, "The upstream's host name does not resolve."),
    (aiohttp.ClientSSLError, UpstreamConnectError, "The upstream could not be reached over TLS."),
    (
        aiohttp.ClientConnectorError,
        UpstreamConnectError,
        "The upstream refused the connection, or could not be reached.",
    ),
    (
        aiohttp.ClientConnectionError,
        UpstreamReadError,
        "The upstream closed the connection before it responded.",
    ),
    (aiohttp.ClientPayloadError, UpstreamReadError, "The upstream's response was cut short."),
    (aiohttp.ClientResponseError, UpstreamProtocolError, "The upstream's response is not HTTP."),
    (aiohttp.NonHttpUrlClientError, UpstreamConnectError, "The upstream could not be called."),
    (ValueError, UpstreamConnectError, "The upstream could not be called."),
    (Exception, UpstreamReadError, "The call to the upstream failed."),
)
# The message of a canceled call's exception, for its span.
CANCELED = "the result is no longer needed: the request that made this call has ended, or another of its calls failed"

# Whether the current call's connection has served another call before, and whether this attempt is the retry.
_connection_reused: ContextVar[bool] = ContextVar("connection_reused", default=False)
_is_retry: ContextVar[bool] = ContextVar("is_retry", default=False)


class Transport(httpx.AsyncBaseTransport):
    """Sends httpx's requests through aiohttp, with a deadline and a maximum response size.

    The request extension `deadline` is the event loop time at which the call must be complete. The result is a complete
    response or an exception. A request whose body is a stream is not supported.

    Raises:
        UpstreamTimeout: the response was not complete at the deadline.
        UpstreamConnectError, UpstreamReadError, UpstreamProtocolError, UpstreamTooLarge: see `problems`.
    """

    session: aiohttp.ClientSession

    def __init__(self, connections: int, body_bytes: int) -> None:
        self._connections = connections
        self._body_bytes = body_bytes

    async def __aenter__(self) -> Self:
        # `Upstream` admits no more calls than `limit`, so none waits in aiohttp's own queue. A wait there would look
        # like a slow upstream.
        pool = _Pool(
            limit=self._connections,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=httpx.create_ssl_context(trust_env=False),
        )
        self.session = aiohttp.ClientSession(
            connector=pool,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            middlewares=(_send,),
        )
        return self

    async def aclose(self) -> None:
        await self.session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.userinfo:  # httpx has turned these credentials into a header; aiohttp rejects a request with both
            url = url.copy_with(username=None, password=None)
        headers, data = request.headers.multi_items(), request.content or None
        timeout_detail = "The upstream did not respond in time."
        try:
            async with (
                asyncio.timeout_at(request.extensions["deadline"]),
                self.session.request(
                    request.method, str(url), headers=headers, data=data, allow_redirects=False
                ) as response,
            ):
                timeout_detail = "The upstream's response was not complete in time."
                content = await self._read_body(response)
        except TimeoutError:  # always the deadline: chaining would add nothing, and cost CPU under overload
            raise UpstreamTimeout(timeout_detail) from None
        except AIOHTTP_ERRORS as error:
            kind, detail = next((kind, detail) for source, kind, detail in ERRORS if isinstance(error, source))
            # An exception that contains the URL is left out of the chain, because the URL's query may be secret.
            has_url = isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL))
            raise kind(detail) from (error.__cause__ if has_url else error)
        except asyncio.CancelledError as error:
            raise asyncio.CancelledError(CANCELED) from error
        return httpx.Response(response.status, headers=response.raw_headers, content=content)

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        if any(coding != "identity" for coding in response.headers.getall("content-encoding", ())):
            raise UpstreamProtocolError("The upstream's response is compressed, which was not requested.")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._body_bytes:
                raise UpstreamTooLarge("The upstream's response is larger than this service accepts.")
        return bytes(body)


class _Pool(aiohttp.TCPConnector):
    """Records whether a call's connection is reused, and makes a retry open a new one."""

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        """Return an idle connection, or None to open a new one. aiohttp has no public API for this."""
        if _is_retry.get():
            return None
        connection = await super()._get(key, traces)
        _connection_reused.set(connection is not None)
        return connection


async def _send(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send `request`. If it is idempotent and a reused connection was closed, retry once on a new connection.

    This follows RFC 9112, section 9.3.1. aiohttp's own retry is avoided: it also repeats a call that failed on a new
    connection, and may pick another stale connection.
    """
    _is_retry.set(False)  # an earlier call of the same task may have set it
    while True:
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:  # no connection was made, so none was reused
            raise
        except aiohttp.ClientConnectionError as error:
            if _is_retry.get() or not _connection_reused.get() or request.method not in IDEMPOTENT:
                raise aiohttp.ClientConnectionError(str(error)) from error  # aiohttp's own retry ignores this type
            _is_retry.set(True)
