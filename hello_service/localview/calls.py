"""Which spans are requests to a service, and which are calls from one service to another. A leaf."""

from __future__ import annotations

from collections.abc import Iterator

from hello_service.localview.spans import Span, Trace

CLIENTS, SERVERS = frozenset({"client", "producer"}), frozenset({"server", "consumer"})


def calls(trace: Trace) -> Iterator[tuple[str, str, Span]]:
    """Yield (from, to, the caller's span) for each call between services.

    A call is a client's span with a server's span below it; without that, one that names its peer; and a span whose
    parent is of another service, as ddtrace makes them for databases.
    """
    spans = {span.span_id: span for span in trace.spans}
    answered: set[int] = set()
    for span in trace.spans:
        parent = spans.get(span.parent_id)
        if parent is None:
            continue
        if parent.kind in CLIENTS and span.kind in SERVERS:
            if parent.span_id not in answered:
                answered.add(parent.span_id)
                yield parent.service, span.service, parent
        elif parent.service != span.service:
            yield parent.service, span.service, span
    for span in trace.spans:
        if span.kind in CLIENTS and span.span_id not in answered and "peer.service" in span.meta:
            yield span.service, span.meta["peer.service"], span


def requests(trace: Trace) -> Iterator[tuple[str, Span]]:
    """Yield (service, span) for each request to a service, and for each call to one that sends no spans itself."""
    for span in trace.spans:
        if span.enters_service:
            yield span.service, span
    own = {span.service for span in trace.spans}
    for _, target, span in calls(trace):
        if target not in own:
            yield target, span
