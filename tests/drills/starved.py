"""Drills on a machine with a missing resource or an unusual setting."""

from __future__ import annotations

import resource
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import httpx
from running import QUIET, SERVE_TEST_ENDPOINTS, clean_environment, eventually, free_port, service, trace_agent

from drills.drill import Size, drill
from drills.hostile import descriptors

NO_AGENT = "http://127.0.0.1:1"
FREE = 20
HOUR = 3600
# Coverage measurement would write files.
PLAIN = ["env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START"]
READ_ONLY = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
FULL_DISK = ["sh", "-c", 'ulimit -f 0; exec "$@" 2>/dev/full', "sh"]
FAKE_TIME = Path("/usr/lib")


@drill(
    "file descriptors run out",
    "Open connections are served, new ones are closed, and one line of the log gives the reason. When descriptors"
    " are free again, new connections are served",
)
def descriptors_run_out(size: Size) -> str:
    """Clients hold more connections open than the service has descriptors."""
    held_count = size.of(100, 1000)
    with (
        trace_agent() as agent,
        service(agent.url) as running,
        httpx.Client(base_url=running.url) as kept,
        ExitStack() as held,
    ):
        kept.get("/info").raise_for_status()
        limit = descriptors(running) + FREE
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        address = (urlsplit(running.url).hostname, urlsplit(running.url).port)
        for _ in range(held_count):
            held.enter_context(socket.create_connection(address, timeout=10))
        served = [kept.get("/api/hello").status_code for _ in range(20)]
        warnings = eventually(lambda: [line for line in running.log if line["event"] == "connections turned away"])
        held.close()
        freed = monotonic()
        eventually(lambda: _status(f"{running.url}/api/hello"), lambda status: status == 200)
        seconds = monotonic() - freed
        kept.get("/info").raise_for_status()
        code = running.stop()
    assert served == [200] * 20, served
    assert len(warnings) == 1, warnings
    assert code == 0
    return (
        f"{held_count} connections held with {FREE} descriptors free: 20 requests over a kept connection got 200, "
        f"1 line in the log; new connections served {seconds:.1f} s after descriptors were free"
    )


def _status(url: str) -> int | None:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


@drill(
    "full disk, read-only file system, clock that jumps back an hour, IPv6 only, invalid TZ, or locale C",
    "The service serves requests and stops with exit code 0. No span has a negative duration, and the durations "
    "in the log are correct",
    needs=("unshare", "faketime"),
)
def odd_machine(_: Size) -> str:
    """Each setting gets its own service, one after the other."""
    odd = {"TZ": "../nonsense", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LOG_FORMAT": "text"}
    results = [
        f"disk full: {_mute_served([*PLAIN, *FULL_DISK, *SERVE_TEST_ENDPOINTS])}",
        f"read-only: {_served([*PLAIN, *READ_ONLY, *SERVE_TEST_ENDPOINTS], {})}",
        f"IPv6 only: {_served(SERVE_TEST_ENDPOINTS, {'HOST': '::1'})}",
        f"TZ=../nonsense, LC_ALL=C: {_served(SERVE_TEST_ENDPOINTS, odd)}",
        f"clock back an hour: {_clock_jumps()}",
    ]
    return "; ".join(results)


def _use(url: str) -> str:
    with httpx.Client(base_url=url, timeout=30) as client:
        paths = ("/api/hello/Åsa", "/api/relay?count=2", "/info", "/docs", "/nope")
        statuses = [client.get(path).status_code for path in paths] + [client.get("/health").status_code]
    assert statuses == [200, 200, 200, 200, 404, 200], statuses
    return f"{len(statuses)} requests"


def _served(command: Sequence[str], settings: dict[str, str]) -> str:
    with service(NO_AGENT, settings, command) as running:
        succeeded = _use(running.url)
        assert running.stop() == 0, running.lines[-5:]
    return f"{succeeded}, exit 0"


def _mute_served(command: Sequence[str]) -> str:
    """Serve without any way to write, so even the port has to be known in advance."""
    port = str(free_port())
    environment = {**QUIET, "HOST": "127.0.0.1", "PORT": port, "DRAIN_SECONDS": "0", "DD_TRACE_AGENT_URL": NO_AGENT}
    process = subprocess.Popen(command, env=clean_environment(environment))
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _status(f"{url}/health"), lambda status: status == 200, timeout=40)
        succeeded = _use(url)
        process.terminate()
        code = process.wait(30)
    finally:
        process.kill()
    assert code == 0, code
    return f"{succeeded}, exit {code}"


def _clock_jumps() -> str:
    library = next(FAKE_TIME.glob("*/faketime/libfaketimeMT.so.1"))
    with tempfile.TemporaryDirectory() as directory, trace_agent() as agent:
        clock = Path(directory) / "clock"
        clock.write_text("+0")
        faked = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        with service(agent.url, {**faked, "FAULTS": "true"}) as running:
            _use(running.url)
            with httpx.Client(base_url=running.url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
                across = pool.submit(client.get, "/api/faults/slow?seconds=1")
                eventually(lambda: client.get("/info").json()["in_flight"] == 2)
                clock.write_text(f"-{HOUR}")
                statuses = [client.get("/api/faults/slow?seconds=0.5").status_code for _ in range(2)]
                statuses.append(across.result().status_code)
                uptime = client.get("/info").json()["uptime_seconds"]
            assert running.stop() == 0
            logged = [line["duration_ms"] for line in running.requests("/api/faults/slow")]
        spans = [span for span in agent.spans() if span["resource"] == "GET /api/faults/slow"]
    assert statuses == [200] * 3, statuses
    assert len(spans) == 3, spans
    starts = [span["start"] / 1e9 for span in spans]
    assert max(starts) - min(starts) > HOUR / 2, "the clock did not jump"
    # ddtrace takes start and end from the wall clock, so a span across the jump lasts 0: durations are never negative.
    durations = sorted(span["duration"] / 1e6 for span in spans)
    assert durations[0] >= 0, durations
    assert all(400 < duration < 10_000 for duration in (*durations[1:], *logged)), (durations, logged)
    assert uptime >= 0
    return (
        f"2 requests of 500 ms took {durations[1]:.0f} and {durations[2]:.0f} ms by their spans, one of 1 s across the "
        f"jump {durations[0]:.0f} ms by its span and {max(logged):.0f} ms by the log, exit 0"
    )
