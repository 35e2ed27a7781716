"""Fixtures that run both services and compare their spans, and a hook that prints the table of differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from conformance.comparison import Difference, compare
from conformance.differences import TABLE, render
from conformance.scenarios import Scenario
from conformance.services import COMMANDS, Service, Services, ServicesWith, running_services
from running import Span


@pytest.fixture(scope="session")
def services_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServicesWith]:
    """Return a function that runs both services with a given environment, and returns them.

    Another call with the same environment returns the same services.
    """
    running: dict[str, Services] = {}
    with ExitStack() as stack:

        def run_with(environment: Mapping[str, str]) -> Services:
            key = json.dumps(dict(environment))
            if key not in running:
                environments = dict.fromkeys(COMMANDS, environment)
                running[key] = stack.enter_context(running_services(tmp_path_factory.mktemp("services"), environments))
            return running[key]

        yield run_with


@pytest.fixture
def services(services_with: ServicesWith) -> Services:
    """Return both services in the default environment, without any received spans."""
    services = services_with({})
    for service in services.values():
        service.clear()
    return services


@pytest.fixture
def quart(services: Services) -> Service:
    """Return the service in Quart, without any received spans."""
    return services["quart"]


@pytest.fixture(scope="session")
def differences_of(services_with: ServicesWith) -> Callable[[Scenario], list[Difference]]:
    """Return a function that returns the differences between both services' spans. It runs each scenario only once."""
    differences: dict[str, list[Difference]] = {}

    def run_and_compare(scenario: Scenario) -> list[Difference]:
        if scenario.name not in differences:
            spans: dict[str, list[Span]] = {}
            services = services_with(scenario.environment)
            for (name, service), count in zip(services.items(), scenario.span_counts, strict=True):
                service.clear()
                scenario.send(service)
                spans[name] = service.collect(count)
            differences[scenario.name] = compare(spans["quart"], spans["fastapi"])
        return differences[scenario.name]

    return run_and_compare


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("Differences between Quart with tracing.py and FastAPI with ddtrace's own integration")
    for line in render(TABLE):
        terminalreporter.write_line(line)
