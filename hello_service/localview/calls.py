"""Finds the spans that are requests to a service, and those that are calls from one service to another."""

from __future__ import annotations

from collections.abc import Iterator

from hello_service.localview.spans import Span, Trace

CLIENT_KINDS, SERVER_KINDS = frozenset({"client", "producer"}), frozenset({"server", "consumer"})


def calls(trace: Trace) -> Iterator[tuple[str, str, Span]]:
    """Yield (caller, callee, span) for each call between services.

    Three kinds of spans are calls: a client span with a server span below it, a client span without a server span but
    with the tag `peer.service`, and a span whose parent belongs to another service, such as a database span of ddtrace.
    """
    spans = {span.span_id: span for span in trace.spans}
    matched_ids: set[int] = set()  # ids of client spans whose server span is in the trace
    for span in trace.spans:
        parent = spans.get(span.parent_id)
        if parent is None:
            continue
        if parent.kind in CLIENT_KINDS and span.kind in SERVER_KINDS:
            if parent.span_id not in matched_ids:
                matched_ids.add(parent.span_id)
                yield parent.service, span.service, parent
        elif parent.service != span.service:
            yield parent.service, span.service, span
    for span in trace.spans:
        if span.kind in CLIENT_KINDS and span.span_id not in matched_ids and "peer.service" in span.meta:
            yield span.service, span.meta["peer.service"], span


def requests(trace: Trace) -> Iterator[tuple[str, Span]]:
    """Yield (service, span) for each request to a service, and for each call to a service without spans in `trace`."""
    for span in trace.spans:
        if span.enters_service:
            yield span.service, span
    services_with_spans = {span.service for span in trace.spans}
    for _, callee, span in calls(trace):
        if callee not in services_with_spans:
            yield callee, span
