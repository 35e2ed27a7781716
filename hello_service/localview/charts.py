"""Computes the charts of the performance view: bars, lines with gaps, axes, and the values of each time bucket."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hello_service.localview import terms, units
from hello_service.localview.performance import BUCKET_SECONDS, Figures, Report
from hello_service.localview.units import MILLISECOND, SECOND

WIDTH, HEIGHT = 360, 84
SHORTEST, LONGEST = 100_000, 10 * SECOND  # range of the logarithmic bar of a duration
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
# Titles of columns, if they are not just the capitalized names.
TITLES = {"error_rate": "Error rate", "p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99"}


@dataclass(frozen=True)
class Bar:
    """The bar of one time bucket. It begins at the x axis and ends at `top`; the part for errors ends at `failed`."""

    x: float
    width: float
    top: float
    failed: float


@dataclass(frozen=True)
class Bucket:
    """One time bucket of a chart, from `x` to `x + width`, with its start time and its values as text."""

    x: float
    width: float
    time: str
    text: str


def bar_percent(duration: int) -> float:
    """Return the length of the bar of a duration in percent.

    The scale is logarithmic from 0.1 ms to 10 s and the same for all traces, so a bar never changes.
    """
    clamped = min(max(duration, SHORTEST), LONGEST)
    return round(100 * math.log(clamped / SHORTEST) / math.log(LONGEST / SHORTEST), 1)


def axis_end(highest: float) -> float:
    """Return the end of an axis for values up to `highest`: 1, 2 or 5 times a power of ten."""
    if highest <= 1:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest))
    tolerance = 1.000001  # for rounding errors of the power
    return next(step * power for step in (1, 2, 5, 10) if highest <= step * power * tolerance)


def sort_resources(report: Report, column: str, threshold: float) -> list[tuple[str, Figures]]:
    """Return the resources of `report` sorted by `column`, in descending order if it begins with `-`, then by name."""
    value = COLUMNS[column.removeprefix("-")]
    by_name = sorted(report.resources, key=lambda item: item[0])
    return sorted(by_name, key=lambda item: value(item, threshold), reverse=column.startswith("-"))


def bars(series: Sequence[Figures]) -> tuple[int, list[Bar]]:
    """Return the end of the axis, and a bar for each bucket that has requests."""
    highest = round(axis_end(max((figures.requests for figures in series), default=0)))
    step = WIDTH / max(1, len(series))
    drawn = [
        Bar(
            x=round(index * step, 2),
            width=round(step * 0.8, 2),
            top=round(HEIGHT * (1 - figures.requests / highest), 2),
            failed=round(HEIGHT * (1 - figures.errors / highest), 2),
        )
        for index, figures in enumerate(series)
        if figures.requests
    ]
    return highest, drawn


def lines(series: Sequence[Figures], percentiles: Sequence[int]) -> tuple[float, list[tuple[int, list[str]]]]:
    """Return the end of the axis in nanoseconds, and the lines of `percentiles`.

    A line has a gap where there was no request, so it consists of several SVG polylines, each given by its points.
    """
    step = WIDTH / max(1, len(series))
    values = [{percent: figures.all.percentile(percent) for percent in percentiles} for figures in series]
    highest = max((value for each in values for value in each.values()), default=0.0)
    top = axis_end(highest / MILLISECOND) * MILLISECOND
    drawn = []
    for percent in percentiles:
        pieces: list[list[str]] = [[]]
        for index, figures in enumerate(series):
            if not figures.requests:
                pieces.append([])
                continue
            y = HEIGHT * (1 - values[index][percent] / top)
            # There is a point at both ends of the bucket, so that even a single bucket is a line.
            pieces[-1] += [f"{index * step:.2f},{y:.2f}", f"{(index + 1) * step:.2f},{y:.2f}"]
        drawn.append((percent, [" ".join(piece) for piece in pieces if piece]))
    return top, drawn


def buckets(report: Report, last_begin: datetime) -> list[Bucket]:
    """Return the time buckets of the charts of `report`. The last one began at `last_begin`."""
    step = WIDTH / len(report.series)
    result = []
    for index, figures in enumerate(report.series):
        moment = datetime.fromtimestamp(
            last_begin.timestamp() - (len(report.series) - 1 - index) * BUCKET_SECONDS, last_begin.tzinfo
        )
        text = "no request"
        if figures.requests:
            latencies = figures.all
            values = ", ".join(
                f"p{percent} {units.duration(latencies.percentile(percent))}" for percent in (50, 95, 99)
            )
            text = f"{units.count(figures.requests, 'request')}, {units.count(figures.errors, 'error')}, {values}"
        result.append(Bucket(round(index * step, 2), round(step, 2), f"{moment:%H:%M:%S}", text))
    return result


def requests_of(report: Report, resource: str) -> str:
    """Return the search that finds the requests to `resource`."""
    return f"{terms.exact('service', report.service)} {terms.exact('resource_name', resource)}"
