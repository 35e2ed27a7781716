"""Computes the charts of the performance view, the order of its tables, and the duration bars in the list of traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from hello_service.localview import terms, units
from hello_service.localview.performance import BUCKET_SECONDS, Figures, Report
from hello_service.localview.units import MICROSECOND, MILLISECOND, SECOND

WIDTH, HEIGHT = 360, 84  # of a chart, in SVG units; also in lists.js and lists.css
SHORTEST, LONGEST = 100 * MICROSECOND, 10 * SECOND  # range of the logarithmic bar of a duration
FIGURE_COLUMNS: dict[str, Callable[[Figures], float]] = {  # the value by which each column sorts
    "requests": lambda figures: figures.requests,
    "rate": lambda figures: figures.requests,  # sorts in the same way, because all rows cover the same time
    "errors": lambda figures: figures.errors,
    "error_rate": lambda figures: figures.error_rate,
    "average": lambda figures: figures.latencies.average,
    "p50": lambda figures: figures.latencies.percentile(50),
    "p75": lambda figures: figures.latencies.percentile(75),
    "p90": lambda figures: figures.latencies.percentile(90),
    "p95": lambda figures: figures.latencies.percentile(95),
    "p99": lambda figures: figures.latencies.percentile(99),
    "max": lambda figures: figures.latencies.max,
}
COLUMNS = ("resource", *FIGURE_COLUMNS, "apdex")  # of the table of resources
# Titles of columns, if they are not just the capitalized names.
TITLES = {"error_rate": "Error rate", "p50": "p50", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99"}


@dataclass(frozen=True)
class Bar:
    """The bar of one time bucket, from the x axis to `top`. Its part for errors ends at `errors_top`."""

    x: float
    width: float
    top: float
    errors_top: float


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
    """Return the end of an axis for values up to `highest`: 1, 2 or 5 times a power of ten, at least 1."""
    if highest <= 1:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest))
    tolerance = 1.000001  # for rounding errors of the power
    return next(step * power for step in (1, 2, 5, 10) if highest <= step * power * tolerance)


def sort_resources(report: Report, column: str, threshold: float) -> list[tuple[str, Figures]]:
    """Return the resources of `report` sorted by `column`, in descending order if it begins with `-`, then by name."""
    name = column.removeprefix("-")

    def sort_key(row: tuple[str, Figures]) -> float | str:
        resource, figures = row
        if name == "resource":
            return resource
        if name == "apdex":
            score = figures.apdex(threshold)
            return -1.0 if score is None else score  # a missing score sorts before all others
        return FIGURE_COLUMNS[name](figures)

    by_name = sorted(report.resources, key=lambda row: row[0])
    return sorted(by_name, key=sort_key, reverse=column.startswith("-"))


def bars(series: Sequence[Figures]) -> tuple[int, list[Bar]]:
    """Return the end of the axis, and a bar for each bucket that has requests."""
    most_requests = max((figures.requests for figures in series), default=0)
    axis_top = round(axis_end(most_requests))
    step = WIDTH / max(1, len(series))
    result = [
        Bar(
            x=round(index * step, 2),
            width=round(step * 0.8, 2),  # leaves a gap before the next bar
            top=round(HEIGHT * (1 - figures.requests / axis_top), 2),
            errors_top=round(HEIGHT * (1 - figures.errors / axis_top), 2),
        )
        for index, figures in enumerate(series)
        if figures.requests
    ]
    return axis_top, result


def lines(series: Sequence[Figures], percentiles: Sequence[int]) -> tuple[float, list[tuple[int, list[str]]]]:
    """Return the end of the axis in nanoseconds, and the lines of `percentiles`.

    A line has a gap where there was no request, so it consists of several SVG polylines, each with its points as text.
    """
    step = WIDTH / max(1, len(series))
    durations = [{percent: figures.latencies.percentile(percent) for percent in percentiles} for figures in series]
    longest = max((duration for by_percent in durations for duration in by_percent.values()), default=0.0)
    axis_top = axis_end(longest / MILLISECOND) * MILLISECOND
    result = []
    for percent in percentiles:
        pieces: list[list[str]] = [[]]
        for index, figures in enumerate(series):
            if not figures.requests:
                pieces.append([])
                continue
            y = HEIGHT * (1 - durations[index][percent] / axis_top)
            # Each bucket has a point at both of its ends, because a single point would not be visible as a line.
            pieces[-1] += [f"{index * step:.2f},{y:.2f}", f"{(index + 1) * step:.2f},{y:.2f}"]
        result.append((percent, [" ".join(piece) for piece in pieces if piece]))
    return axis_top, result


def buckets(report: Report, last_start: datetime) -> list[Bucket]:
    """Return the time buckets of the charts of `report`. `last_start` is the time at which the last one starts."""
    step = WIDTH / len(report.series)
    result = []
    for index, figures in enumerate(report.series):
        later_buckets = len(report.series) - 1 - index
        start = last_start - timedelta(seconds=later_buckets * BUCKET_SECONDS)
        text = "no request"
        if figures.requests:
            latencies = figures.latencies
            percentiles = ", ".join(
                f"p{percent} {units.duration(latencies.percentile(percent))}" for percent in (50, 95, 99)
            )
            requests = units.quantity(figures.requests, "request")
            errors = units.quantity(figures.errors, "error")
            text = f"{requests}, {errors}, {percentiles}"
        result.append(Bucket(x=round(index * step, 2), width=round(step, 2), time=f"{start:%H:%M:%S}", text=text))
    return result


def requests_search(report: Report, resource: str) -> str:
    """Return the search that finds the requests to `resource`."""
    return f"{terms.exact('service', report.service)} {terms.exact('resource_name', resource)}"
