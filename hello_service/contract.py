"""Lists every undocumented library name that this package relies on, and checks them at start.

The names are strings that importlib resolves, so no statement here imports a library or a module of this package. The
check reports names that a new release of a library has renamed, removed or otherwise changed, before the first request
depends on them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Name:
    """One undocumented name.

    Attributes:
        path: `module`, `module:attribute` or `module:Class.attribute`.
        parameters: names of the first parameters, in the order in which this package passes them; empty: not checked.
        uses: names and constants that the code of the function must contain, such as attributes that it sets.
        alternative: the name that replaces this one in another supported release of the library.
    """

    path: str
    parameters: Sequence[str] = ()
    uses: Sequence[str] = ()
    alternative: Name | None = None


# Quart 0.22 has no `Buffer`: its connection holds the queue of messages.
_QUART_0_22_QUEUE = Name("quart.asgi:ASGIWebsocketConnection.__init__", ("self", "app", "scope"), uses=("queue",))


# Undocumented names, by the part of this package that relies on them.
NAMES: Mapping[str, Sequence[Name]] = {
    "tracing": (
        Name("ddtrace:config.asgi.copy"),
        Name("ddtrace:config._is_user_provided_service"),
        Name("ddtrace:config._inferred_base_service"),
        Name("ddtrace:config._http_server.is_error_code", ("status_code",)),
        Name("ddtrace.contrib.internal.trace_utils:_copy_trace_level_tags", ("target_span", "parent")),
        Name("ddtrace.contrib.internal.trace_utils:set_http_meta", ("span", "integration_config")),
        Name("ddtrace.internal.core.event_hub:dispatch"),
        Name("ddtrace.internal.core.event_hub:has_listeners"),
        Name("ddtrace.internal._exceptions:BlockingException"),
        Name("ddtrace.internal._exceptions:find_exception", ("exc", "exception_type")),
        Name("ddtrace.internal.endpoints:endpoint_collection.add_endpoint", ("method", "path")),
        Name("ddtrace.internal.utils:get_blocked"),
        Name("ddtrace.trace:Context._reactivate"),
        Name("ddtrace.trace:Span._on_finish_callbacks"),
        Name("ddtrace.trace:tracer._span_aggregator.dd_processors"),
    ),
    "fast_span": (
        Name("ddtrace:config._inferred_proxy_services_enabled"),
        Name("ddtrace:config._client_ip_header"),
        Name("ddtrace:config._http_server.is_error_code", ("status_code",)),
        Name("ddtrace.contrib.asgi:TraceMiddleware.default_ports"),
        Name("ddtrace.contrib.internal.asgi.utils:bytes_to_str", ("str_or_bytes",)),
        Name("ddtrace.contrib.internal.asgi.utils:extract_headers", ("scope",)),
        Name("ddtrace.contrib.internal.trace_utils:activate_distributed_headers", ("tracer", "int_config")),
        Name("ddtrace.contrib.internal.trace_utils:int_service", ("pin", "int_config")),
        Name("ddtrace.contrib.internal.trace_utils:set_http_meta", ("span", "integration_config")),
        Name("ddtrace.contrib.internal.trace_utils:set_service_and_source", ("span", "service", "int_config")),
        Name("ddtrace.internal.core.event_hub:has_listeners"),
        Name("ddtrace.internal.schema:schematize_url_operation"),
        Name("ddtrace.internal.schema.span_attribute_schema:SpanDirection.INBOUND"),
    ),
    "http1": (
        Name(
            "hypercorn.asyncio.tcp_server:TCPServer",
            ("app", "loop", "config", "context", "state", "reader", "writer"),
        ),
        Name("hypercorn.asyncio.run:TCPServer"),
        Name(
            "hypercorn.app_wrappers:ASGIWrapper.__call__",
            ("self", "scope", "receive", "send", "sync_spawn", "call_soon"),
        ),
    ),
    "websocket": (
        Name("websockets.server:ServerProtocol.accept", ("self", "request")),
        Name("websockets.protocol:Protocol.fail", ("self", "code", "reason")),
        Name("websockets.protocol:Protocol.recv_frame", uses=("current_size",)),
    ),
    "clients": (
        Name("aiohttp:TCPConnector._get", ("self", "key", "traces")),
        Name("aiohttp:TCPConnector.connect", uses=("_get",)),
    ),
    "server": (
        Name("hypercorn.asyncio:serve", ("app", "config")),
        Name("hypercorn.asyncio.run:worker_serve", uses=("create_sockets", "insecure_sockets")),
        Name("hypercorn.config:Config.create_sockets", ("self",)),
        Name("hypercorn.config:Sockets.__init__", ("self", "secure_sockets", "insecure_sockets", "quic_sockets")),
    ),
    "trace loss": (
        Name("ddtrace.internal.writer:NativeWriter._send_payload", ("self", "payload", "count")),
        Name("ddtrace.internal.writer:NativeWriter._metrics_dist", ("self", "name", "count")),
        Name("ddtrace.internal.writer.writer:NativeWriter._flush_single_payload", uses=("_send_payload",)),
        Name(
            "ddtrace.internal.writer.writer:NativeWriter._flush_queue_with_client",
            uses=("_metrics_dist", "encoder.dropped.traces"),
        ),
        Name(
            "ddtrace.internal.writer.writer:NativeWriter._write_with_client",
            uses=("_metrics_dist", "buffer.dropped.traces"),
        ),
    ),
    "WebSocket bound": (
        Name("quart.app:Quart.asgi_websocket_class"),
        Name("quart.asgi:ASGIWebsocketConnection.__call__", uses=("handle_messages",)),
        Name(
            "quart.asgi:ASGIWebsocketConnection.handle_messages",
            ("self", "websocket", "receive", "websocket_task"),
            uses=("buffer", "put"),
            alternative=Name(
                "quart.asgi:ASGIWebsocketConnection.handle_messages", ("self", "receive"), uses=("queue", "put")
            ),
        ),
        Name("quart.wrappers:Websocket.buffer_class", alternative=_QUART_0_22_QUEUE),
        Name("quart.wrappers:Websocket.__init__", uses=("buffer_class", "buffer"), alternative=_QUART_0_22_QUEUE),
        Name("quart.wrappers.websocket:Buffer.__init__", ("self",), uses=("_queue",), alternative=_QUART_0_22_QUEUE),
        Name("quart.wrappers.websocket:Buffer.put", uses=("_queue",), alternative=_QUART_0_22_QUEUE),
        Name("quart.wrappers.websocket:Buffer.get", uses=("_queue",), alternative=_QUART_0_22_QUEUE),
    ),
    "doctor": (
        Name("ddtrace._trace.tracer:Tracer.__init__", uses=("_span_aggregator",)),
        Name("ddtrace._trace.processor:SpanAggregator.__init__", uses=("writer",)),
        Name("ddtrace.internal.writer:NativeWriter.__init__", uses=("_api_version",)),
        Name("ddtrace.internal.writer:NativeWriter.flush_queue", ("self", "raise_exc")),
    ),
    "local view": (
        Name("ddapm_test_agent.agent:Agent.__init__", uses=("_requests",)),
        Name("ddapm_test_agent.agent:Agent._traces_from_request", ("self", "req")),
        Name("ddapm_test_agent.agent:pprint_trace"),
        Name("ddapm_test_agent.agent:make_app", uses=("agent",)),
        Name("ddapm_test_agent.agent:main", ("args", "app_factory")),
    ),
}

# The effect of running without a part, and the fix.
WITHOUT: Mapping[str, str] = {
    "tracing": "The service may run untraced. Install the ddtrace of requirements/run.txt.",
    "fast_span": (
        "ddtrace's own middleware creates the span of a request, which costs more CPU. "
        "Install the ddtrace of requirements/run.txt."
    ),
    "http1": "Hypercorn's own classes serve HTTP and WebSocket. Install the versions in requirements/run.txt.",
    "websocket": "Hypercorn's own classes serve HTTP and WebSocket. Install the versions in requirements/run.txt.",
    "clients": "Calls on stale connections may fail or be repeated. Install the aiohttp of requirements/run.txt.",
    "server": (
        "The service could not listen on HOST and PORT, so it does not start. "
        "Install the Hypercorn of requirements/run.txt."
    ),
    "trace loss": "Lost traces are not counted at /info. Install the ddtrace of requirements/run.txt.",
    "WebSocket bound": (
        "A WebSocket client that sends faster than its handler reads can fill the memory. "
        "Install the Quart of requirements/run.txt."
    ),
    "doctor": "`hello-service doctor` can't send its test span. Install the ddtrace of requirements/run.txt.",
    "local view": (
        "The local view can't read traces from its agent. Install the ddapm-test-agent of requirements/dev.txt."
    ),
}

REQUIRED = frozenset({"server"})  # the service can't run without these
TOOLS = frozenset({"doctor", "local view"})  # a serving process does not need these, and may not have their libraries


def find_changes(part: str) -> list[str]:
    """Return one sentence for each name of `part` that has changed."""
    return [sentence for name in NAMES[part] if (sentence := _describe_change(name)) is not None]


def check() -> dict[str, list[str]]:
    """Return `find_changes(part)`, followed by the sentence of `WITHOUT`, for each broken part except `TOOLS`."""
    changes = {part: find_changes(part) for part in NAMES if part not in TOOLS}
    return {part: [*sentences, WITHOUT[part]] for part, sentences in changes.items() if sentences}


def _describe_change(name: Name) -> str | None:
    """Return a sentence about how `name` has changed, or None if it or its alternative is as expected."""
    if name.alternative is not None and _describe_change(name.alternative) is None:
        return None
    return _compare_with_library(name)


def _compare_with_library(name: Name) -> str | None:
    """Return a sentence about how the installed library differs from `name`, or None."""
    path = name.path
    module, _, attributes = path.partition(":")
    try:
        value: Any = import_module(module)
    except ImportError:
        return f"Module {module} can't be imported."
    for attribute in filter(None, attributes.split(".")):  # none for a module alone
        if not hasattr(value, attribute):
            return f"{path} is missing: {attribute} was renamed or removed."
        value = getattr(value, attribute)
    if name.parameters:
        actual = list(inspect.signature(value).parameters)
        if actual[: len(name.parameters)] != list(name.parameters):
            return f"{path} takes ({', '.join(actual)}), expected ({', '.join(name.parameters)})."
    if name.uses:
        function = inspect.unwrap(value)
        if not inspect.isfunction(function):
            return f"{path} is no longer a Python function."
        code = function.__code__
        names_in_code = (*code.co_names, *code.co_varnames, *code.co_consts)
        missing = [use for use in name.uses if use not in names_in_code]
        if missing:
            return f"{path} no longer uses {', '.join(missing)}."
    return None
