"""Spans as the agent received them, grouped into traces, for the terminal and the page.

It imports nothing of this package.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

UPPER_HALF = re.compile("[0-9a-f]{16}")  # of a trace id
SPANS_OF_A_TRACE = 10_000  # limits memory; further spans are only counted
LINKS_OF_A_SPAN = 200  # at most this many links from a span, and as many links to it
LINKS_TAG = "_dd.span_links"  # version 0.5 of the protocol has span links in this tag, as JSON


@dataclass(frozen=True)
class Link:
    """One end of a span link. `trace_id` is the lower 64 bits of the trace id; `kind` may be empty."""

    trace_id: int
    span_id: int
    kind: str = ""


@dataclass(frozen=True)
class Span:
    """One span. Times are in nanoseconds, `start` since the epoch; ids have 64 bits, as in the agent's protocol."""

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
        """Return the span from a JSON object of the agent's protocol. Fields other than its two ids may be missing."""
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
        """The HTTP status if there is one, else `ok` or `error`."""
        return self.meta.get("http.status_code") or ("error" if self.error else "ok")

    @property
    def kind(self) -> str:
        """The tag `span.kind`, such as `server` or `client`; empty if it is missing."""
        return self.meta.get("span.kind", "")

    @property
    def enters_service(self) -> bool:
        """Whether this span is a request to its service, not work within it. Datadog counts these spans."""
        return self.parent_id == 0 or self.metrics.get("_dd.top_level") == 1 or self.kind in {"server", "consumer"}


class Trace:
    """The spans of one trace that have arrived so far, at least one, in order of arrival."""

    def __init__(self, first: Span) -> None:
        self.spans: list[Span] = []
        self.root = first
        self.start, self.end = first.start, first.end
        self.errors = 0  # spans with an error
        self.dropped = 0  # spans beyond SPANS_OF_A_TRACE
        self.version = 0  # the store's version when the last span arrived
        self._upper_half = "0" * 16
        self.add(first)

    def add(self, span: Span) -> None:
        """Add a span. If there are `SPANS_OF_A_TRACE` already, only count it."""
        if len(self.spans) >= SPANS_OF_A_TRACE:
            self.dropped += 1
            return
        self.spans.append(span)
        self.start, self.end = min(self.start, span.start), max(self.end, span.end)
        self.errors += span.error
        if UPPER_HALF.fullmatch(upper := span.meta.get("_dd.p.tid", "")):
            self._upper_half = upper
        # The earliest span without a parent, or the earliest span if none without a parent has arrived.
        self.root = min(self.root, span, key=lambda candidate: (candidate.parent_id != 0, candidate.start))

    @property
    def key(self) -> int:
        """The lower 64 bits of the trace id, which every span has."""
        return self.spans[0].trace_id

    @property
    def id(self) -> str:
        """The trace id, 32 hexadecimal characters. The upper half is 0 until a span has the tag `_dd.p.tid`."""
        return f"{self._upper_half}{self.key:016x}"

    @property
    def duration(self) -> int:
        """Nanoseconds from the first start to the last end, at least 1."""
        return max(1, self.end - self.start)

    def walk(self) -> Iterator[tuple[int, bool, Span]]:
        """Yield (depth, is the last child, span), parents before children, children sorted by start.

        A span whose parent is missing has depth 0, and so has one span of a cycle.
        """
        present_ids = {span.span_id for span in self.spans}
        children: dict[int, list[Span]] = defaultdict(list)
        tops: list[Span] = []
        for span in sorted(self.spans, key=lambda span: span.start):
            is_child = span.parent_id in present_ids and span.parent_id != span.span_id
            if is_child:
                children[span.parent_id].append(span)
            else:
                tops.append(span)
        yielded: set[int] = set()
        # After `tops`, only spans that belong to a cycle or descend from one have not been yielded.
        for top in [*tops, *self.spans]:
            stack = [(0, True, top)]
            while stack:
                depth, is_last, span = stack.pop()
                if id(span) in yielded:
                    continue
                yielded.add(id(span))
                yield depth, is_last, span
                span_children = children.pop(span.span_id, [])
                stack.extend((depth + 1, child is span_children[-1], child) for child in reversed(span_children))


def _text(value: object) -> str:
    """Return `value` as text that can be encoded: lone surrogates, which JSON can contain, are escaped."""
    text = str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _links(span: Mapping[str, Any]) -> Iterator[Link]:
    """Yield the valid span links of `span`."""
    links = span.get("span_links")
    if not links:
        try:
            links = json.loads((span.get("meta") or {}).get(LINKS_TAG, "[]"))
        except (RecursionError, TypeError, ValueError):
            return
    if not isinstance(links, list):
        return
    for link in links:
        try:
            kind = (link.get("attributes") or {}).get("dd.kind", "")
            trace_id, span_id = _lower_half(link["trace_id"]), _lower_half(link["span_id"])
            yield Link(trace_id=trace_id, span_id=span_id, kind=str(kind))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            continue


def _lower_half(number: int | str) -> int:
    """Return the lower 64 bits of an id, which is either a number or hexadecimal text."""
    value = int(number, 16) if isinstance(number, str) else int(number)
    return value & (2**64 - 1)


def read_spans(chunks: Iterable[Iterable[Mapping[str, Any]]]) -> list[Span]:
    """Return the spans in `chunks`, a response from `/drain`, except those without ids or with a malformed field."""
    spans: list[Span] = []
    for chunk in chunks:
        for raw in chunk:
            try:
                spans.append(Span.from_wire(raw))
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
                continue
    return spans
