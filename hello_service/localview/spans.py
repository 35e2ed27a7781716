"""Spans as the agent received them, put together to traces. A leaf: the terminal and the page draw from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """One span. Times are in nanoseconds, `start` since the epoch; ids are those of the wire (64 bits)."""

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    resource: str
    service: str
    start: int
    duration: int
    error: bool
    meta: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, span: Mapping[str, Any]) -> Span:
        """Read a span as `/test/session/traces` of ddapm-test-agent has it; what is missing is empty."""
        name = str(span.get("name") or "")
        return cls(
            trace_id=int(span["trace_id"]),
            span_id=int(span["span_id"]),
            parent_id=int(span.get("parent_id") or 0),
            name=name,
            resource=str(span.get("resource") or name),
            service=str(span.get("service") or ""),
            start=int(span["start"]),
            duration=int(span["duration"]),
            error=bool(span.get("error")),
            meta=span.get("meta") or {},
            metrics=span.get("metrics") or {},
        )

    @property
    def end(self) -> int:
        return self.start + self.duration

    @property
    def status(self) -> str:
        """The HTTP status, `ok` or `error` where there is none."""
        return self.meta.get("http.status_code") or ("error" if self.error else "ok")


@dataclass
class Trace:
    """All spans that have come of one trace, in any order."""

    spans: list[Span]

    @property
    def id(self) -> str:
        """The trace id, 32 hexadecimal characters: the high half is a tag of some span."""
        high = next((tid for span in self.spans if (tid := span.meta.get("_dd.p.tid"))), "0" * 16)
        return f"{high}{self.spans[0].trace_id:016x}"

    @property
    def root(self) -> Span:
        """The span that began the trace: without a parent if it has come, else the earliest."""
        return min(self.spans, key=lambda span: (span.parent_id != 0, span.start))

    @property
    def start(self) -> int:
        return min(span.start for span in self.spans)

    @property
    def duration(self) -> int:
        """Nanoseconds from the first start to the last end, at least 1."""
        return max(1, max(span.end for span in self.spans) - self.start)

    @property
    def errors(self) -> int:
        return sum(span.error for span in self.spans)

    def walk(self) -> Iterator[tuple[int, bool, Span]]:
        """Yield (depth, is the last child, span), parents before children, children by start.

        A span whose parent has not come stands at depth 0; so does one member of a cycle.
        """
        present = {span.span_id for span in self.spans}
        children: dict[int, list[Span]] = defaultdict(list)
        tops: list[Span] = []
        for span in sorted(self.spans, key=lambda span: span.start):
            is_child = span.parent_id in present and span.parent_id != span.span_id
            (children[span.parent_id] if is_child else tops).append(span)
        seen: set[int] = set()
        waiting = [*tops, *self.spans]  # the second time round for what only a cycle holds
        for top in waiting:
            stack = [(0, True, top)]
            while stack:
                depth, last, span = stack.pop()
                if id(span) in seen:
                    continue
                seen.add(id(span))
                yield depth, last, span
                below = children[span.span_id]
                stack.extend((depth + 1, child is below[-1], child) for child in reversed(below))


class Assembly:
    """Puts chunks of spans together to traces, and says which are complete.

    The parts of a trace come in any order and from several processes; it is taken for complete when nothing of it has
    come for `settle_seconds`.
    """

    def __init__(self, settle_seconds: float = 0.6) -> None:
        self.settle_seconds = settle_seconds
        self._open: dict[int, tuple[float, Trace]] = {}

    def add(self, chunks: Iterable[Iterable[Mapping[str, Any]]], now: float) -> None:
        """Take what the agent received at `now`, in seconds of any steady clock."""
        for chunk in chunks:
            for raw in chunk:
                span = Span.from_wire(raw)
                _, trace = self._open.get(span.trace_id, (now, Trace([])))
                trace.spans.append(span)
                self._open[span.trace_id] = (now, trace)

    def settled(self, now: float) -> list[Trace]:
        """Return the traces that are complete at `now`, oldest first, and let go of them."""
        done = [key for key, (last, _) in self._open.items() if now - last >= self.settle_seconds]
        traces = [self._open.pop(key)[1] for key in done]
        return sorted(traces, key=lambda trace: trace.start)

    def rest(self) -> list[Trace]:
        """Return all that is left, complete or not."""
        return self.settled(float("inf"))
