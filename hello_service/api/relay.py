"""GET /api/relay: one or more concurrent outbound calls."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel
from quart import Blueprint, request
from quart_schema import validate_querystring, validate_response

from hello_service.api.greetings import CountQuery
from hello_service.api.openapi import example, problems
from hello_service.api.services import services
from hello_service.problems import Problem, UpstreamFailed, UpstreamSaturated, UpstreamTimeout
from hello_service.settings import Settings, http_url, mask_credentials

relay = Blueprint("relay", __name__)


class RelayedResponse(BaseModel):
    status: int
    body: Any


class RelayResponse(BaseModel):
    upstream: str
    answers: list[RelayedResponse]


@relay.get("/api/relay")
@example(count=3)
@problems(UpstreamFailed, UpstreamSaturated, UpstreamTimeout)
@validate_querystring(CountQuery)
@validate_response(RelayResponse)
async def relay_calls(query_args: CountQuery) -> RelayResponse:
    """Call the upstream `count` times concurrently and return its responses; 502, 503 or 504 if a call fails."""
    upstream = services().upstream
    url, peer = _target(services().settings)
    try:
        async with asyncio.TaskGroup() as calls:
            tasks = [calls.create_task(upstream.get(url, peer)) for _ in range(query_args.count)]
    except* Problem as group:
        problem = group.exceptions[0]
    else:
        responses = [task.result() for task in tasks]
        answers = [RelayedResponse(status=response.status, body=response.body) for response in responses]
        return RelayResponse(upstream=mask_credentials(url), answers=answers)
    raise problem  # not in the `except*` block, which would wrap it in a group


def _target(settings: Settings) -> tuple[str, str | None]:
    """Return the upstream's URL and `peer.service` from the settings. The default is this service itself.

    The address of this service comes from the socket that received the request, never from the Host header, which can
    be forged.
    """
    if settings.upstream_url is not None:
        return settings.upstream_url, settings.upstream_service
    host, port = request.scope["server"] or (settings.host, settings.port)  # `server` is None on a Unix socket
    return f"{http_url(host, port or settings.port)}/api/hello", settings.upstream_service or settings.dd_service
