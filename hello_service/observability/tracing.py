"""Quart and ddtrace, joined. ddtrace has no Quart integration; this file is one, and works in any Quart service.

    import httpx, quart
    import tracing                                    # this file; start the service under ddtrace-run

    app = quart.Quart(__name__)
    tracing.trace(app, probes={"/health"})            # after the routes or before them: no matter
    client = httpx.AsyncClient(event_hooks={"request": [tracing.name_client_span]})

The span of a request is the one that ddtrace's ASGI middleware makes: by that middleware where application security or
inferred proxies are on, else here, for a quarter less of what tracing costs. What it can't know of Quart is added:

- the resource is the route (`GET /users/<id>`), also in `http.route`; what no route matched is `GET 404` or `GET 405`;
- an exception puts type, message and stack on the span, although Quart answers it inside the application;
- a trace that this process started and that ends in an error is kept, whatever the sample rate;
- probes have no span, and so no stats;
- what `app.add_background_task` runs is a trace of its own, linked to its request's span and kept when that is;
- a WebSocket and its messages are named by the route, and what a handler does for a message belongs to that message;
- a client that went away is tagged on the span, which otherwise would look like a success;
- `traceresponse` (W3C Trace Context, level 2) tells the caller the trace id;
- an outbound call's span has a resource that a person can read, and `peer.service`.

This module alone knows ddtrace.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol, cast

import ddtrace
from ddtrace import config
from ddtrace.constants import USER_KEEP
from ddtrace.contrib.asgi import TraceMiddleware
from ddtrace.contrib.internal import trace_utils
from ddtrace.contrib.internal.asgi.utils import bytes_to_str, extract_headers
from ddtrace.contrib.internal.trace_utils import _copy_trace_level_tags
from ddtrace.internal.core.event_hub import has_listeners
from ddtrace.internal.schema import schematize_url_operation
from ddtrace.internal.schema.span_attribute_schema import SpanDirection
from ddtrace.trace import Span, tracer
from quart import Quart, has_request_context, has_websocket_context, request, websocket
from quart.signals import got_request_exception, got_websocket_exception, request_started, websocket_started
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 9110, section 9.1, and RFC 5789: any other token that a client makes up would be a resource of its own.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

# What ddtrace's middleware tells those who look for attacks and leaks. Where one of them listens, it makes the span.
HEARD = ("asgi.start_request", "asgi.request.parse.body", "asgi.finalize_response", "set_http_meta_for_asm")

# In the name of each header that brings a caller's trace, in whichever style; most requests have none of them.
PROPAGATED = ("traceparent", "datadog", "b3", "baggage")

CLIENT_DISCONNECTED = "http.client_disconnected"  # tag: the client went away before the response was complete
_DIGITS = re.compile(r"/(?![vV]\d{1,2}(?:/|$))[^/]*\d[^/]*")


class ClientRequest(Protocol):
    """What is needed of an `httpx.Request`."""

    method: str
    url: Any
    extensions: MutableMapping[str, Any]


def active() -> bool:
    """Whether spans are made: ddtrace was started (`ddtrace-run` or `ddtrace.auto`) and is not switched off."""
    started = getattr(sys.modules.get("ddtrace.bootstrap.sitecustomize"), "loaded", False)
    return bool(started and tracer.enabled)


def trace(app: Quart, probes: Collection[str] = (), service: str | None = None) -> Quart:
    """Trace every request and WebSocket of `app`, except those for the paths in `probes`, and return `app`.

    `service` is used where the environment names none. Call it once for an app, before the app serves.
    """
    if service is not None and not config._is_user_provided_service:  # noqa: SLF001 - else what ddtrace guesses from argv
        config.service = config.asgi["service_name"] = service
    around: Any = _Tracing(cast("ASGIApp", app.asgi_app), frozenset(probes))
    app.asgi_app = around  # type: ignore[method-assign]  # Quart documents this assignment
    request_started.connect(_name_request, app)
    websocket_started.connect(_name_websocket, app)
    got_request_exception.connect(_remember, app)
    got_websocket_exception.connect(_mark_websocket, app)
    _remember_handled_exceptions(app)
    _trace_background_tasks(app)
    return app


def status(agent_url: str, wanted: bool, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return whether this process is traced, why not if it isn't, and where its spans go: JSON values, no secret."""
    reason = None
    if not wanted:
        reason = "DD_TRACE_ENABLED is false"
    elif not active():
        reason = "not started under ddtrace-run"
    return {
        "active": reason is None,
        "reason": reason,
        "ddtrace": ddtrace.__version__,
        "agent": agent_url,
        "sampling_rules": environ.get("DD_TRACE_SAMPLING_RULES"),
    }


