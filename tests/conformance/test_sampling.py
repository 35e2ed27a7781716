"""Tests of sampling: which traces of hello_service are kept and counted, and that kept traces are complete."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conformance.scenarios import SEND_DROPPED_TRACES
from httpx_aiohttp import AiohttpTransport
from running import Agent, Running, Span, eventually, service, trace_agent

REQUEST_COUNTS = {"/api/hello": 4200, "/api/relay?count=1": 500, "/api/faults/error": 300}
# A relay has three: its own span, that of its call to this service, and that of the called request.
SPANS_PER_TRACE = {"GET /api/hello": 1, "GET /api/relay": 3, "GET /api/faults/error": 1}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """Run a separate agent, because this load would disturb other tests."""
    with trace_agent() as agent:
        yield agent


async def send_requests(url: str) -> Counter[int]:
    """Send all requests in a mixed order, sixteen at once, and count the responses by status."""
    paths = [path for path, count in REQUEST_COUNTS.items() for _ in range(count)]
    # Taking every seventh path, around the list, mixes them. It takes each path once, because 7 doesn't divide 5,000.
    paths = [paths[number * 7 % len(paths)] for number in range(len(paths))]
    statuses: Counter[int] = Counter()
    async with httpx.AsyncClient(transport=AiohttpTransport(trust_env=False), trust_env=False, timeout=60) as client:

        async def worker() -> None:
            while paths:
                response = await client.get(url + paths.pop())
                statuses[response.status_code] += 1

        await asyncio.gather(*(worker() for _ in range(16)))
    return statuses


def hits_and_errors(agent: Agent) -> Counter[tuple[str, str]]:
    """Return the counts in the stats of request spans. A key is a resource and either `hits` or `errors`."""
    counts: Counter[tuple[str, str]] = Counter()
    for payload in agent.stats():
        for bucket in payload["Stats"]:
            for group in bucket["Stats"]:
                if group["Name"] == "asgi.request":
                    counts[group["Resource"], "hits"] += group["Hits"]
                    counts[group["Resource"], "errors"] += group["Errors"]
    return counts


def is_kept(span: Span) -> bool:
    return bool(span["metrics"].get("_sampling_priority_v1", 0) > 0)


def root_of(trace: list[Span]) -> Span:
    (root,) = [span for span in trace if span["parent_id"] == 0]
    return root


@pytest.mark.timeout(180)
async def test_all_errors_and_a_tenth_of_the_rest_are_kept_and_stats_count_all(agent: Agent) -> None:
    """5,000 requests run at DD_TRACE_SAMPLE_RATE=0.1, with the tracer's limit of 100 traces a second raised."""
    settings = {"FAULTS": "true", "DD_TRACE_SAMPLE_RATE": "0.1", "DD_TRACE_RATE_LIMIT": "10000"}
    with service(agent.url, settings) as running:
        statuses = await send_requests(running.url)
        await asyncio.to_thread(running.stop)
    traces = [trace for trace in agent.traces() if any(map(is_kept, trace))]
    roots = [root_of(trace) for trace in traces]
    kept_by_resource = Counter(root["resource"] for root in roots)
    kept_successes = kept_by_resource.total() - kept_by_resource["GET /api/faults/error"]
    stats = hits_and_errors(agent)

    assert statuses == {200: 4700, 500: 300}
    assert kept_by_resource["GET /api/faults/error"] == 300
    assert 0.08 <= kept_successes / 4700 <= 0.12  # more than four standard deviations around 0.1
    assert [len(trace) for trace in traces] == [SPANS_PER_TRACE[root["resource"]] for root in roots]
    assert stats["GET /api/hello", "hits"] == 4200 + 500  # each of the 500 relays also calls it
    assert stats["GET /api/relay", "hits"] == 500
    assert stats["GET /api/faults/error", "hits"] == 300
    assert stats["GET /api/faults/error", "errors"] == 300
    assert stats["GET /api/hello", "errors"] == 0
    assert stats["GET /api/relay", "errors"] == 0
    assert sum(count for (_, kind), count in stats.items() if kind == "hits") == 5000 + 500


RULES = '[{"resource": "GET /api/hello/<name>", "sample_rate": 0}, {"resource": "GET /api/*", "sample_rate": 1}]'


@pytest.fixture(scope="module")
def running(agent: Agent) -> Iterator[Running]:
    with service(agent.url, {"DD_TRACE_SAMPLING_RULES": RULES, **SEND_DROPPED_TRACES}) as running:
        yield running


@pytest.mark.parametrize(("path", "priority", "flag"), [("/api/hello/Ada", -1, "00"), ("/api/hello", 2, "01")])
def test_a_sampling_rule_matches_the_route(running: Running, agent: Agent, path: str, priority: int, flag: str) -> None:
    """The resource is set before the sampling decision is made, and `traceresponse` shows that decision.

    A rule keeps a trace with priority 2, or drops it with -1.
    """
    agent.clear()
    response = httpx.get(running.url + path)
    (span,) = agent.wait_for_spans(1)

    assert span["metrics"]["_sampling_priority_v1"] == priority
    assert response.headers["traceresponse"].endswith(f"-{flag}")


def test_traceresponse_has_the_ids_and_the_decision_of_the_span(running: Running, agent: Agent) -> None:
    """A trace has only one sampling decision, although the header contains it before the span has ended."""
    agent.clear()
    headers = [httpx.get(f"{running.url}/api/hello").headers["traceresponse"] for _ in range(5)]
    spans: Any = eventually(agent.spans, lambda spans: len(spans) == 5)

    assert sorted(headers) == sorted(
        f"00-{span['meta']['_dd.p.tid']}{span['trace_id']:016x}-{span['span_id']:016x}-01" for span in spans
    )
