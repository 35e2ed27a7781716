"""Tests that probes leave no span, no stats and no log line, and that one setting lists their paths."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from conformance.scenarios import DATADOG_HEADERS, SAMPLED_TRACEPARENT
from running import Agent, Running, service, trace_agent

HEADER_SETS: list[dict[str, str]] = [
    {},
    {"traceparent": SAMPLED_TRACEPARENT},
    {**DATADOG_HEADERS, "x-datadog-sampling-priority": "2"},
]


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """Run a separate agent, so that its stats contain only these requests."""
    with trace_agent() as agent:
        yield agent


def send_and_record(running: Running, agent: Agent, paths: list[str]) -> dict[str, set[str]]:
    """Request each path with each set of headers, and stop the service.

    Returns:
        The resources of its spans and of its stats, and the paths in its log lines.
    """
    agent.clear()
    for path in paths:
        for headers in HEADER_SETS:
            httpx.get(running.url + path, headers=headers)
    running.stop()
    buckets = [bucket for payload in agent.stats() for bucket in payload["Stats"]]
    return {
        "spans": {span["resource"] for span in agent.spans()},
        "stats": {group["Resource"] for bucket in buckets for group in bucket["Stats"]},
        "log": {line["path"] for line in running.requests()},
    }


def test_a_probe_leaves_no_span_no_stats_and_no_log_line(agent: Agent) -> None:
    """This also holds for a probe with trace headers, even with those of a kept trace. `/info` isn't a probe."""
    with service(agent.url) as running:
        recorded = send_and_record(running, agent, ["/health", "/ready", "/info"])

    assert recorded == {"spans": {"GET /info"}, "stats": {"GET /info"}, "log": {"/info"}}


def test_one_setting_lists_the_probes(agent: Agent) -> None:
    """PROBE_PATHS applies to the span, the stats and the log line."""
    with service(agent.url, {"PROBE_PATHS": "/info"}) as running:
        recorded = send_and_record(running, agent, ["/health", "/info"])

    assert recorded == {"spans": {"GET /health"}, "stats": {"GET /health"}, "log": {"/health"}}