def flush(timeout: float) -> None:
    """Send what is left to the agent, in at most `timeout` seconds. No span is made afterwards."""
    tracer.shutdown(timeout)


def trace_id() -> str | None:
    """Return the current trace id as 32 hexadecimal characters, None outside of a span."""
    context = tracer.current_trace_context() if active() else None
    return f"{context.trace_id:032x}" if context is not None and context.trace_id else None


def log_ids() -> dict[str, str]:
    """Return the attributes that join a log line to the current span; empty outside of one.

    Source: Datadog, "Correlating Python Logs and Traces": `dd.trace_id` here in hexadecimal (128 bits),
    `dd.span_id` in decimal.
    """
    context = tracer.current_trace_context() if active() else None
    if context is None or not context.trace_id:
        return {}
    return {"dd.trace_id": f"{context.trace_id:032x}", "dd.span_id": str(context.span_id)}


async def name_client_span(outgoing: ClientRequest) -> None:
    """Event hook for `httpx.AsyncClient`: give the span of this call a readable resource and `peer.service`.

    The resource is `METHOD host/path`, with path segments that hold digits replaced by `?`. Two request extensions
    say it better: `route` (the path with its variables' names) and `peer_service` (in place of the host, in both).
    """
    span = tracer.current_span() if active() else None
    if span is None or span.get_tag("component") != "httpx" or span.get_tag("peer.service") is not None:
        return  # not traced, or the second hop of a redirect
    url, hints = outgoing.url, outgoing.extensions
    route = hints.get("route") or _DIGITS.sub("/?", url.path)
    peer = hints.get("peer_service") or url.host
    span.resource = f"{outgoing.method} {peer}{route}"
    span.set_tag("peer.service", peer)


@contextmanager
def span(
    name: str, *, resource: str | None = None, service: str | None = None, kind: str = "internal"
) -> Iterator[Callable[[str, str | int | float], None]]:
    """Make a span below the current one, for the `with` block; without tracing it does nothing.

        with tracing.span("sqlite.query", resource="SELECT name FROM visits WHERE id = ?", kind="client") as tag:
            rows = await database.execute_fetchall(...)
            tag("db.row_count", len(rows))

    An exception that leaves the block is on the span.

    Args:
        name: of the operation; few, such as `sqlite.query`.
        resource: what the operation works on, without values that differ from call to call; None: `name`.
        service: None: the service of the parent. A name of its own makes a node of its own in the service map.
        kind: `internal`, `client`, `server`, `producer` or `consumer`.
    """
    if not active():
        yield lambda _key, _value: None
        return
    with tracer.trace(name, service=service, resource=resource) as made:
        made.set_tag("span.kind", kind)
        yield lambda key, value: made.set_tag(key, value) if isinstance(value, str) else made.set_metric(key, value)


