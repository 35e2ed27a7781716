"""Quart and ddtrace, joined. ddtrace has no Quart integration; this file is one, and works in any Quart service.

    import httpx, quart
    import tracing                                    # this file; start the service under ddtrace-run

    app = quart.Quart(__name__)
    tracing.trace(app, probes={"/health"})            # after the routes or before them: no matter
    client = httpx.AsyncClient(event_hooks={"request": [tracing.name_client_span]})

ddtrace's ASGI middleware makes the span of a request. What it can't know of Quart is added here:

- the resource is the route (`GET /users/<id>`), also in `http.route`; what no route matched is `GET 404` or `GET 405`;
- an exception puts type, message and stack on the span, although Quart answers it inside the application;
- a trace that this process started and that ends in an error is kept, whatever the sample rate;
- probes have no span, and so no stats;
- what `app.add_background_task` runs is a trace of its own, linked to its request's span;
- a client that went away is tagged on the span, which otherwise would look like a success;
- `traceresponse` (W3C Trace Context, level 2) tells the caller the trace id;
- an outbound call's span has a resource that a person can read, and `peer.service`.

This module alone knows ddtrace.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Protocol, cast

import ddtrace
from ddtrace import config
from ddtrace.contrib.asgi import TraceMiddleware
from ddtrace.trace import Span, tracer
from quart import Quart, has_request_context, request, websocket
from quart.signals import (
    got_request_exception,
    got_websocket_exception,
    request_started,
    websocket_started,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# RFC 9110, section 9.1, and RFC 5789: any other token that a client makes up would be a resource of its own.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

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
    context = tracer.current_trace_context()
    return f"{context.trace_id:032x}" if context is not None and context.trace_id else None


def log_ids() -> dict[str, str]:
    """Return the attributes that join a log line to the current span; empty outside of one.

    Source: Datadog, "Correlating Python Logs and Traces": `dd.trace_id` here in hexadecimal (128 bits),
    `dd.span_id` in decimal.
    """
    context = tracer.current_trace_context()
    if context is None or not context.trace_id:
        return {}
    return {"dd.trace_id": f"{context.trace_id:032x}", "dd.span_id": str(context.span_id)}


async def name_client_span(outgoing: ClientRequest) -> None:
    """Event hook for `httpx.AsyncClient`: give the span of this call a readable resource and `peer.service`.

    The resource is `METHOD host/path`, with path segments that hold digits replaced by `?`. Two request extensions
    say it better: `route` (the path with its variables' names) and `peer_service` (the host name otherwise).
    """
    span = tracer.current_span()
    if span is None or span.get_tag("component") != "httpx" or span.get_tag("peer.service") is not None:
        return  # not traced, or the second hop of a redirect
    url, hints = outgoing.url, outgoing.extensions
    route = hints.get("route") or _DIGITS.sub("/?", url.path)
    span.resource = f"{outgoing.method} {url.host}{route}"
    span.set_tag("peer.service", hints.get("peer_service") or url.host)


class _Tracing:
    """The ASGI application around Quart's own: probes go straight through, the rest through ddtrace's middleware."""

    def __init__(self, app: ASGIApp, probes: frozenset[str]) -> None:
        self.quart = app
        self.probes = probes
        self.traced = TraceMiddleware(
            self._unwrapped, handle_exception_span=_mark_unanswered, span_modifier=_prepare_span
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.probes:
            await self.quart(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        complete = False

        async def watch_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not complete:
                _request_span(scope).set_tag(CLIENT_DISCONNECTED, "true")
            return message

        async def watch_send(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                _respond(scope, message)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True
            await send(message)

        await self.traced(scope, watch_receive, watch_send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ddtrace names each message's span by the path of the scope that it was given: let it have one of its own,
        # which _name_websocket gives the route, and Quart the real one.
        named = dict(scope)
        scope["tracing.named"] = named
        named["tracing.quart"] = scope
        await self.traced(named, receive, send)

    async def _unwrapped(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call Quart; an exception comes out as it was raised, not in the group that Quart's task group makes of it."""
        quart_scope = scope.get("tracing.quart", scope)
        quart_scope["datadog"] = scope["datadog"]

        async def watch_send(message: Message) -> None:
            if message["type"] == "websocket.accept":
                _request_span(scope).set_tag("http.status_code", "101")
            elif message["type"] == "websocket.http.response.start":
                _refuse_websocket(scope, message)
            await send(message)

        try:
            await self.quart(quart_scope, receive, watch_send if scope["type"] == "websocket" else send)
        except BaseException as raised:  # noqa: BLE001 - raised again below; a cancelled request is an error, too
            error = raised
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            _keep_error(scope, _request_span(scope), error)
            raise error from error.__cause__


def _request_span(scope: Scope) -> Span:
    span: Span = scope["datadog"]["request_spans"][0]
    return span


def _prepare_span(span: Span, scope: Scope) -> None:
    span.resource = scope.get("method", "websocket")  # until a route is known; never the raw path
    scope["datadog"]["decided"] = span.context.sampling_priority is not None  # by the caller


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "OTHER"


async def _name_request(_app: Quart, **_: object) -> None:
    scope = cast("Scope", request.scope)
    if spans := scope.get("datadog", {}).get("request_spans"):
        _name(spans[0], _method(scope), request)


async def _name_websocket(_app: Quart, **_: object) -> None:
    scope = cast("Scope", websocket.scope)
    if spans := scope.get("datadog", {}).get("request_spans"):
        _name(spans[0], "websocket", websocket)
        scope["tracing.named"]["path"] = spans[0].resource.removeprefix("websocket ")


def _name(span: Span, method: str, connection: Any) -> None:
    if connection.url_rule is not None:
        span.resource = f"{method} {connection.url_rule.rule}"
        span.set_tag("http.route", connection.url_rule.rule)
    else:
        span.resource = f"{method} {connection.routing_exception.code}"


def _respond(scope: Scope, message: Message) -> None:
    """When a response starts: finish what the span of an error needs, and tell the caller the trace id."""
    span = _request_span(scope)
    if span.error:
        _keep_error(scope, span, scope.get("tracing.exception"))
    root = tracer.current_root_span() or span
    if root.context.sampling_priority is None:
        tracer.sample(root)
    sampled = (root.context.sampling_priority or 0) > 0
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{sampled:02x}"
    message["headers"] = [*message["headers"], (b"traceresponse", parent.encode())]


def _keep_error(scope: Scope, span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_exc_info(type(error), error, error.__traceback__)
    if not scope["datadog"]["decided"]:
        span.set_tag("manual.keep")


def _mark_unanswered(_error: Exception, span: Span) -> None:
    """An exception left Quart: the server answers 500, unless a response had begun, whose status stays the truth."""
    if span.get_tag("http.status_code") is None:
        span.set_tag("http.status_code", "500")


async def _remember(_app: Quart, exception: BaseException, **_: object) -> None:
    cast("Scope", request.scope)["tracing.exception"] = exception


def _remember_handled_exceptions(app: Quart) -> None:
    """Quart has a signal for exceptions that no handler took, none for one that a handler answered with a 5xx."""
    handle = app.handle_user_exception

    async def handle_user_exception(*args: Any) -> Any:  # Quart 0.22: (error), 0.23: (context, error)
        if has_request_context():
            cast("Scope", request.scope)["tracing.exception"] = args[-1]
        return await handle(*args)

    app.handle_user_exception = handle_user_exception  # type: ignore[assignment,method-assign]


async def _mark_websocket(_app: Quart, exception: BaseException, **_: object) -> None:
    """The handshake's span is over once the socket is open: the error is of the message that was being handled."""
    scope = cast("Scope", websocket.scope)
    datadog = scope.get("datadog", {})
    if spans := datadog.get("request_spans"):
        _keep_error(scope, datadog.get("current_receive_span") or spans[0], exception)


def _refuse_websocket(scope: Scope, message: Message) -> None:
    span = _request_span(scope)
    span.set_tag("http.status_code", str(message["status"]))
    if config._http_server.is_error_code(message["status"]):  # noqa: SLF001 - what ddtrace's middleware asks for HTTP
        span.error = 1


def _trace_background_tasks(app: Quart) -> None:
    add = app.add_background_task

    def add_background_task(func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        parent = tracer.current_span()
        name = getattr(func, "__qualname__", repr(func))

        async def run() -> None:
            with tracer.start_span("quart.background_task", resource=name, activate=True) as span:
                span.set_tag("component", "quart")
                if parent is not None:
                    span.link_span(parent.context)
                await app.ensure_async(func)(*args, **kwargs)

        add(run)

    app.add_background_task = add_background_task  # type: ignore[method-assign]
