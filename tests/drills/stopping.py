"""Drills in which the process receives a signal to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

import httpx
from running import Agent, Running, eventually, service, trace_agent, wait_until_in_flight

from drills.drill import Size, drill

IN_FLIGHT = 50
DRAIN_SECONDS = 0.5
CLOSING_AND_FLUSH_SECONDS = 3 + 5  # CLOSING_SECONDS of settings.py, and the default of FLUSH_SECONDS


@drill(
    "SIGTERM with 50 requests in flight, 1 s each",
    "50 responses with 200, 50 traces at the agent, exit code 0. During the drain `/ready` responds with 503 "
    "within 100 ms, new connections are served, and responses close their connections",
    every_python=True,
)
def requests_in_flight(size: Size) -> str:
    """The handlers of 50 requests are still waiting when the signal arrives."""
    with (
        trace_agent() as agent,
        # The drain is longer than a request, so every response is sent during the drain.
        service(agent.url, {"FAULTS": "true", "DRAIN_SECONDS": "1.5"}) as running,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        pending = [pool.submit(client.get, "/api/faults/slow?seconds=1") for _ in range(IN_FLIGHT)]
        wait_until_in_flight(running, IN_FLIGHT)
        running.process.send_signal(signal.SIGTERM)
        signal_time = perf_counter()
        ready_response = eventually(lambda: client.get("/ready"), lambda response: response.status_code == 503)
        ready_ms = (perf_counter() - signal_time) * 1000
        status_over_new_connection = httpx.get(f"{running.url}/api/hello").status_code
        responses = [future.result() for future in pending]
        code = running.wait()
        traces = sum(spans[0]["resource"] == "GET /api/faults/slow" for spans in agent.traces())

    statuses = [response.status_code for response in responses]
    succeeded = statuses.count(200)
    closing = sum(response.headers.get("connection") == "close" for response in responses)
    assert succeeded == IN_FLIGHT, statuses
    assert traces == IN_FLIGHT, traces
    assert code == 0, code
    assert status_over_new_connection == 200
    assert ready_response.headers["connection"] == "close"
    assert closing == IN_FLIGHT
    assert ready_ms < size.of(2000, 100), f"/ready responded with 503 after {ready_ms:.0f} ms"
    return f"{succeeded} responses with 200, {traces} traces, exit {code}; `/ready` 503 after {ready_ms:.0f} ms"


@contextmanager
def service_with_endless_request(
    settings: dict[str, str],
) -> Iterator[tuple[Agent, Running, httpx.Client, Future[httpx.Response]]]:
    """Run a service with a request that never ends.

    Yields:
        The agent, the service, a client of the service, and the future response of the request.
    """
    with (
        trace_agent() as agent,
        service(agent.url, {"FAULTS": "true", **settings}) as running,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        pending = pool.submit(client.get, "/api/faults/slow?seconds=600")
        wait_until_in_flight(running, 1)
        yield agent, running, client, pending


@drill(
    "SIGTERM with a request that never ends",
    "The request is canceled after `GRACEFUL_SECONDS`, the client gets a 503, the span arrives marked as an "
    "error, and the exit code is 0 within the budget",
    every_python=True,
)
def request_that_never_ends(size: Size) -> str:
    """On Python 3.12 and newer, Hypercorn itself would wait forever for such a request."""
    graceful_seconds = size.of(1, 5)
    settings = {"DRAIN_SECONDS": str(DRAIN_SECONDS), "GRACEFUL_SECONDS": str(graceful_seconds)}
    with service_with_endless_request(settings) as (agent, running, _, pending):
        signal_time = perf_counter()
        code = running.stop()
        exit_seconds = perf_counter() - signal_time
        status = pending.result().status_code
        (span,) = [span for span in agent.spans() if span["resource"] == "GET /api/faults/slow"]

    budget = DRAIN_SECONDS + graceful_seconds + CLOSING_AND_FLUSH_SECONDS
    message = span["meta"]["error.message"]
    assert status == 503
    assert code == 0
    assert span["error"] == 1
    assert span["meta"]["http.status_code"] == "503"
    assert message == f"still running {graceful_seconds} s after the server began to stop"
    assert DRAIN_SECONDS + graceful_seconds <= exit_seconds < budget, f"exit after {exit_seconds:.1f} s"
    return f"{status}, its span has `{message}`; exit {code} after {exit_seconds:.1f} s of {budget:g} s"


@drill(
    "second signal, SIGTERM or SIGINT, during a stop",
    "The process exits at once with a non-zero code",
    every_python=True,
)
def second_signal(size: Size) -> str:
    """A second signal means that the operator doesn't want to wait, not even for a request in flight."""
    figures = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        with service_with_endless_request({"DRAIN_SECONDS": "60"}) as (_, running, client, pending):
            running.process.send_signal(signal.SIGTERM)
            eventually(lambda: client.get("/ready").status_code, lambda status: status == 503)
            signal_time = perf_counter()
            code = running.stop(signum)
            exit_ms = (perf_counter() - signal_time) * 1000
            error = pending.exception()

        assert code == 128 + signum  # as a shell reports a process that a signal ended
        assert isinstance(error, httpx.TransportError)
        assert exit_ms < size.of(5000, 500), f"exit {exit_ms:.0f} ms after {signum.name}"
        figures.append(f"{signum.name}: exit {code} after {exit_ms:.0f} ms")
    return ", ".join(figures)
