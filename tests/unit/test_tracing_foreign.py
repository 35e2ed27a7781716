"""Tests of tracing.py in services that differ from this one, for example in their ASGI apps, mounts or libraries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from ddtrace import config
from ddtrace.contrib.asgi import TraceMiddleware
from ddtrace.internal.core import event_hub
from ddtrace.internal.endpoints import endpoint_collection
from ddtrace.trace import Span, tracer
from fastapi import FastAPI
from finished_spans import finished_spans
from hypercorn.middleware import DispatcherMiddleware
from quart import Quart, Response, send_file, websocket
from werkzeug.routing import BaseConverter

from hello_service.observability import fast_span, tracing

# None: ddtrace's own middleware.
WITH_EACH_MIDDLEWARE = pytest.mark.parametrize("middleware", [None, fast_span.FastSpan], ids=["ddtrace", "FastSpan"])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    """The spans that have finished so far. The process counts as traced, although it runs without ddtrace-run."""
    monkeypatch.setattr(tracing, "active", lambda: True)
    with finished_spans() as spans:
        yield spans


@pytest.fixture
def app() -> Quart:
    app = Quart(__name__)

    @app.get("/users/<int:number>")
    async def user(number: int) -> str:
        return str(number)

    @app.get("/health")
    async def health() -> str:
        return "alive"

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.send(await websocket.receive())

    return app


def set_asgi_app(app: Any, asgi_app: Any) -> None:
    """Make `asgi_app`, which wraps Quart's own or replaces it, the ASGI application of `app`."""
    app.asgi_app = asgi_app


def request_scope(path: str, **overrides: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"here")],
        **overrides,
    }


async def send_request(app: Any, scope: dict[str, Any], disconnect_after: int | None = None) -> list[dict[str, Any]]:
    """Call `app` with a request that has no body, and return the messages of its response.

    The client disconnects after `disconnect_after` bytes of the body or after the last message.
    """
    disconnected = asyncio.Event()
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)
        body_length = sum(len(part.get("body", b"")) for part in messages)
        is_last = message["type"].endswith("response.body") and not message.get("more_body", False)
        if is_last or body_length == disconnect_after:
            asyncio.get_running_loop().call_soon(disconnected.set)  # after `send` has returned

    await app(scope, receive, send)
    return messages


# Requests that no route handles.


@WITH_EACH_MIDDLEWARE
async def test_the_resource_of_a_request_that_fails_before_routing_is_the_status(
    spans: list[Span], middleware: Any
) -> None:
    """A URL converter raises an exception here, and the server responds with 500."""

    class BrokenConverter(BaseConverter):
        def to_python(self, value: str) -> str:
            raise RuntimeError(f"no {value}")

    app = Quart(__name__)
    app.url_map.converters["broken"] = BrokenConverter
    app.add_url_rule("/users/<broken:name>", view_func=lambda name: name)
    with suppress(RuntimeError):
        await send_request(tracing.trace(app, middleware=middleware), request_scope("/users/7"))

    assert (spans[0].resource, spans[0].get_tag("http.status_code")) == ("GET 500", "500")


@WITH_EACH_MIDDLEWARE
async def test_the_resource_of_a_response_without_routing_is_the_status(spans: list[Span], middleware: Any) -> None:
    app = Quart(__name__)

    async def reject(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})

    set_asgi_app(app, reject)
    messages = await send_request(tracing.trace(app, middleware=middleware), request_scope("/users/7"))
    (span,) = spans

    assert span.resource == "GET 401"
    assert span.get_tag("http.status_code") == "401"
    assert [name for name, _ in messages[0]["headers"]] == [b"traceresponse"]


@pytest.mark.parametrize("missing_key", ["query_string", "headers", "root_path", "asgi"])
async def test_a_scope_may_lack_a_key_that_the_asgi_app_does_not_read(
    app: Quart, spans: list[Span], missing_key: str
) -> None:
    async def asgi_app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = iter([(b"x-a", b"1")])  # ASGI allows any iterable
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body"})

    set_asgi_app(app, asgi_app)
    scope = request_scope("/users/7")
    del scope[missing_key]
    messages = await send_request(tracing.trace(app), scope)

    assert messages[0]["headers"][0] == (b"x-a", b"1")
    assert spans[0].resource == "GET 204"


