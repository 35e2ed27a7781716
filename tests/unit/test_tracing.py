"""Tests of tracing.py for single applications: probes, errors, background tasks, WebSocket messages, own spans."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from ddtrace import config
from ddtrace.propagation import http
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
    """These tests run without ddtrace-run."""
    monkeypatch.setattr(tracing, "active", lambda: True)


@pytest.fixture
def finished() -> Iterator[list[Span]]:
    """The spans that have ended."""
    with finished_spans() as spans:
        yield spans


@pytest.fixture
def app() -> Quart:
    """An app with a probe that fails, one that is a WebSocket, and a route that fails."""
    app = Quart(__name__)

    @app.get("/health")
    @app.get("/fails")
    async def fails() -> str:
        raise RuntimeError("on purpose")

    @app.websocket("/health")
    async def socket() -> None:
        raise RuntimeError("on purpose")

    return tracing.trace(app, probes={"/health"})


async def test_a_probe_that_fails_responds_and_leaves_no_span(app: Quart, finished: list[Span]) -> None:
    """Over HTTP and over a WebSocket."""
    client = app.test_client()
    answer = await client.get("/health")
    with pytest.raises(WebsocketResponseError):
        async with client.websocket("/health") as connected:
            await connected.receive()

    assert answer.status_code == 500
    assert finished == []


async def test_an_exception_that_leaves_quart_is_a_500(app: Quart, finished: list[Span]) -> None:
    """An exception leaves Quart in debug mode and in tests; the server then sends the response."""
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises((RuntimeError, ExceptionGroup)):  # Quart 0.23 runs a request in a task group
        await app.test_client().get("/fails")
    (span,) = finished

    assert span.get_tag("http.status_code") == "500"
    assert span.get_tag("error.message") == "on purpose"


class Refusal(HTTPException):
    """An application's own exception, whose status differs from that of its response."""

    code = 500


@pytest.mark.parametrize(
    ("aborted", "status", "message"),
    [
        (HTTPException(response=Response("busy", 503)), "503", "503 Service Unavailable"),
        (HTTPException(response=WerkzeugResponse("busy", 502)), "502", "502 Bad Gateway"),
        (HTTPException(response=Response("busy", 599)), "599", "599"),
        (HTTPException("why", response=Response("busy", 503)), "503", "503 Service Unavailable: why"),
        (Refusal(response=Response("busy", 503)), "503", "503 Service Unavailable"),
        (ServiceUnavailable("why"), "503", "503 Service Unavailable: why"),
    ],
)
async def test_an_abort_has_the_status_of_its_response(
    app: Quart, finished: list[Span], aborted: HTTPException, status: str, message: str
) -> None:
    """Werkzeug's own text for one without a status is `??? Unknown Error: None`."""

    @app.get("/aborts")
    async def aborts() -> str:
        raise aborted

    answer = await app.test_client().get("/aborts")
    (span,) = finished

    assert str(answer.status_code) == span.get_tag("http.status_code") == status
    assert span.get_tag("error.message") == message
    assert (span.get_tag("error.stack") or "").rstrip().endswith(message)


async def test_a_response_of_an_error_without_an_exception_has_no_message(app: Quart, finished: list[Span]) -> None:
    @app.get("/returns")
    async def returns() -> Response:
        return Response("busy", 503)

    await app.test_client().get("/returns")
    (span,) = finished

    assert (span.error, span.get_tag("http.status_code")) == (1, "503")
    assert (span.get_tag("error.type"), span.get_tag("error.message")) == (None, None)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_background_task_needs_no_request(app: Quart, finished: list[Span], fails: bool) -> None:
    """One that was started with the app has no link; its exception reaches Quart's signal all the same."""
    failed: list[BaseException] = []
    ids: list[int | None] = []

    async def note(_app: Quart, exception: BaseException, **_: object) -> None:
        failed.append(exception)
        context = tracer.current_trace_context()
        ids.append(context.span_id if context else None)  # as Quart's log line of it has it

    async def task() -> None:
        if fails:
            raise RuntimeError("on purpose")

    got_background_exception.connect(note, app)
    app.add_background_task(task)
    await asyncio.gather(*app.background_tasks)
    (span,) = finished

    assert span.name == "quart.background_task"
    assert "span_links" not in str(span.get_tags())
    assert [str(error) for error in failed] == (["on purpose"] if fails else [])
    assert ids == ([span.span_id] if fails else [])
    assert span.context.sampling_priority == (2 if fails else None)  # kept; to be decided when it is sent


