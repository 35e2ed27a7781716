"""The last traces and the log lines that belong to them, in bounds: what is over is dropped and counted."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any
from zlib import crc32

from hello_service.localview.spans import LINKS_OF_A_SPAN, Link, Span, Trace

SPANS = 100_000  # of all traces together
LINES_OF_A_TRACE = 200
LINES = 5000  # of the whole log, of a trace or of none
COLOURS = 10
SERVICES = 500  # with a colour in the order in which they came

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
HEX_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}")
DECIMAL_ID = re.compile(r"[0-9]{1,20}")

Line = Mapping[str, Any]


def trace_key(text: str) -> int | None:
    """Return the lower half of the trace id that `text` is, None when it is none.

    Taken are 32 or 16 hexadecimal characters, a decimal number, and the value of a `traceresponse` header.
    """
    text = text.strip().lower()
    if found := TRACEPARENT.fullmatch(text):
        text = found[1]
    if HEX_ID.fullmatch(text):
        return int(text[-16:], 16)
    return int(text) if DECIMAL_ID.fullmatch(text) else None


class Store:
    """Keeps the last `limit` traces."""

    def __init__(self, limit: int, spans: int = SPANS) -> None:
        self.limit = limit
        self.dropped = 0
        self.version = 0  # counts what has changed
        self._most_spans = spans
        self._spans = 0
        self._traces: dict[int, Trace] = {}
        self._lines: dict[int, list[Line]] = {}
        self._log: deque[tuple[int, Line]] = deque(maxlen=LINES)
        self.lines_read = 0
        self._colours: dict[str, int] = {}
        self._linked: dict[int, dict[int, list[Link]]] = {}  # by trace and span that a link leads to: where it is

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, spans: Iterable[Span]) -> list[Trace]:
        """Take spans of any traces and return the traces that they belong to."""
        touched: dict[int, Trace] = {}
        for span in spans:
            trace = self._traces.get(span.trace_id)
            if trace is None:
                trace = self._traces[span.trace_id] = Trace(span)
                self._spans += 1
            else:
                before = len(trace.spans)
                trace.add(span)
                self._spans += len(trace.spans) - before
            touched[span.trace_id] = trace
            for link in span.links:
                self._note(link, span)
        while len(self._traces) > self.limit or (self._spans > self._most_spans and len(self._traces) > 1):
            oldest = next(iter(self._traces))
            self._spans -= len(self._traces.pop(oldest).spans)
            self._lines.pop(oldest, None)
            self._linked.pop(oldest, None)
            self.dropped += 1
        self.version += bool(touched)
        for trace in touched.values():
            trace.version = self.version
        return list(touched.values())

    def _note(self, link: Link, span: Span) -> None:
        """Keep where `link` is, for the span that it leads to; its trace may be known or still come."""
        linked = self._linked.setdefault(link.trace_id, {}).setdefault(link.span_id, [])
        if len(linked) < LINKS_OF_A_SPAN:
            linked.append(Link(span.trace_id, span.span_id, link.kind))
        if len(self._linked) > 2 * self.limit:  # of traces that never came
            for lost in list(islice(self._linked, self.limit)):
                del self._linked[lost]

    def linked(self, span: Span) -> list[Link]:
        """Return the spans that have a link to `span`, in the order in which they came."""
        return self._linked.get(span.trace_id, {}).get(span.span_id, [])

    def add_line(self, line: Line) -> None:
        """Take a line of a log. Where it carries a trace id, its trace may be known or still come."""
        self.lines_read += 1
        self.version += 1
        self._log.append((self.lines_read, line))
        key = trace_key(str(line.get("dd.trace_id", "")))
        if not key:
            return
        lines = self._lines.setdefault(key, [])
        if len(lines) < LINES_OF_A_TRACE:
            lines.append(line)
        if len(self._lines) > 2 * self.limit:  # lines of traces that never came
            for lost in list(islice(self._lines, self.limit)):
                del self._lines[lost]

    def clear(self) -> None:
        """Forget all traces and lines."""
        self._traces.clear()
        self._lines.clear()
        self._log.clear()
        self._linked.clear()
        self._spans = self.dropped = self.lines_read = 0
        self.version += 1

    def newest(self) -> list[Trace]:
        """Return the traces, newest first."""
        return sorted(self._traces.values(), key=lambda trace: trace.start, reverse=True)

    def find(self, text: str) -> Trace | None:
        """Return the trace whose id, in any of the forms of `trace_key`, is `text`."""
        key = trace_key(text)
        return None if key is None else self._traces.get(key)

    def lines(self, trace: Trace) -> list[Line]:
        """Return the log lines of `trace` in the order in which they came."""
        return self._lines.get(trace.key, [])

    def log(self) -> list[tuple[int, Line]]:
        """Return the last lines with their numbers, newest first."""
        return list(reversed(self._log))

    def revision(self, text: str) -> int:
        """Return a number that grows with the trace whose id is `text`, with its log lines, and with links to it."""
        trace = self.find(text)
        if trace is None:
            return 0
        linked = sum(map(len, self._linked.get(trace.key, {}).values()))
        return len(trace.spans) + trace.dropped + len(self.lines(trace)) + linked

    def colour(self, service: str) -> int:
        """Return the number of the colour that `service` has for as long as this store lives."""
        if service not in self._colours and len(self._colours) >= SERVICES:
            return crc32(service.encode()) % COLOURS
        return self._colours.setdefault(service, len(self._colours) % COLOURS)
