"""Tests of tracing.py in one application: probes, errors, tasks, URLs, headers, WebSocket messages, custom spans."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from ddtrace import config
from ddtrace.propagation import http as propagation
from ddtrace.trace import Span, tracer
from finished_spans import finished_spans
from quart import Quart, Response, websocket
from quart.signals import got_background_exception
from quart.testing import WebsocketResponseError
from werkzeug import Response as WerkzeugResponse
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from hello_service.observability import fast_span, tracing


@pytest.fixture(autouse=True)
def _active(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activate tracing.py, although these tests run without ddtrace-run."""
    monkeypatch.setattr(tracing, "active", lambda: True)


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    """The spans that have finished so far."""
    with finished_spans() as spans:
        yield spans


@pytest.fixture
def app() -> Quart:
    """An app with an HTTP probe, a WebSocket probe and a route, all of which raise an exception."""
    app = Quart(__name__)

    @app.get("/health")
    @app.get("/fails")
    async def fails() -> str:
        raise RuntimeError("on purpose")

    @app.websocket("/health")
    async def socket() -> None:
        raise RuntimeError("on purpose")

    return tracing.trace(app, probes={"/health"})


async def test_a_failing_probe_gets_a_response_and_no_span(app: Quart, spans: list[Span]) -> None:
    """This holds over HTTP and over a WebSocket."""
    client = app.test_client()
    response = await client.get("/health")
    with pytest.raises(WebsocketResponseError):
        async with client.websocket("/health") as connection:
            await connection.receive()

    assert response.status_code == 500
    assert spans == []


async def test_an_exception_that_leaves_quart_is_a_500(app: Quart, spans: list[Span]) -> None:
    """In debug mode and in tests, an exception leaves Quart, and the server sends the response."""
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises((RuntimeError, ExceptionGroup)):  # Quart 0.23 runs a request in a task group
        await app.test_client().get("/fails")
    (span,) = spans

    assert span.get_tag("http.status_code") == "500"
    assert span.get_tag("error.message") == "on purpose"


class CustomError(HTTPException):
    """An application's own exception, whose status differs from that of its response."""

    code = 500


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (HTTPException(response=Response("busy", 503)), "503", "503 Service Unavailable"),
        (HTTPException(response=WerkzeugResponse("busy", 502)), "502", "502 Bad Gateway"),
        (HTTPException(response=Response("busy", 599)), "599", "599"),  # a status without a name
        (HTTPException("why", response=Response("busy", 503)), "503", "503 Service Unavailable: why"),
        (CustomError(response=Response("busy", 503)), "503", "503 Service Unavailable"),
        (ServiceUnavailable("why"), "503", "503 Service Unavailable: why"),
    ],
)
async def test_an_abort_has_the_status_of_its_response(
    app: Quart, spans: list[Span], error: HTTPException, status: str, message: str
) -> None:
    """Werkzeug's own text for an exception without a status is `??? Unknown Error: None`."""

    @app.get("/aborts")
    async def aborts() -> str:
        raise error

    response = await app.test_client().get("/aborts")
    (span,) = spans

    assert str(response.status_code) == span.get_tag("http.status_code") == status
    assert span.get_tag("error.message") == message
    assert (span.get_tag("error.stack") or "").rstrip().endswith(message)


async def test_an_error_response_without_an_exception_has_no_message(app: Quart, spans: list[Span]) -> None:
    @app.get("/returns")
    async def returns() -> Response:
        return Response("busy", 503)

    await app.test_client().get("/returns")
    (span,) = spans

    assert (span.error, span.get_tag("http.status_code")) == (1, "503")
    assert (span.get_tag("error.type"), span.get_tag("error.message")) == (None, None)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_background_task_needs_no_request(app: Quart, spans: list[Span], fails: bool) -> None:
    """A task that starts outside of a request has no link. Its exception still reaches Quart's signal."""
    errors: list[BaseException] = []
    active_span_ids: list[int | None] = []

    async def record_failure(_app: Quart, exception: BaseException, **_: object) -> None:
        errors.append(exception)
        context = tracer.current_trace_context()
        active_span_ids.append(context.span_id if context else None)  # Quart's log line of the exception has this id

    async def task() -> None:
        if fails:
            raise RuntimeError("on purpose")

    got_background_exception.connect(record_failure, app)
    app.add_background_task(task)
    await asyncio.gather(*app.background_tasks)
    (span,) = spans

    assert span.name == "quart.background_task"
    assert "span_links" not in str(span.get_tags())
    assert [str(error) for error in errors] == (["on purpose"] if fails else [])
    assert active_span_ids == ([span.span_id] if fails else [])
    # 2 is ddtrace's USER_KEEP. With None, ddtrace samples the trace only when it sends it.
    assert span.context.sampling_priority == (2 if fails else None)


