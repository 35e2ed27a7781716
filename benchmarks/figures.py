"""Computes medians, ratios within a round, and targets from the results of a measurement.

The results that `scripts/bench` saves are `rounds`, a list of {candidate: {"start_s", "points": {point: Sample}}},
`endurance`, `environment` and `minutes`. A ratio compares two values of the same round, which were measured only
minutes apart. The tables show the median of these ratios.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.candidates import CANDIDATES, HELLO, RELAY, RELAY_16, RELAY_256, RELAY_1024, THIS_SERVICE, Point

Results = dict[str, Any]
SampleField = tuple[str, Point, str]  # candidate, point, field of its Sample


@dataclass(frozen=True)
class TracingOverhead:
    """The value of a traced candidate minus the value of the same candidate without tracing."""

    traced: SampleField
    untraced: SampleField


Quantity = SampleField | TracingOverhead


@dataclass(frozen=True)
class Spread:
    """A median with minimum and maximum."""

    median: float
    minimum: float
    maximum: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.minimum:.2f} to {self.maximum:.2f})"


@dataclass(frozen=True)
class Target:
    """A ratio of two values that should stay on one side of `limit`.

    Attributes:
        title: the first cell of the target's row in the table.
        limit: a maximum, or a minimum if `at_least` is set.
        best_round: whether the best round alone decides, because the ranges of the two values overlap.
    """

    title: str
    numerator: Quantity
    denominator: Quantity
    limit: float
    at_least: bool = False
    best_round: bool = False

    def reached(self, ratio: Spread) -> bool:
        """Return whether the median of `ratio`, or its minimum if `best_round` is set, is within the limit."""
        if self.best_round:
            return ratio.minimum <= self.limit
        return ratio.median >= self.limit if self.at_least else ratio.median <= self.limit


def _cpu(name: str, point: Point) -> SampleField:
    return (name, point, "cpu_us")


def _targets() -> Iterator[Target]:
    """Yield the targets. benchmarks/README.md explains where their limits come from."""
    hello, relay = _cpu(THIS_SERVICE, HELLO), _cpu(THIS_SERVICE, RELAY)
    untraced = _cpu("hello_service-untraced", HELLO)
    yield Target("CPU of `/api/hello`, traced ÷ untraced", hello, untraced, limit=1.5)
    title = f"CPU that tracing adds to `/api/hello` ÷ what it adds to {CANDIDATES['fastapi'].title}"
    fastapi = TracingOverhead(_cpu("fastapi", HELLO), _cpu("fastapi-untraced", HELLO))
    yield Target(title, TracingOverhead(hello, untraced), fastapi, limit=0.6)
    for name, limit in (("naive", 0.6), ("flask-sync", 0.4), ("fastapi", 0.95), ("starlette", 1.35)):
        yield Target(f"CPU of `/api/hello` ÷ {CANDIDATES[name].title}", hello, _cpu(name, HELLO), limit=limit)
    peers = (("naive", 0.16), ("fastapi", 0.25), ("flask-gthread", 0.5), ("starlette", 0.9), ("aiohttp", 1.4))
    for name, limit in peers:
        yield Target(f"CPU of `/api/relay` ÷ {CANDIDATES[name].title}", relay, _cpu(name, RELAY), limit=limit)
    for name in ("starlette", "litestar"):
        title = f"p99 of `/api/relay` ÷ {CANDIDATES[name].title}, in the best round"
        yield Target(title, (THIS_SERVICE, RELAY, "p99_ms"), (name, RELAY, "p99_ms"), limit=1.0, best_round=True)
    title = "requests/s of `/api/relay`, 256 clients ÷ 64 clients"
    yield Target(
        title, (THIS_SERVICE, RELAY_256, "per_second"), (THIS_SERVICE, RELAY, "per_second"), limit=0.9, at_least=True
    )
    title = "CPU of `/api/relay`, 1,024 clients ÷ 16 clients"
    yield Target(title, _cpu(THIS_SERVICE, RELAY_1024), _cpu(THIS_SERVICE, RELAY_16), limit=1.0)


TARGETS = tuple(_targets())


def value(one_round: Results, quantity: Quantity) -> float | None:
    """Return one value of one round, or None if it was not measured."""
    if isinstance(quantity, TracingOverhead):
        traced, untraced = value(one_round, quantity.traced), value(one_round, quantity.untraced)
        return None if traced is None or untraced is None else traced - untraced
    name, point, field = quantity
    sample = one_round.get(name, {}).get("points", {}).get(point.name)
    return None if sample is None else float(sample[field])


def spread(numbers: list[float]) -> Spread | None:
    """Return median, minimum and maximum of `numbers`, or None if `numbers` is empty."""
    return Spread(median=median(numbers), minimum=min(numbers), maximum=max(numbers)) if numbers else None


def median_of_rounds(results: Results, quantity: Quantity) -> float | None:
    """Return the median of a value over the rounds, or None if it was not measured."""
    values = [value(one_round, quantity) for one_round in results["rounds"]]
    numbers = [number for number in values if number is not None]
    return median(numbers) if numbers else None


def ratio(results: Results, numerator: Quantity, denominator: Quantity) -> Spread | None:
    """Return the spread of the ratios of all rounds, or None if one of the values was not measured."""
    ratios = []
    for one_round in results["rounds"]:
        above, below = value(one_round, numerator), value(one_round, denominator)
        if above is not None and below:
            ratios.append(above / below)
    return spread(ratios)


def total(results: Results, name: str, field: str) -> int:
    """Return the sum of a count over all points and rounds of a candidate."""
    return sum(sample[field] for sample in _samples(results, name))


def lost_spans(results: Results, name: str) -> int:
    """Return the number of spans of completed requests that never arrived."""
    # A surplus at one point, which comes from interrupted requests, must not hide a loss at another.
    return sum(max(sample["spans_due"] - sample["spans"], 0) for sample in _samples(results, name))


def _samples(results: Results, name: str) -> list[dict[str, Any]]:
    rounds = [one_round[name] for one_round in results["rounds"] if name in one_round]
    return [sample for candidate in rounds for sample in candidate["points"].values()]