async def test_a_traceresponse_of_the_asgi_app_is_kept(app: Quart, spans: list[Span]) -> None:
    async def asgi_app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Traceresponse", b"mine")]})
        await send({"type": "http.response.body"})

    set_asgi_app(app, asgi_app)
    messages = await send_request(tracing.trace(app), request_scope("/"))

    assert messages[0]["headers"] == [(b"Traceresponse", b"mine")]


@pytest.mark.parametrize("scope_type", ["lifespan", "unknown"])
async def test_other_types_of_scope_are_passed_on_unchanged(app: Quart, spans: list[Span], scope_type: str) -> None:
    received: list[Any] = []

    async def asgi_app(*arguments: Any) -> None:
        received.extend(arguments)

    set_asgi_app(app, asgi_app)
    scope: Any = {"type": scope_type, "state": {}}
    await tracing.trace(app).asgi_app(scope, "receive", "send")  # type: ignore[arg-type]

    assert received == [scope, "receive", "send"]
    assert received[0] is scope
    assert spans == []


# How a response ends.


def app_that_sends(parts: list[bytes], headers: list[tuple[bytes, bytes]], has_last_message: bool) -> Any:
    """Return an ASGI app that sends a body in `parts`, and then the empty last message if `has_last_message`."""

    async def asgi_app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if has_last_message:
            await send({"type": "http.response.body"})

    return asgi_app


@WITH_EACH_MIDDLEWARE
@pytest.mark.parametrize(
    ("parts", "content_length", "has_last_message", "method", "is_incomplete"),
    [
        pytest.param([b"abc"], None, True, "GET", False, id="last message"),
        pytest.param([b"abc"], None, False, "GET", True, id="no last message"),
        pytest.param([], None, False, "GET", True, id="no body at all"),
        pytest.param([b"abc"], b"3", True, "GET", False, id="full length"),
        pytest.param([b"abc"], b"3", False, "GET", False, id="full length, no last message"),
        pytest.param([b"ab"], b"3", True, "GET", True, id="too short"),
        pytest.param([b"ab"], b"3", False, "GET", True, id="too short, no last message"),
        pytest.param([b"ab"], b"three", True, "GET", False, id="invalid length"),
        pytest.param([], b"3", True, "HEAD", False, id="HEAD"),
    ],
)
async def test_an_incomplete_response_has_a_tag(
    app: Quart,
    spans: list[Span],
    *,
    middleware: Any,
    parts: list[bytes],
    content_length: bytes | None,
    has_last_message: bool,
    method: str,
    is_incomplete: bool,
) -> None:
    headers = [(b"Content-Length", content_length)] if content_length else []
    set_asgi_app(app, app_that_sends(parts, headers, has_last_message))
    await send_request(tracing.trace(app, middleware=middleware), request_scope("/", method=method))
    (span,) = spans

    assert span.get_tag(tracing.INCOMPLETE) == ("true" if is_incomplete else None)
    assert span.get_tag("http.status_code") == "200"


