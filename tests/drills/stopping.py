"""The process is told to stop."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import httpx
from running import eventually, service, trace_agent

from drills.drill import Size, drill

IN_FLIGHT = 50
READY_MS = 100


@drill(
    "SIGTERM with 50 requests in flight, 1 s each",
    "50 answers 200, 50 traces at the agent, exit 0; `/ready` says 503 within 100 ms, a new connection is served while "
    "it drains, a kept one is asked to close",
    every_python=True,
)
def requests_in_flight(_: Size) -> str:
    """Fifty clients wait for their answers when the signal comes."""
    with (
        trace_agent() as agent,
        service(agent.url, {"FAULTS": "true", "DRAIN_SECONDS": "1.5"}) as running,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
        httpx.Client(base_url=running.url, timeout=60) as kept,
    ):
        waiting = [pool.submit(kept.get, "/api/faults/slow?seconds=1") for _ in range(IN_FLIGHT)]
        eventually(lambda: kept.get("/info").json()["in_flight"], lambda count: count > IN_FLIGHT)
        running.process.send_signal(signal.SIGTERM)
        signalled = perf_counter()
        ready = eventually(lambda: kept.get("/ready"), lambda answer: answer.status_code == 503)
        ready_ms = (perf_counter() - signalled) * 1000
        fresh = httpx.get(f"{running.url}/api/hello").status_code
        statuses = [each.result().status_code for each in waiting]
        code = running.wait()
        traces = sum(spans[0]["resource"] == "GET /api/faults/slow" for spans in agent.traces())

    answered = statuses.count(200)
    assert (answered, traces, code, fresh) == (IN_FLIGHT, IN_FLIGHT, 0, 200), (statuses, traces, code, fresh)
    assert ready.headers["connection"] == "close"
    assert ready_ms < READY_MS, f"/ready said 503 after {ready_ms:.0f} ms"
    return f"{answered} answers 200, {traces} traces, exit {code}; `/ready` 503 after {ready_ms:.0f} ms"
