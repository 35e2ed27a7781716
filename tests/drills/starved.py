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
from running import QUIET, SERVE_TEST_ENDPOINTS, eventually, free_port, service, trace_agent, unmeasured_environment

from drills.connections import descriptors
from drills.drill import Size, drill

NO_AGENT = "http://127.0.0.1:1"  # nothing listens on this port
FREE_DESCRIPTORS = 20
HOUR = 3600
# Prefixes for the command that starts the service. With FULL_DISK, no file can grow and no line can be logged.
READ_ONLY = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh"]
FULL_DISK = ["sh", "-c", 'ulimit -f 0; exec "$@" 2>/dev/full', "sh"]
LIBRARIES = Path("/usr/lib")


@drill(
    "file descriptors run out",
    "Open connections are served, new ones are closed, and one line of the log gives the reason. When descriptors"
    " are free again, new connections are served",
)
def descriptors_run_out(size: Size) -> str:
    """Clients hold more connections open than the service has descriptors."""
    count = size.of(100, 1000)
    request_count = 20
    with (
        trace_agent() as agent,
        service(agent.url) as running,
        httpx.Client(base_url=running.url) as client,  # connects before the descriptors run out
        ExitStack() as connections,
    ):
        client.get("/info").raise_for_status()
        limit = descriptors(running) + FREE_DESCRIPTORS
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        address = (urlsplit(running.url).hostname, urlsplit(running.url).port)
        for _ in range(count):
            connections.enter_context(socket.create_connection(address, timeout=10))
        statuses = [client.get("/api/hello").status_code for _ in range(request_count)]
        warnings = eventually(lambda: [line for line in running.log if line["event"] == "connections turned away"])
        connections.close()
        release_time = monotonic()
        eventually(lambda: _status(f"{running.url}/api/hello"), lambda status: status == 200)
        seconds = monotonic() - release_time
        client.get("/info").raise_for_status()
        code = running.stop()
    assert statuses == [200] * request_count, statuses
    assert len(warnings) == 1, warnings
    assert code == 0
    return (
        f"{count} connections held open with {FREE_DESCRIPTORS} descriptors free: "
        f"{request_count} requests over an earlier connection got 200, 1 line in the log; "
        f"new connections served {seconds:.1f} s after descriptors were free"
    )


def _status(url: str) -> int | None:
    """Return the status of a GET of `url`, or None if there is no response."""
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
    """One service after the other runs, each under one of these conditions."""
    locale = {"TZ": "../nonsense", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LOG_FORMAT": "text"}
    results = [
        f"disk full: {_use_without_output([*FULL_DISK, *SERVE_TEST_ENDPOINTS])}",
        f"read-only: {_use_service([*READ_ONLY, *SERVE_TEST_ENDPOINTS], {}, measured=False)}",
        f"IPv6 only: {_use_service(SERVE_TEST_ENDPOINTS, {'HOST': '::1'})}",
        f"TZ=../nonsense, LC_ALL=C: {_use_service(SERVE_TEST_ENDPOINTS, locale)}",
        f"clock back an hour: {_use_while_the_clock_jumps()}",
    ]
    return "; ".join(results)


def _send_requests(url: str) -> str:
    """Send requests to different routes, check their statuses and return the number of requests as text."""
    with httpx.Client(base_url=url, timeout=30) as client:
        paths = ("/api/hello/Åsa", "/api/relay?count=2", "/info", "/docs", "/nope", "/health")
        statuses = [client.get(path).status_code for path in paths]
    assert statuses == [200, 200, 200, 200, 404, 200], statuses
    return f"{len(statuses)} requests"


def _use_service(command: Sequence[str], settings: dict[str, str], *, measured: bool = True) -> str:
    """Start a service, send requests to it, and stop it.

    With `measured=False`, its coverage isn't measured, which a read-only file system would prevent.
    """
    with service(NO_AGENT, settings, command, measured=measured) as running:
        requests = _send_requests(running.url)
        assert running.stop() == 0, running.lines[-5:]
    return f"{requests}, exit 0"


def _use_without_output(command: Sequence[str]) -> str:
    """Use a service that can't write anything. Its port is chosen in advance, because the service can't report it."""
    port = str(free_port())
    environment = {**QUIET, "HOST": "127.0.0.1", "PORT": port, "DRAIN_SECONDS": "0", "DD_TRACE_AGENT_URL": NO_AGENT}
    process = subprocess.Popen(command, env=unmeasured_environment(environment))
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _status(f"{url}/health"), lambda status: status == 200, timeout=40)
        requests = _send_requests(url)
        process.terminate()
        code = process.wait(30)
    finally:
        process.kill()
    assert code == 0, code
    return f"{requests}, exit {code}"


def _use_while_the_clock_jumps() -> str:
    """Set the service's clock back an hour during a request, and check the durations of this and two later requests."""
    library = next(LIBRARIES.glob("*/faketime/libfaketimeMT.so.1"))
    with tempfile.TemporaryDirectory() as directory, trace_agent() as agent:
        clock = Path(directory) / "clock"
        clock.write_text("+0")
        fake_clock = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",  # reads the file each time the clock is read
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # the older name of the same variable
        }
        with service(agent.url, {**fake_clock, "FAULTS": "true"}) as running:
            _send_requests(running.url)
            with httpx.Client(base_url=running.url, timeout=30) as client, ThreadPoolExecutor(1) as pool:
                request_during_jump = pool.submit(client.get, "/api/faults/slow?seconds=1")
                # The request to /info is itself in flight.
                eventually(lambda: client.get("/info").json()["in_flight"], lambda count: count == 2)
                clock.write_text(f"-{HOUR}")
                statuses = [client.get("/api/faults/slow?seconds=0.5").status_code for _ in range(2)]
                statuses.append(request_during_jump.result().status_code)
                uptime = client.get("/info").json()["uptime_seconds"]
            assert running.stop() == 0
            logged_ms = [line["duration_ms"] for line in running.requests("/api/faults/slow")]
        spans = [span for span in agent.spans() if span["resource"] == "GET /api/faults/slow"]
    assert statuses == [200] * 3, statuses
    assert len(spans) == 3, spans
    starts = [span["start"] / 1e9 for span in spans]
    assert max(starts) - min(starts) > HOUR / 2, "the clock did not jump"
    # ddtrace reads start and end from the wall clock. The span across the jump has the duration 0, not a negative one.
    across_jump, *undisturbed = sorted(span["duration"] / 1e6 for span in spans)
    assert across_jump >= 0, across_jump
    # The requests take 500 ms or 1 s. A duration that contains the jump would be an hour off.
    assert all(400 < duration < 10_000 for duration in (*undisturbed, *logged_ms)), (undisturbed, logged_ms)
    assert uptime >= 0
    return (
        f"2 requests of 500 ms took {undisturbed[0]:.0f} and {undisturbed[1]:.0f} ms by their spans, one of 1 s across "
        f"the jump {across_jump:.0f} ms by its span and {max(logged_ms):.0f} ms by the log, exit 0"
    )