@WITH_EACH_MIDDLEWARE
async def test_a_response_whose_body_is_a_file_is_complete(app: Quart, spans: list[Span], *, middleware: Any) -> None:
    """The message has the path of the file, and the server sends its bytes."""

    async def send_file_by_path(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.pathsend", "path": "/srv/three-bytes"})

    set_asgi_app(app, send_file_by_path)
    await send_request(tracing.trace(app, middleware=middleware), request_scope("/"))

    assert spans[0].get_tag(tracing.INCOMPLETE) is None


async def test_a_stream_that_times_out_is_incomplete(spans: list[Span]) -> None:
    """After RESPONSE_TIMEOUT, Quart ends the stream without an exception."""
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = 0.01

    @app.get("/")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return Response(parts())

    response = asyncio.ensure_future(send_request(tracing.trace(app), request_scope("/")))
    with suppress(TimeoutError):
        await asyncio.wait_for(response, 0.5)  # Quart 0.23 waits for the client, which never disconnects
    (span,) = spans

    assert span.get_tag(tracing.INCOMPLETE) == "true"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Quart leaves the file open
async def test_a_client_that_has_all_bytes_is_not_tagged_as_disconnected(tmp_path: Path, spans: list[Span]) -> None:
    """A client may disconnect after Content-Length bytes. At that moment, Quart hasn't sent the last message yet."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    app = Quart(__name__)

    @app.get("/")
    async def file() -> Response:
        return await send_file(tmp_path / "file")

    tracing.trace(app)
    for _ in range(10):  # the disconnect races with the last message
        await send_request(app, request_scope("/"), disconnect_after=100)

    assert [span.get_tag(tracing.CLIENT_DISCONNECTED) for span in spans] == [None] * 10
    assert [span.get_tag(tracing.INCOMPLETE) for span in spans] == [None] * 10


@WITH_EACH_MIDDLEWARE
async def test_a_pipelined_request_has_its_own_trace(app: Quart, spans: list[Span], middleware: Any) -> None:
    """uvicorn starts a pipelined request while the application is still sending the end of the previous response.

    ddtrace's asyncio integration then passes the previous request's trace on to the new task.
    """
    tracing.trace(app, middleware=middleware)
    pipelined_requests: list[asyncio.Task[Any]] = []
    disconnected = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            pipelined_requests.append(asyncio.create_task(send_pipelined(tracer.current_trace_context())))
            disconnected.set()

    async def send_pipelined(context: Any) -> None:
        tracer.context_provider.activate(context)  # as ddtrace's asyncio integration does
        await send_request(app, request_scope("/users/8"))

    await app(request_scope("/users/7"), receive, send)  # type: ignore[arg-type]
    await pipelined_requests[0]

    assert [(span.resource, span.parent_id) for span in spans] == [("GET /users/<int:number>", None)] * 2
    assert spans[0].trace_id != spans[1].trace_id


# WebSockets.


async def test_only_the_handshake_has_a_span_if_messages_are_not_traced(
    app: Quart, spans: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is DD_TRACE_WEBSOCKET_MESSAGES_ENABLED=false."""
    monkeypatch.setitem(config.asgi, "trace_asgi_websocket_messages", False)
    tracing.trace(app)
    async with app.test_client().websocket("/ws") as client:
        await client.send("one")
        reply = await client.receive()
    (span,) = spans

    assert reply == "one"
    assert (span.name, span.resource, span.get_tag("http.status_code")) == ("asgi.request", "websocket /ws", "101")


async def test_a_message_sent_outside_of_any_request_starts_no_trace(spans: list[Span]) -> None:
    """A broadcast task sends such messages. For each, ddtrace's middleware would start a span and never end it."""
    app = Quart(__name__)
    sockets: list[Any] = []

    @app.websocket("/ws")
    async def ws() -> None:
        sockets.append(websocket._get_current_object())  # type: ignore[attr-defined,unused-ignore]
        await websocket.receive()

    tracing.trace(app)

    async def broadcast() -> None:
        while not sockets:  # noqa: ASYNC110 - the handler is in another task
            await asyncio.sleep(0)
        await sockets[0].send("to all")
        assert tracer.current_span() is None

    task = asyncio.create_task(broadcast())
    async with app.test_client().websocket("/ws") as client:
        assert await client.receive() == "to all"
        await task
        await client.send("end")

    assert "default" not in {span.name for span in spans}  # the name of the span that ddtrace would start


async def test_a_client_that_closes_its_websocket_causes_no_error(spans: list[Span]) -> None:
    """Quart 0.23 raises ClientDisconnectedError in the task that receives, so `await task` raises it in the handler."""
    app = Quart(__name__)

    async def receive_forever() -> None:
        while True:
            await websocket.receive()

    @app.websocket("/ws")
    async def chat() -> None:
        task = asyncio.ensure_future(receive_forever())
        try:
            await websocket.accept()
            await asyncio.Event().wait()
        finally:
            task.cancel()
            await task

    async with tracing.trace(app).test_client().websocket("/ws") as client:
        await client.send("one")
        await client.disconnect()

    assert {span.name for span in spans if span.error} == set()


async def test_the_resource_of_a_websocket_without_routing_is_the_status(app: Quart, spans: list[Span]) -> None:
    async def reject(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body"})

    set_asgi_app(app, reject)
    await send_request(tracing.trace(app), request_scope("/ws", type="websocket"))

    assert spans[0].resource == "websocket 401"


@pytest.mark.parametrize("traces_messages", [True, False])
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}], ids=["no extension", "http.response"])
@pytest.mark.parametrize("app_closes", [True, False])
async def test_a_websocket_that_is_closed_before_it_is_accepted_has_the_status_403(
    spans: list[Span],
    monkeypatch: pytest.MonkeyPatch,
    app_closes: bool,
    extensions: dict[str, Any],
    traces_messages: bool,
) -> None:
    """403 is the server's response. If the client disconnects first, it gets no response, so there is no status."""
    monkeypatch.setitem(config.asgi, "trace_asgi_websocket_messages", traces_messages)
    app = Quart(__name__)
    closed = asyncio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        if app_closes:
            await websocket.close(1008)
        else:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await websocket.accept()  # too late, because the client has disconnected

    incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}]

    async def receive() -> dict[str, Any]:
        if app_closes and len(incoming) == 1:
            await closed.wait()  # the client disconnects after the app has closed the WebSocket
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        # ASGI defines no headers for `websocket.close`, so tracing must not add any.
        assert message["type"] != "websocket.close" or "headers" not in message
        closed.set()

    scope = request_scope("/ws", type="websocket", scheme="ws", subprotocols=[], extensions=extensions)
    await tracing.trace(app)(scope, receive, send)  # type: ignore[arg-type]

    assert spans[0].get_tag("http.status_code") == ("403" if app_closes else None)
    assert spans[0].error == 0


