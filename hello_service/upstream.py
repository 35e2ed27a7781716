"""The one outbound client: pool, time limits, failures. This module alone knows httpx and aiohttp.

httpx's own transport collapses with concurrency; aiohttp's, behind httpx's interface, does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from hello_service.problems import UpstreamFailed, UpstreamLate, UpstreamSaturated
from hello_service.settings import Settings

Hook = Callable[[Any], Awaitable[None]]

# A silent upstream is noticed by the client a little before the whole call is over: its span then says so, and not
# merely that the call was cancelled.
SILENCE_SHARE = 0.9
KEEP_ALIVE_SECONDS = 15.0


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
        # The slots bound the connections; the pool must not queue a second time, or a wait looked like a slow upstream.
        limits = httpx.Limits(max_connections=settings.upstream_connections, keepalive_expiry=KEEP_ALIVE_SECONDS)
        self._client = httpx.AsyncClient(
            transport=_BoundedTransport(settings.upstream_body_bytes, limits),
            timeout=self._seconds * SILENCE_SHARE,
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
        """GET `url` once.

        Raises:
            UpstreamLate: no whole answer within `upstream_timeout_seconds`.
            UpstreamSaturated: `upstream_waiting` calls wait for a connection already, or none became free in time.
            UpstreamFailed: refused, broken off, redirected, a 5xx, nonsense, or a body over `upstream_body_bytes`.
        """
        hints = {"peer_service": peer_service} if peer_service else {}
        has_slot = False
        try:
            async with asyncio.timeout(self._seconds), self._slot():
                has_slot = True
                response = await self._client.get(url, extensions=hints)
        except TimeoutError as error:
            if not has_slot:
                raise UpstreamSaturated("All connections to the upstream are busy.") from error
            raise UpstreamLate("The upstream did not answer in time.") from error
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, TimeoutError):
                raise UpstreamLate("The upstream did not answer in time.") from error
            raise UpstreamFailed("The upstream could not be reached or broke off.") from error
        if response.status_code >= 500 or response.has_redirect_location:
            raise UpstreamFailed(f"The upstream answered {response.status_code}.")
        return Answer(response.status_code, _parsed(response))

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._slots.locked() and self._waiting >= self._may_wait:
            raise UpstreamSaturated("All connections to the upstream are busy, and too many calls wait for one.")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()


class _BoundedTransport(AiohttpTransport):
    """aiohttp under httpx, with an end to what an upstream may send."""

    def __init__(self, body_bytes: int, limits: httpx.Limits) -> None:
        super().__init__(limits=limits, trust_env=False)
        self._body_bytes = body_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.userinfo:  # httpx has made a header of it, and aiohttp refuses to be told twice
            request.url = request.url.copy_with(username=None, password=None)
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - what this transport makes
        response.stream = _BoundedStream(response.stream, self._body_bytes)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise UpstreamFailed("The upstream's answer is compressed, which was not asked for.")
        return response


class _BoundedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise UpstreamFailed("The upstream's answer is larger than this service takes.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _parsed(response: httpx.Response) -> Any:
    if "json" not in response.headers.get("content-type", ""):
        return response.content.decode(errors="replace")
    try:
        return json.loads(response.content)
    except ValueError as error:
        raise UpstreamFailed("The upstream's answer says that it is JSON and is not.") from error
