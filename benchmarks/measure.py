"""Measures a candidate at one point: wrk runs on one core, the candidate on the other.

A point is a path and a number of clients. If the candidate is the upstream itself, it shares the core of wrk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.candidates import Candidate, Point

WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
SETTLE_SECONDS = 15.0  # maximum wait for the last spans
QUIET_SECONDS = 1.2  # after this time without a new span, no more arrive, because the tracer sends once a second
IDLE_CPU_SECONDS = 0.02  # CPU time that an idle candidate may use between two checks
# All candidates send only spans, so that only requests cost CPU.
TRACER_ENVIRONMENT = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",
}


@dataclass(frozen=True)
class Sample:
    """The measurements of one candidate at one point in one round."""

    cpu_us: float  # of the process tree, per request
    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    completed: int
    sent: int  # including the requests that were interrupted at the end
    spans_due: int  # the number of spans that the completed requests must have produced
    spans: int  # the number of spans that arrived
    rss_mib: float
    other_core: float  # share of the other core that wrk, sink and upstream used


class Backend:
    """The process that is both trace sink and upstream. The attributes `sink` and `upstream` are their ports."""

    def __init__(self, process_tree: process.ProcessTree, ports: Mapping[str, int]) -> None:
        self.process_tree, self.sink, self.upstream = process_tree, ports["sink"], ports["upstream"]

    def clear(self) -> None:
        """Reset the count of spans."""
        process.get(self.sink, "/clear")

    def spans(self) -> int:
        """Return the number of spans received since `clear`."""
        count: int = json.loads(process.get(self.sink, "/count")[1])["spans"]
        return count

    def settle(self, expected_spans: int | None, cpu_seconds: Callable[[], float]) -> int:
        """Wait until no more spans arrive and the candidate is idle. Return the number of spans that arrived.

        A shorter wait is enough when all expected spans have arrived. `expected_spans` is None if their number is
        unknown. `cpu_seconds` returns the CPU time that the candidate has used.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        spans, cpu, last_change = -1, -1.0, time.monotonic()
        while time.monotonic() < deadline:
            spans_now, cpu_now = self.spans(), cpu_seconds()
            if spans_now != spans or cpu_now - cpu > IDLE_CPU_SECONDS:
                spans, cpu, last_change = spans_now, cpu_now, time.monotonic()
            is_complete = expected_spans is not None and spans >= expected_spans
            required_quiet = QUIET_SECONDS / 4 if is_complete else QUIET_SECONDS
            if time.monotonic() - last_change > required_quiet:
                break
            time.sleep(0.05)
        return spans


@contextmanager
def running_backend() -> Iterator[Backend]:
    """Run trace sink and upstream on the other core."""
    command = [sys.executable, "-m", "benchmarks.backend"]
    with process.running(command, os.environ, process.OTHER_CORE, stdout=subprocess.PIPE) as process_tree:
        assert process_tree.process.stdout is not None  # noqa: S101 - it is a pipe
        yield Backend(process_tree, json.loads(process_tree.process.stdout.readline()))
        process_tree.process.stdout.close()


@contextmanager
def running_candidate(candidate: Candidate, backend: Backend) -> Iterator[tuple[int, process.ProcessTree]]:
    """Run `candidate` on its core unless it is the upstream, and yield its port and its processes."""
    if candidate.command is None:  # the upstream itself, which is already running
        yield backend.upstream, backend.process_tree
        return
    port = process.free_port()
    command = [part.format(port=port) for part in candidate.command]
    with process.running(command, variables(candidate, port, backend), process.CANDIDATE_CORE) as process_tree:
        yield port, process_tree


def variables(candidate: Candidate, port: int, backend: Backend) -> dict[str, str]:
    """Return the environment variables of `candidate`. It inherits none that configures a tracer or a service."""
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "LC_ALL"}}
    shared = {
        **TRACER_ENVIRONMENT,
        "DD_TRACE_AGENT_URL": f"http://127.0.0.1:{backend.sink}",
        "UPSTREAM_URL": f"http://127.0.0.1:{backend.upstream}/",
        "PORT": str(port),
        "PYTHONPATH": str(process.ROOT),
    }
    return {**inherited, **shared, **candidate.environment}


def run_wrk(port: int, point: Point, seconds: int) -> dict[str, Any]:
    """Send requests for `seconds`, and return the results that wrk.lua prints."""
    command = ["taskset", "--cpu-list", str(process.OTHER_CORE), "wrk", "--threads", "1", "--latency"]
    command += ["--connections", str(point.clients), "--duration", f"{seconds}s", "--timeout", "10s"]
    command += ["--script", str(WRK_SCRIPT), f"http://127.0.0.1:{port}{point.path}"]
    completed = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(completed.stdout.rpartition("JSON ")[2])
    return result


def sample(
    candidate: Candidate,
    point: Point,
    server: tuple[int, process.ProcessTree],
    backend: Backend,
    seconds: tuple[int, int],
) -> Sample:
    """Measure `candidate` at `point`.

    Args:
        server: the candidate's port and its processes.
        seconds: the duration of the warm-up and of the measurement.
    """
    port, process_tree = server
    warm_up, measurement = seconds
    if warm_up:
        run_wrk(port, point, warm_up)
    backend.settle(None if candidate.spans else 0, process_tree.cpu_seconds)  # wait for the spans of the warm-up
    backend.clear()
    cpu_before = process_tree.cpu_seconds()
    other_cpu_before = backend.process_tree.cpu_seconds() + _children_seconds()
    result = run_wrk(port, point, measurement * point.duration_factor)
    cpu = process_tree.cpu_seconds() - cpu_before
    other_cpu = backend.process_tree.cpu_seconds() + _children_seconds() - other_cpu_before
    spans_per_request = candidate.spans.get(point.path.partition("?")[0], 0)
    spans_due = result["completed"] * spans_per_request
    spans = backend.settle(spans_due, process_tree.cpu_seconds)
    requests = (result["completed"] + result["sent"]) / 2  # the interrupted requests were half done, on average
    return Sample(
        cpu_us=1e6 * cpu / max(requests, 1),
        per_second=result["completed"] / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        failures=result["failures"],
        completed=result["completed"],
        sent=result["sent"],
        spans_due=spans_due,
        spans=spans,
        rss_mib=process_tree.resident_mib(),
        other_core=other_cpu / result["seconds"],
    )


def _children_seconds() -> float:
    """Return the CPU time of this process's ended children, which are the runs of wrk."""
    times = os.times()
    return times.children_user + times.children_system