# Background tasks.


class Mailer:
    def __call__(self, *_: object) -> None: ...
    def send(self, *_: object) -> None: ...


class Descriptor(Mailer):
    """A callable object with `__get__`, which a decorator that is a class needs for decorating methods."""

    def __get__(self, *_: object) -> Descriptor:
        return self  # pragma: no cover - it is never a method here


async def send_mail(*_: object, **__: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (send_mail, "send_mail"),
        (partial(send_mail, "ada@example.com", token="secret"), "send_mail"),
        (partial(partial(Mailer(), "ada@example.com"), "secret"), "Mailer"),
        (Mailer(), "Mailer"),
        (Descriptor(), "Descriptor"),
        (Mailer().send, "Mailer.send"),
        (Mailer, "Mailer"),
        (print, "print"),
        (lambda *_: None, "<lambda>"),
    ],
)
async def test_the_resource_of_a_background_task_is_the_name_of_its_function(
    app: Quart, spans: list[Span], function: Any, name: str
) -> None:
    tracing.trace(app).add_background_task(function)
    await asyncio.gather(*app.background_tasks)
    (span,) = spans

    assert span.resource == name
    assert "ada@example.com" not in str(span.get_tags())


async def test_add_background_task_of_a_subclass_keeps_its_own_parameter_and_result(spans: list[Span]) -> None:
    names: list[tuple[str, str]] = []
    received: list[Any] = []

    class QuartWithTaskNames(Quart):
        def add_background_task(self, func: Any, *args: Any, name: str = "", **kwargs: Any) -> Any:
            names.append((name, func.__name__))
            super().add_background_task(func, *args, **kwargs)
            return name

    async def task(*args: int, **kwargs: int) -> None:
        received.append((args, kwargs))

    app: Any = tracing.trace(QuartWithTaskNames(__name__))
    result = app.add_background_task(task, 1, name="mail", two=2)
    await asyncio.gather(*app.background_tasks)

    assert result == "mail"
    assert names == [("mail", "task")]
    assert received == [((1,), {"two": 2})]
    assert [span.name for span in spans] == ["quart.background_task"]


# Methods and services.


async def test_an_unknown_method_is_recorded_as_other(app: Quart, spans: list[Span]) -> None:
    await send_request(tracing.trace(app), request_scope("/users/7", method="BREW"))
    (span,) = spans

    assert (span.resource, span.get_tag("http.method")) == ("OTHER 405", "OTHER")


