"""Fixtures of this folder: both services, and the comparison of a scenario. Prints the table after the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from conformance.comparison import Difference, compare
from conformance.differences import TABLE, render
from conformance.pair import Side, pair
from conformance.scenarios import Scenario
from running import Span

Pair = dict[str, Side]
Pairs = Callable[[Mapping[str, str]], Pair]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a function that runs both services with a given environment, started on first use."""
    running: dict[str, Pair] = {}
    with ExitStack() as stack:

        def run_with(environment: Mapping[str, str]) -> Pair:
            key = json.dumps(dict(environment))
            if key not in running:
                running[key] = stack.enter_context(pair(tmp_path_factory.mktemp("pair"), environment))
            return running[key]

        yield run_with


@pytest.fixture
def both(pairs: Pairs) -> Pair:
    """Return both services in the default environment, with nothing received yet."""
    sides = pairs({})
    for side in sides.values():
        side.clear()
    return sides


@pytest.fixture
def quart(both: Pair) -> Side:
    """Return the service in Quart, with nothing received yet."""
    return both["quart"]


@pytest.fixture(scope="session")
def differences_of(pairs: Pairs) -> Callable[[Scenario], list[Difference]]:
    """Return a function that runs a scenario on both sides, once, and returns the differences of their spans."""
    known: dict[str, list[Difference]] = {}

    def run_and_compare(scenario: Scenario) -> list[Difference]:
        if scenario.name not in known:
            spans: dict[str, list[Span]] = {}
            for (name, side), count in zip(pairs(scenario.environment).items(), scenario.spans, strict=True):
                side.clear()
                scenario.send(side)
                spans[name] = side.collect(count)
            known[scenario.name] = compare(spans["quart"], spans["fastapi"])
        return known[scenario.name]

    return run_and_compare


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("Differences between Quart with tracing.py and FastAPI with ddtrace's own integration")
    for line in render(TABLE):
        terminalreporter.write_line(line)
