"""Tests that probes leave no span, no stats and no log line, and that one setting lists their paths."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from conformance.scenarios import DATADOG, W3C
from running import Agent, Running, service, trace_agent

HEADERS: list[dict[str, str]] = [
    {},
    {"traceparent": f"{W3C}01"},
    {**DATADOG, "x-datadog-sampling-priority": "2"},
]


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """Run a separate agent, so that its stats contain only these requests."""
    with trace_agent() as agent:
        yield agent


def probe(running: Running, agent: Agent, paths: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Request each path with each set of headers and stop the service.

    Returns the resources of its spans, the resources of its stats and the paths of its log lines, without duplicates.
    """
    agent.clear()
    for path in paths:
        for headers in HEADERS:
            httpx.get(running.url + path, headers=headers)
    running.stop()
    stats = [group["Resource"] for each in agent.stats() for bucket in each["Stats"] for group in bucket["Stats"]]
    return (
        sorted({span["resource"] for span in agent.spans()}),
        sorted(set(stats)),
        sorted({line["path"] for line in running.requests()}),
    )


def test_a_probe_leaves_no_span_no_stats_and_no_log_line(agent: Agent) -> None:
    """This also holds for a probe that carries trace headers, even those of a kept trace."""
    with service(agent.url) as running:
        recorded = probe(running, agent, ["/health", "/ready", "/info"])

    assert recorded == (["GET /info"], ["GET /info"], ["/info"])


def test_one_setting_lists_the_probes(agent: Agent) -> None:
    """PROBE_PATHS applies to the span, the stats and the log line."""
    with service(agent.url, {"PROBE_PATHS": "/info"}) as running:
        recorded = probe(running, agent, ["/health", "/info"])

    assert recorded == (["GET /health"], ["GET /health"], ["/health"])
