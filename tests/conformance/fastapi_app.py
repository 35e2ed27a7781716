"""The application in FastAPI, traced by ddtrace's own integration. quart_app.py has the same routes and /canceled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from conformance.shared import PIECE, PIECE_COUNT, Handled, Unhandled, call, create_client, create_file, wait_for_file
from ddtrace.trace import tracer
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect


def work(name: str) -> None:
    """Create a span, as work in a handler would."""
    with tracer.trace("work", resource=name):
        pass


async def slow_work(name: str) -> None:
    """Create a span and wait twice within it, so that concurrent spans interleave."""
    with tracer.trace("work", resource=name):
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)


@asynccontextmanager
async def open_client(app: FastAPI) -> AsyncIterator[None]:
    async with create_client() as client:
        app.state.client = client
        yield


class HookMiddleware:
    """Does what the ASGI middleware, the before-request hook and the after-request hook of quart_app.py do."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def fail_after_or_send(message: Any) -> None:
            if scope.get("path") == "/hook/after" and message["type"] == "http.response.start":
                raise Unhandled("in the after-request hook")
            await send(message)

        if scope.get("path") == "/middleware":
            await send({"type": "http.response.start", "status": 401})
            await send({"type": "http.response.body"})
            return
        if scope.get("path") == "/hook/before":
            raise Unhandled("in the before-request hook")
        await self.app(scope, receive, fail_after_or_send)


app = FastAPI(lifespan=open_client, openapi_url=None)
app.add_middleware(HookMiddleware)
inner = APIRouter(prefix="/inner")
outer = APIRouter(prefix="/outer")


@app.exception_handler(Handled)
async def respond(_request: Request, error: Handled) -> Response:
    return PlainTextResponse(str(error), error.status)


def text(content: object, status: int = 200) -> Response:
    """Return a response that FastAPI doesn't serialize, because serialization would create a span."""
    return PlainTextResponse(str(content), status)


@app.api_route("/plain", methods=["GET", "HEAD", "OPTIONS"])
async def plain() -> Response:
    return text("plain")


@app.get("/json")
async def json() -> dict[str, int]:
    return {"answer": 42}


@app.get("/health")
async def health() -> Response:
    return text("alive")


@app.get("/typed/{number}/{name}")
async def typed(number: int, name: str) -> Response:
    return text(f"{number + 1} {name}")


@inner.get("/leaf/{name}")
async def leaf(name: str) -> Response:
    return text(name)


@app.post("/body")
async def body(request: Request) -> Response:
    return text(len(await request.body()))


@app.get("/redirect")
async def redirected() -> Response:
    return RedirectResponse("/plain", 302)


@app.get("/slashed/{name}/")
async def slashed(name: str) -> Response:
    return text(name)


@app.get("/abort/{status}")
async def aborted(status: int) -> Response:
    raise HTTPException(status)


@app.get("/handled/{status}")
async def handled(status: int) -> Response:
    raise Handled(status)


@app.get("/returned/{status}")
async def returned(status: int) -> Response:
    return text("no exception", status)


@app.get("/unhandled")
async def unhandled() -> Response:
    raise Unhandled("in the handler")


@app.get("/grouped")
async def grouped() -> Response:
    raise ExceptionGroup("both", [Unhandled("one"), ValueError("two")])


@app.get("/hook/before")
@app.get("/hook/after")
async def hooked() -> Response:
    return text("the hook did not raise")


@app.get("/file")
async def file() -> Response:
    return FileResponse(__file__)


@app.post("/orders/{order}")
async def orders(order: int) -> Response:
    return text(order)


@app.get("/background/partial")
async def background_partial(tasks: BackgroundTasks) -> Response:
    tasks.add_task(later, "ada@example.com", token="hidden")
    return text("accepted")


async def later(*_: object, **__: object) -> None:
    work("in the background")


@app.get("/stream/waiting")
async def stream_waiting() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await wait_for_file("stream")
        yield b"last"

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/stream/broken")
async def stream_broken() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Unhandled("in the stream")

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/stream/endless")
async def stream_endless() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.01)
        finally:
            create_file("ended")

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/stream/large")
async def stream_large() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(PIECE_COUNT):
            yield PIECE

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/waiting")
async def waiting() -> Response:
    create_file("started")
    try:
        await wait_for_file("handler")
    finally:
        create_file("ended")
    return text("waiting")