async def test_a_span_has_the_exception_without_the_groups_around_it(spans: list[Span]) -> None:
    """Quart's task group wraps an exception that breaks off a response."""
    app = Quart(__name__)
    original = ValueError("on purpose")

    async def raise_group(*_: object) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("another", [original])])

    app.asgi_app = raise_group  # type: ignore[assignment,method-assign]  # Quart documents this assignment
    traced: Any = tracing.trace(app).asgi_app
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(ExceptionGroup):
        await traced(scope, None, None)
    (span,) = spans

    assert span.get_tag("error.type") == "builtins.ValueError"


@pytest.mark.parametrize(
    ("scope", "host", "url"),
    [
        ({"server": ("10.0.0.1", 80)}, None, "http://10.0.0.1/path?a=b"),
        ({"server": ("10.0.0.1", 8080)}, None, "http://10.0.0.1:8080/path?a=b"),
        ({"server": ("10.0.0.1", 443), "scheme": "https"}, None, "https://10.0.0.1/path?a=b"),
        ({"server": ("/run/socket", None)}, None, "http:///run/socket/path?a=b"),
        ({"server": ("10.0.0.1", 80)}, "here:1", "http://here:1/path?a=b"),
        ({}, None, None),
    ],
)
def test_the_url_has_the_servers_address_if_there_is_no_host_header(
    scope: dict[str, object], host: str | None, url: str | None
) -> None:
    """ddtrace's middleware builds the same URL."""
    assert fast_span._url({"path": "/path", **scope}, host, query="a=b") == url


def request_scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/fails",
        "raw_path": b"/fails",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "server": ("10.0.0.1", 80),
        "client": ("10.0.0.2", 4321),
    }


async def send_request(app: Any, scope: dict[str, Any]) -> None:
    """Call `app` with a request. The client disconnects after the response."""
    responded = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await responded.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            responded.set()

    await app(scope, receive, send)


