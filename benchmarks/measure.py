"""Measures one contestant at one point: wrk runs on one core, the contestant on the other."""

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
from benchmarks.contest import Contestant, Point

SCRIPT = Path(__file__).with_name("wrk.lua")
SETTLE_SECONDS = 15.0  # longest wait for the last spans
STILL_SECONDS = 1.2  # after this time without a span no more arrive, because the tracer sends once a second
# For all contestants: everything but spans is off, so that only requests cost CPU.
TRACER = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",
}


@dataclass(frozen=True)
class Sample:
    """One contestant at one point in one round."""

    cpu_us: float  # of the process tree, a request
    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    answered: int
    sent: int  # including the requests that were interrupted at the end
    spans_due: int  # of all completed requests
    spans: int
    rss_mib: float
    other_core: float  # share of the other core that load, sink and upstream used


class Backend:
    """The process of sink and upstream."""

    def __init__(self, tree: process.Tree, ports: Mapping[str, int]) -> None:
        self.tree, self.sink, self.upstream = tree, ports["sink"], ports["upstream"]

    def clear(self) -> None:
        """Reset the count of spans."""
        process.get(self.sink, "/clear")

    def spans(self) -> int:
        """Return the number of spans received since `clear`."""
        count: int = json.loads(process.get(self.sink, "/count")[1])["spans"]
        return count

    def settle(self, due: int | None, busy: Callable[[], float]) -> int:
        """Wait until all `due` spans (None: unknown) have arrived or no more arrive, and `busy` (CPU seconds) no longer
        grows; return how many arrived.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        seen, changed = (-1, -1.0), time.monotonic()
        while time.monotonic() < deadline:
            now = (self.spans(), busy())
            if now[0] != seen[0] or now[1] - seen[1] > 0.02:
                seen, changed = now, time.monotonic()
            quiet = time.monotonic() - changed
            if quiet > STILL_SECONDS or (due is not None and seen[0] >= due and quiet > STILL_SECONDS / 4):
                break
            time.sleep(0.05)
        return seen[0]


@contextmanager
def backend() -> Iterator[Backend]:
    """Run sink and upstream on the other core."""
    command = [sys.executable, "-m", "benchmarks.backend"]
    with process.running(command, os.environ, process.OTHER_CORE, subprocess.PIPE) as tree:
        assert tree.process.stdout is not None  # noqa: S101 - it is a pipe
        yield Backend(tree, json.loads(tree.process.stdout.readline()))
        tree.process.stdout.close()


@contextmanager
def started(contestant: Contestant, behind: Backend) -> Iterator[tuple[int, process.Tree]]:
    """Run `contestant` on its core; yield its port and its processes. The upstream runs already."""
    if contestant.command is None:
        yield behind.upstream, behind.tree
        return
    port = process.free_port()
    command = [part.format(port=port) for part in contestant.command]
    with process.running(command, environment(contestant, port, behind), process.CONTESTANT_CORE) as tree:
        yield port, tree


def environment(contestant: Contestant, port: int, behind: Backend) -> dict[str, str]:
    """Return the environment of `contestant`; only the variables given here configure a tracer or a service."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "LC_ALL"}}
    shared = {
        **TRACER,
        "DD_TRACE_AGENT_URL": f"http://127.0.0.1:{behind.sink}",
        "UPSTREAM_URL": f"http://127.0.0.1:{behind.upstream}/",
        "PORT": str(port),
        "PYTHONPATH": str(process.ROOT),
    }
    return {**kept, **shared, **contestant.environment}


def wrk(port: int, point: Point, seconds: int) -> dict[str, Any]:
    """Send requests for `seconds` and return the results of wrk.lua."""
    command = ["taskset", "--cpu-list", str(process.OTHER_CORE), "wrk", "--threads", "1", "--latency"]
    command += ["--connections", str(point.clients), "--duration", f"{seconds}s", "--timeout", "10s"]
    command += ["--script", str(SCRIPT), f"http://127.0.0.1:{port}{point.path}"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(ended.stdout.rpartition("JSON ")[2])
    return result


def sample(
    contestant: Contestant, point: Point, place: tuple[int, process.Tree], behind: Backend, seconds: tuple[int, int]
) -> Sample:
    """Measure `contestant` at `point`: `place` is its port and its processes; `seconds` of warm-up and of measurement."""
    (port, tree), (warm_up, measured) = place, seconds
    if warm_up:
        wrk(port, point, warm_up)
    behind.settle(None if contestant.spans else 0, tree.cpu_seconds)
    behind.clear()
    cpu, other = tree.cpu_seconds(), behind.tree.cpu_seconds() + _children_seconds()
    result = wrk(port, point, measured * point.longer)
    cpu = tree.cpu_seconds() - cpu
    other = behind.tree.cpu_seconds() + _children_seconds() - other
    spans_each = contestant.spans.get(point.path.partition("?")[0], 0)
    due = result["answered"] * spans_each
    spans = behind.settle(due, tree.cpu_seconds)
    requests = (result["answered"] + result["sent"]) / 2  # the interrupted requests were half done, on average
    return Sample(
        cpu_us=cpu / max(requests, 1) * 1e6,
        per_second=result["answered"] / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        failures=result["failures"],
        answered=result["answered"],
        sent=result["sent"],
        spans_due=due,
        spans=spans,
        rss_mib=tree.resident_mib(),
        other_core=other / result["seconds"],
    )


def _children_seconds() -> float:
    """Return the CPU time of the children of this process that have ended: wrk."""
    used = os.times()
    return used.children_user + used.children_system
