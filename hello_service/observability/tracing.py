"""Datadog tracing for Quart. ddtrace has no Quart integration; this file is one, and works in any Quart service.

    import httpx, quart
    import tracing                                    # this file; start the service under ddtrace-run

    app = quart.Quart(__name__)
    tracing.trace(app, probes={"/health"})            # before or after the routes are added
    client = httpx.AsyncClient(event_hooks={"request": [tracing.name_client_span]})

ddtrace's own ASGI middleware, which is not specific to Quart, creates the span of a request. With this file:
- the resource and `http.route` are the route, with the mount path in front; without a route, the resource is `GET 404`
  or `GET 405`;
- an exception puts type, message and stack on the span, and keeps a trace that this process started: sampling does not
  drop it;
- probes have no span;
- application security can block a request before its handler runs;
- a task of `app.add_background_task` is a trace of its own, linked to its request's span;
- the resource of a WebSocket and of its messages contains the route, and a received message is the parent of the spans
  of its handling;
- a client that disconnected and a response that is incomplete are tagged;
- `traceresponse` (W3C Trace Context, level 3, a draft) gives the caller the trace id;
- an outbound call's span has a readable resource, and `peer.service`;
- the routes (endpoint inventory) and the code behind them (Code Origin) are registered with ddtrace.

Tracing never changes what a request, WebSocket or task does. This file supports ddtrace 4.5 to 4.x and
Quart 0.19.9 to 0.23. The service runs untraced with other releases, and if neither `ddtrace-run` nor
`import ddtrace.auto` has started ddtrace.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import cache, cached_property, partial
from importlib import metadata
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from quart import Quart, has_request_context, request, websocket, wrappers
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

try:
    from ddtrace import config
    from ddtrace.constants import USER_KEEP
    from ddtrace.contrib.asgi import TraceMiddleware
    from ddtrace.contrib.internal.trace_utils import _copy_trace_level_tags, set_http_meta
    from ddtrace.internal._exceptions import BlockingException, find_exception
    from ddtrace.internal.core.event_hub import dispatch, has_listeners
    from ddtrace.internal.endpoints import endpoint_collection
    from ddtrace.internal.utils import get_blocked
    from ddtrace.trace import Span, tracer
    from quart.signals import got_request_exception, got_websocket_exception, request_started, websocket_started
except ImportError as error:  # pragma: no cover - some releases outside of SUPPORTED lack these names
    _missing: str | None = str(error)
else:
    _missing = None

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# The first release that is supported, and the first that is not.
SUPPORTED = {"ddtrace": ((4, 5), (5,)), "quart": ((0, 19, 9), (0, 24))}

# The methods of RFC 9110, section 9.1, and RFC 5789. Any other becomes OTHER, because clients can invent any number of
# methods, and each would create another resource.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

CLIENT_DISCONNECTED = "http.client_disconnected"  # tag: the client disconnected before the response was complete
INCOMPLETE = "http.response_incomplete"  # tag: the response broke off, or is shorter than its Content-Length
# The messages that respond to a WebSocket's handshake, each with the status that applies if the message contains none.
# ASGI requires a status in the third: without it, the server raises an exception, which becomes a 500.
HANDSHAKE_STATUS = {"websocket.accept": 101, "websocket.close": 403, "websocket.http.response.start": 500}
# ASGI messages that contain a part of the body, or refer to a file that does.
BODY_MESSAGES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})

# Quart 0.23 raises this in a handler whose client has disconnected. Earlier releases cancel the handler, and the empty
# tuple matches no exception.
DISCONNECTED: Any = getattr(wrappers, "ClientDisconnectedError", ())

# Limits on the path segments that stay readable in an outbound call's resource, all above what an ordinary API needs.
# Without them, a path that contains an id or a name would create a resource for each value.
# A word has at most 24 characters: one to four parts of lower-case letters, joined by `-` or `_`, or a version (v2).
WORD = re.compile(r"(?=.{1,24}$)(?:v\d{1,2}|[a-z]+(?:[-_][a-z]+){0,3})")
MAX_WORDS = 20  # different words after one path prefix; under /users, user names look like words
MAX_PREFIXES = 500  # different readable path prefixes of all peers together
MAX_SEGMENTS = 8  # of one path


def active() -> bool:
    """Whether spans are created: ddtrace was started (`ddtrace-run` or `ddtrace.auto`), is enabled and is supported."""
    started = getattr(sys.modules.get("ddtrace.bootstrap.sitecustomize"), "loaded", False)
    return bool(started and unsupported() is None and tracer.enabled)


def trace(
    app: Quart,
    probes: Collection[str] = (),
    service: str | None = None,
    middleware: Callable[..., ASGIApp] | None = None,
) -> Quart:
    """Trace every request and WebSocket of `app`, except those for the paths in `probes`, and return `app`.

    It changes nothing if `active()` is false. Call it before the app serves. A second call adds its probes.
    `service` is used if `DD_SERVICE` is unset; `middleware` creates the spans in place of ddtrace's.
    """
    probes = frozenset([probes] if isinstance(probes, str) else probes)
    if reason := unsupported():
        _warn(f"{reason} The service runs untraced.")
    if not active():
        return app
    if existing := app.extensions.get("datadog_tracing"):
        existing.probes |= probes
        return app
    if service is not None:
        _name_process(service)
    inner: Any = app.asgi_app
    tracing: Any = _TracingMiddleware(inner, probes, service, middleware or TraceMiddleware)
    app.asgi_app = app.extensions["datadog_tracing"] = tracing  # type: ignore[method-assign]  # Quart documents this
    # Connect to the signals of all apps, because an untraced app may be mounted inside a traced one.
    request_started.connect(_name_by_route)
    websocket_started.connect(_name_by_route)
    got_request_exception.connect(_remember_exception)
    got_websocket_exception.connect(_record_websocket_error)
    _remember_handled_exceptions(app)
    _trace_background_tasks(app)
    return app


def trace_id() -> str | None:
    """Return the current trace id as 32 hexadecimal characters, None outside of a span."""
    return log_ids().get("dd.trace_id")


def log_ids() -> dict[str, str]:
    """Return the attributes that join a log line to the current span; empty outside of one.

    `dd.trace_id` is hexadecimal (128 bits), `dd.span_id` decimal, as in Datadog's "Correlating Python Logs and Traces".
    """
    context = tracer.current_trace_context() if active() else None
    if context is None or not context.trace_id:
        return {}
    return {"dd.trace_id": f"{context.trace_id:032x}", "dd.span_id": str(context.span_id)}


async def name_client_span(outgoing: Any) -> None:
    """Give the span of an outbound call a readable resource and `peer.service`.

    This is an event hook of httpx and of its fork httpx2. The resource is `METHOD host/path`. A path segment that is
    not a plain lower-case word becomes `?`, and so does a word once there are too many. Two request extensions
    override this: `route` (the path with its variables' names) and `peer_service` (replaces the host in the resource
    and in `peer.service`).
    """
    span = tracer.current_span() if active() else None
    if span is None or span.get_tag("component") not in {"httpx", "httpx2"} or span.get_tag("peer.service") is not None:
        return  # not traced, or the second hop of a redirect
    with _suppress_errors("Naming an outbound call"):
        url, hints = outgoing.url, outgoing.extensions
        peer = hints.get("peer_service") or url.host
        route = hints.get("route") or _make_readable(peer, url.raw_path.decode("ascii").partition("?")[0])
        method = outgoing.method if outgoing.method in METHODS else "OTHER"
        span.resource = f"{method} {peer}{route}"
        span.set_tag("peer.service", peer)
        if method == "OTHER":
            # ddtrace sets `http.method` later, so replace it when the span ends, before ddtrace's callback sends it.
            span._on_finish_callbacks.insert(0, lambda span: span.set_tag("http.method", "OTHER"))  # noqa: SLF001 - no hook


@contextmanager
def span(
    name: str, *, resource: str | None = None, service: str | None = None, kind: str = "internal"
) -> Iterator[Callable[[str, str | int | float], None]]:
    """Create a child of the current span for the `with` block, and record its exception. Does nothing without tracing.

        with tracing.span("sqlite.query", resource="SELECT name FROM visits WHERE id = ?", kind="client") as tag:
            rows = await database.execute_fetchall(...)
            tag("db.row_count", len(rows))

    Args:
        name: the kind of operation, such as `sqlite.query`.
        resource: what the operation works on, without values that differ from call to call. Default: `name`.
        service: a separate node in the service map. Default: the parent's service.
        kind: `internal`, `client`, `server`, `producer` or `consumer`.
    """
    if not active():
        yield lambda _key, _value: None
        return
    with tracer.trace(name, service=service, resource=resource) as child:
        child.set_tag("span.kind", kind)
        yield lambda key, value: child.set_tag(key, value) if isinstance(value, str) else child.set_metric(key, value)


class _TracingMiddleware:
    """ASGI middleware: this class calls ddtrace's middleware, which calls `_call_app`, which calls Quart."""

    def __init__(self, app: ASGIApp, probes: frozenset[str], service: str | None, middleware: Any) -> None:
        self.app, self.probes, self.service, self.middleware = app, probes, service, middleware

    @cached_property
    def _traced(self) -> ASGIApp:
        """ddtrace's middleware around the app, with ddtrace's settings at the time of the first request."""
        settings = config.asgi.copy()
        object.__setattr__(settings, "http", config.asgi.http)  # an attribute, not an item: copy() leaves it out
        settings["trace_asgi_websocket_messages"] = True  # otherwise the handshake has no span
        if self.service is not None and not config._is_user_provided_service:  # noqa: SLF001 - no public way
            settings["service_name"] = self.service
        traced: ASGIApp = self.middleware(
            self._call_app,
            integration_config=settings,
            span_modifier=lambda span, _: _current.get().begin(span),
        )
        return traced

    def _is_probe(self, scope: Scope) -> bool:
        """Whether the path is a probe's, with or without the mount path in front."""
        path = scope.get("path", "")
        return path in self.probes or path.removeprefix((scope.get("root_path") or "").rstrip("/")) in self.probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"} or self._is_probe(scope):
            await self.app(scope, receive, send)
            return
        exchange = (_WebSocket if scope["type"] == "websocket" else _Request)(scope, receive, send)
        outer = _current.get()
        same_client = outer is not None and outer.scope.get("client") == scope.get("client")
        if same_client and outer.complete and not exchange.nested:
            tracer.context_provider.activate(None)  # uvicorn starts a pipelined request in the previous one's context
        _current.set(exchange)
        try:
            with _suppress_errors("Tracing a request"):  # except the app's errors, which `_call_app` stores
                await self._traced(exchange.traced_scope, exchange.receive, exchange.send)
            if exchange.raised is not None:
                raise exchange.raised
        finally:
            _current.set(outer)
            exchange.release()
        if not exchange.handled:  # tracing failed before the app was called
            await self.app(scope, receive, send)

    async def _call_app(self, _traced_scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app. Store its exception, because the middleware would put Quart's exception group on the span."""
        exchange = _current.get()
        exchange.handled = True
        try:
            await exchange.call(self.app, receive, send)
        except BaseException as raised:
            if find_exception(raised, BlockingException) is not None:
                raise  # the middleware sends the response
            exchange.raised = raised
        exchange.conclude()


class _Exchange:
    """One request or WebSocket while it is served.

    The app gets `scope`. The middleware gets `traced_scope`, in which the route replaces the path, because the
    middleware names spans by the path.
    """

    span: Span
    routed = False  # Quart has matched a route or found none, and the span is named accordingly
    handled = False  # the app was called, or application security has blocked the request
    decided = False  # the caller has made the sampling decision for this trace
    complete = False  # the server has accepted every byte that the client waits for
    over = False  # the app has returned
    exception: BaseException | None = None  # the last exception that Quart has handled
    raised: BaseException | None = None  # the exception that the app has raised

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = _with_header_list(scope).get("headers", ())
        self.scope = scope
        self.nested = "datadog" in scope  # ddtrace already traces an outer app
        self.method = "websocket"
        self.traced_scope = {**scope}
        if scope["type"] == "http":
            self.method = self.traced_scope["method"] = scope["method"] if scope["method"] in METHODS else "OTHER"
        # A # would begin a fragment in http.url, and ddtrace redacts nothing in fragments.
        self.traced_scope["path"] = (scope.get("path") or "").replace("#", "%23")
        self.traced_scope["query_string"] = (scope.get("query_string") or b"").replace(b"#", b"%23")
        if not _is_host_valid(scope):
            headers = [header for header in scope["headers"] if header[0].lower() != b"host"]
            self.traced_scope["headers"] = headers  # ddtrace would raise an exception
        self.server_receive, self.server_send = receive, send

    def begin(self, span: Span) -> None:
        """Store and name the span that the middleware has started."""
        self.span = span
        self.decided = span.context.sampling_priority is not None
        span.resource = self.method  # until a route is known; never the raw path
        if not self.nested:  # an app that is mounted inside this one needs the middleware's state
            self.scope["datadog"] = self.traced_scope["datadog"] = _SharedState(self.traced_scope["datadog"])

    def name(self, connection: Any) -> None:
        """Name the span by the route of `connection` (Quart's request or WebSocket), or without one by 404 or 405."""
        self.routed = True
        rule = connection.url_rule
        if rule is None:
            self.traced_scope["path"] = str(getattr(connection.routing_exception, "code", None) or "")
            self.span.resource = f"{self.method} {self.traced_scope['path']}".rstrip()
            return
        self.traced_scope["path"] = _mount_path(connection.scope) + rule.rule
        outermost = self.traced_scope["datadog"]["request_spans"][:1]  # another span only if this app is mounted
        for span in {self.span, *outermost}:
            span.set_tag("http.route", self.traced_scope["path"])
            span.resource = f"{self.method} {self.traced_scope['path']}"

    def keep_error(self, error: BaseException | None, span: Span | None = None) -> None:
        """Put `error` on `span` (default: the exchange's). Keep the trace, unless the caller decided about it."""
        span = span or self.span
        if error is not None:
            # ddtrace ignores an exception without a traceback, and an exception inside a group can lack one.
            span.set_exc_info(type(error), error, error.__traceback__ or getattr(self.raised, "__traceback__", None))
            _describe_abort(span, error)
        if not self.decided:
            span.set_tag("manual.keep")

    def prepare_head(self, message: Message, status: int | None) -> Message:
        """Return `message`, a response's head, with a `traceresponse` header. Put a handled exception on the span."""
        headers = message.get("headers") or []
        if not self.routed:
            self.span.resource = f"{self.method} {status}"  # middleware around Quart responds
        if self.span.error:
            self.keep_error(self.exception)
        if any(name.lower() == b"traceresponse" for name, _ in headers):
            return message
        sampled = _sampling_priority(self.span) > 0
        traceresponse = f"00-{self.span.trace_id:032x}-{self.span.span_id:016x}-{'01' if sampled else '00'}"
        return {**message, "headers": [*headers, (b"traceresponse", traceresponse.encode())]}

    def conclude(self) -> None:
        """Put the outcome on the span once the app has returned or raised."""
        error = self.raised
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # Quart 0.23 runs each request in a task group
        if error is None or isinstance(error, DISCONNECTED):
            return
        self.keep_error(error)
        if isinstance(error, Exception) and self.span.get_tag("http.status_code") is None:
            self.span.set_tag("http.status_code", "500")  # the server's response
            if not self.routed:
                self.span.resource = f"{self.method} 500"

    def release(self) -> None:
        """Stop tracing and break reference cycles. Tasks of the app may still send messages later."""
        self.over = True
        self.exception = self.raised = None
        if not self.nested:
            self.scope.pop("datadog", None)


class _Request(_Exchange):
    """Detects from the messages of a request whether its response is complete."""

    started = False
    bytes_left: int | None = None  # of the body; None without a Content-Length

    async def call(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        async def send_with_header_list(message: Message) -> None:
            await send(_with_header_list(message))

        await app(self.scope, receive, send_with_header_list)

    async def receive(self) -> Message:
        message = await self.server_receive()
        if message["type"] == "http.disconnect" and not self.complete and not self.over:
            self.span.set_tag(CLIENT_DISCONNECTED, "true")
        return message

    async def send(self, message: Message) -> None:
        """Send a message that has passed through ddtrace's middleware."""
        self.handled = True  # application security may respond in place of the app
        kind, last = message.get("type"), False
        if kind == "http.response.start":
            self.started, self.bytes_left = True, self._body_length(message)
            message = self.prepare_head(message, message.get("status"))
        elif kind in BODY_MESSAGES:  # pragma: no branch - early hints and trailers need nothing
            last = kind == "http.response.pathsend" or not message.get("more_body", False)
            if self.bytes_left is not None:
                if kind == "http.response.body":
                    self.bytes_left -= len(message.get("body") or b"")
                else:
                    self.bytes_left = 0  # the message names a file, whose bytes the server sends
                if last and self.bytes_left > 0:
                    self.span.set_tag(INCOMPLETE, "true")
        await self.server_send(message)
        self.complete |= last or (self.bytes_left is not None and self.bytes_left <= 0)

    def _body_length(self, head: Message) -> int | None:
        """Return the length of the body in bytes, None if the head of the response doesn't contain it."""
        if self.method == "HEAD" or head.get("status") in {204, 304}:
            return 0
        lengths = [value for name, value in head.get("headers") or [] if name.lower() == b"content-length"]
        return int(lengths[-1]) if lengths and lengths[-1].isdigit() else None

    def conclude(self) -> None:
        super().conclude()
        if self.started:
            if not self.complete:
                self.span.set_tag(INCOMPLETE, "true")
        elif self.raised is None and not self.span.get_tag(CLIENT_DISCONNECTED):  # pragma: no cover - before Quart 0.23
            # When a handler is canceled, Quart returns without a response, and the server responds with a 500.
            self.span.error = 1
            self.span.set_tag("error.type", "asyncio.exceptions.CancelledError")
            self.span.set_tag("error.message", "the request was canceled before its response")
            self.span.set_tag("http.status_code", "500")
            self.keep_error(None)


class _WebSocket(_Exchange):
    """Passes a copy of each message to ddtrace's middleware when the handler receives or sends it.

    Quart reads messages earlier than its handler does, so their spans would begin too early. The messages themselves
    bypass the middleware, so that an exception in it can't reach the application.

    A message passes through `_read_ahead` to Quart and through `_receive_message` to the handler, or through `_send` to
    the server. Its copy passes through `traced_receive` or `traced_send`, the middleware's wrappers of `receive` and
    `send`.
    """

    connection: Any = None
    closed = False  # the app has closed the WebSocket, or the client has disconnected
    message_copy: Message  # the middleware receives it next
    receiver: asyncio.Task[Any] | None = None  # the task that received the last message
    parent: Any = None  # the context of the last message's span

    def name(self, connection: Any) -> None:
        super().name(connection)
        if connection.url_rule is not None and self.traces_messages:
            self.connection = connection
            connection.receive = partial(self._receive_message, connection.receive)

    async def call(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        self.traces_messages = config.asgi.trace_asgi_websocket_messages  # DD_TRACE_WEBSOCKET_MESSAGES_ENABLED
        self.context, self.traced_receive, self.traced_send = copy_context(), receive, send
        await app(self.scope, self._read_ahead, self._send)

    async def receive(self) -> Message:
        """Return the copy of a message to the middleware."""
        return self.message_copy

    async def send(self, message: Message) -> None:
        """Drop the copy of a message. Close the WebSocket if application security blocks it."""
        if message["type"] == "http.response.start":  # pragma: no cover - needs application security in the process
            self.handled = True
            await self.server_send({"type": "websocket.close", "code": 1008})  # policy violation (RFC 6455)

    def _run_middleware(self, coroutine: Any) -> None:
        """Run the middleware's coroutine for one message, in this WebSocket's context, whichever task is current."""
        # The coroutine never waits, so it is over after one step.
        with _suppress_errors("Passing a WebSocket message to ddtrace"), suppress(StopIteration):
            self.context.copy().run(coroutine.send, None)

    async def _read_ahead(self) -> Message:
        """Return Quart's next message. Pass a disconnect to the middleware; `_receive_message` passes the others."""
        message = await self.server_receive()
        if message["type"] == "websocket.disconnect" and not self.closed and not self.over:
            self.closed, self.message_copy = True, message
            if self.traces_messages:
                self._run_middleware(self.traced_receive())
        return message

    async def _receive_message(self, receive: Callable[[], Awaitable[Any]]) -> Any:
        """Return the handler's next message, and make its span the parent of what the handler does next."""
        data = await receive()
        if self.over:  # pragma: no cover - a task outlives its WebSocket, in processes of the conformance suite
            return data
        self.message_copy = {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}
        self._run_middleware(self.traced_receive())
        if span := self.traced_scope["datadog"].get("current_receive_span"):
            self._make_parent(span)
        return data

    def _make_parent(self, span: Span) -> None:
        """Make `span`, which ddtrace has created for a received message, the parent of new spans of this task.

        The current context becomes a copy of the span's context, because ddtrace ignores a finished span as a parent.
        If another task received the last message, as in Python 3.11's `asyncio.wait_for`, the old context is cleared
        there, so that no span gets a stale parent.
        """
        task = asyncio.current_task()
        if self.parent is not None and task is not self.receiver:
            self.parent.trace_id = self.parent.span_id = None
        self.receiver, self.parent = task, span.context.copy(span.trace_id, span.span_id)
        self.parent._reactivate = True  # noqa: SLF001 - otherwise only the next span would be its child
        tracer.context_provider.activate(self.parent)

    async def _send(self, message: Message) -> None:
        await self.server_send(message if self.over else self._copy_sent(_with_header_list(message)))

    def _copy_sent(self, message: Message) -> Message:
        """Tag the status of the handshake. Give the middleware a copy of `message`, and return the server's message."""
        kind = message.get("type")
        if kind in HANDSHAKE_STATUS and self.span.get_tag("http.status_code") is None:
            if self.closed:
                return message  # the client has disconnected, and gets no response to its handshake
            status = message.get("status", HANDSHAKE_STATUS[kind])
            self.span.set_tag("http.status_code", str(status))
            self.span.error = int(config._http_server.is_error_code(status))  # noqa: SLF001 - as for HTTP in the middleware
            head = self.prepare_head(message, status)
            if kind != "websocket.close":  # which has no headers
                message = head
        elif not self.traces_messages:
            return message
        self.closed |= kind in {"websocket.close", "websocket.http.response.start"}
        # Quart sends bytes with a text of None, which ddtrace would treat as a text.
        self._run_middleware(self.traced_send({key: value for key, value in message.items() if value is not None}))
        return message

    def release(self) -> None:
        super().release()
        if self.connection is not None:
            del self.connection.receive, self.connection  # so that their classes' attributes apply again
        self.__dict__.pop("context", None)  # not set if the app was never called
        self.traced_receive = self.traced_send = self.receiver = self.parent = None  # type: ignore[assignment]


class _SharedState(dict[str, Any]):
    """The state of ddtrace's middleware in the scope.

    A deep copy is the same object: middleware may copy the scope deeply, and spans can't be copied.
    """

    def __deepcopy__(self, _memo: object) -> _SharedState:
        return self


_current: ContextVar[Any] = ContextVar("datadog_tracing", default=None)  # a _Request or a _WebSocket


@cache
def unsupported() -> str | None:
    """Return a sentence about a library whose release this file doesn't support, None if all are supported."""
    for name, (first, end) in SUPPORTED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed."
        if not first <= tuple(map(int, re.findall(r"\d+", version)[:3])) < end:
            return f"tracing.py does not support {name} {version}; its docstring has the range."
    return _missing


@cache
def _warn(message: str) -> None:
    """Log `message`, once in this process."""
    logging.getLogger(__name__).warning(message)


@contextmanager
def _suppress_errors(activity: str) -> Iterator[None]:
    """Suppress an `Exception` of code that only observes, so that the application runs on. Log each type once."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a release of ddtrace or Quart may raise anything
        # The exception's text may contain data of a request, so only its type is logged.
        _warn(
            f"{activity} failed with {type(error).__name__}, so spans are incomplete. "
            "Check whether tracing.py supports these releases of ddtrace and Quart."
        )


def _name_process(service: str) -> None:
    """Make `service` the service of this process, unless the process has one already."""
    has_service = config._is_user_provided_service  # noqa: SLF001 - no public way
    if has_service or config.service not in {None, config._inferred_base_service}:  # noqa: SLF001 - the same
        return
    config.service = service
    for processor in tracer._span_aggregator.dd_processors:  # noqa: SLF001 - one of them keeps the first name
        if hasattr(processor, "_global_service"):
            processor._global_service = service.lower()  # noqa: SLF001 - the same


def _mount_path(scope: Scope) -> str:
    """Return the path that the app is mounted at: Starlette's pattern if it is mounted in Starlette."""
    patterns = scope.get("datadog", {}).get("resource_paths")
    return ("".join(patterns) if patterns else scope.get("root_path") or "").rstrip("/")


def _with_header_list(message: Message) -> Message:
    """Return `message` with its headers in a list. ddtrace reads them first, and would leave an iterator empty."""
    headers = message.get("headers")
    return message if headers is None or isinstance(headers, list | tuple) else {**message, "headers": [*headers]}


def _is_host_valid(scope: Scope) -> bool:
    """Whether the Host header can be part of a URL. True without a Host header."""
    host = next((value for name, value in scope["headers"] if name.lower() == b"host"), b"")
    try:
        urlsplit(f"//{host.decode()}")
    except ValueError:
        return False
    return True


def _describe_abort(span: Span, error: BaseException) -> None:
    """Describe `abort(response)` by the status of that response, which the exception's own text lacks."""
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
    """Return the sampling priority of the trace: kept if above 0. Sample the trace now if that hasn't happened yet."""
    if span.context.sampling_priority is None:
        tracer.sample(tracer.current_root_span() or span)
    return int(span.context.sampling_priority or 0)


_words: dict[str, int] = {}  # readable path prefix -> number of different words that have followed it


def _make_readable(peer: str, path: str) -> str:
    """Return `path` with `?` in place of each segment that isn't a word, or isn't among the first words."""
    segments, prefix = path.split("/")[1:], peer
    for number, segment in enumerate(segments[:MAX_SEGMENTS]):
        is_trailing_slash = not segment and number == len(segments) - 1
        prefix = f"{prefix}/{segment}" if is_trailing_slash or _is_word(prefix, segment) else f"{prefix}/?"
    readable = prefix.removeprefix(peer)
    return f"{readable}/?" if len(segments) > MAX_SEGMENTS else readable


def _is_word(prefix: str, segment: str) -> bool:
    """Whether `segment` is a word, and one of the first that followed `prefix`. If it is, remember it."""
    path = f"{prefix}/{segment}"
    has_room = _words.get(prefix, 0) < MAX_WORDS and len(_words) < MAX_PREFIXES
    if has_room and path not in _words and WORD.fullmatch(segment):
        _words[prefix] = _words.get(prefix, 0) + 1
        _words[path] = 0
    return path in _words


async def _name_by_route(app: Quart, **_: object) -> None:
    """Name the span once Quart has looked for a route. Register the routes once. Block the request if necessary."""
    exchange = _current.get()
    if exchange is None or exchange.over:
        return
    with _suppress_errors("Naming a span by its route"):
        proxy: Any = request if has_request_context() else websocket
        connection = proxy._get_current_object()  # noqa: SLF001 - how werkzeug returns a proxy's object
        exchange.name(connection)
        if not app.extensions.get("datadog_routes_registered"):
            app.extensions["datadog_routes_registered"] = True
            _register_routes(app, _mount_path(connection.scope))
        if has_listeners("asm.get_blocked"):
            _run_application_security(exchange, connection)


def _register_routes(app: Quart, mount: str) -> None:
    """Register the routes (endpoint inventory) and views (Code Origin) with ddtrace, as its integrations do."""
    for rule in app.url_map.iter_rules():
        if not getattr(rule, "websocket", False):
            for method in rule.methods or {"*"}:
                endpoint_collection.add_endpoint(method, mount + rule.rule, operation_name="asgi.request")
            view = app.view_functions.get(rule.endpoint)
            if inspect.isfunction(view):
                dispatch("service_entrypoint.patch", (inspect.unwrap(view),))


def _run_application_security(exchange: _Exchange, connection: Any) -> None:
    """Pass the route's variables to application security, and end the request here if it is blocked."""
    variables = {name: str(value) for name, value in (connection.view_args or {}).items()}
    route, cookies = exchange.span.get_tag("http.route"), dict(connection.cookies)
    set_http_meta(exchange.span, config.asgi, request_path_params=variables, request_cookies=cookies, route=route)
    dispatch("asgi.start_request", ("quart",))
    if blocked := get_blocked():
        raise BlockingException(blocked)  # a BaseException, which `_suppress_errors` does not suppress


async def _remember_exception(_app: Quart, exception: BaseException, **_: object) -> None:
    if exchange := _current.get():
        exchange.exception = exception


def _remember_handled_exceptions(app: Quart) -> None:
    """Remember exceptions that an error handler turns into a 5xx response: Quart has no signal for them."""
    handle = app.handle_user_exception

    async def handle_user_exception(*args: Any) -> Any:  # Quart 0.22: (error), 0.23: (context, error)
        await _remember_exception(app, args[-1])
        return await handle(*args)

    app.handle_user_exception = handle_user_exception  # type: ignore[assignment,method-assign]


async def _record_websocket_error(_app: Quart, exception: BaseException, **_: object) -> None:
    """Put the error on the span of the message or handshake, or on a new child of that span if it has ended."""
    exchange = _current.get()
    if exchange is None or exchange.over or isinstance(exception, DISCONNECTED):
        return
    span = exchange.traced_scope["datadog"].get("current_receive_span") or exchange.span
    if not span.finished:
        exchange.keep_error(exception)
        return
    with tracer.start_span("quart.websocket", child_of=span, service=span.service, resource=span.resource) as child:
        child.set_tag("component", "quart")
        exchange.keep_error(exception, child)


def _trace_background_tasks(app: Quart) -> None:
    """Give each background task of `app` a trace of its own, with a link to the span during which it was added."""
    add: Any = app.add_background_task

    # A subclass of Quart may take arguments that are not the function's, and may return something.
    def add_background_task(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        exchange, current = _current.get(), tracer.current_span()
        if current is not None:
            _sampling_priority(current)  # samples the trace, which must happen while it is current
        parent = tracer.current_trace_context()  # of the current span, or of a WebSocket message
        name = _function_name(func)

        async def run(*args: Any, **kwargs: Any) -> None:
            span = tracer.start_span("quart.background_task", resource=name, activate=True)
            span.set_tag("component", "quart")
            if parent is not None and parent.trace_id:
                span.link_span(parent)
                source: Any = SimpleNamespace(context=parent)  # a stand-in for a span: only its context is read
                _copy_trace_level_tags(span, source)  # baggage, origin, sampling decision and its mechanism
            try:
                await app.ensure_async(func)(*args, **kwargs)
            except BaseException as error:
                span.set_exc_info(type(error), error, error.__traceback__)
                if isinstance(error, Exception) and (exchange is None or not exchange.decided):
                    span.set_tag("manual.keep")
                raise
            finally:
                if parent is not None and parent.sampling_priority == USER_KEEP:
                    span.set_tag("manual.keep")  # the request's trace is kept, perhaps because it failed later
                span.finish()
                tracer.context_provider.activate(span.context)  # Quart logs an exception next, with these ids

        # The app gets `run` in place of `func`, so `run` has its name.
        run.__name__, run.__qualname__ = name.rpartition(".")[2], name
        return add(run, *args, **kwargs)

    app.add_background_task = add_background_task  # type: ignore[method-assign]


def _function_name(func: Any) -> str:
    """Return the name of a function or of a callable object's class. A `repr` could contain arguments and addresses."""
    while isinstance(func, partial):
        func = func.func
    name = getattr(func, "__qualname__", None)
    return name if isinstance(name, str) else type(func).__qualname__
