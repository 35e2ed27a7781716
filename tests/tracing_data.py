"""Short ways to make spans and traces for tests of the local view."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from hello_service.localview.spans import Span, Trace

MS = 1_000_000
START = 1_700_000_000 * 1_000_000_000
_ids = count(1)


def span(
    parent: Span | None = None,
    *,
    trace: int | None = None,
    resource: str = "GET /api/hello",
    service: str = "web",
    at: float = 0,
    ms: float = 10,
    error: bool = False,
    meta: Mapping[str, str] | None = None,
    **rest: Any,
) -> Span:
    """Return a span that starts `at` ms and takes `ms`, a child of `parent` if there is one."""
    trace_id = trace if trace is not None else parent.trace_id if parent else next(_ids)
    given = {
        "span_id": next(_ids),
        "parent_id": parent.span_id if parent else 0,
        "name": "asgi.request",
        "metrics": {},
        **rest,
    }
    return Span(
        trace_id=trace_id,
        resource=resource,
        service=service,
        start=START + round(at * MS),
        duration=round(ms * MS),
        error=error,
        meta=meta or {},
        **given,
    )


def trace(*spans: Span) -> Trace:
    """Return the trace of `spans`."""
    made = Trace(spans[0])
    for each in spans[1:]:
        made.add(each)
    return made


def wire(of: Span) -> dict[str, Any]:
    """Return a span as a tracer sends it."""
    return {
        "trace_id": of.trace_id,
        "span_id": of.span_id,
        "parent_id": of.parent_id,
        "name": of.name,
        "resource": of.resource,
        "service": of.service,
        "start": of.start,
        "duration": of.duration,
        "error": int(of.error),
        "meta": dict(of.meta),
        "metrics": dict(of.metrics),
    }
