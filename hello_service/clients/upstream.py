"""The one outbound client: pool, time limits, failures. This module alone knows httpx and aiohttp.

httpx's own transport collapses with concurrency; aiohttp, behind httpx's interface, does not. What goes wrong is named
inside of the transport, where the span of the call is still open: so that says it, too.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx
from aiohttp.connector import Connection

from hello_service.problems import Problem, UpstreamFailed, UpstreamLate, UpstreamSaturated
from hello_service.settings import Settings

Hook = Callable[[Any], Awaitable[None]]

KEEP_ALIVE_SECONDS = 15.0
NESTED = 100  # levels of an answer's JSON; Python can't write all that it can read

# All that comes out of aiohttp; a host name that can't be written in IDNA is a UnicodeError, TimeoutError an OSError.
FOREIGN = (aiohttp.ClientError, OSError, UnicodeError)

# What aiohttp raises, the more special first, and what that means to a caller.
FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "The upstream's host name does not resolve."),
    (aiohttp.ClientSSLError, "The upstream could not be reached over TLS."),
    (aiohttp.ClientConnectorError, "The upstream refused the connection, or could not be reached."),
    (aiohttp.ClientConnectionError, "The upstream closed the connection before it answered."),
    (aiohttp.ClientPayloadError, "The upstream's answer broke off."),
    (aiohttp.ClientResponseError, "The upstream's answer is not HTTP."),
)
OTHER_FAILURE = "The upstream could not be called."
CANCELLED = "nobody waits for this call any longer: its request is over, or another of its calls failed"

# Of the call that is made in this context: it got a connection that had served before; it is made again on a new one.
_kept: ContextVar[bool] = ContextVar("kept", default=False)
_again: ContextVar[bool] = ContextVar("again", default=False)


@dataclass(frozen=True)
class Answer:
    """What the upstream said: HTTP status and body, parsed where it is JSON, else text."""

    status: int
    body: Any


class Upstream:
    """A pool of connections to the upstream, for as long as the `async with` lasts.

    Args:
        settings: the limits.
        on_request: called with each `httpx.Request` before it is sent.
    """

    def __init__(self, settings: Settings, on_request: Hook | None = None) -> None:
        self._seconds = settings.upstream_timeout_seconds
        self._slots = asyncio.Semaphore(settings.upstream_connections)
        self._may_wait = settings.upstream_waiting
        self._waiting = 0
        self._room = settings.upstream_connections + settings.upstream_waiting
        self._refused, self._refused_since = 0, 0.0
        self._client = _Client(
            transport=_Transport(settings.upstream_body_bytes, settings.upstream_connections),
            timeout=None,  # the transport keeps the time of the whole call
            headers={"Accept-Encoding": "identity"},
            follow_redirects=False,  # an upstream must not send us to a host that the operator did not name
            trust_env=False,
            event_hooks={"request": [on_request] if on_request else []},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def get(self, url: str, peer_service: str | None = None) -> Answer:
        """GET `url`; once more, on a new connection, where a kept one was closed before the answer's head was there.

        Raises:
            UpstreamLate: no whole answer within `upstream_timeout_seconds`.
            UpstreamSaturated: `upstream_waiting` calls wait for a connection already, or none became free in time.
            UpstreamFailed: refused, broken off, redirected, a 5xx, nonsense, or a body over `upstream_body_bytes`.
        """
        deadline = asyncio.get_running_loop().time() + self._seconds
        hints: dict[str, Any] = {"deadline": deadline}
        if peer_service:
            hints["peer_service"] = peer_service
        async with self._slot(deadline):
            try:
                request = httpx.Request("GET", _parsed_url(url), headers=self._client.headers, extensions=hints)
                response = await self._client.send(request)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise UpstreamFailed(OTHER_FAILURE) from error
        del response.stream  # has been read, and holds the response in turn: a ring that only a collection would break
        if response.status_code >= 500 or response.has_redirect_location:
            raise UpstreamFailed(f"The upstream answered {response.status_code}.")
        return Answer(response.status_code, _parsed(response))

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        if self._slots.locked():
            await self._wait(deadline)
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _wait(self, deadline: float) -> None:
        if self._waiting >= self._may_wait:
            raise self._saturated("All connections to the upstream are busy, and too many calls wait for one.")
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise self._saturated("All connections to the upstream are busy.") from None
        finally:
            self._waiting -= 1

    def _saturated(self, detail: str) -> UpstreamSaturated:
        """Tell a caller to come back when the calls of now are over, later the more callers have been told so.

        A crowd that comes back at once is work that nobody can do in time, though it is refusals only.
        """
        now = asyncio.get_running_loop().time()
        if now - self._refused_since > self._seconds:
            self._refused, self._refused_since = 0, now
        later = self._seconds * (1 + self._refused / self._room)
        self._refused += 1
        return UpstreamSaturated(detail, math.ceil(later))


_parsed_url = lru_cache(16)(httpx.URL)


class _NoCookies(httpx.Cookies):
    """Keeps none, so that none goes from one caller's call to another's."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Leave them where they are."""


