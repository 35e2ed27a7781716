"""Where the parts of the page's pictures stand, and log lines as text: what templates can't work out themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hello_service.localview.performance import Figures
from hello_service.localview.store import Line

CHART_WIDTH, CHART_HEIGHT = 360, 84


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
