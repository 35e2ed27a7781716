"""Litestar on granian, and aiohttp behind httpx's interface.

ddtrace has no integration for Litestar, so its ASGI middleware is used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from ddtrace.contrib.asgi import TraceMiddleware
from httpx_aiohttp import HttpxAiohttpClient
from litestar import Litestar, get
from litestar.datastructures import State


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=1024)  # as many as hello_service may open
    async with HttpxAiohttpClient(limits=limits) as app.state.client:
        yield


async def hello(name: str = "World") -> dict[str, str]:
    return {"message": f"Hello, {name}!"}


async def relay(state: State, count: int = 1) -> dict[str, Any]:
    client: httpx.AsyncClient = state.client
    responses = await asyncio.gather(*(client.get(os.environ["UPSTREAM_URL"]) for _ in range(count)))
    return {"answers": [{"status": response.status_code, "body": response.json()} for response in responses]}


app = TraceMiddleware(
    Litestar([get("/api/hello")(hello), get("/api/relay")(relay)], lifespan=[lifespan], openapi_config=None)
)
