"""Finds the spans that are requests to a service, and those that are calls from one service to another. A leaf."""

from __future__ import annotations

from collections.abc import Iterator

from hello_service.localview.spans import Span, Trace

CLIENTS, SERVERS = frozenset({"client", "producer"}), frozenset({"server", "consumer"})


def calls(trace: Trace) -> Iterator[tuple[str, str, Span]]:
    """Yield (caller, callee, the caller's span) for each call between services.

    Three kinds of spans are calls: a client span with a server span below it, a client span without one that has the
    tag `peer.service`, and a span whose parent belongs to another service, such as a database span of ddtrace.
    """
    spans = {span.span_id: span for span in trace.spans}
    received: set[int] = set()  # client spans whose server span is in the trace
    for span in trace.spans:
        parent = spans.get(span.parent_id)
        if parent is None:
            continue
        if parent.kind in CLIENTS and span.kind in SERVERS:
            if parent.span_id not in received:
                received.add(parent.span_id)
                yield parent.service, span.service, parent
        elif parent.service != span.service:
            yield parent.service, span.service, span
    for span in trace.spans:
        if span.kind in CLIENTS and span.span_id not in received and "peer.service" in span.meta:
            yield span.service, span.meta["peer.service"], span


def requests(trace: Trace) -> Iterator[tuple[str, Span]]:
    """Yield (service, span) for each request to a service, and for each call to a service that sends no spans."""
    for span in trace.spans:
        if span.enters_service:
            yield span.service, span
    traced = {span.service for span in trace.spans}
    for _, target, span in calls(trace):
        if target not in traced:
            yield target, span