@pytest.mark.parametrize("middleware", [None, fast_span.FastSpan], ids=["ddtrace", "FastSpan"])
async def test_a_span_ends_with_the_response_even_if_the_app_continues(spans: list[Span], middleware: Any) -> None:
    """Work after the last byte isn't part of the response."""
    app = Quart(__name__)
    response_sent, may_return = asyncio.Event(), asyncio.Event()

    async def respond_and_continue(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all", "more_body": False})
        response_sent.set()
        await may_return.wait()

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(_message: object) -> None: ...

    app.asgi_app = respond_and_continue  # type: ignore[assignment,method-assign]  # Quart documents this assignment
    tracing.trace(app, middleware=middleware)
    call: Any = app(request_scope(), receive, send)  # type: ignore[arg-type]  # Hypercorn's types
    serving = asyncio.create_task(call)
    await response_sent.wait()
    names_before_return = [span.name for span in spans]
    may_return.set()
    await serving

    assert names_before_return == ["asgi.request"]
    assert len(spans) == 1


async def test_header_names_may_have_upper_case_letters(app: Quart, spans: list[Span]) -> None:
    """Hypercorn can be configured not to lower-case them."""
    parent = (b"Traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await send_request(app, request_scope((b"Host", b"here"), (b"User-Agent", b"A Browser"), parent))
    (span,) = spans

    assert span.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.get_tag("http.useragent") == "A Browser"


async def test_the_resource_of_a_404_has_no_route_if_ddtrace_obfuscates_it(
    spans: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting is DD_ASGI_OBFUSCATE_404_RESOURCE."""
    monkeypatch.setitem(config.asgi, "obfuscate_404_resource", True)
    app = Quart(__name__)

    @app.get("/users/<name>")
    async def user(name: str) -> tuple[str, int]:
        return name, 404

    await tracing.trace(app).test_client().get("/users/Ada")
    (span,) = spans

    assert span.resource == "GET 404"


def test_fast_span_detects_every_trace_header() -> None:
    """The name of each header from which ddtrace reads a trace, except `tracestate`, has one of PROPAGATION_MARKS."""
    names: set[str] = set()
    for constant, value in vars(propagation).items():
        if "HEADER" in constant:
            names.update([value] if isinstance(value, str) else value)
    undetected = {name for name in names if not any(mark in name for mark in fast_span.PROPAGATION_MARKS)}

    assert "x-b3-traceid" in names
    assert undetected == {"tracestate", "http_tracestate"}  # meaningless without a traceparent


def work(name: Any) -> None:
    """Create a span with the resource `name`."""
    with tracer.trace("work", resource=str(name)):
        pass


async def receive_in_coroutine() -> Any:
    return await websocket.receive()


WAYS_TO_RECEIVE: dict[str, Any] = {
    "plain": lambda: websocket.receive(),  # noqa: PLW0108 - the proxy has methods only inside a handler
    "json": lambda: websocket.receive_json(),  # noqa: PLW0108 - the same
    "wait_for": lambda: asyncio.wait_for(websocket.receive(), 5),
    "create_task": lambda: asyncio.create_task(websocket.receive()),
    "coroutine in a task": lambda: asyncio.create_task(receive_in_coroutine()),
}


@pytest.mark.parametrize("first", ["plain", "create_task"])
@pytest.mark.parametrize("later", WAYS_TO_RECEIVE)
async def test_work_for_a_message_is_never_a_child_of_another_message(
    spans: list[Span], first: str, later: str
) -> None:
    """It is a child of its own message if the handler's own task received the message, and otherwise of no message."""
    app = Quart(__name__)
    ways = [first, later, later]

    @app.websocket("/<kind>")
    async def socket(kind: str) -> None:
        for number, way in enumerate(ways):
            await WAYS_TO_RECEIVE[way]()
            work(number)
            work(f"second {number}")
            await websocket.send("reply")
            work(f"after the reply {number}")

    tracing.trace(app)
    async with app.test_client().websocket("/room") as client:
        for number in range(len(ways)):
            await client.send(str(number))
            await client.receive()
    message_ids = [span.span_id for span in spans if span.name == "websocket.receive"]
    parent_ids = {span.resource: span.parent_id for span in spans if span.name == "work"}
    ways_in_handlers_task = {"plain", "json"}
    if sys.version_info >= (3, 12):
        ways_in_handlers_task.add("wait_for")  # before Python 3.12 it receives in another task

    assert len(parent_ids) == 9  # three spans for each of three messages
    for resource, parent_id in parent_ids.items():
        number = int(resource[-1])  # a resource ends with the number of its message
        if ways[number] in ways_in_handlers_task:
            assert parent_id == message_ids[number]
        else:
            assert parent_id not in message_ids


async def test_work_in_a_task_is_a_child_of_the_message_that_started_the_task(spans: list[Span]) -> None:
    """This also holds after the handler has received the next message."""
    app = Quart(__name__)
    second_received = asyncio.Event()

    @app.websocket("/")
    async def socket() -> None:
        async def work_late() -> None:
            await second_received.wait()
            work("late")

        await websocket.receive()
        task = asyncio.create_task(work_late())
        await websocket.receive()
        second_received.set()
        await task
        await websocket.send("done")

    tracing.trace(app)
    async with app.test_client().websocket("/") as client:
        await client.send("one")
        await client.send("two")
        await client.receive()
    first = next(span for span in spans if span.name == "websocket.receive")
    task_work = next(span for span in spans if span.resource == "late")

    assert task_work.parent_id == first.span_id


async def test_a_background_task_of_a_message_is_linked_to_the_message(spans: list[Span]) -> None:
    app = Quart(__name__)

    async def task() -> None: ...

    @app.websocket("/")
    async def socket() -> None:
        await websocket.receive()
        app.add_background_task(task)
        await websocket.send("started")

    tracing.trace(app)
    async with app.test_client().websocket("/") as client:
        await client.send("one")
        await client.receive()
    await asyncio.gather(*app.background_tasks)
    spans_by_name = {span.name: span for span in spans}
    message = spans_by_name["websocket.receive"]
    (link,) = spans_by_name["quart.background_task"]._get_links()

    assert (link.trace_id, link.span_id) == (message.trace_id, message.span_id)


async def test_a_custom_span_is_a_child_of_its_request(spans: list[Span]) -> None:
    """The span has its tags and the exception that left its block, even if the handler continues."""
    app = Quart(__name__)

    @app.get("/visits")
    async def visits() -> str:
        with (
            suppress(RuntimeError),
            tracing.span("sqlite.query", resource="SELECT ?", service="visits-db", kind="client") as tag,
        ):
            tag("db.system", "sqlite")
            tag("db.row_count", 3)
            raise RuntimeError("on purpose")
        with tracing.span("render"):
            return "none"

    await tracing.trace(app).test_client().get("/visits")
    spans_by_name = {span.name: span for span in spans}
    query, render, request = (spans_by_name[name] for name in ("sqlite.query", "render", "asgi.request"))

    assert query.parent_id == render.parent_id == request.span_id
    assert (query.resource, query.service) == ("SELECT ?", "visits-db")
    assert (render.resource, render.service) == ("render", request.service)
    assert (query.get_tag("span.kind"), render.get_tag("span.kind")) == ("client", "internal")
    assert query.get_tag("db.system") == "sqlite"
    assert query.get_metric("db.row_count") == 3
    assert query.get_tag("error.message") == "on purpose"
    assert request.error == 0


def test_no_custom_span_is_created_when_tracing_is_not_active(
    spans: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "active", lambda: False)
    with tracing.span("sqlite.query") as tag:
        tag("db.system", "sqlite")

    assert spans == []
