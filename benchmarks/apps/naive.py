"""The naive form of this service: Quart, Hypercorn, ddtrace's middleware, and httpx with its defaults."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from quart import Quart, current_app, request

app = Quart(__name__)


@app.while_serving
async def open_client() -> AsyncGenerator[None, None]:
    async with httpx.AsyncClient() as client:
        app.extensions["client"] = client
        yield


@app.get("/api/hello")
async def hello() -> dict[str, str]:
    return {"message": f"Hello, {request.args.get('name', 'World')}!"}


@app.get("/api/relay")
async def relay() -> dict[str, Any]:
    client: httpx.AsyncClient = current_app.extensions["client"]
    url = os.environ["UPSTREAM_URL"]
    responses = await asyncio.gather(*(client.get(url) for _ in range(request.args.get("count", 1, int))))
    return {"answers": [{"status": response.status_code, "body": response.json()} for response in responses]}


if "ddtrace.bootstrap.sitecustomize" in sys.modules:  # under ddtrace-run; the same file is also measured untraced
    from ddtrace.contrib.asgi import TraceMiddleware

    app.asgi_app = TraceMiddleware(app.asgi_app)  # type: ignore[method-assign]  # Quart documents this
