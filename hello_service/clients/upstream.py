"""The client of one peer: limits, deadline, saturation, errors. Create one `Upstream` for each peer."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import httpx

from hello_service.clients.transport import Transport
from hello_service.problems import (
    UpstreamBadStatus,
    UpstreamConnectError,
    UpstreamProtocolError,
    UpstreamSaturated,
)

Hook = Callable[[Any], Awaitable[None]]

JSON_DEPTH = 100  # levels, far below the recursion limit; Python can parse deeper JSON than it can serialize


@dataclass(frozen=True)
class Limits:
    """The limits of one peer. Each `Upstream` has its own.

    Attributes:
        timeout_seconds: for one call from start to end, including the wait for a connection.
        connections: maximum number of concurrent calls.
        waiting: number of calls that may wait for a connection; any more fail at once.
        body_bytes: maximum size of a response body.
    """

    timeout_seconds: float = 5.0
    connections: int = 100
    waiting: int = 200
    body_bytes: int = 1_048_576


@dataclass(frozen=True)
class UpstreamResponse:
    """HTTP status (below 500) and body, which is parsed if it is JSON and text otherwise."""

    status: int
    body: Any


class Upstream:
    """A pool of connections to one peer, open as long as the `async with` lasts.

    Args:
        limits: the limits of this peer.
        headers: headers of every call, such as a token. They are neither logged nor put on spans.
        on_request: called with each `httpx.Request` before it is sent.
    """

    def __init__(
        self, limits: Limits, *, headers: Mapping[str, str] | None = None, on_request: Hook | None = None
    ) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._waiting = 0  # calls that wait for a slot
        self._rejected, self._rejecting_since = 0, 0.0  # the number of calls rejected since that time
        self._client = _Client(
            transport=Transport(limits.connections, limits.body_bytes),
            timeout=None,  # the transport enforces the deadline of the whole call
            headers=_merge_headers(headers, {"Accept-Encoding": "identity"}),
            follow_redirects=False,  # an upstream must not direct calls to a host that the operator has not configured
            trust_env=False,
            event_hooks={"request": [on_request] if on_request else []},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, url: str, peer_service: str | None = None) -> UpstreamResponse:
        """Send a GET request to `url`; see `request`."""
        return await self.request("GET", url, peer_service=peer_service)

    async def post(
        self, url: str, json: Any, *, headers: Mapping[str, str] | None = None, peer_service: str | None = None
    ) -> UpstreamResponse:
        """Send `json` to `url` in a POST request, which is never retried; see `request`."""
        return await self.request("POST", url, json=json, headers=headers, peer_service=peer_service)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        peer_service: str | None = None,
    ) -> UpstreamResponse:
        """Call `url`. An idempotent method is retried once if a reused connection was closed without a response.

        Args:
            method: in upper case.
            url: an absolute URL.
            json: the body; None: no body.
            headers: for this call only; they override the headers of every call.
            peer_service: `peer.service` of the span; None: the URL's host.

        Raises:
            UpstreamTimeout: no complete response within `timeout_seconds`.
            UpstreamSaturated: `waiting` calls are waiting already, or no connection became free in time.
            UpstreamFailed: one of its subclasses, see `problems`. A redirect or a 5xx is an UpstreamBadStatus.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_seconds
        extensions: dict[str, Any] = {"deadline": deadline}
        if peer_service:
            extensions["peer_service"] = peer_service
        async with self._slot(deadline):
            try:
                merged = _merge_headers(self._client.headers, headers) if headers else self._client.headers
                request = httpx.Request(method, _parse_url(url), headers=merged, json=json, extensions=extensions)
                response = await self._client.send(request)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                # ValueError: a header or the JSON can't be sent.
                raise UpstreamConnectError("The upstream could not be called.") from error
        # The stream, which has been read, refers back to the response, so only the cyclic GC would free the two.
        del response.stream
        if response.status_code >= 500 or response.has_redirect_location:
            raise UpstreamBadStatus(response.status_code)
        return UpstreamResponse(status=response.status_code, body=_parse_body(response))

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        """Hold a slot during the `async with` block. There are `Limits.connections` slots."""
        if self._slots.locked():
            await self._wait_for_slot(deadline)
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()

    async def _wait_for_slot(self, deadline: float) -> None:
        if self._waiting >= self._limits.waiting:
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
        """Count a rejected call, and return its problem.

        Its `Retry-After` is `timeout_seconds`, and as much again for every `connections + waiting` calls that were
        rejected recently. If all rejected clients returned at the same time, even rejecting them would cost too much.
        """
        now, limits = asyncio.get_running_loop().time(), self._limits
        if now - self._rejecting_since > limits.timeout_seconds:
            self._rejected, self._rejecting_since = 0, now
        retry_after = limits.timeout_seconds * (1 + self._rejected / (limits.connections + limits.waiting))
        self._rejected += 1
        return UpstreamSaturated(detail, math.ceil(retry_after))


# Parsing is slow, and a service calls only a few different URLs most of the time.
_parse_url = lru_cache(16)(httpx.URL)


def _merge_headers(headers: Mapping[str, str] | None, overrides: Mapping[str, str]) -> httpx.Headers:
    """Return `headers` and `overrides`, which replace headers of the same name. Names are case-insensitive."""
    merged = httpx.Headers(headers)
    merged.update(overrides)
    return merged


class _NoCookies(httpx.Cookies):
    """A cookie jar that stays empty. This client sends no cookies, so a jar would only grow."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _Client(httpx.AsyncClient):
    cookies = _NoCookies()  # type: ignore[override]  # a property in httpx


def _parse_body(response: httpx.Response) -> Any:
    """Return the body, parsed if it is JSON: valid by RFC 8259, and not too deep for Python to serialize again."""
    content = response.content
    if "json" not in response.headers.get("content-type", ""):
        return content.decode(errors="replace")
    try:
        value = json.loads(content, parse_constant=_parse_finite, parse_float=_parse_finite)
        if content.count(b"[") + content.count(b"{") > JSON_DEPTH:  # with fewer brackets, the value can't be that deep
            _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise UpstreamProtocolError("The upstream's response is not valid JSON.") from error
    return value


def _parse_finite(number: str) -> float:
    """Return `number` as a float, unless it is NaN or infinite: `json.loads` accepts these, but they are not JSON."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a JSON number")
    return value


def _check_depth(value: Any) -> None:
    """Raise a ValueError if `value` has more than JSON_DEPTH levels."""
    level = [value]  # all values at the current depth
    for _ in range(JSON_DEPTH):
        next_level: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                next_level += item.values()
            elif isinstance(item, list):
                next_level += item
        level = next_level
    if level:
        raise ValueError(f"nested deeper than {JSON_DEPTH} levels")
