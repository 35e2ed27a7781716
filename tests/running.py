"""Starts a service or a trace agent as a real process on a free port, and stops it at the end of a `with` block."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
Span = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SERVE = [str(BIN / "hello-service"), "serve"]
# `hello-service serve` with the endpoints of routes.py in place of the demo's.
SERVE_TEST_ENDPOINTS = [sys.executable, str(ROOT / "tests" / "serve_test_endpoints.py")]
# The same endpoints under Hypercorn's own command, without `hello-service serve`.
PLAIN_HYPERCORN = [
    str(BIN / "ddtrace-run"),
    str(BIN / "hypercorn"),
    f"{ROOT / 'tests' / 'plain_hypercorn'}:create_app()",  # Hypercorn accepts a path without .py
    "-b",
    "127.0.0.1:0",
]
LISTENING_URL = re.compile(r"[Rr]unning on (http://\S+?)[ \"]")  # in a line of text or of JSON
# All checks of ddapm-test-agent, which it applies to each trace.
TRACE_CHECKS = (
    "trace_count_header,meta_tracer_version_header,trace_content_length,trace_stall,trace_peer_service,"
    "trace_dd_service,meta_events_is_valid_json"
)
# Variables of the machine's own configuration, which must not change a test's result.
CONFIGURATION_VARIABLE = re.compile(
    r"^(DD_|_DD_|OTEL_|HOST$|PORT$|UPSTREAM_|LOG_|FAULTS$|ECS_|HTTPS?_PROXY$|https?_proxy$)"
)
# Switches off ddtrace's background traffic and its tags of code origin, and makes its spans arrive soon.
QUIET = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "0.1",
}


def clean_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without the variables that configure a service, plus `variables`."""
    inherited = {name: value for name, value in os.environ.items() if not CONFIGURATION_VARIABLE.match(name)}
    return {**inherited, **(variables or {})}


def unmeasured_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the clean environment without coverage, which slows a program even if it doesn't run the package."""
    environment = clean_environment(variables)
    return {name: value for name, value in environment.items() if not name.startswith(("COV_", "COVERAGE_"))}


def free_port() -> int:
    """Return a port that was free a moment ago, for programs that can't bind port 0 and report their port."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports that were free a moment ago. Separate calls of `free_port` may return the same port."""
    with ExitStack() as stack:
        return [stack.enter_context(reserved_port()) for _ in range(count)]


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that no other program is given until the block ends. A program with SO_REUSEADDR can bind it."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]


def eventually(read: Callable[[], T], expected: Callable[[T], bool] = bool, timeout: float = 20.0) -> T:
    """Call `read` until `expected` accepts its result, and return that result.

    Raises:
        AssertionError: no result was accepted within `timeout` seconds. The message contains the last result.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = read()
        if expected(result):
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s; the last result was {result!r}")
        time.sleep(0.02)


class Running:
    """A process, and every line that it has written to standard error so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []  # grows in another thread, so it is copied before it is searched
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines that are JSON, decoded."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def requests(self, path: str | None = None) -> list[dict[str, Any]]:
        """Return the access log's entries: all of them, or those for `path`."""
        entries = [entry for entry in self.log if entry["event"] == "request"]
        return [entry for entry in entries if path is None or entry["path"] == path]

    def wait_until_running(self, timeout: float = 40.0) -> None:
        """Wait for the log line with the URL that the process listens on, and set `url` to it."""

        def listening_url() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the process exited with {self.process.returncode}:\n" + "\n".join(self.lines))
            return next((match[1] for line in list(self.lines) if (match := LISTENING_URL.search(line))), None)

        # A process that listens on every address logs 0.0.0.0, which isn't an address to connect to.
        self.url = str(eventually(listening_url, timeout=timeout)).replace("0.0.0.0", "127.0.0.1")

    def wait_until_responding(self, url: str, timeout: float = 60.0) -> None:
        """Wait until a GET of `url` succeeds."""

        def responds() -> bool:
            assert self.process.poll() is None, "\n".join(self.lines)
            try:
                return httpx.get(url, timeout=10).is_success
            except httpx.TransportError:
                return False

        eventually(responds, timeout=timeout)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Send the signal `signum`, wait until the process has exited and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until the process has exited and return the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(10)
        return code


