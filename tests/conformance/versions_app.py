"""A service that uses a copy of tracing.py. scripts/test-versions serves it with old and new releases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import quart
import tracing  # type: ignore[import-not-found]  # the copy, next to this file

app = quart.Quart(__name__)
tracing.trace(app, probes={"/health"})
client = httpx.AsyncClient(event_hooks={"request": [tracing.name_client_span]})


@app.get("/health")
async def health() -> str:
    return "ok"


@app.get("/users/<int:number>")
async def user(number: int) -> dict[str, int]:
    return {"number": number}


@app.get("/error")
async def error() -> str:
    raise ValueError("on purpose")


@app.get("/stream")
async def stream() -> quart.Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield str(number).encode()

    return quart.Response(parts())


@app.get("/call")
async def call() -> str:
    response = await client.get(quart.request.host_url + "users/7")
    return response.text


@app.get("/background")
async def background() -> str:
    async def later() -> None:
        await client.get("http://127.0.0.1:1/")  # fails, because nothing listens on this port

    app.add_background_task(later)
    return "accepted"


@app.websocket("/echo/<name>")
async def echo(name: str) -> None:
    await quart.websocket.accept()
    while True:
        text = await quart.websocket.receive()
        assert isinstance(text, str)
        await quart.websocket.send(f"{name}: {text}")