@app.get("/sync")
def sync() -> Response:
    work("in a thread")
    return text("sync")


@app.get("/sync/unhandled")
def sync_unhandled() -> Response:
    raise Unhandled("in a thread")


@app.get("/tasks/gather")
async def tasks_gather() -> Response:
    await asyncio.gather(*(slow_work(f"gather {number}") for number in range(3)))
    return text("gather")


@app.get("/tasks/group")
async def tasks_group() -> Response:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(slow_work(f"group {number}"))
    return text("group")


@app.get("/tasks/thread")
async def tasks_thread() -> Response:
    await asyncio.to_thread(work, "to_thread")
    return text("thread")


@app.get("/tasks/executor")
async def tasks_executor() -> Response:
    await asyncio.get_running_loop().run_in_executor(None, work, "executor")
    return text("executor")


@app.get("/tasks/mixed/{number}")
async def tasks_mixed(number: int) -> Response:
    await asyncio.gather(slow_work(f"first {number}"), slow_work(f"second {number}"))
    await asyncio.to_thread(work, f"third {number}")
    return text(number)


@app.get("/background/before")
async def background_before(tasks: BackgroundTasks) -> Response:
    async def task() -> None:
        work("in the background")

    tasks.add_task(task)
    return text("ended")


@app.get("/background/after")
async def background_after(tasks: BackgroundTasks) -> Response:
    async def task() -> None:
        await wait_for_file("background")
        work("in the background")

    tasks.add_task(task)
    return text("accepted")


@app.get("/background/thread")
async def background_thread(tasks: BackgroundTasks) -> Response:
    def task() -> None:
        work("in the background")

    tasks.add_task(task)
    return text("accepted")


@app.get("/background/unhandled")
async def background_unhandled(tasks: BackgroundTasks) -> Response:
    async def task() -> None:
        raise Unhandled("in the background")

    tasks.add_task(task)
    return text("accepted")


@app.get("/background/failed")
async def background_failed(tasks: BackgroundTasks) -> Response:
    async def task() -> None:
        await wait_for_file("background")

    tasks.add_task(task)
    raise Unhandled("in the handler")


@app.get("/call/{kind}")
async def outbound_call(kind: str) -> Response:
    return text(await call(app.state.client, kind))


@app.websocket("/ws/{room}")
async def ws(socket: WebSocket, room: str) -> None:
    await socket.accept()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "close":
            await socket.close(4001, "requested")
            return
        if message.get("text") == "fail":
            raise Unhandled("in the WebSocket")
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


@app.websocket("/ws/{room}/fails")
async def ws_fails(socket: WebSocket, room: str) -> None:
    raise Unhandled("before accept")


@app.websocket("/ws/{room}/accepts")
async def ws_accepts(socket: WebSocket, room: str) -> None:
    await socket.accept()
    raise Unhandled("after accept")


@app.websocket("/ws/{room}/works")
async def ws_works(socket: WebSocket, room: str) -> None:
    await socket.accept()
    message = await socket.receive_text()
    work("before the reply")
    await socket.send_text(message)
    work("after the reply")
    await socket.send_text("done")
    try:
        await socket.receive_text()
    except WebSocketDisconnect:
        create_file("ended")


@app.websocket("/ws/{room}/waits")
async def ws_waits(socket: WebSocket, room: str) -> None:
    await socket.accept()
    for _ in range(2):
        message = await asyncio.wait_for(socket.receive_text(), 10)
        await socket.send_text(message)
    await socket.close()


@app.websocket("/ws/{room}/broadcasts")
async def ws_broadcasts(socket: WebSocket, room: str) -> None:
    # quart_app.py also sends the message to closed WebSockets, which creates no spans.
    await socket.accept()
    message = await socket.receive_text()
    await socket.send_text(message)
    await socket.close()


@app.websocket("/ws/{room}/refuses")
async def ws_refuses(socket: WebSocket, room: str) -> None:
    raise HTTPException(403)


mounted = APIRouter()


@mounted.get("/users/{number}")
async def user(number: str) -> Response:
    return text(number)


outer.include_router(inner)
app.include_router(outer)
app.include_router(mounted, prefix="/mounted")
