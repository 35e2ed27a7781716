"""Tests of the spans that a real trace agent receives from the service, run by `serve` and by plain Hypercorn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from running import PLAIN_HYPERCORN, SERVE_TEST_ENDPOINTS, Agent, Running, eventually, service, trace_agent


@pytest.fixture(scope="module", params=["serve", "hypercorn"])
def running(request: pytest.FixtureRequest, _agent: Agent) -> Iterator[Running]:
    """Run the service with `hello-service serve`, then with `ddtrace-run hypercorn`."""
    command = SERVE_TEST_ENDPOINTS if request.param == "serve" else PLAIN_HYPERCORN
    # Unless DD_TRACE_AIOHTTP_ENABLED is false, each outbound call has two more spans. Plain Hypercorn doesn't set it.
    with service(_agent.url, {"FAULTS": "true", "DD_TRACE_AIOHTTP_ENABLED": "false"}, command) as running:
        yield running


def test_a_relay_is_one_trace_of_seven_spans(running: Running, agent: Agent) -> None:
    """An asgi.request has three parallel http.request children, each with an asgi.request below it."""
    response = httpx.get(f"{running.url}/api/relay?count=3")
    spans = agent.wait_for_spans(7)
    (root,) = [span for span in spans if span["parent_id"] == 0]
    calls = [span for span in spans if span["parent_id"] == root["span_id"]]
    call_ids = {call["span_id"] for call in calls}
    called_requests = [span for span in spans if span["parent_id"] in call_ids]

    assert response.status_code == 200
    assert len(agent.traces()) == 1
    assert (root["name"], root["resource"], root["service"]) == ("asgi.request", "GET /api/relay", "hello-service")
    assert [(call["name"], call["resource"]) for call in calls] == [("http.request", "GET hello-service/api/hello")] * 3
    assert {call["meta"]["peer.service"] for call in calls} == {"hello-service"}
    assert [(span["name"], span["resource"]) for span in called_requests] == [("asgi.request", "GET /api/hello")] * 3
    last_start = max(call["start"] for call in calls)
    first_end = min(call["start"] + call["duration"] for call in calls)
    assert last_start < first_end  # the calls run in parallel
    assert agent.failures() == ""


def test_the_resource_of_a_span_has_the_route_instead_of_the_path(running: Running, agent: Agent) -> None:
    httpx.get(f"{running.url}/api/hello/Ada")
    (span,) = agent.wait_for_spans(1)

    assert span["resource"] == "GET /api/hello/<name>"
    assert span["meta"]["http.route"] == "/api/hello/<name>"
    assert span["meta"]["http.status_code"] == "200"


def test_an_unhandled_exception_puts_type_message_and_stack_on_the_span(running: Running, agent: Agent) -> None:
    response = httpx.get(f"{running.url}/api/faults/error")
    (span,) = agent.wait_for_spans(1)

    assert span["error"] == 1
    assert span["meta"]["error.type"] == "builtins.RuntimeError"
    assert span["meta"]["error.message"] == "this endpoint always fails"
    assert "in fail" in span["meta"]["error.stack"]
    assert response.json()["trace_id"].endswith(f"{span['trace_id']:016x}")


def test_a_log_line_has_the_ids_of_its_span(running: Running, agent: Agent) -> None:
    """The 128-bit trace id is the same on the span, in the log line and in `traceresponse`."""
    response = httpx.get(f"{running.url}/api/hello/Grace")
    (span,) = agent.wait_for_spans(1)
    line = eventually(lambda: running.requests("/api/hello/Grace"))[-1]

    # The agent's spans have the upper 64 bits in a tag.
    trace_id = f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}"
    assert line["dd.trace_id"] == trace_id
    assert line["dd.span_id"] == str(span["span_id"])
    assert response.headers["traceresponse"] == f"00-{trace_id}-{span['span_id']:016x}-01"
    assert {name: line[name] for name in ("method", "route", "status", "service", "env", "version")} == {
        "method": "GET",
        "route": "/api/hello/<name>",
        "status": 200,
        "service": "hello-service",
        "env": None,
        "version": None,
    }


def test_a_probe_has_no_span_and_no_log_line(running: Running, agent: Agent) -> None:
    """This holds even if the probe has a trace header. The next request is traced."""
    for path in ("/health", "/ready", "/api/hello"):
        assert httpx.get(running.url + path, headers={"x-datadog-trace-id": "1"}).status_code == 200
    (span,) = agent.wait_for_spans(1)

    assert span["resource"] == "GET /api/hello"
    assert not running.requests("/health")
    assert not running.requests("/ready")


def test_a_thousand_requests_are_a_thousand_traces(running: Running, agent: Agent) -> None:
    """The requests use 20 connections. No trace is lost or duplicated, and every trace check passes."""
    with ThreadPoolExecutor(20) as pool, httpx.Client(limits=httpx.Limits(max_connections=20), timeout=60) as client:
        responses = list(pool.map(lambda _: client.get(f"{running.url}/api/hello"), range(1000)))
    traces = agent.wait_for_traces(1000, timeout=60)

    assert [response.status_code for response in responses] == [200] * 1000
    assert len(traces) == 1000
    assert {len(trace) for trace in traces} == {1}
    # The agent's trace ids are the lower 64 bits.
    ids_of_responses = {response.headers["traceresponse"].split("-")[1][16:] for response in responses}
    ids_of_traces = {f"{trace[0]['trace_id']:016x}" for trace in traces}
    assert ids_of_responses == ids_of_traces
    assert agent.failures() == ""


def test_spans_arrive_through_a_unix_socket(tmp_path: Path) -> None:
    """DD_TRACE_AGENT_URL is a `unix://` URL."""
    path = tmp_path / "apm.socket"
    with trace_agent(unix_socket=path) as agent, service(f"unix://{path}") as running:
        httpx.get(f"{running.url}/api/hello")
        (span,) = agent.wait_for_spans(1)

    assert span["resource"] == "GET /api/hello"


def test_the_variables_of_older_guides_are_supported(agent: Agent) -> None:
    """The variables set the agent's host and port, the service, the environment and the version."""
    host, port = agent.url.removeprefix("http://").split(":")
    variables = {
        "DD_TRACE_AGENT_URL": "",  # overrides the URL that `service` sets
        "DD_AGENT_HOST": host,
        "DD_TRACE_AGENT_PORT": port,
        "DD_SERVICE": "billing",
        "DD_ENV": "staging",
        "DD_VERSION": "1.4.2",
    }
    with service(agent.url, variables) as running:
        httpx.get(f"{running.url}/api/hello")
        (span,) = agent.wait_for_spans(1)

    assert span["service"] == "billing"
    assert (span["meta"]["env"], span["meta"]["version"]) == ("staging", "1.4.2")


def test_responses_do_not_depend_on_the_agent() -> None:
    """After the agent is killed, every response is a 200, and the service exits with 0."""
    with trace_agent() as agent, service(agent.url) as running:
        httpx.get(f"{running.url}/api/hello")
        agent.wait_for_spans(1)
        agent.process.kill()
        # The requests take longer than the tracer's sending interval of 0.1 s, so the tracer fails to send in between.
        statuses = [httpx.get(f"{running.url}/api/hello").status_code for _ in range(200)]
        exit_code = running.stop()

    assert statuses == [200] * 200
    assert exit_code == 0
