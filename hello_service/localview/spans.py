"""Spans as the agent received them, put together to traces. A leaf: the terminal and the page draw from it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

UPPER_HALF = re.compile("[0-9a-f]{16}")  # of a trace id
SPANS_OF_A_TRACE = 10_000  # more are counted, not kept
LINKS_OF_A_SPAN = 200  # more are left out, and so are more that lead to one span
LINKS_TAG = "_dd.span_links"  # where version 0.5 of the protocol has span links, as JSON


@dataclass(frozen=True)
class Link:
    """A span link: to the span `span_id` of the trace whose id has the lower half `trace_id`; `kind` may be empty."""

    trace_id: int
    span_id: int
    kind: str = ""


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
    links: tuple[Link, ...] = ()

    @classmethod
    def from_wire(cls, span: Mapping[str, Any]) -> Span:
        """Read a span as `/test/session/traces` of ddapm-test-agent has it; what is missing is empty."""
        name = _text(span.get("name") or "")
        return cls(
            trace_id=int(span["trace_id"]),
            span_id=int(span["span_id"]),
            parent_id=int(span.get("parent_id") or 0),
            name=name,
            resource=_text(span.get("resource") or name),
            service=_text(span.get("service") or "no service"),
            start=int(span.get("start") or 0),
            duration=max(0, int(span.get("duration") or 0)),
            error=bool(span.get("error")),
            meta={_text(tag): _text(value) for tag, value in (span.get("meta") or {}).items()},
            metrics={
                _text(tag): value
                for tag, value in (span.get("metrics") or {}).items()
                if isinstance(value, int | float)
            },
            links=tuple(islice(_links(span), LINKS_OF_A_SPAN)),
        )

    @property
    def end(self) -> int:
        return self.start + self.duration

    @property
    def status(self) -> str:
        """The HTTP status, `ok` or `error` where there is none."""
        return self.meta.get("http.status_code") or ("error" if self.error else "ok")

    @property
    def kind(self) -> str:
        """`server`, `client` and so on, empty where the tracer does not say."""
        return self.meta.get("span.kind", "")

    @property
    def enters_service(self) -> bool:
        """Whether this is a request to its service, and no work within it: what Datadog counts."""
        return self.parent_id == 0 or self.metrics.get("_dd.top_level") == 1 or self.kind in {"server", "consumer"}


class Trace:
    """All spans that have come of one trace, in any order; at least one."""

    def __init__(self, first: Span) -> None:
        self.spans: list[Span] = []
        self.root = first
        self.start, self.end = first.start, first.end
        self.errors = 0
        self.dropped = 0
        self.version = 0  # of the store, when a span came last
        self._high = "0" * 16
        self.add(first)

    def add(self, span: Span) -> None:
        """Take one more span; beyond `SPANS_OF_A_TRACE` it is only counted."""
        if len(self.spans) >= SPANS_OF_A_TRACE:
            self.dropped += 1
            return
        self.spans.append(span)
        self.start, self.end = min(self.start, span.start), max(self.end, span.end)
        self.errors += span.error
        if UPPER_HALF.fullmatch(upper := span.meta.get("_dd.p.tid", "")):
            self._high = upper
        # What began the trace: the span without a parent if it has come, else the earliest.
        self.root = min(self.root, span, key=lambda each: (each.parent_id != 0, each.start))

    @property
    def key(self) -> int:
        """The lower half of the trace id, which every span has."""
        return self.spans[0].trace_id

    @property
    def id(self) -> str:
        """The trace id, 32 hexadecimal characters: the upper half is a tag of some span."""
        return f"{self._high}{self.key:016x}"

    @property
    def duration(self) -> int:
        """Nanoseconds from the first start to the last end, at least 1."""
        return max(1, self.end - self.start)

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
                below = children.pop(span.span_id, [])
                stack.extend((depth + 1, child is below[-1], child) for child in reversed(below))


def _text(value: object) -> str:
    """Return `value` as text that can be sent: half a surrogate pair, which JSON can hold, is escaped."""
    text = str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _links(span: Mapping[str, Any]) -> Iterator[Link]:
    """Yield the span links; what is no link is left out."""
    found = span.get("span_links")
    if not found:
        try:
            found = json.loads((span.get("meta") or {}).get(LINKS_TAG, "[]"))
        except (RecursionError, TypeError, ValueError):
            return
    for each in found if isinstance(found, list) else []:
        try:
            kind = (each.get("attributes") or {}).get("dd.kind", "")
            yield Link(_lower_half(each["trace_id"]), _lower_half(each["span_id"]), str(kind))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            continue


def _lower_half(number: int | str) -> int:
    """Return the lower 64 bits of an id, which is hexadecimal where it is text."""
    return (int(number, 16) if isinstance(number, str) else int(number)) & (2**64 - 1)


def read(chunks: Iterable[Iterable[Mapping[str, Any]]]) -> list[Span]:
    """Return the spans in what the agent received; one that has no ids or no numbers in their places is left out."""
    spans: list[Span] = []
    for chunk in chunks:
        for raw in chunk:
            try:
                spans.append(Span.from_wire(raw))
            except (AttributeError, KeyError, TypeError, ValueError):
                continue
    return spans
