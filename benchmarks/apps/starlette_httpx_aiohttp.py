"""Starlette on uvicorn, and aiohttp behind httpx's interface. ddtrace has an integration for Starlette."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=1024)  # as many as hello_service may open
    async with HttpxAiohttpClient(limits=limits) as app.state.client:
        yield


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"message": f"Hello, {request.query_params.get('name', 'World')}!"})


async def relay(request: Request) -> JSONResponse:
    client: httpx.AsyncClient = request.app.state.client
    count = int(request.query_params.get("count", "1"))
    responses = await asyncio.gather(*(client.get(os.environ["UPSTREAM_URL"]) for _ in range(count)))
    return JSONResponse(
        {"answers": [{"status": response.status_code, "body": response.json()} for response in responses]}
    )


app = Starlette(routes=[Route("/api/hello", hello), Route("/api/relay", relay)], lifespan=lifespan)
