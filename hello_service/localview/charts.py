"""What the charts of service performance are made of: bars, lines with breaks, axes, the values of each moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hello_service.localview import terms, units
from hello_service.localview.performance import BUCKET_SECONDS, Figures, Report
from hello_service.localview.units import MILLISECOND, SECOND

WIDTH, HEIGHT = 360, 84
LEAST, MOST = 100_000, 10 * SECOND  # ends of the logarithmic bar of a duration
COLUMNS: dict[str, Callable[[tuple[str, Figures], float], float | str]] = {
    "resource": lambda item, _: item[0],
    "requests": lambda item, _: item[1].requests,
    "rate": lambda item, _: item[1].requests,
    "errors": lambda item, _: item[1].errors,
    "error_rate": lambda item, _: item[1].error_rate,
    "average": lambda item, _: item[1].all.average,
    "p50": lambda item, _: item[1].all.percentile(50),
    "p75": lambda item, _: item[1].all.percentile(75),
    "p90": lambda item, _: item[1].all.percentile(90),
    "p95": lambda item, _: item[1].all.percentile(95),
    "p99": lambda item, _: item[1].all.percentile(99),
    "max": lambda item, _: item[1].all.max,
    "apdex": lambda item, threshold: -1.0 if (score := item[1].apdex(threshold)) is None else score,
}
TITLES = {"error_rate": "Error rate", "p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99"}


@dataclass(frozen=True)
class Bar:
    """The requests of one bucket of time: `top` to the foot, of which `failed` to the foot are errors."""

    x: float
    width: float
    top: float
    failed: float


@dataclass(frozen=True)
class Bucket:
    """A moment of a chart, `x` to `x + width`: when it began, and its values in words."""

    x: float
    width: float
    time: str
    text: str


def share(duration: int) -> float:
    """Return how long the bar of a duration is, in per cent: logarithmic from 0.1 ms to 10 s, so that it never moves."""
    return round(100 * math.log(min(max(duration, LEAST), MOST) / LEAST) / math.log(MOST / LEAST), 1)


def top_of(most: float) -> float:
    """Return the end of an axis for values up to `most`: 1, 2 or 5 times a power of ten."""
    if most <= 1:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 5, 10) if most <= step * power * 1.000001)


def sort_resources(report: Report, column: str, threshold: float) -> list[tuple[str, Figures]]:
    """Return the resources of `report` by `column`, with `-` before it the greatest first; equal ones by their name."""
    value = COLUMNS[column.removeprefix("-")]
    by_name = sorted(report.resources, key=lambda item: item[0])
    return sorted(by_name, key=lambda item: value(item, threshold), reverse=column.startswith("-"))


def bars(course: Sequence[Figures]) -> tuple[int, list[Bar]]:
    """Return the end of the axis, and a bar for each bucket that has requests."""
    most = round(top_of(max((figures.requests for figures in course), default=0)))
    step = WIDTH / max(1, len(course))
    drawn = [
        Bar(
            x=round(place * step, 2),
            width=round(step * 0.8, 2),
            top=round(HEIGHT * (1 - figures.requests / most), 2),
            failed=round(HEIGHT * (1 - figures.errors / most), 2),
        )
        for place, figures in enumerate(course)
        if figures.requests
    ]
    return most, drawn


def lines(course: Sequence[Figures], percentiles: Sequence[int]) -> tuple[float, list[tuple[int, list[str]]]]:
    """Return the end of the axis in nanoseconds, and the lines of `percentiles`.

    A line is several pieces, each the points of an SVG polyline: it breaks where there was no request.
    """
    step = WIDTH / max(1, len(course))
    values = [{percent: figures.all.percentile(percent) for percent in percentiles} for figures in course]
    highest = max((value for each in values for value in each.values()), default=0.0)
    top = top_of(highest / MILLISECOND) * MILLISECOND
    drawn = []
    for percent in percentiles:
        pieces: list[list[str]] = [[]]
        for place, figures in enumerate(course):
            if not figures.requests:
                pieces.append([])
                continue
            y = HEIGHT * (1 - values[place][percent] / top)
            # Both ends of the bucket, so that a lone one is a line, too.
            pieces[-1] += [f"{place * step:.2f},{y:.2f}", f"{(place + 1) * step:.2f},{y:.2f}"]
        drawn.append((percent, [" ".join(piece) for piece in pieces if piece]))
    return top, drawn


def buckets(report: Report, ended: datetime) -> list[Bucket]:
    """Return the moments of the charts of `report`, whose last bucket began at `ended`."""
    step = WIDTH / len(report.course)
    made = []
    for place, figures in enumerate(report.course):
        moment = datetime.fromtimestamp(
            ended.timestamp() - (len(report.course) - 1 - place) * BUCKET_SECONDS, ended.tzinfo
        )
        text = "no request"
        if figures.requests:
            latencies = figures.all
            values = ", ".join(
                f"p{percent} {units.duration(latencies.percentile(percent))}" for percent in (50, 95, 99)
            )
            text = f"{units.count(figures.requests, 'request')}, {units.count(figures.errors, 'error')}, {values}"
        made.append(Bucket(round(place * step, 2), round(step, 2), f"{moment:%H:%M:%S}", text))
    return made


def requests_of(report: Report, resource: str) -> str:
    """Return the search for the requests to `resource`."""
    return f"{terms.exact('service', report.service)} {terms.exact('resource_name', resource)}"
