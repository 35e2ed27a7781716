"""Fixtures for every kind of test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from running import CONFIGURATION_VARIABLE, Agent, trace_agent

SLOW_FOLDERS = ["conformance", "peers", "process"]  # the slowest first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow folders first, so that at the end no worker is idle while another runs a long test."""

    def folder_position(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)

    items.sort(key=folder_position)


@pytest.fixture(autouse=True)
def _without_machine_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's own configuration, so that it can't change a test's result."""
    for name in list(os.environ):
        if CONFIGURATION_VARIABLE.match(name):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Restore logging after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def _agent() -> Iterator[Agent]:
    with trace_agent() as agent:
        yield agent


@pytest.fixture
def agent(_agent: Agent) -> Agent:
    """A real trace agent that has received nothing yet."""
    _agent.clear()
    return _agent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Fail the run if a test was skipped although NOTHING_SKIPPED is set, as it is in .ci/run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("NOTHING_SKIPPED") and skipped:
        for report in skipped:
            terminalreporter.write_line(
                f"Skipped although NOTHING_SKIPPED is set: {report.nodeid}: {report.longrepr}", red=True
            )
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED  # type: ignore[union-attr]  # not None here