async def test_two_apps_in_one_process_can_be_two_services(
    app: Quart, spans: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process has no service name yet.
    monkeypatch.setattr(config, "service", None)
    monkeypatch.setattr(config, "_is_user_provided_service", False)
    for processor in tracer._span_aggregator.dd_processors:
        if hasattr(processor, "_global_service"):  # the processor that keeps the first service of the process
            monkeypatch.setattr(processor, "_global_service", "")
    second_app = Quart(__name__)
    tracing.trace(app, service="first")
    tracing.trace(second_app, service="second")
    await send_request(app, request_scope("/users/7"))
    await send_request(second_app, request_scope("/users/7"))

    assert [(span.service, span.get_tag("_dd.base_service")) for span in spans] == [
        ("first", None),
        ("second", "first"),
    ]


async def test_dd_service_overrides_the_service_argument(
    app: Quart, spans: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This is the state after a start with DD_SERVICE=environment.
    monkeypatch.setattr(config, "service", "environment")
    monkeypatch.setattr(config, "_is_user_provided_service", True)
    monkeypatch.setitem(config.asgi, "service_name", "environment")
    await send_request(tracing.trace(app, service="argument"), request_scope("/users/7"))

    assert [span.service for span in spans] == ["environment"]


# Mounts and probes.


def mount_in_starlette(app: Any) -> Any:
    outer = FastAPI()  # a subclass of Starlette
    outer.mount("/q", app)
    return outer


def mount_in_dispatcher(app: Any) -> Any:
    return DispatcherMiddleware({"/q": app})


@pytest.mark.parametrize("mount", [mount_in_starlette, mount_in_dispatcher])
async def test_the_resource_and_the_route_of_a_mounted_app_include_the_mount_path(
    app: Quart, spans: list[Span], mount: Callable[[Quart], Any]
) -> None:
    tracing.trace(app, probes={"/health"})
    await send_request(mount(app), request_scope("/q/users/7"))
    await send_request(mount(app), request_scope("/q/health"))
    (span,) = spans  # the probe has none

    assert (span.resource, span.get_tag("http.route")) == ("GET /q/users/<int:number>", "/q/users/<int:number>")


async def test_the_span_around_a_mounted_app_has_the_resource_of_the_inner_span(app: Quart, spans: list[Span]) -> None:
    outer = TraceMiddleware(mount_in_dispatcher(tracing.trace(app)))
    await send_request(outer, request_scope("/q/users/7"))

    assert [span.resource for span in spans] == ["GET /q/users/<int:number>"] * 2
    assert spans[0].parent_id is None
    assert spans[1].parent_id == spans[0].span_id


async def test_the_resource_contains_the_pattern_of_a_mount_with_variables(app: Quart, spans: list[Span]) -> None:
    mounted: Any = tracing.trace(app)

    async def starlette(scope: Any, receive: Any, send: Any) -> None:
        scope["datadog"]["resource_paths"] = ["/{tenant}"]  # as ddtrace's Starlette integration does
        await mounted({**scope, "root_path": "/acme"}, receive, send)

    await send_request(TraceMiddleware(starlette), request_scope("/acme/users/7"))

    assert {span.resource for span in spans} == {"GET /{tenant}/users/<int:number>"}


async def test_the_resource_contains_the_route_of_an_untraced_inner_app(app: Quart, spans: list[Span]) -> None:
    outer = Quart(__name__)
    set_asgi_app(outer, DispatcherMiddleware({"/q": app, "/": outer.asgi_app}))
    await send_request(tracing.trace(outer), request_scope("/q/users/7"))
    (span,) = spans

    assert span.resource == "GET /q/users/<int:number>"


@pytest.mark.parametrize("path", ["/health", "/api/health"])
async def test_a_probe_behind_a_prefix_has_no_span(app: Quart, spans: list[Span], path: str) -> None:
    """uvicorn puts the prefix of `--root-path` in front of `path`. Other servers don't."""
    await send_request(tracing.trace(app, probes={"/health"}), request_scope(path, root_path="/api"))

    assert spans == []


async def test_probes_may_be_a_single_path(app: Quart, spans: list[Span]) -> None:
    tracing.trace(app, probes="/health")
    tracing.trace(app, probes="/users/1")
    for path in ("/health", "/users/1", "/"):
        await send_request(app, request_scope(path))

    assert [span.resource for span in spans] == ["GET 404"]  # "/" is not a probe, and has no route


async def test_tracing_an_app_twice_creates_one_span(app: Quart, spans: list[Span]) -> None:
    """This also holds if middleware was added between the two calls. The probes of the second call are added."""
    tracing.trace(app)
    inner: Any = app.asgi_app

    async def middleware(*arguments: Any) -> None:
        await inner(*arguments)

    set_asgi_app(app, middleware)
    tracing.trace(app, probes={"/health"})
    await send_request(app, request_scope("/users/7"))
    await send_request(app, request_scope("/health"))
    app.add_background_task(send_mail)
    await asyncio.gather(*app.background_tasks)

    assert [span.name for span in spans] == ["asgi.request", "quart.background_task"]


# Routes and views.


async def test_ddtrace_receives_the_routes_and_the_views(app: Quart, spans: list[Span]) -> None:
    views: list[Any] = []
    event_hub.on("service_entrypoint.patch", views.append)  # the event for Code Origin
    try:
        await send_request(DispatcherMiddleware({"/q": tracing.trace(app)}), request_scope("/q/users/7"))
    finally:
        event_hub.reset("service_entrypoint.patch", views.append)
    endpoints = {(endpoint.method, endpoint.path) for endpoint in endpoint_collection.endpoints}

    assert {("GET", "/q/users/<int:number>"), ("GET", "/q/health")} <= endpoints
    assert not any(path == "/q/ws" for _, path in endpoints)  # the inventory is of HTTP endpoints only
    assert [view.__name__ for view in views] == ["user", "health"]


# Failures of ddtrace.


@WITH_EACH_MIDDLEWARE
# Python's urlsplit rejects U+2100, because NFKC normalizes it to "a/c".
@pytest.mark.parametrize("host", [b"[a", b"[::1", "\u2100".encode(), b"\xff"])
async def test_a_host_that_cannot_be_parsed_does_not_change_the_response(
    app: Quart, spans: list[Span], host: bytes, middleware: Any
) -> None:
    """The tag `http.url` then contains the server's address."""
    scope = request_scope("/users/1", headers=[(b"host", host)], query_string=b"a=b", server=("127.0.0.1", 8080))
    messages = await send_request(tracing.trace(app, middleware=middleware), scope)

    assert messages[0]["status"] == 200
    assert [span.get_tag("http.url") for span in spans] == ["http://127.0.0.1:8080/users/1?a=b"]


async def test_a_request_that_ddtrace_cannot_trace_gets_its_response(
    app: Quart, spans: list[Span], caplog: pytest.LogCaptureFixture
) -> None:
    """ddtrace sets an attribute of `scope["app"]`, which raises an AttributeError if that is a plain object."""
    tracing._warn.cache_clear()  # otherwise a warning is logged only once per process
    messages = await send_request(tracing.trace(app), request_scope("/users/1", app=object()))

    assert messages[0]["status"] == 200
    assert "Tracing a request failed with AttributeError" in caplog.text


async def test_a_failing_endpoint_inventory_does_not_change_the_response(
    app: Quart, spans: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(endpoint_collection, "add_endpoint", fail)
    tracing._warn.cache_clear()
    messages = await send_request(tracing.trace(app), request_scope("/users/7"))
    del app.extensions["datadog_routes_registered"]  # so the second request tries again to register the routes
    await send_request(app, request_scope("/users/8"))
    warnings = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert messages[1]["body"] == b"7"
    assert spans[0].resource == "GET /users/<int:number>"
    assert len(warnings) == 1
    assert "RuntimeError" in warnings[0]
    assert "on purpose" not in warnings[0]


async def test_a_failure_to_trace_a_message_does_not_change_the_websocket(
    app: Quart, spans: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(TraceMiddleware, "_handle_websocket_receive_message", fail)
    tracing._warn.cache_clear()
    async with tracing.trace(app).test_client().websocket("/ws") as client:
        await client.send("one")
        assert await client.receive() == "one"
    warnings = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert spans
    assert len(warnings) == 1
    assert "RuntimeError" in warnings[0]


# Processes that aren't traced.


async def test_trace_does_not_change_an_app_without_ddtrace_run(app: Quart) -> None:
    """For example, the unit tests of a service usually run without ddtrace-run."""
    attributes = dict(vars(app))
    add_background_task, asgi_app = app.add_background_task, app.asgi_app

    assert tracing.trace(app, probes={"/health"}, service="orders") is app
    assert vars(app) == attributes
    assert (app.add_background_task, app.asgi_app) == (add_background_task, asgi_app)


@pytest.mark.parametrize(
    ("library", "version", "is_supported"),
    [
        ("ddtrace", "4.4.9", False),
        ("ddtrace", "4.5.0", True),
        ("ddtrace", "4.99.1.dev3", True),
        ("ddtrace", "5.0.0rc1", False),
        ("quart", "0.19.8", False),
        ("quart", "0.19.9", True),
        ("quart", "0.24.0", False),
        ("quart", None, False),  # not installed
    ],
)
async def test_unsupported_releases_cause_one_warning_and_supported_ones_none(
    app: Quart,
    *,
    library: str,
    version: str | None,
    is_supported: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real_version = metadata.version

    def fake_version(name: str) -> str:
        if name != library:
            return real_version(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", fake_version)
    tracing.unsupported.cache_clear()
    tracing._warn.cache_clear()
    asgi_app = app.asgi_app
    tracing.trace(app)
    tracing.trace(app)
    tracing.unsupported.cache_clear()  # later tests need the real versions
    warnings = [record.getMessage() for record in caplog.records]

    # Without ddtrace-run, supported releases also leave the app untraced, but log nothing.
    assert app.asgi_app == asgi_app
    assert len(warnings) == (0 if is_supported else 1)
    assert all(library in message for message in warnings)
    assert (await app.test_client().get("/health")).status_code == 200
