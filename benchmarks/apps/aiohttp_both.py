"""aiohttp as server and client. ddtrace has integrations for both; the server's must be enabled in code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientSession, TCPConnector, web
from ddtrace.contrib.aiohttp import trace_app

CLIENT = web.AppKey("client", ClientSession)
routes = web.RouteTableDef()


@routes.get("/api/hello")
async def hello(request: web.Request) -> web.Response:
    return web.json_response({"message": f"Hello, {request.query.get('name', 'World')}!"})


@routes.get("/api/relay")
async def relay(request: web.Request) -> web.Response:
    client = request.app[CLIENT]

    async def call() -> dict[str, Any]:
        async with client.get(os.environ["UPSTREAM_URL"]) as response:
            return {"status": response.status, "body": await response.json()}

    responses = await asyncio.gather(*(call() for _ in range(int(request.query.get("count", "1")))))
    return web.json_response({"answers": responses})


async def open_client(app: web.Application) -> AsyncIterator[None]:
    connector = TCPConnector(limit=1024)  # as many connections as hello_service may open
    async with ClientSession(connector=connector) as app[CLIENT]:
        yield


def main() -> None:
    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(open_client)
    trace_app(app)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
