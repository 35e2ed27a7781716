"""Keeps the last traces and log lines. Fixed limits bound its memory, and dropped traces are counted."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any
from zlib import crc32

from hello_service.localview.spans import LINKS_OF_A_SPAN, Link, Span, Trace

SPANS = 100_000  # kept of all traces together
LINES_OF_A_TRACE = 200
LINES = 5000  # in the whole log, with or without a trace
COLORS = 10  # --c0 to --c9 in page.css
SERVICES = 500  # whose color is remembered; the color of further services is computed from their names

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # also the format of traceresponse
HEX_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}")
DECIMAL_ID = re.compile(r"[0-9]{1,20}")

Line = Mapping[str, Any]  # the fields of a log line


def trace_key(text: str) -> int | None:
    """Return the lower 64 bits of the trace id `text`, or None if it is not a trace id.

    A trace id is 32 or 16 hexadecimal characters, a decimal number, or the value of a `traceresponse` header.
    """
    text = text.strip().lower()
    if match := TRACEPARENT.fullmatch(text):
        text = match[1]
    if HEX_ID.fullmatch(text):
        return int(text[-16:], 16)
    return int(text) if DECIMAL_ID.fullmatch(text) else None


class Store:
    """The last `limit` traces, with at most `spans` spans in total, and the last log lines."""

    def __init__(self, limit: int, spans: int = SPANS) -> None:
        self.limit = limit
        self.dropped = 0  # traces
        self.version = 0  # increases with each change
        self._max_spans = spans
        self._span_count = 0
        self._traces: dict[int, Trace] = {}
        self._lines: dict[int, list[Line]] = {}  # by trace
        self._log: deque[tuple[int, Line]] = deque(maxlen=LINES)
        self.lines_read = 0  # including lines dropped since
        self._colors: dict[str, int] = {}
        self._backlinks: dict[int, dict[int, list[Link]]] = {}  # sources of links, by trace and span of their targets

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, spans: Iterable[Span]) -> list[Trace]:
        """Add spans of any traces and return the traces that they belong to."""
        changed_traces: dict[int, Trace] = {}
        for span in spans:
            trace = self._traces.get(span.trace_id)
            if trace is None:
                trace = self._traces[span.trace_id] = Trace(span)
                self._span_count += 1
            else:
                before = len(trace.spans)
                trace.add(span)
                self._span_count += len(trace.spans) - before
            changed_traces[span.trace_id] = trace
            for link in span.links:
                self._add_backlink(link, span)
        while len(self._traces) > self.limit or (self._span_count > self._max_spans and len(self._traces) > 1):
            oldest = next(iter(self._traces))
            self._span_count -= len(self._traces.pop(oldest).spans)
            self._lines.pop(oldest, None)
            self._backlinks.pop(oldest, None)
            self.dropped += 1
        if changed_traces:
            self.version += 1
        for trace in changed_traces.values():
            trace.version = self.version
        return list(changed_traces.values())

    def _add_backlink(self, link: Link, span: Span) -> None:
        """Record the link from `span` under its target, whose trace may not have arrived yet."""
        backlinks = self._backlinks.setdefault(link.trace_id, {}).setdefault(link.span_id, [])
        if len(backlinks) < LINKS_OF_A_SPAN:
            backlinks.append(Link(span.trace_id, span.span_id, link.kind))
        if len(self._backlinks) > 2 * self.limit:  # more than half belong to traces that are not kept
            for oldest in list(islice(self._backlinks, self.limit)):
                del self._backlinks[oldest]

    def links_to(self, span: Span) -> list[Link]:
        """Return the sources of the links to `span`, in order of arrival."""
        return self._backlinks.get(span.trace_id, {}).get(span.span_id, [])

    def add_line(self, line: Line) -> None:
        """Add a log line. If it has a trace id, that trace may not have arrived yet."""
        self.lines_read += 1
        self.version += 1
        self._log.append((self.lines_read, line))
        key = trace_key(str(line.get("dd.trace_id", "")))
        if not key:  # no trace id, or 0, which ddtrace writes outside of a trace
            return
        lines = self._lines.setdefault(key, [])
        if len(lines) < LINES_OF_A_TRACE:
            lines.append(line)
        if len(self._lines) > 2 * self.limit:  # more than half belong to traces that are not kept
            for oldest in list(islice(self._lines, self.limit)):
                del self._lines[oldest]

    def clear(self) -> None:
        """Forget all traces and lines."""
        self._traces.clear()
        self._lines.clear()
        self._log.clear()
        self._backlinks.clear()
        self._span_count = self.dropped = self.lines_read = 0
        self.version += 1

    def newest(self) -> list[Trace]:
        """Return the traces, newest first."""
        return sorted(self._traces.values(), key=lambda trace: trace.start, reverse=True)

    def find(self, text: str) -> Trace | None:
        """Return the trace with the id `text`, in any form that `trace_key` accepts."""
        key = trace_key(text)
        return None if key is None else self._traces.get(key)

    def lines(self, trace: Trace) -> list[Line]:
        """Return the log lines of `trace` in order of arrival."""
        return self._lines.get(trace.key, [])

    def log(self) -> list[tuple[int, Line]]:
        """Return the log lines with their numbers, newest first."""
        return list(reversed(self._log))

    def revision(self, text: str) -> int:
        """Return a number that increases when the trace with the id `text` gets a span, a log line or a link to it.

        It is 0 if the trace is not kept.
        """
        trace = self.find(text)
        if trace is None:
            return 0
        backlinks = sum(map(len, self._backlinks.get(trace.key, {}).values()))
        return len(trace.spans) + trace.dropped + len(self.lines(trace)) + backlinks

    def color(self, service: str) -> int:
        """Return the number of the color of `service`, from 0 to `COLORS` - 1. It never changes."""
        if service not in self._colors and len(self._colors) >= SERVICES:
            return crc32(service.encode()) % COLORS
        return self._colors.setdefault(service, len(self._colors) % COLORS)
