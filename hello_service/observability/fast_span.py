"""Creates the span of ddtrace's ASGI middleware with 13% less CPU per request. Optional, for this service only.

The 13% are two optimizations of benchmarks/README.md together: 0.91 (the span) times 0.96 (its headers).

This module relies on ddtrace's internals, which `contract.py` lists under `fast_span`; without them the middleware
creates the span. tests/conformance/test_fast_span.py proves that both create the same span.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import cached_property
from typing import Any

from ddtrace import config
from ddtrace.contrib.asgi import TraceMiddleware
from ddtrace.contrib.internal import trace_utils
from ddtrace.contrib.internal.asgi.utils import bytes_to_str, extract_headers
from ddtrace.internal.core.event_hub import has_listeners
from ddtrace.internal.schema import schematize_url_operation
from ddtrace.internal.schema.span_attribute_schema import SpanDirection
from ddtrace.trace import Span, tracer

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send

# The middleware's events for application security (including IAST) and AI Guard. If any of them has a listener, the
# middleware creates the span.
EVENTS = ("asgi.start_request", "asgi.request.parse.body", "asgi.finalize_response", "set_http_meta_for_asm")

# In every style of trace propagation, the name of a required header contains one of these: `tracestate` has no effect
# without `traceparent`. Most requests have no such header.
PROPAGATION_MARKS = ("traceparent", "datadog", "b3", "baggage")


class FastSpan:
    """Replaces `TraceMiddleware`, which still handles WebSockets and requests that need more than a span."""

    def __init__(
        self,
        app: ASGIApp,
        integration_config: Any,
        span_modifier: Callable[[Span, Scope], None],
    ) -> None:
        self.app = app
        self.settings = integration_config
        self.span_modifier = span_modifier
        self.middleware = TraceMiddleware(app, integration_config=integration_config, span_modifier=span_modifier)

    @cached_property
    def _name_and_service(self) -> tuple[str, str | None]:
        name = self.settings.request_span_name
        name = schematize_url_operation(name, direction=SpanDirection.INBOUND, protocol="http")
        return name, trace_utils.int_service(None, self.settings)  # None: no Pin, as in the middleware

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _needs_middleware(scope, self.settings):
            await self.middleware(scope, receive, send)
            return
        headers: Any = extract_headers(scope)
        names = " ".join(headers)
        with self._begin(scope, headers, names.lower()) as span:
            self._describe(span, scope, headers, names)

            async def send_and_finish(message: Message) -> None:
                kind = message.get("type")
                if kind == "http.response.start":
                    self._tag_response(span, message)
                try:
                    await send(message)
                finally:
                    # The span of an error stays open, because its exception follows.
                    if kind == "http.response.body" and not message.get("more_body", False) and not span.error:
                        span.finish()

            await self.app(scope, receive, send_and_finish)

    def _begin(self, scope: Scope, headers: MutableMapping[str, str], lower_names: str) -> Span:
        """Start the span. `lower_names` has the names of `headers` in lower case, joined into one string."""
        name, service = self._name_and_service
        if any(mark in lower_names for mark in PROPAGATION_MARKS):
            trace_utils.activate_distributed_headers(tracer, int_config=self.settings, request_headers=headers)
        span = tracer.trace(name, service=service, resource=scope["method"], span_type="web")
        scope["datadog"] = {"request_spans": [span]}  # as the middleware does
        trace_utils.set_service_and_source(span, service, self.settings)  # type: ignore[arg-type]  # ddtrace also passes None
        self.span_modifier(span, scope)
        return span

    def _describe(self, span: Span, scope: Scope, headers: dict[str, str], names: str) -> None:
        """Set the request's tags on the span. `names` has the names of `headers`, joined into one string."""
        settings = self.settings
        span.set_tag("component", settings.integration_name)
        span.set_tag("span.kind", "server")
        asgi = scope.get("asgi", {})
        for tag, value in (
            ("http.version", scope.get("http_version")),
            ("asgi.version", asgi.get("version")),
            ("asgi.spec_version", asgi.get("spec_version")),
        ):
            if value:  # some test clients leave them out
                span.set_tag(tag, value)
        query = bytes_to_str(scope["query_string"])
        url = _url(scope, headers.get("host"), query)
        if url is not None and "?" not in url and "@" not in url:  # no part that ddtrace would have to redact
            span.set_tag("http.url", url)
            url = None  # already set
        # ddtrace finds a header by its exact name only if the name is in lower case, with `-` in place of each `_`.
        names_are_plain = "_" not in names and names == names.lower()
        trace_utils.set_http_meta(
            span,
            settings,
            method=scope["method"],
            url=url,
            query=query if query and settings.trace_query_string else None,
            request_headers=headers,
            peer_ip=(scope.get("client") or (None,))[0],
            # True makes ddtrace scan all headers for each name, regardless of case, and convert the name of
            # DD_TRACE_CLIENT_IP_HEADER to lower case. False is faster.
            headers_are_case_sensitive=not names_are_plain or config._client_ip_header is not None,  # noqa: SLF001 - no public API
        )

    def _tag_response(self, span: Span, message: Message) -> None:
        span.set_tag("http.status_code", str(message["status"]))
        if config._http_server.is_error_code(message["status"]):  # noqa: SLF001 - as in the middleware
            span.error = 1
        if self.settings.is_header_tracing_configured:  # pragma: no cover - test_fast_span.py sets it in its processes
            headers: Any = extract_headers(message)
            trace_utils.set_http_meta(span, self.settings, response_headers=headers)


def _needs_middleware(scope: Scope, settings: Any) -> bool:
    """Whether the request needs more of ddtrace's middleware than its span, or is already inside such a middleware."""
    return bool(
        config._inferred_proxy_services_enabled  # noqa: SLF001 - no public API
        or settings.obfuscate_404_resource
        or "datadog" in scope
        or any(map(has_listeners, EVENTS))
    )


def _url(scope: Scope, host: str | None, query: str) -> str | None:
    """Return the request's URL. Without a Host header, the host is the server's address; None if that is unknown."""
    scheme = scope.get("scheme", "http")
    if not host:
        host, port = scope.get("server") or (None, None)
        if host is None:
            return None
        host = host if port in {None, TraceMiddleware.default_ports.get(scheme)} else f"{host}:{port}"
    return f"{scheme}://{host}{scope['path']}{'?' if query else ''}{query}"
