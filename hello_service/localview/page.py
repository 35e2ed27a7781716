"""The web page: its application, the check of the Host header, the views of one trace, live updates and the server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, cast

from hypercorn.asyncio import serve
from hypercorn.config import Config
from markupsafe import Markup
from quart import Blueprint, Quart, Response, redirect, render_template, request

from hello_service.asgi import ASGIApp, Receive, Scope, Send
from hello_service.localview import charts, lists, template_filters, units
from hello_service.localview.hosts import host_name, is_local
from hello_service.localview.lists import current_view
from hello_service.localview.performance import Performance
from hello_service.localview.spans import Trace
from hello_service.localview.store import Store
from hello_service.localview.text import escape_hidden
from hello_service.localview.trace_page import Selection, TraceView, hexadecimal

pages = Blueprint("localview", __name__)

EVENT_SECONDS = 0.5  # minimum time between two events
HEARTBEAT_SECONDS = 15.0  # after this long without an event, a comment is sent, which reveals a dead connection
CLOSE_SECONDS = 1.0  # how long the server may take to stop before it is canceled

MISDIRECTED_REQUEST = 421  # the status for a host that this server does not serve
WRONG_HOST = b"This page is not served under this host name. Use an IP address, localhost or a name without a dot."
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class View:
    """The data that the page shows."""

    store: Store
    performance: Performance
    service_url: str | None = None
    example_path: str = "/api/relay?count=3"  # a path of the service for a first request
    agent_url: str | None = None
    program: str = "dev"  # or view
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops, to end event streams


def create_page(view: View) -> Quart:
    """Return the application that shows `view`."""
    app = Quart(__name__)
    app.extensions["view"] = view
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.finalize = _finalize
    app.jinja_env.globals.update(view=view, store=view.store, charts=charts, pager=lists.pager)
    app.jinja_env.filters.update(
        duration=units.duration,
        quantity=units.quantity,
        percent=units.percent,
        rate=units.rate,
        clock=units.clock,
        log_parts=template_filters.log_parts,
        status_class=template_filters.status_class,
        hexadecimal=hexadecimal,
    )
    # Renders rows.html synchronously, because a thousand rows then take half the time.
    app.extensions["synchronous_jinja"] = app.jinja_env.overlay(enable_async=False)
    app.register_blueprint(pages)
    app.register_blueprint(lists.lists)
    checked_app: Any = _HostCheck(cast("ASGIApp", app.asgi_app))
    app.asgi_app = checked_app  # type: ignore[method-assign]  # Quart documents this assignment
    return app


class _HostCheck:
    """Rejects requests with the Host of a web site, before Quart's router, which fails on a malformed Host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope.get("headers", ()) if name == b"host"]
        name = host_name(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if (name is not None and is_local(name)) or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # the page has no WebSockets
            await send({"type": "websocket.close"})
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(WRONG_HOST)).encode())]
        await send({"type": "http.response.start", "status": MISDIRECTED_REQUEST, "headers": headers})
        await send({"type": "http.response.body", "body": WRONG_HOST, "more_body": False})


@pages.after_app_request
async def add_security_headers(response: Response) -> Response:
    """Allow the page's own scripts only, and prevent other pages from framing or reading it."""
    response.headers.update(HEADERS)
    return response


@pages.get("/trace/<text>")
async def show_trace(text: str) -> Any:
    """Show the trace with the id `text`, in any form, and the details of the span chosen in the address."""
    store = current_view().store
    trace = store.find(text)
    if trace is None:
        # `Store.revision` is 0 for a trace that is not kept, so the page reloads when the trace arrives.
        return await render_template("missing.html", version=0, text=text), 404
    if text != trace.id:
        query = request.query_string.decode("latin-1")
        return redirect(f"/trace/{trace.id}?{query}" if query else f"/trace/{trace.id}")
    version = store.revision(trace.id)  # read before rendering, so that the page refreshes if spans arrive meanwhile
    return await render_template("trace.html", version=version, trace=trace, trace_view=_trace_view(trace))


@pages.get("/trace/<text>/span/<span_id>")
async def span_details(text: str, span_id: str) -> Any:
    """Return the details of a span as a fragment for the page of its trace."""
    trace = current_view().store.find(text)
    if trace is None:
        return "This trace is no longer kept.", 404
    return await render_template("fragment.html", trace=trace, trace_view=_trace_view(trace, ("span", span_id)))


@pages.get("/trace/<text>/json")
async def trace_json(text: str) -> Any:
    """Return the trace and its log lines as JSON."""
    store = current_view().store
    trace = store.find(text)
    if trace is None:
        return {"error": "This trace is not kept, or no longer kept."}, 404
    spans = [asdict(span) for _, _, span in trace.walk()]
    body = {"trace_id": trace.id, "spans": spans, "logs": store.lines(trace)}
    return Response(json.dumps(body, indent=2, default=repr), content_type="application/json")


@pages.get("/events")
async def events() -> Response:
    """Send a server-sent event for each change of the store, or only of the trace in the parameter `trace`."""
    response = Response(_changes(current_view(), request.args.get("trace")), content_type="text/event-stream")
    response.timeout = None  # the response lasts until the client disconnects
    return response


def _trace_view(trace: Trace, *arguments: tuple[str, str]) -> TraceView:
    """Return `trace` with the selection in the address and in further `arguments`."""
    selection = Selection.from_arguments([*request.args.items(multi=True), *arguments])
    return TraceView(trace, current_view().store, selection)


def _finalize(value: object) -> object:
    """Escape invisible characters in each value of a template, except `Markup`.

    `Markup` is the result of a macro, already escaped, or of the filter `e`, which keeps the exact text of form fields
    and of the values of copy buttons.
    """
    return escape_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


async def _changes(view: View, trace_id: str | None) -> AsyncIterator[bytes]:
    """Yield a server-sent event with the new version when the store, or only the trace `trace_id`, has changed."""
    sent_version, sent_at = -1, monotonic()
    while not view.closing.is_set():
        version = view.store.version if trace_id is None else view.store.revision(trace_id)
        if version != sent_version:
            sent_version, sent_at = version, monotonic()
            yield f"data: {version}\n\n".encode()
        elif monotonic() - sent_at > HEARTBEAT_SECONDS:
            sent_at = monotonic()
            yield b":\n\n"
        try:
            await asyncio.wait_for(view.closing.wait(), EVENT_SECONDS)
        except TimeoutError:
            continue


@asynccontextmanager
async def serving(view: View, listener: socket.socket) -> AsyncIterator[None]:
    """Serve the page on `listener` until the end of the block."""
    listener.listen()  # connections made before Hypercorn is up wait in the backlog
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    stopping = asyncio.Event()
    running = asyncio.create_task(serve(create_page(view), config, shutdown_trigger=stopping.wait))
    try:
        yield
    finally:
        view.closing.set()
        stopping.set()
        await asyncio.wait({running}, timeout=CLOSE_SECONDS)
        # A client that doesn't read its response keeps the server running. A single `cancel()` is not enough, because
        # Hypercorn mistakes it for a timeout.
        while not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=CLOSE_SECONDS)
        await asyncio.gather(running, return_exceptions=True)