class _Tracing:
    """The ASGI application around Quart's own: probes go straight through, and WebSockets through ddtrace's middleware."""

    def __init__(self, app: ASGIApp, probes: frozenset[str]) -> None:
        self.quart = app
        self.probes = probes
        self.traced = TraceMiddleware(self._call_quart, handle_exception_span=_mark_unanswered, span_modifier=_begin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.probes:
            await self.quart(scope, receive, send)
            return
        served = (_WebSocket if scope["type"] == "websocket" else _Request)(scope, receive, send)
        try:
            if isinstance(served, _Request) and not _needs_middleware(scope):
                await self._trace(served)
            else:
                await self.traced(served.named, served.receive, served.send)
        finally:
            served.let_go()

    @cached_property
    def _called(self) -> tuple[str, str | None]:
        """What ddtrace's settings call a request's span, and its service: as they are when the first one comes."""
        settings = config.asgi
        name = schematize_url_operation(settings.request_span_name, direction=SpanDirection.INBOUND, protocol="http")
        return name, trace_utils.int_service(None, settings)

    async def _trace(self, request: _Request) -> None:
        headers: Any = extract_headers(request.scope)
        names = " ".join(headers)
        with request.begin(headers, names, *self._called) as span:
            request.describe(headers, names)
            try:
                await self._call_quart(request.named, request.receive, request.send_and_finish)
            except Exception as error:
                _mark_unanswered(error, span)
                raise

    async def _call_quart(self, named: Scope, receive: Receive, send: Send) -> None:
        """Call Quart; an exception comes out as it was raised, not in the group that Quart's task group makes of it."""
        served: _Served = named["tracing"]
        served.scope["datadog"] = named["datadog"]
        try:
            await served.call(self.quart, receive, send)
        except BaseException as raised:  # noqa: BLE001 - raised again below; a cancelled request is an error, too
            error = raised
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            served.keep_error(error)
            raise error from error.__cause__


class _Served(ABC):
    """What is known of one request or WebSocket while it is served.

    Attributes:
        scope: the one that Quart has. It has this object under `tracing`, so that Quart's signals find it.
        named: the one that ddtrace's middleware has; what that names by the path is named by the route.
        span: of the request, or of the WebSocket's handshake.
        decided: the caller decided whether this trace is kept.
        exception: the last one that Quart has seen.
    """

    span: Span
    decided = False
    exception: BaseException | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.named = {**scope, "tracing": self}
        # A # would begin a fragment in http.url, where ddtrace looks for no secrets.
        self.named["path"] = scope["path"].replace("#", "%23")
        self.named["query_string"] = scope["query_string"].replace(b"#", b"%23")
        self.method = "websocket"
        if scope["type"] == "http":
            self.method = scope["method"] if scope["method"] in METHODS else "OTHER"
        self.server_receive, self.server_send = receive, send
        scope["tracing"] = self

    def name(self, connection: Any) -> None:
        """Name the span by the route that Quart has found, or by the status when it found none."""
        if connection.url_rule is not None:
            self.named["path"] = connection.url_rule.rule
            self.span.set_tag("http.route", connection.url_rule.rule)
        else:
            self.named["path"] = str(connection.routing_exception.code)
        self.span.resource = f"{self.method} {self.named['path']}"

    def tag_status(self, status: int) -> None:
        """Put the status of the answer on the span, and whether it is an error."""
        self.span.set_tag("http.status_code", str(status))
        if config._http_server.is_error_code(status):  # noqa: SLF001 - what ddtrace's middleware asks for HTTP
            self.span.error = 1

    def keep_error(self, error: BaseException | None, span: Span | None = None) -> None:
        """Put `error` on the span (the request's unless another is given), and keep the trace."""
        span = span or self.span
        if error is not None:
            span.set_exc_info(type(error), error, error.__traceback__)
            _describe_abort(span, error)
        if not self.decided:
            span.set_tag("manual.keep")

    def let_go(self) -> None:
        """Hold nothing of the request any longer: that would be a ring, and each request garbage to be looked for."""
        del self.scope, self.named, self.server_receive, self.server_send
        self.exception = None

    def traceresponse(self) -> tuple[bytes, bytes]:
        """Return the header that tells the caller the trace id (W3C Trace Context, level 2)."""
        sampled = _sampling_priority(self.span) > 0
        return b"traceresponse", f"00-{self.span.trace_id:032x}-{self.span.span_id:016x}-{sampled:02x}".encode()

    @abstractmethod
    async def receive(self) -> Message:
        """Receive for ddtrace's middleware."""

    async def send(self, message: Message) -> None:
        """Send what comes out of ddtrace's middleware."""
        await self.server_send(message)

    @abstractmethod
    async def call(self, quart: ASGIApp, receive: Receive, send: Send) -> None:
        """Call Quart; `receive` and `send` are those of ddtrace's middleware."""


class _Request(_Served):
    complete = False

    def begin(self, headers: dict[str, str], names: str, name: str, service: str | None) -> Span:
        """Start the span as ddtrace's middleware would, and return it; `names` are those of `headers`, in one."""
        names = names.lower()
        if any(mark in names for mark in PROPAGATED):
            trace_utils.activate_distributed_headers(tracer, int_config=config.asgi, request_headers=headers)
        span = tracer.trace(name, service=service, resource=self.method, span_type="web")
        self.named["datadog"] = {"request_spans": [span]}
        trace_utils.set_service_and_source(span, service, config.asgi)  # type: ignore[arg-type]  # None as ddtrace gives it
        _begin(span, self.named)
        return span

    def describe(self, headers: dict[str, str], names: str) -> None:
        """Tag the span with the request, as ddtrace's middleware would."""
        span, scope, named, settings = self.span, self.scope, self.named, config.asgi
        span.set_tag("component", settings.integration_name)
        span.set_tag("span.kind", "server")
        asgi = scope.get("asgi", {})
        for tag, value in (
            ("http.version", scope.get("http_version")),
            ("asgi.version", asgi.get("version")),
            ("asgi.spec_version", asgi.get("spec_version")),
        ):
            if value:  # not every test client says all of them
                span.set_tag(tag, value)
        query = bytes_to_str(named["query_string"])
        url = _url(named, headers.get("host"), query)
        if url is not None and "?" not in url and "@" not in url:  # nothing that ddtrace would have to hide
            span.set_tag("http.url", url)
            url = None
        plain = "_" not in names and names == names.lower()
        trace_utils.set_http_meta(
            span,
            settings,
            method=scope["method"],
            url=url,
            query=query if query and settings.trace_query_string else None,
            request_headers=headers,
            peer_ip=(scope.get("client") or (None,))[0],
            # Who is told so looks through all of them for each name, and makes small letters of a name that is configured.
            headers_are_case_sensitive=not plain or config._client_ip_header is not None,  # noqa: SLF001 - no other way to ask
        )

    async def send_and_finish(self, message: Message) -> None:
        """Send for Quart; the span of what is no error ends with the response."""
        if message["type"] == "http.response.start":
            self._tag_response(message)
        self._watch(message)
        try:
            await self.server_send(message)
        finally:
            if self.complete and not self.span.error:
                self.span.finish()

    def _tag_response(self, message: Message) -> None:
        self.tag_status(message["status"])
        if config.asgi.is_header_tracing_configured:
            headers: Any = extract_headers(message)
            trace_utils.set_http_meta(self.span, config.asgi, response_headers=headers)

    async def receive(self) -> Message:
        message = await self.server_receive()
        if message["type"] == "http.disconnect" and not self.complete:
            self.span.set_tag(CLIENT_DISCONNECTED, "true")
        return message

    async def send(self, message: Message) -> None:
        self._watch(message)
        await self.server_send(message)

    def _watch(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._respond(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True

    def _respond(self, message: Message) -> None:
        """Finish what the span of an error needs, and tell the caller the trace id."""
        if self.span.error:
            self.keep_error(self.exception)
        message["headers"] = [*message["headers"], self.traceresponse()]

    async def call(self, quart: ASGIApp, receive: Receive, send: Send) -> None:
        await quart(self.scope, receive, send)
        if self.span.get_tag("http.status_code") is None and self.span.get_tag(CLIENT_DISCONNECTED) is None:
            # Quart says nothing of a handler that was cancelled; the server answers 500.
            self.span.error = 1
            self.span.set_tag("error.type", "asyncio.exceptions.CancelledError")
            self.span.set_tag("error.message", "the request was cancelled before it was answered")
            self.span.set_tag("http.status_code", "500")
            self.keep_error(None)


class _WebSocket(_Served):
    """Quart reads ahead of its handler; for ddtrace a message is received when the handler takes it. So its span is the
    parent of what the handler does and sends until it asks for the next one.
    """

    gone: Message | None = None  # the disconnect
    closed = False  # ddtrace knows the end of it
    over = False  # the handler is

    def name(self, connection: Any) -> None:
        super().name(connection)
        self.take = connection.receive
        if connection.url_rule is not None:
            connection.receive = self.take_traced

    async def take_traced(self) -> Any:
        """Give the handler the next message, by way of ddtrace's middleware."""
        message = await self.traced_receive()
        if message["type"] == "websocket.disconnect":
            raise self.cancelled  # pragma: no cover - CPython 3.11 traces no frame into which an exception was thrown
        self.resume()
        return message.get("text", message.get("bytes"))

    def resume(self) -> None:
        """Let what the handler does next belong to the message that it has taken; ddtrace forgets a finished span."""
        if received := self.named["datadog"].get("current_receive_span"):
            tracer.context_provider.activate(received.context)

    async def receive(self) -> Message:
        if not self.over:
            try:
                data = await self.take()
            except BaseException as error:
                if self.gone is None:
                    raise  # pragma: no cover - the same
                self.cancelled = error
            else:
                return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}
        self.closed = True
        return cast("Message", self.gone)

    async def read_ahead(self) -> Message:
        """Receive for Quart."""
        message = await self.server_receive()
        if message["type"] == "websocket.disconnect":
            self.gone = message
        return message

    async def call(self, quart: ASGIApp, receive: Receive, send: Send) -> None:
        async def watch_send(message: Message) -> None:
            if message["type"] == "websocket.accept":
                self.span.set_tag("http.status_code", "101")
                message["headers"] = [*message.get("headers", ()), self.traceresponse()]
            elif message["type"] == "websocket.http.response.start":
                self._refuse(message["status"])
                message["headers"] = [*message["headers"], self.traceresponse()]
            self.closed |= message["type"] in {"websocket.close", "websocket.http.response.start"}
            # ddtrace takes a text that is None, as Quart sends it beside bytes, for a text.
            await send({key: value for key, value in message.items() if value is not None})
            self.resume()

        self.traced_receive = receive
        await quart(self.scope, self.read_ahead, watch_send)
        self.over = True
        if self.gone is not None and not self.closed:  # the handler was not waiting for a message
            await receive()

    def _refuse(self, status: int) -> None:
        self.tag_status(status)
        if self.span.error:
            self.keep_error(self.exception)


def _needs_middleware(scope: Scope) -> bool:
    """Whether somebody wants more of ddtrace's middleware than its span, or has it around this application already."""
    return bool(
        config._inferred_proxy_services_enabled  # noqa: SLF001 - no other way to ask
        or config.asgi.obfuscate_404_resource
        or "datadog" in scope
        or any(map(has_listeners, HEARD))
    )


def _url(named: Scope, host: str | None, query: str) -> str | None:
    scheme = named.get("scheme", "http")
    if not host:
        host, port = named.get("server") or (None, None)
        if host is None:
            return None
        host = host if port in {None, TraceMiddleware.default_ports.get(scheme)} else f"{host}:{port}"
    return f"{scheme}://{host}{named['path']}{'?' if query else ''}{query}"


def _begin(span: Span, named: Scope) -> None:
    served: _Served = named["tracing"]
    served.span = span
    served.decided = span.context.sampling_priority is not None
    span.resource = served.method  # until a route is known; never the raw path


def _mark_unanswered(_error: Exception, span: Span) -> None:
    """An exception left Quart: the server answers 500, unless a response had begun, whose status stays the truth."""
    if span.get_tag("http.status_code") is None:
        span.set_tag("http.status_code", "500")


def _describe_abort(span: Span, error: BaseException) -> None:
    """Describe `abort(response)` by the status of that response: the text of the exception itself has none, or another."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if not isinstance(error, HTTPException) or status is None:
        return
    message = f"{status} {HTTP_STATUS_CODES.get(status, '')}".rstrip()
    if error.description and error.description != type(error).description:
        message = f"{message}: {error.description}"
    stack = (span.get_tag("error.stack") or "").replace(str(error), message)
    span.set_tag("error.message", message)
    span.set_tag("error.stack", stack)


def _sampling_priority(span: Span) -> int:
    """Return whether the trace of `span` is kept (above 0) or not, deciding it now if it was open."""
    if span.context.sampling_priority is None:
        tracer.sample(tracer.current_root_span() or span)
    return int(span.context.sampling_priority or 0)


def _current() -> _Served | None:
    """Return what Quart is serving here; None for a probe and outside of a request."""
    if not (has_request_context() or has_websocket_context()):
        return None
    connection = request if has_request_context() else websocket
    served: _Served | None = cast("Scope", connection.scope).get("tracing")
    return served


async def _name_request(_app: Quart, **_: object) -> None:
    _name(request)


async def _name_websocket(_app: Quart, **_: object) -> None:
    _name(websocket)


def _name(proxy: Any) -> None:
    connection = proxy._get_current_object()  # noqa: SLF001 - werkzeug's way to what a proxy stands for
    if served := connection.scope.get("tracing"):
        served.name(connection)


async def _remember(_app: Quart, exception: BaseException, **_: object) -> None:
    if served := _current():
        served.exception = exception


def _remember_handled_exceptions(app: Quart) -> None:
    """Quart has a signal for exceptions that no handler took, none for one that a handler answered with a 5xx."""
    handle = app.handle_user_exception

    async def handle_user_exception(*args: Any) -> Any:  # Quart 0.22: (error), 0.23: (context, error)
        await _remember(app, args[-1])
        return await handle(*args)

    app.handle_user_exception = handle_user_exception  # type: ignore[assignment,method-assign]


async def _mark_websocket(_app: Quart, exception: BaseException, **_: object) -> None:
    """The handshake's span is over once the socket is open, a message's once it is here: the error has one of its own."""
    if served := _current():
        span = served.named["datadog"].get("current_receive_span") or served.span
        if not span.finished:
            served.keep_error(exception)
            return
        with tracer.start_span("quart.websocket", span, service=span.service, resource=span.resource) as late:
            late.set_tag("component", "quart")
            served.keep_error(exception, late)


def _trace_background_tasks(app: Quart) -> None:
    add = app.add_background_task

    def add_background_task(func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        served, parent = _current(), tracer.current_span()
        name = getattr(func, "__qualname__", repr(func))
        if parent is not None:
            _sampling_priority(parent)  # decide it here, where its trace is current

        async def run() -> None:
            with tracer.start_span("quart.background_task", resource=name, activate=True) as span:
                span.set_tag("component", "quart")
                if parent is not None:
                    span.link_span(parent.context)
                    _copy_trace_level_tags(span, parent)  # the sampling decision, and what it was made by
                try:
                    await app.ensure_async(func)(*args, **kwargs)
                except Exception:
                    if served is None or not served.decided:
                        span.set_tag("manual.keep")
                    raise
                finally:
                    if parent is not None and parent.context.sampling_priority == USER_KEEP:
                        span.set_tag("manual.keep")  # an error was found since

        add(run)

    app.add_background_task = add_background_task  # type: ignore[method-assign]
