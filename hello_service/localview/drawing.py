"""Where the parts of the page's pictures stand, and log lines as text: what templates can't work out themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hello_service.localview import units
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import Line

DEEPEST = 16  # steps to the right; what is deeper says its depth
ERROR_TAGS = ("error.type", "error.message", "error.stack")
THINNEST = 0.25  # per cent of the width
TICKS = (0, 50, 100)  # per cent; so few that they fit on a narrow page


@dataclass(frozen=True)
class Row:
    """A span in the waterfall: `x` and `width` in per cent of the trace's time."""

    span: Span
    depth: int
    indent: int
    x: float
    width: float
    orphan: bool


def waterfall(trace: Trace) -> Iterator[Row]:
    """Yield a row for each span, parents before children."""
    present = {span.span_id for span in trace.spans}
    for depth, _, span in trace.walk():
        width = max(THINNEST, 100 * span.duration / trace.duration)
        x = min(100 * (span.start - trace.start) / trace.duration, 100 - THINNEST)
        orphan = span.parent_id != 0 and span.parent_id not in present
        yield Row(span, depth, min(depth, DEEPEST), round(x, 3), round(min(width, 100 - x), 3), orphan)


def ticks(trace: Trace) -> list[str]:
    """Return what stands below the time axis."""
    return [units.duration(trace.duration * tick / 100) for tick in TICKS]


def tags(span: Span) -> list[tuple[str, str]]:
    """Return the tags by name, those of the tracer's own last; the error has its own place."""
    shown = [(name, value) for name, value in span.meta.items() if name not in ERROR_TAGS]
    return sorted(shown, key=lambda tag: (tag[0].startswith("_"), tag[0]))


def services(trace: Trace) -> list[tuple[str, int]]:
    """Return the services of `trace` with the number of their spans, in the order of their first."""
    numbers: dict[str, int] = {}
    for span in sorted(trace.spans, key=lambda span: span.start):
        numbers[span.service] = numbers.get(span.service, 0) + 1
    return list(numbers.items())


def lines_of(span: Span, lines: Sequence[Line]) -> list[Line]:
    """Return those of `lines` that were written within `span`."""
    return [line for line in lines if str(line.get("dd.span_id")) == str(span.span_id)]


def grade(status: str) -> str:
    """Return how a status looks: `good`, `moved`, `bad` or `failed`."""
    if status == "error" or status.startswith("5"):
        return "failed"
    return {"4": "bad", "3": "moved"}.get(status[:1], "good")


def log_line(line: Line) -> dict[str, Any]:
    """Return a line's `time`, `level`, `event`, the `rest` as `name=value`, and `exception`."""
    hidden = {"timestamp", "level", "event", "logger", "service", "env", "version", "exception"}
    rest = [f"{name}={value}" for name, value in line.items() if name not in hidden and not name.startswith("dd.")]
    try:
        moment = datetime.fromisoformat(str(line.get("timestamp"))).astimezone()
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    except ValueError:
        time = ""
    return {
        "time": time,
        "level": str(line.get("level", "")),
        "event": str(line.get("event", "")),
        "rest": "  ".join(rest),
        "exception": str(line.get("exception") or ""),
    }
