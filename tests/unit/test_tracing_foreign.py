"""tracing.py in other people's set-ups: layers, mounts, names, versions, and a process that isn't traced."""

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

from hello_service.observability import fast_span, tracing

MIDDLEWARES = pytest.mark.parametrize("middleware", [None, fast_span.FastSpan], ids=["middleware", "fast"])


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    """The spans that have ended, in a process that is traced."""
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


def put(app: Any, layer: Any) -> None:
    """Put an ASGI layer around the app, or in its place."""
    app.asgi_app = layer


def scope(path: str, **rest: Any) -> dict[str, Any]:
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
        **rest,
    }


async def ask(app: Any, asked: dict[str, Any], leave_after: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of the response; the client disconnects after `leave_after` bytes, or after the last message."""
    gone, sent = asyncio.Event(), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        taken = sum(len(each.get("body", b"")) for each in sent)
        if taken == leave_after or (message["type"].endswith("response.body") and not message.get("more_body", False)):
            asyncio.get_running_loop().call_soon(gone.set)

    await app(asked, receive, send)
    return sent


# What an inner layer responds.


@MIDDLEWARES
async def test_a_layer_that_responds_names_the_span_by_its_status(finished: list[Span], middleware: Any) -> None:
    app = Quart(__name__)

    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body"})

    put(app, refuse)
    sent = await ask(tracing.trace(app, middleware=middleware), scope("/users/7"))
    (span,) = finished

    assert span.resource == "GET 401"
    assert span.get_tag("http.status_code") == "401"
    assert [name for name, _ in sent[0]["headers"]] == [b"traceresponse"]


@pytest.mark.parametrize("optional", ["query_string", "headers", "root_path", "asgi"])
async def test_a_scope_needs_no_more_than_the_layer_reads(app: Quart, finished: list[Span], optional: str) -> None:
    async def layer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": iter([(b"x-a", b"1")])})
        await send({"type": "http.response.body"})

    put(app, layer)
    asked = scope("/users/7")
    del asked[optional]
    sent = await ask(tracing.trace(app), asked)

    assert sent[0]["headers"][0] == (b"x-a", b"1")
    assert finished[0].resource == "GET 204"


async def test_one_traceresponse_where_a_layer_has_sent_it(app: Quart, finished: list[Span]) -> None:
    async def layer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Traceresponse", b"mine")]})
        await send({"type": "http.response.body"})

    put(app, layer)
    sent = await ask(tracing.trace(app), scope("/"))

    assert sent[0]["headers"] == [(b"Traceresponse", b"mine")]


@pytest.mark.parametrize("kind", ["lifespan", "mcp"])
async def test_what_is_no_request_goes_straight_through(app: Quart, finished: list[Span], kind: str) -> None:
    seen: list[Any] = []

    async def layer(*arguments: Any) -> None:
        seen.extend(arguments)

    put(app, layer)
    asked: Any = {"type": kind, "state": {}}
    await tracing.trace(app).asgi_app(asked, "receive", "send")  # type: ignore[arg-type]

    assert seen == [asked, "receive", "send"]
    assert seen[0] is asked
    assert finished == []


# How a response ends.


def responding(body: list[bytes], headers: list[tuple[bytes, bytes]], end: bool) -> Any:
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
async def test_a_span_says_that_its_response_is_incomplete(
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
    put(app, responding(body, headers, end))
    await ask(tracing.trace(app, middleware=middleware), scope("/", method=method))
    (span,) = finished

    assert span.get_tag(tracing.INCOMPLETE) == ("true" if incomplete else None)
    assert span.get_tag("http.status_code") == "200"


async def test_a_stream_that_times_out_is_incomplete(finished: list[Span]) -> None:
    """Quart ends it silently after RESPONSE_TIMEOUT."""
    app = Quart(__name__)
    app.config["RESPONSE_TIMEOUT"] = 0.01

    @app.get("/")
    async def stream() -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return Response(parts())

    serving = asyncio.ensure_future(ask(tracing.trace(app), scope("/")))
    with suppress(TimeoutError):
        await asyncio.wait_for(serving, 0.5)  # Quart 0.23 waits for the client
    (span,) = finished

    assert span.get_tag(tracing.INCOMPLETE) == "true"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Quart leaves the file open
async def test_a_client_that_has_its_bytes_has_not_disconnected(tmp_path: Path, finished: list[Span]) -> None:
    """Quart sends the last message of a file when a client with Content-Length bytes has gone."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    app = Quart(__name__)

    @app.get("/")
    async def file() -> Response:
        return await send_file(tmp_path / "file")

    tracing.trace(app)
    for _ in range(10):
        await ask(app, scope("/"), leave_after=100)

    assert [span.get_tag(tracing.CLIENT_DISCONNECTED) for span in finished] == [None] * 10
    assert [span.get_tag(tracing.INCOMPLETE) for span in finished] == [None] * 10


@MIDDLEWARES
async def test_a_request_that_starts_in_the_context_of_the_last_one_has_its_own_trace(
    app: Quart, finished: list[Span], middleware: Any
) -> None:
    """uvicorn starts a request that came early while the application still sends the end of the last response.

    ddtrace's asyncio integration then passes the trace on to the new task.
    """
    tracing.trace(app, middleware=middleware)
    following: list[asyncio.Task[Any]] = []
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            following.append(asyncio.create_task(follow(tracer.current_trace_context())))
            left.set()

    async def follow(active: Any) -> None:
        tracer.context_provider.activate(active)
        await ask(app, scope("/users/8"))

    await app(scope("/users/7"), receive, send)  # type: ignore[arg-type]
    await following[0]

    assert [(span.resource, span.parent_id) for span in finished] == [("GET /users/<int:number>", None)] * 2
    assert finished[0].trace_id != finished[1].trace_id


# WebSockets.


async def test_a_websocket_is_served_where_its_messages_are_not_traced(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DD_TRACE_WEBSOCKET_MESSAGES_ENABLED=false, the default of ddtrace 4.0: the handshake has a span."""
    monkeypatch.setitem(config.asgi, "trace_asgi_websocket_messages", False)
    tracing.trace(app)
    async with app.test_client().websocket("/ws") as client:
        await client.send("one")
        answer = await client.receive()
    (span,) = finished

    assert answer == "one"
    assert (span.name, span.resource, span.get_tag("http.status_code")) == ("asgi.request", "websocket /ws", "101")


async def test_a_socket_from_elsewhere_makes_no_trace_without_end(finished: list[Span]) -> None:
    """A broadcast from a task outside of any request: ddtrace would start a span there that never ends."""
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


async def test_a_client_that_closes_its_websocket_is_no_error(finished: list[Span]) -> None:
    """Quart 0.23 raises ClientDisconnectedError in a task that receives; handlers await such tasks at their end."""
    app = Quart(__name__)

    async def take() -> None:
        while True:
            await websocket.receive()

    @app.websocket("/ws")
    async def chat() -> None:
        task = asyncio.ensure_future(take())
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


async def test_a_layer_that_refuses_a_websocket_names_it_by_its_status(app: Quart, finished: list[Span]) -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body"})

    put(app, refuse)
    await ask(tracing.trace(app), scope("/ws", type="websocket"))

    assert finished[0].resource == "websocket 401"


# Names.


class Mail:
    def __call__(self, *_: object) -> None: ...
    def send(self, *_: object) -> None: ...


async def mail(*_: object, **__: object) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (mail, "mail"),
        (partial(mail, "ada@example.com", token="secret"), "mail"),
        (partial(partial(Mail(), "ada@example.com"), "secret"), "Mail"),
        (Mail(), "Mail"),
        (Mail().send, "Mail.send"),
        (Mail, "Mail"),
        (print, "print"),
        (lambda *_: None, "<lambda>"),
    ],
)
async def test_a_background_task_is_named_by_its_function(
    app: Quart, finished: list[Span], function: Any, name: str
) -> None:
    tracing.trace(app).add_background_task(function)
    await asyncio.gather(*app.background_tasks)
    (span,) = finished

    assert span.resource == name
    assert "ada@example.com" not in str(span.get_tags())


async def test_a_method_that_a_client_made_up_is_in_no_tag(app: Quart, finished: list[Span]) -> None:
    await ask(tracing.trace(app), scope("/users/7", method="BREW"))
    (span,) = finished

    assert (span.resource, span.get_tag("http.method")) == ("OTHER 405", "OTHER")


def test_two_apps_have_a_service_each(app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "service", None)
    monkeypatch.setattr(config, "_is_user_provided_service", False)
    for processor in tracer._span_aggregator.dd_processors:
        if hasattr(processor, "_global_service"):
            monkeypatch.setattr(processor, "_global_service", "")
    other = Quart(__name__)
    tracing.trace(app, service="first")
    tracing.trace(other, service="second")
    asyncio.run(ask(app, scope("/users/7")))
    asyncio.run(ask(other, scope("/users/7")))

    assert [(span.service, span.get_tag("_dd.base_service")) for span in finished] == [
        ("first", None),
        ("second", "first"),
    ]


async def test_the_environment_names_every_app(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "service", "operators")
    monkeypatch.setattr(config, "_is_user_provided_service", True)
    monkeypatch.setitem(config.asgi, "service_name", "operators")
    await ask(tracing.trace(app, service="mine"), scope("/users/7"))

    assert [span.service for span in finished] == ["operators"]


# Mounts and probes.


def under_starlette(app: Any) -> Any:
    outer = FastAPI()
    outer.mount("/q", app)
    return outer


def dispatched(app: Any) -> Any:
    return DispatcherMiddleware({"/q": app})


@pytest.mark.parametrize("mount", [under_starlette, dispatched])
async def test_a_mounted_app_has_the_mount_path_in_its_names(
    app: Quart, finished: list[Span], mount: Callable[[Quart], Any]
) -> None:
    await ask(mount(tracing.trace(app, {"/health"})), scope("/q/users/7"))
    await ask(mount(app), scope("/q/health"))
    (span,) = finished

    assert (span.resource, span.get_tag("http.route")) == ("GET /q/users/<int:number>", "/q/users/<int:number>")


async def test_the_entry_span_around_a_mounted_app_has_its_route(app: Quart, finished: list[Span]) -> None:
    outer = TraceMiddleware(dispatched(tracing.trace(app)))
    await ask(outer, scope("/q/users/7"))

    assert [span.resource for span in finished] == ["GET /q/users/<int:number>"] * 2
    assert finished[0].parent_id is None
    assert finished[1].parent_id == finished[0].span_id


async def test_a_mount_with_variables_is_named_by_its_pattern(app: Quart, finished: list[Span]) -> None:
    mounted: Any = tracing.trace(app)

    async def starlette(asked: Any, receive: Any, send: Any) -> None:
        asked["datadog"]["resource_paths"] = ["/{tenant}"]  # what ddtrace's integration keeps
        await mounted({**asked, "root_path": "/acme"}, receive, send)

    await ask(TraceMiddleware(starlette), scope("/acme/users/7"))

    assert {span.resource for span in finished} == {"GET /{tenant}/users/<int:number>"}


async def test_an_untraced_app_inside_of_a_traced_one_names_its_span(app: Quart, finished: list[Span]) -> None:
    outer = Quart(__name__)
    put(outer, DispatcherMiddleware({"/q": app, "/": outer.asgi_app}))
    await ask(tracing.trace(outer), scope("/q/users/7"))
    (span,) = finished

    assert span.resource == "GET /q/users/<int:number>"


@pytest.mark.parametrize("path", ["/health", "/api/health"])
async def test_a_probe_behind_a_prefix_has_no_span(app: Quart, finished: list[Span], path: str) -> None:
    """`--root-path`: uvicorn puts it in front of `path`, others do not."""
    await ask(tracing.trace(app, {"/health"}), scope(path, root_path="/api"))

    assert finished == []


async def test_tracing_twice_makes_one_span(app: Quart, finished: list[Span]) -> None:
    """Also with a layer between the two calls; the probes of both calls count."""
    tracing.trace(app)
    inner: Any = app.asgi_app

    async def layer(*arguments: Any) -> None:
        await inner(*arguments)

    put(app, layer)
    tracing.trace(app, {"/health"})
    await ask(app, scope("/users/7"))
    await ask(app, scope("/health"))
    app.add_background_task(mail)
    await asyncio.gather(*app.background_tasks)

    assert [span.name for span in finished] == ["asgi.request", "quart.background_task"]


# What ddtrace's integrations do beside spans.


async def test_ddtrace_knows_the_routes_and_the_views(app: Quart, finished: list[Span]) -> None:
    views: list[Any] = []
    event_hub.on("service_entrypoint.patch", views.append)
    try:
        await ask(DispatcherMiddleware({"/q": tracing.trace(app)}), scope("/q/users/7"))
    finally:
        event_hub.reset("service_entrypoint.patch", views.append)
    known = {(each.method, each.path) for each in endpoint_collection.endpoints}

    assert {("GET", "/q/users/<int:number>"), ("GET", "/q/health")} <= known
    assert not any(path == "/q/ws" for _, path in known)
    assert [view.__name__ for view in views] == ["user", "health"]


async def test_what_ddtrace_can_not_know_changes_nothing(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(endpoint_collection, "add_endpoint", fail)
    tracing._warn.cache_clear()
    sent = await ask(tracing.trace(app), scope("/users/7"))
    del app.extensions["datadog_routes_registered"]
    await ask(app, scope("/users/8"))
    warned = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert sent[1]["body"] == b"7"
    assert finished[0].resource == "GET /users/<int:number>"
    assert len(warned) == 1
    assert "RuntimeError" in warned[0]
    assert "on purpose" not in warned[0]


async def test_a_message_that_ddtrace_can_not_see_changes_nothing(
    app: Quart, finished: list[Span], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(TraceMiddleware, "_handle_websocket_receive_message", fail)
    tracing._warn.cache_clear()
    async with tracing.trace(app).test_client().websocket("/ws") as client:
        await client.send("one")
        assert await client.receive() == "one"
    warned = [record.getMessage() for record in caplog.records if record.name == tracing.__name__]

    assert finished
    assert len(warned) == 1
    assert "RuntimeError" in warned[0]


# Where nothing is traced.


async def test_a_process_that_is_not_traced_has_nothing_of_it(app: Quart) -> None:
    """Without ddtrace-run, as in a team's unit tests, trace() leaves the app as it is."""
    before, task, inner = dict(vars(app)), app.add_background_task, app.asgi_app

    assert tracing.trace(app, {"/health"}, "mine") is app
    assert vars(app) == before
    assert (app.add_background_task, app.asgi_app) == (task, inner)


@pytest.mark.parametrize(
    ("library", "version", "fits"),
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
async def test_other_releases_leave_the_service_untraced_with_one_warning(
    app: Quart,
    *,
    library: str,
    version: str | None,
    fits: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = metadata.version

    def versions(name: str) -> str:
        if name == library and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if name == library and version else right(name)

    monkeypatch.setattr(metadata, "version", versions)
    tracing.unsupported.cache_clear()
    tracing._warn.cache_clear()
    inner = app.asgi_app
    tracing.trace(tracing.trace(app))
    tracing.unsupported.cache_clear()
    warned = [record.getMessage() for record in caplog.records]

    assert app.asgi_app == inner
    assert len(warned) == (not fits)
    assert all(library in message for message in warned)
    assert (await app.test_client().get("/health")).status_code == 200
