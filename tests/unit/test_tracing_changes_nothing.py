"""Tests that an application behaves the same with and without tracing.py, in random sequences of requests, WebSockets
and background tasks.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from ddtrace.trace import Span, TraceFilter, tracer
from hypercorn.middleware import DispatcherMiddleware, ProxyFixMiddleware
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quart import Quart, Response, abort, request, websocket
from quart.signals import got_background_exception

from hello_service.observability import fast_span, tracing

EXAMPLES = 300  # random sequences
LOOP_TURNS = 300  # of the event loop: enough for a handler to do everything that doesn't wait for its client
Messages = list[dict[str, Any]]


class SpanCounter(TraceFilter):
    """Counts spans instead of sending them."""

    count = 0

    def process_trace(self, trace: list[Span]) -> list[Span] | None:
        self.count += len(trace)
        return None  # ddtrace then sends nothing


@pytest.fixture(scope="module")
def span_counter() -> Iterator[SpanCounter]:
    """Make tracing.py active in this process, and count the spans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "active", lambda: True)
        counter = SpanCounter()
        tracer.configure(trace_processors=[counter])
        yield counter
        tracer.configure(trace_processors=[])


# Each of these functions returns ASGI middleware around `app`.


def proxy_fix(app: Any) -> Any:
    return ProxyFixMiddleware(app, mode="legacy", trusted_hops=1)


