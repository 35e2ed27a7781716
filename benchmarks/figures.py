"""Computes medians, ratios within a round, and targets from results. It measures nothing.

Results are what `scripts/bench` saves: `rounds`, a list of {contestant: {"start_s", "points": {point: Sample}}}, and
`endurance`. A ratio is made within a round, where both were measured minutes apart; its median is over the rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.contest import ALL, HELLO, OURS_NAME, RELAY, RELAY_16, RELAY_256, RELAY_1024, Point

Results = dict[str, Any]
Measured = tuple[str, Point, str]  # contestant, point, field of a Sample


@dataclass(frozen=True)
class Added:
    """What tracing adds: the value of a traced contestant less that of the same one untraced."""

    traced: Measured
    untraced: Measured


Value = Measured | Added


@dataclass(frozen=True)
class Spread:
    """A median with minimum and maximum."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


@dataclass(frozen=True)
class Target:
    """A ratio of two values that should stay on one side of `limit`."""

    figure: str
    value: Value
    to: Value
    limit: float
    at_least: bool = False
    best: bool = False

    def reached(self, ratio: Spread) -> bool:
        """Whether the median of `ratio` is on the right side; where `best` is set, its least: the ranges overlap."""
        if self.best:
            return ratio.least <= self.limit
        return ratio.median >= self.limit if self.at_least else ratio.median <= self.limit


def _cpu(name: str, point: Point) -> Measured:
    return (name, point, "cpu_us")


def _targets() -> Iterator[Target]:
    hello, relay = _cpu(OURS_NAME, HELLO), _cpu(OURS_NAME, RELAY)
    untraced = _cpu("hello_service-untraced", HELLO)
    yield Target("CPU of `/api/hello`, traced ÷ untraced", hello, untraced, 1.5)
    title = f"CPU that tracing adds to `/api/hello` ÷ what it adds to {ALL['fastapi'].title}"
    fastapi = Added(_cpu("fastapi", HELLO), _cpu("fastapi-untraced", HELLO))
    yield Target(title, Added(hello, untraced), fastapi, 0.6)
    for name, limit in (("naive", 0.6), ("flask-sync", 0.4), ("fastapi", 0.95), ("starlette", 1.35)):
        yield Target(f"CPU of `/api/hello` ÷ {ALL[name].title}", hello, _cpu(name, HELLO), limit)
    peers = (("naive", 0.16), ("fastapi", 0.25), ("flask-gthread", 0.5), ("starlette", 0.9), ("aiohttp", 1.4))
    for name, limit in peers:
        yield Target(f"CPU of `/api/relay` ÷ {ALL[name].title}", relay, _cpu(name, RELAY), limit)
    for name in ("starlette", "litestar"):
        title = f"p99 of `/api/relay` ÷ {ALL[name].title}, in the best round"
        yield Target(title, (OURS_NAME, RELAY, "p99_ms"), (name, RELAY, "p99_ms"), 1.0, best=True)
    title = "requests/s of `/api/relay`, 256 clients ÷ 64 clients"
    yield Target(title, (OURS_NAME, RELAY_256, "per_second"), (OURS_NAME, RELAY, "per_second"), 0.9, at_least=True)
    title = "CPU of `/api/relay`, 1,024 clients ÷ 16 clients"
    yield Target(title, _cpu(OURS_NAME, RELAY_1024), _cpu(OURS_NAME, RELAY_16), 1.0)


TARGETS = tuple(_targets())


def value(one_round: Results, wanted: Value) -> float | None:
    """Return one value of one round, None where it was not measured."""
    if isinstance(wanted, Added):
        traced, untraced = value(one_round, wanted.traced), value(one_round, wanted.untraced)
        return None if traced is None or untraced is None else traced - untraced
    name, point, field = wanted
    sample = one_round.get(name, {}).get("points", {}).get(point.name)
    return None if sample is None else float(sample[field])


def spread(numbers: list[float]) -> Spread | None:
    """Return median, minimum and maximum of `numbers`, None if there are none."""
    return Spread(median(numbers), min(numbers), max(numbers)) if numbers else None


def middle(results: Results, wanted: Value) -> float | None:
    """Return the median of a value over the rounds, None where it was not measured."""
    found = [number for each in results["rounds"] if (number := value(each, wanted)) is not None]
    return median(found) if found else None


def ratio(results: Results, of: Value, to: Value) -> Spread | None:
    """Return how `of` compares with `to` in the same round, None where one of them was not measured."""
    pairs = [(value(each, of), value(each, to)) for each in results["rounds"]]
    return spread([first / second for first, second in pairs if first is not None and second])


def total(results: Results, name: str, field: str) -> int:
    """Return the sum of a count over all points and rounds of a contestant."""
    return sum(sample[field] for each in results["rounds"] if name in each for sample in each[name]["points"].values())


def lost(results: Results, name: str) -> int:
    """Return the number of spans of completed requests that never arrived."""
    samples = [sample for each in results["rounds"] if name in each for sample in each[name]["points"].values()]
    return sum(max(sample["spans_due"] - sample["spans"], 0) for sample in samples)