class _Client(httpx.AsyncClient):
    cookies = _NoCookies()  # type: ignore[override]  # httpx's property gives a jar, to be looked through


class _Transport(httpx.AsyncBaseTransport):
    """aiohttp under httpx, with an end to what an upstream may send and to the time that it may take.

    The request extension `deadline` is the loop's time at which a call must be over. An answer comes whole, or not at all;
    a body that is sent must be known, not streamed.
    """

    session: aiohttp.ClientSession

    def __init__(self, body_bytes: int, connections: int) -> None:
        self._body_bytes = body_bytes
        self._connections = connections

    async def __aenter__(self) -> Self:
        # The slots bound the connections; the pool must not queue a second time, or a wait looked like a slow upstream.
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

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.userinfo:  # httpx has made a header of it, and aiohttp refuses to be told twice
            url = url.copy_with(username=None, password=None)
        headers, data = request.headers.multi_items(), request.content or None
        late = "The upstream did not answer in time."
        try:
            async with (
                asyncio.timeout_at(request.extensions["deadline"]),
                self.session.request(
                    request.method, str(url), headers=headers, data=data, allow_redirects=False
                ) as answer,
            ):
                late = "The upstream's answer was not complete in time."
                content = await self._body(answer)
        except FOREIGN as error:
            raise _named(error, late)  # noqa: B904 - it brings its cause
        except asyncio.CancelledError as error:
            raise asyncio.CancelledError(CANCELLED) from error
        extensions = {
            "http_version": b"HTTP/1.1",
            "reason_phrase": (answer.reason or "").encode(errors="surrogateescape"),
        }
        return httpx.Response(answer.status, headers=answer.raw_headers, content=content, extensions=extensions)

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if any(coding != "identity" for coding in answer.headers.getall("content-encoding", ())):
            raise UpstreamFailed("The upstream's answer is compressed, which was not asked for.")
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > self._body_bytes:
                raise UpstreamFailed("The upstream's answer is larger than this service takes.")
        return bytes(body)


class _Pool(aiohttp.TCPConnector):
    async def _get(self, key: Any, traces: Any) -> Connection | None:
        """Return a kept connection, None: open one. aiohttp tells nobody which of them a call got."""
        if _again.get():
            return None
        connection = await super()._get(key, traces)
        _kept.set(connection is not None)
        return connection


async def _send(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send `request`, and again where its connection had been kept and is closed by now (RFC 9112, section 9.3.1).

    aiohttp by itself would send it again even where a new connection was closed, and maybe on one as stale as the first.
    """
    _again.set(False)
    while True:
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientConnectionError as error:
            if _again.get() or not _kept.get():
                raise aiohttp.ClientConnectionError(str(error)) from error  # which aiohttp lets pass
            _again.set(True)


def _named(error: Exception, late: str) -> Problem:
    """Return the problem that `error` is, caused by what aiohttp said."""
    cause: BaseException | None = error
    problem: Problem
    if isinstance(cause, TimeoutError):
        problem, cause = UpstreamLate(late), None  # our own clock: nothing more is to be said, and it comes in floods
    else:
        problem = UpstreamFailed(next((said for kind, said in FAILURES if isinstance(cause, kind)), OTHER_FAILURE))
    if isinstance(cause, (aiohttp.ClientResponseError, aiohttp.InvalidURL)):
        cause = cause.__cause__  # their own text holds the URL, whose query may be secret
    problem.__cause__ = cause
    return problem


def _parsed(response: httpx.Response) -> Any:
    """Return the body; of JSON only what JSON is, and what can be written again."""
    text = response.content
    if "json" not in response.headers.get("content-type", ""):
        return text.decode(errors="replace")
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
        if text.count(b"[") + text.count(b"{") > NESTED:
            _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("The upstream's answer says that it is JSON and can't be read as that.") from error
    return value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no number in JSON")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(NESTED):
        level = [
            child
            for each in level
            if isinstance(each, (dict, list))
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise ValueError(f"nested deeper than {NESTED} levels")
