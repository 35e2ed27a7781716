"""Requests, errors, latency and Apdex of each service and resource over the last minutes.

Spans are counted on arrival, so the figures include traces that the store has dropped since. Latencies are kept in a
histogram whose buckets grow by 2%: percentiles are within 1% of the true value, and memory does not grow with traffic.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hello_service.localview.spans import Span

BUCKET_SECONDS = 5  # also in lists.js
MINUTES = 15  # how far back the figures reach
MAX_RESOURCES = 200  # further resources are counted as `OTHERS`
OTHERS = "(other resources)"
LOG_GROWTH = math.log(1.02)  # the end of bucket n of a histogram is 1.02 to the power of n, in nanoseconds
PERCENTILES = (50, 75, 90, 95, 99)  # shown for each resource


@dataclass
class Latencies:
    """A histogram of durations in nanoseconds. Percentiles are within 1%; count, average and maximum are exact."""

    buckets: Counter[int] = field(default_factory=Counter)
    count: int = 0
    total: int = 0
    max: int = 0

    def add(self, duration: int) -> None:
        """Add one duration."""
        self.buckets[math.ceil(math.log(max(1, duration)) / LOG_GROWTH)] += 1
        self.count += 1
        self.total += duration
        self.max = max(self.max, duration)

    def merge(self, other: Latencies) -> None:
        """Add the durations of `other`."""
        self.buckets.update(other.buckets)
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    @property
    def average(self) -> float:
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the duration that `percent` of all durations don't exceed; 0 if there are none."""
        remaining = math.ceil(self.count * percent / 100)  # durations up to the result, in ascending order
        for bucket in sorted(self.buckets):
            remaining -= self.buckets[bucket]
            if remaining <= 0:
                return min(self.max, math.exp((bucket - 0.5) * LOG_GROWTH))  # the middle of the bucket
        return 0.0

    def within(self, nanoseconds: float) -> int:
        """Return how many durations are in the buckets that end at `nanoseconds` or before."""
        tolerance = 1e-9  # for rounding errors, so that the bucket that ends at `nanoseconds` is included
        last = math.floor(math.log(max(1.0, nanoseconds)) / LOG_GROWTH + tolerance)
        return sum(count for bucket, count in self.buckets.items() if bucket <= last)


@dataclass
class Figures:
    """The latencies of a group of requests, separately for requests without an error and requests with one."""

    good: Latencies = field(default_factory=Latencies)
    failed: Latencies = field(default_factory=Latencies)

    def add(self, span: Span) -> None:
        """Count one request."""
        latencies = self.failed if span.error else self.good
        latencies.add(span.duration)

    def merge(self, other: Figures) -> None:
        """Add the requests of `other`."""
        self.good.merge(other.good)
        self.failed.merge(other.failed)

    @property
    def latencies(self) -> Latencies:
        """The latencies of all requests, with and without an error."""
        both = Latencies()
        both.merge(self.good)
        both.merge(self.failed)
        return both

    @property
    def requests(self) -> int:
        return self.good.count + self.failed.count

    @property
    def errors(self) -> int:
        return self.failed.count

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def apdex(self, threshold_seconds: float) -> float | None:
        """Return the Apdex score: satisfied requests plus half of the tolerating ones, divided by all.

        Tolerating requests take up to four times the threshold. A request with an error is frustrated.
        """
        if not self.requests:
            return None
        satisfied = self.good.within(threshold_seconds * 1e9)
        tolerating = self.good.within(4 * threshold_seconds * 1e9) - satisfied
        return (satisfied + tolerating / 2) / self.requests


@dataclass
class Report:
    """The figures of one service over `seconds`: in total, by resource, and as time buckets, oldest first."""

    service: str
    seconds: float
    total: Figures
    resources: list[tuple[str, Figures]]
    series: list[Figures]


class Performance:
    """Counts requests to services. `now` is always in seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._resources: set[tuple[str, str]] = set()
        self._buckets: deque[tuple[int, dict[tuple[str, str], Figures]]] = deque(maxlen=MINUTES * 60 // BUCKET_SECONDS)

    def clear(self, now: float) -> None:
        """Forget all requests."""
        self._started = now
        self._resources.clear()
        self._buckets.clear()

    def add(self, spans: Iterable[Span], now: float) -> None:
        """Count the `spans` that are requests to a service."""
        number = int(now // BUCKET_SECONDS)
        for span in spans:
            if not span.enters_service:
                continue
            if not self._buckets or self._buckets[-1][0] != number:
                self._buckets.append((number, {}))
            _, figures_by_key = self._buckets[-1]
            figures_by_key.setdefault(self._key(span), Figures()).add(span)

    def _key(self, span: Span) -> tuple[str, str]:
        """Return the service and the resource under which `span` is counted.

        After `MAX_RESOURCES`, a new resource is counted as `OTHERS`, and so is a service without an earlier resource.
        """
        key = (span.service, span.resource)
        if key in self._resources:
            return key
        if len(self._resources) < MAX_RESOURCES:
            self._resources.add(key)
            return key
        is_known_service = any(span.service == service for service, _ in self._resources)
        return span.service if is_known_service else OTHERS, OTHERS

    def reports(self, minutes: int, now: float) -> list[Report]:
        """Return a report on the last `minutes` for each service, sorted by name."""
        current = int(now // BUCKET_SECONDS)
        length = minutes * 60 // BUCKET_SECONDS
        first = current - length + 1
        # At least 1, because a rate over less than a second would be far too high.
        seconds = max(1.0, now - max(self._started, first * BUCKET_SECONDS))
        resources: dict[str, dict[str, Figures]] = {}
        all_series: dict[str, list[Figures]] = {}
        for number, figures_by_key in self._buckets:
            index = number - first
            if index < 0:
                continue
            for (service, resource), figures in figures_by_key.items():
                resources.setdefault(service, {}).setdefault(resource, Figures()).merge(figures)
                series = all_series.setdefault(service, [Figures() for _ in range(length)])
                series[index].merge(figures)
        reports = [
            Report(
                service=service,
                seconds=seconds,
                total=_sum(by_resource.values()),
                resources=list(by_resource.items()),
                series=all_series[service],
            )
            for service, by_resource in resources.items()
        ]
        return sorted(reports, key=lambda report: report.service)


def _sum(parts: Iterable[Figures]) -> Figures:
    total = Figures()
    for part in parts:
        total.merge(part)
    return total