def wait_until_in_flight(running: Running, count: int) -> None:
    """Wait until `count` requests are in flight."""
    # More than `count`, because the request to /info is itself in flight.
    eventually(lambda: httpx.get(f"{running.url}/info").json()["in_flight"], lambda in_flight: in_flight > count)


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> Iterator[Running]:
    """Run `command` in the folder `cwd`, with no variables but `environment`, until the end of the block."""
    process = subprocess.Popen(
        list(command),
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        running.wait()
        assert process.stderr is not None
        process.stderr.close()


@contextmanager
def service(
    agent_url: str,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = SERVE_TEST_ENDPOINTS,
    *,
    measured: bool = True,
) -> Iterator[Running]:
    """Run the service on a free port, with `agent_url` as its trace agent, and wait until it listens.

    Environment `variables` override the defaults below. With `measured=False`, its coverage isn't measured.
    """
    settings = {"HOST": "127.0.0.1", "PORT": "0", "DRAIN_SECONDS": "0", "DD_TRACE_AGENT_URL": agent_url}
    make_environment = clean_environment if measured else unmeasured_environment
    with started(command, make_environment({**QUIET, **settings, **(variables or {})})) as running:
        running.wait_until_running()
        yield running


class Agent:
    """A client of a running ddapm-test-agent. It returns what the agent has received."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.process = process
        self._client = httpx.Client(base_url=url, timeout=60)

    def _get(self, path: str) -> Any:
        response = self._client.get(path)
        response.raise_for_status()
        return response.json() if response.content else None

    def clear(self) -> None:
        """Delete everything that the agent has received."""
        self._client.get("/test/session/clear").raise_for_status()
        self._client.get("/test/trace_check/clear").raise_for_status()

    def traces(self) -> list[list[Span]]:
        """Return the traces that arrived, each as a list of its spans."""
        traces: list[list[Span]] = self._get("/test/session/traces")
        return traces

    def spans(self) -> list[Span]:
        """Return every span that arrived."""
        return [span for trace in self.traces() for span in trace]

    def stats(self) -> list[dict[str, Any]]:
        """Return the payloads of `/v0.6/stats` that arrived."""
        payloads: list[dict[str, Any]] = self._get("/test/session/stats")
        return payloads

    def failures(self) -> str:
        """Return the failed trace checks as text, which is empty if no check failed."""
        response = self._client.get("/test/trace_check/failures")
        return "" if response.status_code == 200 else response.text

    def wait_for_traces(self, count: int, timeout: float = 20.0) -> list[list[Span]]:
        """Wait until at least `count` traces have arrived, and return all of them."""
        return eventually(self.traces, lambda traces: len(traces) >= count, timeout)

    def wait_for_spans(self, count: int, timeout: float = 20.0) -> list[Span]:
        """Wait until at least `count` spans have arrived, and return all of them."""
        return eventually(self.spans, lambda spans: len(spans) >= count, timeout)

    def close(self) -> None:
        """Close the connections to the agent."""
        self._client.close()


@contextmanager
def trace_agent(port: int | None = None, unix_socket: Path | None = None) -> Iterator[Agent]:
    """Run a ddapm-test-agent with trace checks, on `port` or a free one, and also on `unix_socket` if it is given."""
    any_port, otlp_http, otlp_grpc = free_ports(3)
    port = port or any_port
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    # The defaults are fixed ports, so two agents could not run at once.
    arguments += ["--otlp-http-port", str(otlp_http), "--otlp-grpc-port", str(otlp_grpc)]
    if unix_socket is not None:
        arguments += ["--trace-uds-socket", str(unix_socket)]
    with started(
        [str(BIN / "ddapm-test-agent"), *arguments], unmeasured_environment({"ENABLED_CHECKS": TRACE_CHECKS})
    ) as running:
        agent = Agent(f"http://127.0.0.1:{port}", running.process)
        running.wait_until_responding(f"{agent.url}/info")
        try:
            yield agent
        finally:
            agent.close()
