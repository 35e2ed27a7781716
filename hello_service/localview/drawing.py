"""Where the parts of the page's pictures stand, and log lines as text: what templates can't work out themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hello_service.localview import units
from hello_service.localview.performance import Figures
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import Line

DEEPEST = 16  # steps to the right; what is deeper says its depth
ERROR_TAGS = ("error.type", "error.message", "error.stack")
THINNEST = 0.25  # per cent of the width
TICKS = (0, 50, 100)  # per cent; so few that they fit on a narrow page
CHART_WIDTH, CHART_HEIGHT = 360, 84


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


def search_for(service: str, resource: str) -> str:
    """Return the search that finds the requests to `resource`; a quotation mark in a name can't be searched for."""
    terms = {"service": service, "resource_name": resource}
    return " ".join(f'{term}:"{value}"' for term, value in terms.items() if '"' not in value)


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


@dataclass(frozen=True)
class Bar:
    """The requests of one bucket of time in a chart: `top` to the foot, of which `failed` to the foot are errors."""

    x: float
    width: float
    top: float
    failed: float


def bars(course: Sequence[Figures]) -> tuple[int, list[Bar]]:
    """Return the most requests of a bucket, and a bar for each bucket that has some."""
    most = max((figures.requests for figures in course), default=0)
    step = CHART_WIDTH / max(1, len(course))
    drawn = [
        Bar(
            x=round(place * step, 2),
            width=round(step * 0.8, 2),
            top=round(CHART_HEIGHT * (1 - figures.requests / most), 2),
            failed=round(CHART_HEIGHT * (1 - figures.errors / most), 2),
        )
        for place, figures in enumerate(course)
        if figures.requests
    ]
    return most, drawn


def lines(course: Sequence[Figures], percentiles: Sequence[int]) -> tuple[float, list[tuple[int, str]]]:
    """Return the highest latency in nanoseconds, and the lines of `percentiles` as points of an SVG polyline."""
    step = CHART_WIDTH / max(1, len(course))
    known = [(place, figures.all) for place, figures in enumerate(course) if figures.requests]
    values = {percent: [(place, all_.percentile(percent)) for place, all_ in known] for percent in percentiles}
    highest = max((value for points in values.values() for _, value in points), default=0.0)
    drawn = []
    for percent, points in values.items():
        text = []
        for place, value in points:
            y = CHART_HEIGHT * (1 - value / (highest or 1))
            # Both ends of the bucket, so that a lone one is a line, too.
            text += [f"{place * step:.2f},{y:.2f}", f"{(place + 1) * step:.2f},{y:.2f}"]
        drawn.append((percent, " ".join(text)))
    return highest, drawn
