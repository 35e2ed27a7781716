"""The one outbound client: pool, time limits, failures. This module alone knows httpx.

httpx's own transport collapses with concurrency; aiohttp's, behind httpx's interface, does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_aiohttp import AiohttpTransport

from hello_service.problems import UpstreamFailed, UpstreamLate, UpstreamSaturated
from hello_service.settings import Settings

Hook = Callable[[Any], Awaitable[None]]


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
        self._settings = settings
        limits = httpx.Limits(max_connections=settings.upstream_connections, keepalive_expiry=15)
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(limits=limits, trust_env=False),
            timeout=settings.upstream_timeout_seconds,
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
            UpstreamSaturated: no connection became free within that time.
            UpstreamFailed: refused, broken off, redirected, a 5xx, or a body over `upstream_body_bytes`.
        """
        hints = {"peer_service": peer_service} if peer_service else {}
        try:
            async with (
                asyncio.timeout(self._settings.upstream_timeout_seconds),
                self._client.stream("GET", url, extensions=hints) as response,
            ):
                body = await self._read(response)
        except (TimeoutError, httpx.ReadTimeout, httpx.ConnectTimeout) as error:
            raise UpstreamLate("The upstream did not answer in time.") from error
        except httpx.TimeoutException as error:
            raise UpstreamSaturated("All connections to the upstream are busy.") from error
        except httpx.HTTPError as error:
            raise UpstreamFailed("The upstream could not be reached or broke off.") from error
        if response.status_code >= 500 or response.has_redirect_location:
            raise UpstreamFailed(f"The upstream answered {response.status_code}.")
        return Answer(response.status_code, _parsed(response, body))

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._settings.upstream_body_bytes:
                raise UpstreamFailed("The upstream's answer is larger than this service takes.")
        return bytes(body)


def _parsed(response: httpx.Response, body: bytes) -> Any:
    if "json" in response.headers.get("content-type", ""):
        try:
            return json.loads(body)
        except ValueError as error:
            raise UpstreamFailed("The upstream's answer says that it is JSON and is not.") from error
    return body.decode(errors="replace")
