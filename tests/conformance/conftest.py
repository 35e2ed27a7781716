"""Fixtures of this folder: both services, the comparison of every scenario, and the table at the end."""

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
    """Both services with a given environment, started at first use."""
    running: dict[str, Pair] = {}
    with ExitStack() as stack:

        def find(environment: Mapping[str, str]) -> Pair:
            key = json.dumps(dict(environment))
            if key not in running:
                running[key] = stack.enter_context(pair(tmp_path_factory.mktemp("pair"), environment))
            return running[key]

        yield find


@pytest.fixture
def both(pairs: Pairs) -> Pair:
    """Both services in the default environment, which have received nothing yet."""
    sides = pairs({})
    for side in sides.values():
        side.clear()
    return sides


@pytest.fixture
def quart(both: Pair) -> Side:
    """The service in Quart, which has received nothing yet."""
    return both["quart"]


@pytest.fixture(scope="session")
def differ(pairs: Pairs) -> Callable[[Scenario], list[Difference]]:
    """Run a scenario on both sides and return in what their spans differ; each scenario runs once."""
    known: dict[str, list[Difference]] = {}

    def find(scenario: Scenario) -> list[Difference]:
        if scenario.name not in known:
            spans: dict[str, list[Span]] = {}
            for (name, side), count in zip(pairs(scenario.environment).items(), scenario.spans, strict=True):
                side.clear()
                scenario.send(side)
                spans[name] = side.collect(count)
            known[scenario.name] = compare(spans["quart"], spans["fastapi"])
        return known[scenario.name]

    return find


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section(
        "Quart with tracing.py beside FastAPI with ddtrace's own integration: what differs, and why"
    )
    for line in render(TABLE):
        terminalreporter.write_line(line)