def deep_copy(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(copy.deepcopy(scope), receive, send)

    return middleware


def shallow_copy(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(copy.copy(scope), receive, send)

    return middleware


def reduced_scope(app: Any) -> Any:
    """Return middleware that drops the keys that a server or other middleware may have added to the scope."""
    names = ("type", "asgi", "http_version", "method", "scheme", "path", "query_string", "headers", "subprotocols")

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app({name: scope[name] for name in names if name in scope}, receive, send)

    return middleware


def separate_task(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(app(scope, receive, send))

    return middleware


def headerless_401(app: Any) -> Any:
    """Return middleware that rejects some requests, with a response without headers, as ASGI allows."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/status/4"):
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})

    return middleware


# Tracing must not change a message, because middleware may send the same object for every request.
CONSTANT_MESSAGE = {"type": "http.response.start", "status": 200, "headers": [(b"x-constant", b"1")]}


def constant_message(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/plain":
            await app(scope, receive, send)
            return
        await send(CONSTANT_MESSAGE)
        await send({"type": "http.response.body", "body": b"constant"})

    return middleware


def headers_as_iterators(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def send_iterator(message: Any) -> None:
            if "headers" in message:
                message = {**message, "headers": iter(message["headers"])}
            await send(message)

        await app({**scope, "headers": iter(scope["headers"])}, receive, send_iterator)

    return middleware


def dispatcher(app: Any) -> Any:
    dispatch: Any = DispatcherMiddleware({"/other": build([]), "/": app})

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await dispatch({"root_path": "", **scope}, receive, send)  # SCOPE has no root path

    return middleware


def no_response(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/plain":
            await app(scope, receive, send)

    return middleware


def path_send(app: Any) -> Any:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/plain":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.pathsend", "path": "/etc/hostname"})
        await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})

    return middleware


MIDDLEWARE: list[Callable[[Any], Any]] = [
    proxy_fix,
    deep_copy,
    shallow_copy,
    reduced_scope,
    separate_task,
    headerless_401,
    constant_message,
    headers_as_iterators,
    dispatcher,
    no_response,
    path_send,
]


class CallableObject:
    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note

    def __call__(self, *args: object) -> None:
        self.note(f"object {args}")

    def method(self, *args: object) -> None:
        self.note(f"method {args}")


class CustomBaseException(BaseException):
    """An exception that `except Exception` doesn't catch."""


def build(middleware: list[Callable[[Any], Any]]) -> Quart:  # noqa: C901 - an app with all kinds of handlers
    """Return an app inside `middleware`. Its handlers record what happens in `app.extensions["notes"]`."""
    app = Quart(__name__)
    notes: list[str] = []
    note = notes.append
    sockets: list[Any] = []
    app.extensions["notes"] = notes

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.post("/echo")
    async def echo() -> bytes:
        return await request.get_data()  # type: ignore[return-value]  # bytes unless `as_text` is true

    @app.route("/status/<int:status>")
    async def status(status: int) -> tuple[str, int]:
        return "status", status

    @app.get("/raises/<kind>")
    async def raises(kind: str) -> str:
        if kind == "abort":
            abort(409)
        if kind == "canceled":
            raise asyncio.CancelledError
        if kind == "group":
            raise ExceptionGroup("both", [ValueError(1), KeyError(2)])
        exceptions = {"value": ValueError, "handled": LookupError, "base": CustomBaseException}
        raise exceptions[kind](kind)

    @app.errorhandler(LookupError)
    async def handle_lookup_error(error: LookupError) -> tuple[str, int]:
        return str(error), 503

    @app.get("/sync")
    def sync() -> str:
        return "sync"

    @app.get("/stream/<int:count>/<kind>")
    async def stream(count: int, kind: str) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"%d" % number
                await asyncio.sleep(0)
            if kind == "breaks":
                raise ValueError("in the stream")
            if kind == "waits":
                note("waits")
                await asyncio.Event().wait()

        response = Response(parts(), headers={"content-length": "3"} if kind == "short" else None)
        response.timeout = None
        return response

    @app.get("/background/<kind>")
    async def background(kind: str) -> str:
        async def task(*args: object) -> None:
            note(f"task {args}")

        async def fail() -> None:
            raise ValueError("in the background")

        functions: dict[str, Any] = {
            "function": task,
            "partial": partial(partial(task, 1), 2),
            "object": CallableObject(note),
            "method": CallableObject(note).method,
            "lambda": lambda *_: note("lambda"),
            "builtin": print,
            "class": CallableObject,
            "fails": fail,
            "none": None,
        }
        arguments = [note] if kind == "class" else []
        app.add_background_task(functions[kind], *arguments)
        return "accepted"

    async def note_failure(_app: Quart, exception: BaseException, **_: object) -> None:
        note(repr(exception))

    got_background_exception.connect(note_failure, app, weak=False)

    async def receive_message(kind: str) -> Any:
        if kind == "wait_for":
            return await asyncio.wait_for(websocket.receive(), 5)
        if kind == "create_task":
            return await asyncio.create_task(websocket.receive())
        if kind == "gather":
            return (await asyncio.gather(websocket.receive()))[0]
        if kind == "times_out":
            with suppress(TimeoutError):
                return await asyncio.wait_for(websocket.receive(), 0)
        return await websocket.receive()

    @app.websocket("/ws/<kind>")
    async def ws(kind: str) -> None:
        if kind == "refuses":
            abort(403)
        if kind == "silent":
            return
        if kind == "raises":
            raise ValueError("before accept")
        sockets.append(websocket._get_current_object())  # type: ignore[attr-defined,unused-ignore]
        try:
            while True:
                message = await receive_message(kind)
                note(repr(message))
                if message == "close":
                    await websocket.close(4001, "requested")
                    return
                if message == "fail":
                    raise ValueError("in the WebSocket")
                if kind == "broadcast":
                    for socket in sockets:
                        await socket.send(message)
                else:
                    await websocket.send(message)
                if kind == "producer":
                    app.add_background_task(produce, sockets[-1])
        finally:
            note("ended")

    async def produce(socket: Any) -> None:
        for _ in range(8):  # usually outlives the handler
            await asyncio.sleep(0)
            await socket.send("produced")

    for wrap in middleware:
        app.asgi_app = wrap(app.asgi_app)  # type: ignore[method-assign]
    return app


# Operations: the requests and WebSockets of a client.

Operation = tuple[Any, ...]  # "http" or "websocket", then the arguments of http_arguments or websocket_arguments

HTTP_PATHS = [
    "/plain",
    "/other/plain",
    "/echo",
    "/sync",
    "/nowhere",
    *(f"/status/{status}" for status in (200, 204, 304, 404, 503)),
    *(f"/raises/{kind}" for kind in ("abort", "value", "handled", "base", "group", "canceled")),
    *(f"/stream/{count}/{kind}" for count in (0, 2, 3) for kind in ("ends", "breaks", "short", "waits")),
]
BACKGROUND_KINDS = ["function", "partial", "object", "method", "lambda", "builtin", "class", "fails", "none"]
WEBSOCKET_KINDS = [
    "plain",
    "wait_for",
    "create_task",
    "gather",
    "times_out",
    "broadcast",
    "producer",
    "refuses",
    "silent",
    "raises",
]
REQUESTS = st.tuples(
    st.just("http"),
    st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "BREW"]),  # no route has BREW
    st.sampled_from(HTTP_PATHS),
    st.lists(st.binary(max_size=3), max_size=3),  # body_parts
    st.booleans(),  # leaves_early
)
BACKGROUND: st.SearchStrategy[Operation] = st.tuples(
    st.just("http"),
    st.just("GET"),
    st.sampled_from([f"/background/{kind}" for kind in BACKGROUND_KINDS]),
    st.just([]),  # body_parts
    st.just(False),  # leaves_early
)
WEBSOCKETS = st.tuples(
    st.just("websocket"),
    st.sampled_from([*(f"/ws/{kind}" for kind in WEBSOCKET_KINDS), "/nowhere"]),
    st.lists(st.sampled_from(["one", "two", b"three", "close", "fail", ""]), max_size=4),  # messages
    st.booleans(),  # may_reject
)
SCOPE = {
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "http",
    "query_string": b"",
    "headers": [(b"host", b"here"), (b"x-forwarded-for", b"203.0.113.7")],
}


async def run(app: Quart, operations: list[Operation]) -> list[Any]:
    """Run `operations` against `app`. Return the messages and the exception of each, and the application's notes."""
    results: list[Any] = []
    for kind, *arguments in operations:
        outgoing: Messages = []
        if kind == "http":
            scope, incoming, leaves_early = http_arguments(*arguments)
        else:
            scope, incoming, leaves_early = websocket_arguments(*arguments)
        try:
            await asyncio.wait_for(serve(app, scope, incoming, leaves_early, outgoing), 10)
        except BaseException as error:  # noqa: BLE001 - exceptions are compared
            results.append(type_and_text(error))
        await asyncio.gather(*app.background_tasks, return_exceptions=True)
        results.append([without_traceresponse(message) for message in outgoing])
    return [*results, *app.extensions["notes"]]


async def serve(app: Any, scope: Any, incoming: Messages, leaves_early: bool, outgoing: Messages) -> None:
    """Call the app as a server does. It receives the messages `incoming`. The messages that it sends go to `outgoing`.

    The client disconnects after the first message of the response's body if `leaves_early`, otherwise after the last.
    With a WebSocket, or if the response may never be complete, the client disconnects after LOOP_TURNS turns of the
    event loop.
    """
    disconnected = asyncio.Event()
    will_complete = scope["type"] == "http" and "/waits" not in scope["path"] and scope["path"] != "/raises/canceled"

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        if will_complete:
            await disconnected.wait()
        else:
            for _ in range(LOOP_TURNS):
                await asyncio.sleep(0)
        return {"type": f"{scope['type']}.disconnect"}

    async def send(message: Any) -> None:
        outgoing.append(message)
        is_last = not message.get("more_body", False)
        if message["type"].endswith(("response.body", "pathsend")) and (leaves_early or is_last):
            disconnected.set()

    await app(scope, receive, send)


def http_arguments(
    method: str, path: str, body_parts: list[bytes], leaves_early: bool
) -> tuple[dict[str, Any], Messages, bool]:
    """Return the arguments of `serve` for a request: `scope`, `incoming` and `leaves_early`."""
    scope = {**SCOPE, "type": "http", "method": method, "path": path}
    incoming: Messages = [{"type": "http.request", "body": part, "more_body": True} for part in body_parts]
    return scope, [*incoming, {"type": "http.request"}], leaves_early


def websocket_arguments(path: str, messages: list[Any], may_reject: bool) -> tuple[dict[str, Any], Messages, bool]:
    """Return the arguments of `serve` for a WebSocket: `scope`, `incoming` and `leaves_early`, which is False.

    `may_reject`: the server supports a response that rejects the handshake.
    """
    incoming: Messages = [{"type": "websocket.connect"}]
    for message in messages:
        key = "text" if isinstance(message, str) else "bytes"
        incoming.append({"type": "websocket.receive", key: message})
    extensions: dict[str, Any] = {"websocket.http.response": {}} if may_reject else {}
    scope = {**SCOPE, "type": "websocket", "path": path, "scheme": "ws", "subprotocols": [], "extensions": extensions}
    return scope, incoming, False


def without_traceresponse(message: dict[str, Any]) -> dict[str, Any]:
    headers = [header for header in message.get("headers", []) if header[0] != b"traceresponse"]
    return {**message, "headers": headers}


def type_and_text(error: BaseException) -> Any:
    """Return the type and text of `error`, because two exceptions are never equal."""
    if isinstance(error, BaseExceptionGroup):
        return type(error), [type_and_text(member) for member in error.exceptions]
    return type(error), str(error)


def run_traced_and_untraced(
    middleware: list[Callable[[Any], Any]], operations: list[Operation], span_middleware: Any
) -> tuple[Any, Any]:
    """`span_middleware` creates the spans; None: ddtrace's own middleware does."""
    untraced = asyncio.run(run(build(middleware), operations))
    traced = asyncio.run(run(tracing.trace(build(middleware), middleware=span_middleware), operations))
    return traced, untraced


@pytest.mark.timeout(600)
# The function-scoped fixtures are those of conftest.py, which need not run again for each example.
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(
    st.lists(st.sampled_from(MIDDLEWARE), max_size=2, unique=True),
    st.lists(st.one_of(REQUESTS, BACKGROUND, WEBSOCKETS), min_size=1, max_size=6),
    st.sampled_from([None, fast_span.FastSpan]),
)
def test_an_application_behaves_the_same_with_and_without_tracing(
    span_counter: SpanCounter,
    middleware: list[Callable[[Any], Any]],
    operations: list[Operation],
    span_middleware: Any,
) -> None:
    """Statuses, headers except `traceresponse`, bodies, close codes and exceptions are equal, and so is their order."""
    traced, untraced = run_traced_and_untraced(middleware, operations, span_middleware)

    assert traced == untraced


@pytest.mark.parametrize("wrap", [None, *MIDDLEWARE])
def test_spans_are_created_while_behavior_stays_the_same(
    span_counter: SpanCounter, wrap: Callable[[Any], Any] | None
) -> None:
    """The comparison above means something only if spans are created."""
    operations: list[Operation] = [
        ("http", "GET", "/status/200", [], False),
        ("websocket", "/ws/plain", ["one"], True),
    ]
    count_before = span_counter.count
    traced, untraced = run_traced_and_untraced([wrap] if wrap else [], operations, span_middleware=None)

    assert traced == untraced
    # The request, the handshake, and a message in each direction.
    assert span_counter.count - count_before >= 4
