"""Creates spans and traces for tests of the local view."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from hello_service.localview.spans import Span, Trace

MS = 1_000_000  # a millisecond in nanoseconds, the unit of a span's times
START = 1_700_000_000 * 1_000_000_000  # a time in 2023
_ids = count(1)


def span(
    parent: Span | None = None,
    *,
    trace: int | None = None,
    resource: str = "GET /api/hello",
    service: str = "web",
    start_ms: float = 0,
    duration_ms: float = 10,
    error: bool = False,
    meta: Mapping[str, str] | None = None,
    **other_fields: Any,
) -> Span:
    """Return a span that starts `start_ms` after START and lasts `duration_ms`.

    It is a child of `parent` if that is given. Its trace is `trace`, otherwise the trace of `parent`, otherwise a new
    one.
    """
    if trace is None:
        trace = parent.trace_id if parent else next(_ids)
    fields = {
        "span_id": next(_ids),
        "parent_id": parent.span_id if parent else 0,
        "name": "asgi.request",
        "metrics": {},
        **other_fields,
    }
    return Span(
        trace_id=trace,
        resource=resource,
        service=service,
        start=START + round(start_ms * MS),
        duration=round(duration_ms * MS),
        error=error,
        meta=meta or {},
        **fields,
    )


def trace(*spans: Span) -> Trace:
    first, *others = spans
    result = Trace(first)
    for other in others:
        result.add(other)
    return result


def wire_format(source: Span) -> dict[str, Any]:
    """Return a span in the format in which a tracer sends it."""
    return {
        "trace_id": source.trace_id,
        "span_id": source.span_id,
        "parent_id": source.parent_id,
        "name": source.name,
        "resource": source.resource,
        "service": source.service,
        "start": source.start,
        "duration": source.duration,
        "error": int(source.error),
        "meta": dict(source.meta),
        "metrics": dict(source.metrics),
    }
