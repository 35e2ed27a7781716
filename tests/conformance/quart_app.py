"""The application in Quart, traced by `hello_service.observability.tracing`.

fastapi_app.py has the same routes except /canceled, which only test_better.py requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

from conformance.shared import PIECE, PIECE_COUNT, Handled, Unhandled, call, create_client, create_file, wait_for_file
from ddtrace.trace import tracer
from hypercorn.middleware import DispatcherMiddleware, ProxyFixMiddleware
from quart import Blueprint, Quart, Response, abort, current_app, jsonify, redirect, request, send_file, websocket

from hello_service.observability import tracing

inner = Blueprint("inner", __name__, url_prefix="/inner")
outer = Blueprint("outer", __name__, url_prefix="/outer")
app = Quart(__name__)
broadcast_sockets: list[Any] = []  # every WebSocket of /ws/<room>/broadcasts, including the closed ones


def work(name: str) -> None:
    """Create a span, as work in a handler would."""
    with tracer.trace("work", resource=name):
        pass


async def slow_work(name: str) -> None:
    """Create a span and wait twice within it, so that concurrent spans interleave."""
    with tracer.trace("work", resource=name):
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)


@app.while_serving
async def open_client() -> AsyncGenerator[None, None]:
    async with create_client(tracing.name_client_span) as client:
        app.extensions["client"] = client
        yield


@app.before_request
async def fail_before() -> None:
    if request.path == "/hook/before":
        raise Unhandled("in the before-request hook")


@app.after_request
async def fail_after(response: Response) -> Response:
    if request.path == "/hook/after":
        raise Unhandled("in the after-request hook")
    return response


@app.errorhandler(Handled)
async def respond(error: Handled) -> tuple[str, int]:
    return str(error), error.status


@app.route("/plain", methods=["GET", "HEAD", "OPTIONS"])
async def plain() -> str:
    return "plain"


@app.get("/json")
async def json() -> Response:
    return jsonify(answer=42)


@app.get("/health")
async def health() -> str:
    return "alive"


@app.get("/typed/<int:number>/<name>")
async def typed(number: int, name: str) -> str:
    return f"{number + 1} {name}"


@inner.get("/leaf/<name>")
async def leaf(name: str) -> str:
    return name


@app.post("/body")
async def body() -> str:
    return str(len(await request.get_data()))


@app.get("/redirect")
async def redirected() -> Response:
    return redirect("/plain")  # type: ignore[return-value]  # a response of Werkzeug, which Quart accepts


@app.get("/slashed/<name>/")
async def slashed(name: str) -> str:
    return name


@app.get("/abort/<int:status>")
async def aborted(status: int) -> str:
    abort(status)


@app.get("/handled/<int:status>")
async def handled(status: int) -> str:
    raise Handled(status)


@app.get("/returned/<int:status>")
async def returned(status: int) -> tuple[str, int]:
    return "no exception", status


@app.get("/unhandled")
async def unhandled() -> str:
    raise Unhandled("in the handler")


@app.get("/grouped")
async def grouped() -> str:
    raise ExceptionGroup("both", [Unhandled("one"), ValueError("two")])


@app.get("/hook/before")
@app.get("/hook/after")
async def hooked() -> str:
    return "the hook did not raise"


@app.get("/file")
async def file() -> Response:
    return await send_file(__file__)


@app.post("/orders/<int:order>")
async def orders(order: int) -> str:
    return str(order)


@app.get("/background/partial")
async def background_partial() -> str:
    # The span's resource is the name of `later`, without these arguments.
    app.add_background_task(partial(later, "ada@example.com", token="hidden"))
    return "accepted"


async def later(*_: object, **__: object) -> None:
    work("in the background")


@app.get("/stream/waiting")
async def stream_waiting() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await wait_for_file("stream")
        yield b"last"

    return Response(parts(), content_type="text/plain")


@app.get("/stream/broken")
async def stream_broken() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise Unhandled("in the stream")

    return Response(parts(), content_type="text/plain")


@app.get("/stream/endless")
async def stream_endless() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.01)
        finally:
            create_file("ended")

    response = Response(parts(), content_type="text/plain")
    response.timeout = None  # only a disconnect ends this response
    return response


@app.get("/stream/large")
async def stream_large() -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(PIECE_COUNT):
            yield PIECE

    return Response(parts(), content_type="text/plain")


@app.get("/waiting")
async def waiting() -> str:
    create_file("started")
    try:
        await wait_for_file("handler")
    finally:
        create_file("ended")
    return "waiting"


@app.get("/canceled")
async def canceled() -> str:
    raise asyncio.CancelledError("by the handler itself")


@app.get("/sync")
def sync() -> str:
    work("in a thread")
    return "sync"


@app.get("/sync/unhandled")
def sync_unhandled() -> str:
    raise Unhandled("in a thread")


@app.get("/tasks/gather")
async def tasks_gather() -> str:
    await asyncio.gather(*(slow_work(f"gather {number}") for number in range(3)))
    return "gather"


@app.get("/tasks/group")
async def tasks_group() -> str:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(slow_work(f"group {number}"))
    return "group"


@app.get("/tasks/thread")
async def tasks_thread() -> str:
    await asyncio.to_thread(work, "to_thread")
    return "thread"


@app.get("/tasks/executor")
async def tasks_executor() -> str:
    await asyncio.get_running_loop().run_in_executor(None, work, "executor")
    return "executor"


@app.get("/tasks/mixed/<int:number>")
async def tasks_mixed(number: int) -> str:
    await asyncio.gather(slow_work(f"first {number}"), slow_work(f"second {number}"))
    await asyncio.to_thread(work, f"third {number}")
    return str(number)


@app.get("/background/before")
async def background_before() -> str:
    task_ended = asyncio.Event()

    async def task() -> None:
        work("in the background")
        task_ended.set()

    current_app.add_background_task(task)
    await task_ended.wait()
    return "ended"


@app.get("/background/after")
async def background_after() -> str:
    async def task() -> None:
        await wait_for_file("background")
        work("in the background")

    current_app.add_background_task(task)
    return "accepted"


@app.get("/background/thread")
async def background_thread() -> str:
    def task() -> None:
        work("in the background")

    current_app.add_background_task(task)
    return "accepted"


@app.get("/background/unhandled")
async def background_unhandled() -> str:
    async def task() -> None:
        raise Unhandled("in the background")

    current_app.add_background_task(task)
    return "accepted"


@app.get("/background/failed")
async def background_failed() -> str:
    async def task() -> None:
        await wait_for_file("background")

    current_app.add_background_task(task)
    raise Unhandled("in the handler")


@app.get("/call/<kind>")
async def outbound_call(kind: str) -> str:
    return str(await call(app.extensions["client"], kind))


@app.websocket("/ws/<room>")
async def ws(room: str) -> None:
    while True:
        message = await websocket.receive()
        if message == "close":
            await websocket.close(4001, "requested")
            return
        if message == "fail":
            raise Unhandled("in the WebSocket")
        await websocket.send(message)


@app.websocket("/ws/<room>/fails")
async def ws_fails(room: str) -> None:
    raise Unhandled("before accept")


@app.websocket("/ws/<room>/accepts")
async def ws_accepts(room: str) -> None:
    await websocket.accept()
    raise Unhandled("after accept")


@app.websocket("/ws/<room>/works")
async def ws_works(room: str) -> None:
    message = await websocket.receive()
    work("before the reply")
    await websocket.send(message)
    work("after the reply")
    await websocket.send("done")
    try:
        await wait_for_file("never")  # until the client disconnects, which cancels the handler
    finally:
        create_file("ended")


@app.websocket("/ws/<room>/waits")
async def ws_waits(room: str) -> None:
    for _ in range(2):
        message = await asyncio.wait_for(websocket.receive(), 10)
        await websocket.send(message)


@app.websocket("/ws/<room>/broadcasts")
async def ws_broadcasts(room: str) -> None:
    # `websocket` is a proxy for the current WebSocket, so the list needs the object behind it.
    broadcast_sockets.append(websocket._get_current_object())  # type: ignore[attr-defined,unused-ignore]
    message = await websocket.receive()
    for socket in broadcast_sockets:
        with suppress(Exception):  # on a closed WebSocket, Quart 0.23 raises, and older releases send nothing
            await socket.send(message)


@app.websocket("/ws/<room>/refuses")
async def ws_refuses(room: str) -> None:
    abort(403)


class HeaderlessMiddleware:
    """An ASGI middleware that responds to /middleware itself, without headers."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/middleware":
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})


mounted = Quart(__name__)


@mounted.get("/users/<number>")
async def user(number: str) -> str:
    return number


class Mount:
    """Passes requests below /mounted to Hypercorn's dispatcher, and all others and the lifespan to `app`."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.dispatcher: Any = DispatcherMiddleware({"/mounted": mounted})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_mounted = scope.get("path", "").startswith("/mounted/")  # the lifespan has no path
        app = self.dispatcher if is_mounted else self.app
        await app(scope, receive, send)


outer.register_blueprint(inner)
app.register_blueprint(outer)
untyped_app: Any = app  # asgi_app is a method, so mypy would reject the assignment to it
untyped_app.asgi_app = Mount(HeaderlessMiddleware(ProxyFixMiddleware(untyped_app.asgi_app)))
tracing.trace(app, probes={"/health"})