async def test_an_exception_comes_out_of_its_group(finished: list[Span]) -> None:
    """Quart's task group wraps an exception that ends a response halfway; the span has the exception itself."""
    app = Quart(__name__)
    original = ValueError("on purpose")

    async def breaks(*_: object) -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [ExceptionGroup("another", [original])])

    app.asgi_app = breaks  # type: ignore[assignment,method-assign]  # Quart documents this assignment
    traced: Any = tracing.trace(app).asgi_app
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    with pytest.raises(ExceptionGroup):
        await traced(scope, None, None)
    (span,) = finished

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
def test_a_request_without_host_has_the_url_of_the_server(
    scope: dict[str, object], host: str | None, url: str | None
) -> None:
    """As ddtrace's middleware writes it."""
    assert fast_span._url({"path": "/path", **scope}, host, "a=b") == url


@pytest.mark.parametrize("middleware", [None, fast_span.FastSpan], ids=["middleware", "fast"])
async def test_the_span_of_a_finished_response_has_ended_before_the_app_returns(
    finished: list[Span], middleware: Any
) -> None:
    """Work after the last byte isn't part of the response."""
    app = Quart(__name__)
    sent, returns = asyncio.Event(), asyncio.Event()

    async def lingers(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all", "more_body": False})
        sent.set()
        await returns.wait()

    async def nothing(*_: object) -> dict[str, str]:
        return {"type": "http.request"}

    app.asgi_app = lingers  # type: ignore[assignment,method-assign]  # Quart documents this assignment
    tracing.trace(app, middleware=middleware)
    serving = asyncio.create_task(app(scope(), nothing, nothing))  # type: ignore[arg-type]  # Hypercorn's own names
    await sent.wait()
    ended = [span.name for span in finished]
    returns.set()
    await serving

    assert ended == ["asgi.request"]
    assert len(finished) == 1


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return the scope of a request."""
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


async def ask(app: Any, asked: dict[str, Any]) -> None:
    """Send a request, and disconnect after the response."""
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            answered.set()

    await app(asked, receive, send)


async def test_headers_count_however_they_are_written(app: Quart, finished: list[Span]) -> None:
    """Hypercorn can be configured not to lower-case them."""
    parent = (b"Traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await ask(app, scope((b"Host", b"here"), (b"User-Agent", b"A Browser"), parent))
    (span,) = finished

    assert span.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.get_tag("http.useragent") == "A Browser"


async def test_a_request_that_can_not_be_described_has_a_span_all_the_same(app: Quart, finished: list[Span]) -> None:
    """A request that ddtrace can't parse is an error, and its span is not lost."""
    asked = {**scope((b"host", b"[a")), "query_string": b"a=b"}
    with pytest.raises(ValueError, match="IPv6"):
        await ask(app, asked)
    (span,) = finished

    assert span.get_tag("error.type") == "builtins.ValueError"


async def test_a_404_hides_its_route_where_ddtrace_is_told_to(
    finished: list[Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DD_ASGI_OBFUSCATE_404_RESOURCE."""
    monkeypatch.setitem(config.asgi, "obfuscate_404_resource", True)
    app = Quart(__name__)

    @app.get("/users/<name>")
    async def user(name: str) -> tuple[str, int]:
        return name, 404

    await tracing.trace(app).test_client().get("/users/Ada")
    (span,) = finished

    assert span.resource == "GET 404"


def test_no_header_that_brings_a_trace_is_overlooked() -> None:
    """fast_span.py looks for the name of every header that ddtrace reads a caller's trace from."""
    names = {
        name
        for constant, value in vars(http).items()
        if "HEADER" in constant
        for name in ([value] if isinstance(value, str) else value)
    }
    overlooked = {name for name in names if not any(mark in name for mark in fast_span.PROPAGATION_MARKS)}

    assert "x-b3-traceid" in names
    assert overlooked == {"tracestate", "http_tracestate"}  # which says nothing without a traceparent


def by_resource(spans: list[Span]) -> dict[str, Span]:
    return {span.resource: span for span in spans}


def work(name: Any) -> None:
    with tracer.trace("work", resource=str(name)):
        pass


async def wrapped() -> Any:
    return await websocket.receive()


TAKING: dict[str, Any] = {
    "plain": lambda: websocket.receive(),  # noqa: PLW0108 - of the current one
    "json": lambda: websocket.receive_json(),  # noqa: PLW0108 - the same
    "wait_for": lambda: asyncio.wait_for(websocket.receive(), 5),
    "create_task": lambda: asyncio.create_task(websocket.receive()),
    "wrapped": lambda: asyncio.create_task(wrapped()),
}


@pytest.mark.parametrize("first", ["plain", "create_task"])
@pytest.mark.parametrize("later", TAKING)
async def test_work_for_a_message_is_never_another_messages(finished: list[Span], first: str, later: str) -> None:
    """A handler may receive in its own task or in another one."""
    app = Quart(__name__)

    @app.websocket("/<kind>")
    async def socket(kind: str) -> None:
        for number, way in enumerate([first, later, later]):
            await TAKING[way]()
            work(number)
            work(f"again {number}")
            await websocket.send("taken")
            work(f"still {number}")

    tracing.trace(app)
    async with app.test_client().websocket("/room") as client:
        for number in range(3):
            await client.send(str(number))
            await client.receive()
    received = [span.span_id for span in finished if span.name == "websocket.receive"]
    parents = {span.resource: span.parent_id for span in finished if span.name == "work"}
    own = {name: parents[name] == received[int(name[-1])] for name in parents}
    same_task = {"0": first == "plain"} | dict.fromkeys("12", later in {"plain", "json"})
    if sys.version_info >= (3, 12):
        same_task |= dict.fromkeys("12", later in {"plain", "json", "wait_for"})

    assert len(parents) == 9
    assert own == {name: same_task[name[-1]] for name in own}
    assert all(own[name] or parents[name] not in received for name in parents)


async def test_a_task_that_a_message_started_stays_with_that_message(finished: list[Span]) -> None:
    """The next message has been received since."""
    app = Quart(__name__)
    second = asyncio.Event()

    @app.websocket("/")
    async def socket() -> None:
        async def late() -> None:
            await second.wait()
            work("late")

        await websocket.receive()
        task = asyncio.create_task(late())
        await websocket.receive()
        second.set()
        await task
        await websocket.send("done")

    tracing.trace(app)
    async with app.test_client().websocket("/") as client:
        await client.send("one")
        await client.send("two")
        await client.receive()
    first = next(span for span in finished if span.name == "websocket.receive")

    assert by_resource(finished)["late"].parent_id == first.span_id


async def test_a_span_is_a_child_of_its_request(finished: list[Span], monkeypatch: pytest.MonkeyPatch) -> None:
    """With what a person looks for, and the exception that left the block, though the handler goes on."""
    names = ("sqlite.query", "render", "asgi.request")
    monkeypatch.setattr(tracing, "active", lambda: True)
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
    query, render, request = (next(span for span in finished if span.name == name) for name in names)

    assert query.parent_id == render.parent_id == request.span_id
    assert (query.resource, query.service) == ("SELECT ?", "visits-db")
    assert (render.resource, render.service) == ("render", request.service)
    assert (query.get_tag("span.kind"), render.get_tag("span.kind")) == ("client", "internal")
    assert query.get_tag("db.system") == "sqlite"
    assert query.get_metric("db.row_count") == 3
    assert query.get_tag("error.message") == "on purpose"
    assert request.error == 0


def test_a_span_is_nothing_where_tracing_is_not_active(finished: list[Span], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "active", lambda: False)
    with tracing.span("sqlite.query") as tag:
        tag("db.system", "sqlite")

    assert finished == []
