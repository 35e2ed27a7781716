"""Tests of tracing.py in other services' set-ups: layers, mounts, names, releases, and processes that aren't traced."""

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

MIDDLEWARES = pytest.mark.parametrize("middleware", [None, fast_span.FastSpan], ids=["middleware", "fast"])


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    """The spans that have finished so far, in a process that is traced."""
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


def set_asgi_app(app: Any, layer: Any) -> None:
    """Make `layer` the app's ASGI application: a layer around Quart's own, or a replacement."""
    app.asgi_app = layer


def request_scope(path: str, **others: Any) -> dict[str, Any]:
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
        **others,
    }


async def send_request(app: Any, scope: dict[str, Any], disconnect_after: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of the response.

    The client disconnects after `disconnect_after` bytes of the body or after the last message.
    """
    disconnected, sent = asyncio.Event(), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        body_length = sum(len(each.get("body", b"")) for each in sent)
        is_last = message["type"].endswith("response.body") and not message.get("more_body", False)
        if is_last or body_length == disconnect_after:
            asyncio.get_running_loop().call_soon(disconnected.set)

    await app(scope, receive, send)
    return sent


# Layers that respond in place of Quart.


@MIDDLEWARES
async def test_the_resource_of_a_request_that_fails_before_routing_is_the_status(
    finished: list[Span], middleware: Any
) -> None:
    """The server responds with 500 to the exception of a URL converter, and of a layer around Quart."""

    class Broken(BaseConverter):
        def to_python(self, value: str) -> str:
            raise RuntimeError(f"no {value}")

    app = Quart(__name__)
    app.url_map.converters["broken"] = Broken
    app.add_url_rule("/users/<broken:name>", view_func=lambda name: name)
    with suppress(RuntimeError):
        await send_request(tracing.trace(app, middleware=middleware), request_scope("/users/7"))

    assert (finished[0].resource, finished[0].get_tag("http.status_code")) == ("GET 500", "500")


@MIDDLEWARES
async def test_the_resource_of_a_layers_response_is_its_status(finished: list[Span], middleware: Any) -> None:
    app = Quart(__name__)

    async def reject(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})

    set_asgi_app(app, reject)
    sent = await send_request(tracing.trace(app, middleware=middleware), request_scope("/users/7"))
    (span,) = finished

    assert span.resource == "GET 401"
    assert span.get_tag("http.status_code") == "401"
    assert [name for name, _ in sent[0]["headers"]] == [b"traceresponse"]


@pytest.mark.parametrize("optional", ["query_string", "headers", "root_path", "asgi"])
async def test_a_scope_may_lack_a_key_that_the_layer_does_not_read(
    app: Quart, finished: list[Span], optional: str
) -> None:
    async def layer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": iter([(b"x-a", b"1")])})
        await send({"type": "http.response.body"})

    set_asgi_app(app, layer)
    scope = request_scope("/users/7")
    del scope[optional]
    sent = await send_request(tracing.trace(app), scope)

    assert sent[0]["headers"][0] == (b"x-a", b"1")
    assert finished[0].resource == "GET 204"


async def test_a_layers_own_traceresponse_is_kept(app: Quart, finished: list[Span]) -> None:
    async def layer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Traceresponse", b"mine")]})
        await send({"type": "http.response.body"})

    set_asgi_app(app, layer)
    sent = await send_request(tracing.trace(app), request_scope("/"))

    assert sent[0]["headers"] == [(b"Traceresponse", b"mine")]


@pytest.mark.parametrize("kind", ["lifespan", "mcp"])
async def test_other_types_of_scope_are_passed_on_unchanged(app: Quart, finished: list[Span], kind: str) -> None:
    received: list[Any] = []

    async def layer(*arguments: Any) -> None:
        received.extend(arguments)

    set_asgi_app(app, layer)
    scope: Any = {"type": kind, "state": {}}
    await tracing.trace(app).asgi_app(scope, "receive", "send")  # type: ignore[arg-type]

    assert received == [scope, "receive", "send"]
    assert received[0] is scope
    assert finished == []


# How a response ends.


def responding_layer(body: list[bytes], headers: list[tuple[bytes, bytes]], end: bool) -> Any:
    """Return a layer that sends a response in parts, and the empty last message if `end`."""

    async def layer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if end:
            await send({"type": "http.response.body"})

    return layer


@MIDDLEWARES
@pytest.mark.parametrize(
    ("body", "length", "end", "method", "incomplete"),
    [
        ([b"abc"], None, True, "GET", False),
        ([b"abc"], None, False, "GET", True),
        ([], None, False, "GET", True),
        ([b"abc"], b"3", True, "GET", False),
        ([b"abc"], b"3", False, "GET", False),
        ([b"ab"], b"3", True, "GET", True),
        ([b"ab"], b"3", False, "GET", True),
        ([b"ab"], b"three", True, "GET", False),
        ([], b"3", True, "HEAD", False),
    ],
)
async def test_an_incomplete_response_has_a_tag(
    app: Quart,
    finished: list[Span],
    *,
    middleware: Any,
    body: list[bytes],
    length: bytes | None,
    end: bool,
    method: str,
    incomplete: bool,
) -> None:
    headers = [(b"Content-Length", length)] if length else []
    set_asgi_app(app, responding_layer(body, headers, end))
    await send_request(tracing.trace(app, middleware=middleware), request_scope("/", method=method))
    (span,) = finished

    assert span.get_tag(tracing.INCOMPLETE) == ("true" if incomplete else None)
    assert span.get_tag("http.status_code") == "200"


async def test_a_stream_that_times_out_is_incomplete(finished: list[Span]) -> None:
    """Quart ends the stream without an exception after RESPONSE_TIMEOUT."""
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = 0.01

    @app.get("/")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return Response(parts())

    serving = asyncio.ensure_future(send_request(tracing.trace(app), request_scope("/")))
    with suppress(TimeoutError):
        await asyncio.wait_for(serving, 0.5)  # Quart 0.23 waits for the client
    (span,) = finished

    assert span.get_tag(tracing.INCOMPLETE) == "true"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Quart leaves the file open
async def test_a_client_that_has_all_bytes_is_not_tagged_as_disconnected(tmp_path: Path, finished: list[Span]) -> None:
    """A client may disconnect after Content-Length bytes, which is before Quart sends the last message of a file."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    app = Quart(__name__)

    @app.get("/")
    async def file() -> Response:
        return await send_file(tmp_path / "file")

    tracing.trace(app)
    for _ in range(10):
        await send_request(app, request_scope("/"), disconnect_after=100)

    assert [span.get_tag(tracing.CLIENT_DISCONNECTED) for span in finished] == [None] * 10
    assert [span.get_tag(tracing.INCOMPLETE) for span in finished] == [None] * 10


@MIDDLEWARES
async def test_a_pipelined_request_has_its_own_trace(app: Quart, finished: list[Span], middleware: Any) -> None:
    """uvicorn starts a pipelined request while the application is still sending the end of the previous response.

    ddtrace's asyncio integration then passes the trace on to the new task.
    """
    tracing.trace(app, middleware=middleware)
    pipelined: list[asyncio.Task[Any]] = []
    disconnected = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            pipelined.append(asyncio.create_task(send_pipelined(tracer.current_trace_context())))
            disconnected.set()

    async def send_pipelined(context: Any) -> None:
        tracer.context_provider.activate(context)
        await send_request(app, request_scope("/users/8"))

    await app(request_scope("/users/7"), receive, send)  # type: ignore[arg-type]
    await pipelined[0]

    assert [(span.resource, span.parent_id) for span in finished] == [("GET /users/<int:number>", None)] * 2
    assert finished[0].trace_id != finished[1].trace_id


# WebSockets.


async def test_only_the_handshake_has_a_span_if_messages_are_not_traced(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is DD_TRACE_WEBSOCKET_MESSAGES_ENABLED=false, the default of ddtrace 4.0."""
    monkeypatch.setitem(config.asgi, "trace_asgi_websocket_messages", False)
    tracing.trace(app)
    async with app.test_client().websocket("/ws") as client:
        await client.send("one")
        reply = await client.receive()
    (span,) = finished

    assert reply == "one"
    assert (span.name, span.resource, span.get_tag("http.status_code")) == ("asgi.request", "websocket /ws", "101")


async def test_a_message_sent_outside_of_any_request_starts_no_trace(finished: list[Span]) -> None:
    """In a task that broadcasts, ddtrace would start a span that never ends."""
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

    assert "default" not in {span.name for span in finished}


async def test_a_client_that_closes_its_websocket_causes_no_error(finished: list[Span]) -> None:
    """Quart 0.23 raises ClientDisconnectedError in a task that receives. Handlers await such tasks when they end."""
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

    assert {span.name for span in finished if span.error} == set()


async def test_the_resource_of_a_websocket_that_a_layer_rejects_is_the_status(app: Quart, finished: list[Span]) -> None:
    async def reject(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body"})

    set_asgi_app(app, reject)
    await send_request(tracing.trace(app), request_scope("/ws", type="websocket"))

    assert finished[0].resource == "websocket 401"


@pytest.mark.parametrize("messages_traced", [True, False])
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("closes", [True, False])
async def test_a_websocket_that_is_closed_before_it_is_accepted_has_the_status_403(
    finished: list[Span],
    monkeypatch: pytest.MonkeyPatch,
    closes: bool,
    extensions: dict[str, Any],
    messages_traced: bool,
) -> None:
    """The server responds with it. A client that disconnects first gets no response, so there is no status."""
    monkeypatch.setitem(config.asgi, "trace_asgi_websocket_messages", messages_traced)
    app, closed = Quart(__name__), asyncio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        if closes:
            await websocket.close(1008)
        else:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await websocket.accept()

    incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006}]

    async def receive() -> dict[str, Any]:
        if closes and len(incoming) == 1:
            await closed.wait()
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        assert message["type"] != "websocket.close" or "headers" not in message
        closed.set()

    scope = request_scope("/ws", type="websocket", scheme="ws", subprotocols=[], extensions=extensions)
    await tracing.trace(app)(scope, receive, send)  # type: ignore[arg-type]

    assert finished[0].get_tag("http.status_code") == ("403" if closes else None)
    assert finished[0].error == 0


# Names.


class Mailer:
    def __call__(self, *_: object) -> None: ...
    def send(self, *_: object) -> None: ...


class Descriptor(Mailer):
    """A callable object that can also be a method, as class-based decorators are."""

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
async def test_a_background_task_is_named_after_its_function(
    app: Quart, finished: list[Span], function: Any, name: str
) -> None:
    tracing.trace(app).add_background_task(function)
    await asyncio.gather(*app.background_tasks)
    (span,) = finished

    assert span.resource == name
    assert "ada@example.com" not in str(span.get_tags())


async def test_a_subclass_may_add_arguments_and_a_result_to_add_background_task(finished: list[Span]) -> None:
    names: list[tuple[str, str]] = []
    received: list[Any] = []

    class Named(Quart):
        def add_background_task(self, func: Any, *args: Any, name: str = "", **kwargs: Any) -> Any:
            names.append((name, func.__name__))
            super().add_background_task(func, *args, **kwargs)
            return name

    async def task(*args: int, **kwargs: int) -> None:
        received.append((args, kwargs))

    app: Any = tracing.trace(Named(__name__))
    result = app.add_background_task(task, 1, name="mail", two=2)
    await asyncio.gather(*app.background_tasks)

    assert result == "mail"
    assert names == [("mail", "task")]
    assert received == [((1,), {"two": 2})]
    assert [span.name for span in finished] == ["quart.background_task"]


@MIDDLEWARES
@pytest.mark.parametrize("host", [b"[a", b"[::1", "\u2100".encode(), b"\xff"])
async def test_a_host_that_can_not_be_parsed_changes_nothing(
    app: Quart, finished: list[Span], host: bytes, middleware: Any
) -> None:
    """The URL then has the server's address."""
    others = {"headers": [(b"host", host)], "query_string": b"a=b", "server": ("127.0.0.1", 8080)}
    sent = await send_request(tracing.trace(app, middleware=middleware), request_scope("/users/1", **others))

    assert sent[0]["status"] == 200
    assert [span.get_tag("http.url") for span in finished] == ["http://127.0.0.1:8080/users/1?a=b"]


async def test_a_request_that_ddtrace_can_not_trace_gets_its_response(
    app: Quart, finished: list[Span], caplog: pytest.LogCaptureFixture
) -> None:
    """ddtrace sets an attribute of the application in the scope, which this one refuses."""
    tracing._warn.cache_clear()
    sent = await send_request(tracing.trace(app), request_scope("/users/1", app=object()))

    assert sent[0]["status"] == 200
    assert "Tracing a request failed with AttributeError" in caplog.text


async def test_an_unknown_method_is_in_no_tag(app: Quart, finished: list[Span]) -> None:
    await send_request(tracing.trace(app), request_scope("/users/7", method="BREW"))
    (span,) = finished

    assert (span.resource, span.get_tag("http.method")) == ("OTHER 405", "OTHER")


def test_two_apps_in_one_process_can_be_two_services(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "service", None)
    monkeypatch.setattr(config, "_is_user_provided_service", False)
    for processor in tracer._span_aggregator.dd_processors:
        if hasattr(processor, "_global_service"):
            monkeypatch.setattr(processor, "_global_service", "")
    other = Quart(__name__)
    tracing.trace(app, service="first")
    tracing.trace(other, service="second")
    asyncio.run(send_request(app, request_scope("/users/7")))
    asyncio.run(send_request(other, request_scope("/users/7")))

    assert [(span.service, span.get_tag("_dd.base_service")) for span in finished] == [
        ("first", None),
        ("second", "first"),
    ]


async def test_the_service_of_the_environment_wins(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "service", "environment")
    monkeypatch.setattr(config, "_is_user_provided_service", True)
    monkeypatch.setitem(config.asgi, "service_name", "environment")
    await send_request(tracing.trace(app, service="argument"), request_scope("/users/7"))

    assert [span.service for span in finished] == ["environment"]


# Mounts and probes.


def mount_in_starlette(app: Any) -> Any:
    outer = FastAPI()
    outer.mount("/q", app)
    return outer


def mount_in_dispatcher(app: Any) -> Any:
    return DispatcherMiddleware({"/q": app})


@pytest.mark.parametrize("mount", [mount_in_starlette, mount_in_dispatcher])
async def test_the_resource_and_the_route_of_a_mounted_app_include_the_mount_path(
    app: Quart, finished: list[Span], mount: Callable[[Quart], Any]
) -> None:
    await send_request(mount(tracing.trace(app, {"/health"})), request_scope("/q/users/7"))
    await send_request(mount(app), request_scope("/q/health"))
    (span,) = finished

    assert (span.resource, span.get_tag("http.route")) == ("GET /q/users/<int:number>", "/q/users/<int:number>")


async def test_the_entry_span_around_a_mounted_app_is_named_by_the_route(app: Quart, finished: list[Span]) -> None:
    outer = TraceMiddleware(mount_in_dispatcher(tracing.trace(app)))
    await send_request(outer, request_scope("/q/users/7"))

    assert [span.resource for span in finished] == ["GET /q/users/<int:number>"] * 2
    assert finished[0].parent_id is None
    assert finished[1].parent_id == finished[0].span_id


async def test_a_mount_with_variables_is_named_by_its_pattern(app: Quart, finished: list[Span]) -> None:
    mounted: Any = tracing.trace(app)

    async def starlette(scope: Any, receive: Any, send: Any) -> None:
        scope["datadog"]["resource_paths"] = ["/{tenant}"]  # as ddtrace's Starlette integration does
        await mounted({**scope, "root_path": "/acme"}, receive, send)

    await send_request(TraceMiddleware(starlette), request_scope("/acme/users/7"))

    assert {span.resource for span in finished} == {"GET /{tenant}/users/<int:number>"}


async def test_a_span_is_named_by_the_route_of_an_untraced_inner_app(app: Quart, finished: list[Span]) -> None:
    outer = Quart(__name__)
    set_asgi_app(outer, DispatcherMiddleware({"/q": app, "/": outer.asgi_app}))
    await send_request(tracing.trace(outer), request_scope("/q/users/7"))
    (span,) = finished

    assert span.resource == "GET /q/users/<int:number>"


@pytest.mark.parametrize("path", ["/health", "/api/health"])
async def test_a_probe_behind_a_prefix_has_no_span(app: Quart, finished: list[Span], path: str) -> None:
    """uvicorn puts the prefix of `--root-path` in front of `path`; other servers don't."""
    await send_request(tracing.trace(app, {"/health"}), request_scope(path, root_path="/api"))

    assert finished == []


async def test_a_string_of_probes_is_one_path(app: Quart, finished: list[Span]) -> None:
    tracing.trace(tracing.trace(app, probes="/health"), probes="/users/1")
    for path in ("/health", "/users/1", "/"):
        await send_request(app, request_scope(path))

    assert [span.resource for span in finished] == ["GET 404"]


async def test_tracing_an_app_twice_creates_one_span(app: Quart, finished: list[Span]) -> None:
    """This also holds if a layer was added between the two calls. The probes of both calls count."""
    tracing.trace(app)
    inner: Any = app.asgi_app

    async def layer(*arguments: Any) -> None:
        await inner(*arguments)

    set_asgi_app(app, layer)
    tracing.trace(app, {"/health"})
    await send_request(app, request_scope("/users/7"))
    await send_request(app, request_scope("/health"))
    app.add_background_task(send_mail)
    await asyncio.gather(*app.background_tasks)

    assert [span.name for span in finished] == ["asgi.request", "quart.background_task"]


# What ddtrace's integrations do besides creating spans.


async def test_ddtrace_receives_the_routes_and_the_views(app: Quart, finished: list[Span]) -> None:
    views: list[Any] = []
    event_hub.on("service_entrypoint.patch", views.append)
    try:
        await send_request(DispatcherMiddleware({"/q": tracing.trace(app)}), request_scope("/q/users/7"))
    finally:
        event_hub.reset("service_entrypoint.patch", views.append)
    endpoints = {(each.method, each.path) for each in endpoint_collection.endpoints}

    assert {("GET", "/q/users/<int:number>"), ("GET", "/q/health")} <= endpoints
    assert not any(path == "/q/ws" for _, path in endpoints)
    assert [view.__name__ for view in views] == ["user", "health"]


async def test_a_failing_endpoint_inventory_does_not_change_the_response(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(endpoint_collection, "add_endpoint", fail)
    tracing._warn.cache_clear()
    sent = await send_request(tracing.trace(app), request_scope("/users/7"))
    del app.extensions["datadog_routes_registered"]
    await send_request(app, request_scope("/users/8"))
    warnings = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert sent[1]["body"] == b"7"
    assert finished[0].resource == "GET /users/<int:number>"
    assert len(warnings) == 1
    assert "RuntimeError" in warnings[0]
    assert "on purpose" not in warnings[0]


async def test_a_failure_to_trace_a_message_does_not_change_the_websocket(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(TraceMiddleware, "_handle_websocket_receive_message", fail)
    tracing._warn.cache_clear()
    async with tracing.trace(app).test_client().websocket("/ws") as client:
        await client.send("one")
        assert await client.receive() == "one"
    warnings = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert finished
    assert len(warnings) == 1
    assert "RuntimeError" in warnings[0]


# Processes that aren't traced.


async def test_trace_leaves_an_app_as_it_is_without_ddtrace_run(app: Quart) -> None:
    """A team's unit tests run without ddtrace-run."""
    attributes, add_background_task, asgi_app = dict(vars(app)), app.add_background_task, app.asgi_app

    assert tracing.trace(app, {"/health"}, "orders") is app
    assert vars(app) == attributes
    assert (app.add_background_task, app.asgi_app) == (add_background_task, asgi_app)


@pytest.mark.parametrize(
    ("library", "version", "supported"),
    [
        ("ddtrace", "4.4.9", False),
        ("ddtrace", "4.5.0", True),
        ("ddtrace", "4.99.1.dev3", True),
        ("ddtrace", "5.0.0rc1", False),
        ("quart", "0.19.8", False),
        ("quart", "0.19.9", True),
        ("quart", "0.24.0", False),
        ("quart", None, False),
    ],
)
async def test_a_service_with_unsupported_releases_is_untraced_and_logs_one_warning(
    app: Quart,
    *,
    library: str,
    version: str | None,
    supported: bool,
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
    tracing.unsupported.cache_clear()
    warnings = [record.getMessage() for record in caplog.records]

    # Without ddtrace-run, supported releases also leave the app untraced, but log nothing.
    assert app.asgi_app == asgi_app
    assert len(warnings) == (0 if supported else 1)
    assert all(library in message for message in warnings)
    assert (await app.test_client().get("/health")).status_code == 200
