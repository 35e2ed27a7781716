"""Runs both services under ddtrace-run, each with its own trace agent, and the peer that both call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from fake_http import served
from running import (
    BIN,
    QUIET,
    Agent,
    Running,
    Span,
    clean_environment,
    eventually,
    free_port,
    started,
    trace_agent,
    unmeasured_environment,
)

from hello_service.observability.environment import ENVIRONMENT_ONLY

HERE = Path(__file__).resolve().parent
COMMANDS = {
    # With 0 workers, Hypercorn serves in the process that ddtrace-run starts.
    "quart": ("hypercorn", "conformance.quart_app:app", "--workers", "0", "--bind", "127.0.0.1:0"),
    # h11 passes unknown methods on to the application, and uvicorn's other parser rejects them.
    "fastapi": ("uvicorn", "conformance.fastapi_app:app", "--http", "h11", "--port", "0"),
}
# Both services get the variables that `hello-service serve` sets for its tracer, and the same service name.
ENVIRONMENT = {
    **QUIET,
    **{name: value for name, (value, _) in ENVIRONMENT_ONLY.items()},
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "true",  # ddtrace's default, which QUIET changes
    "DD_SERVICE": "conformance",
    "DD_ENV": "test",
    "DD_VERSION": "1.2.3",
}
SENTINEL_ID = "0b5e55ed0b5e55ed"  # trace id and parent id of the request that Service.collect sends last
SENTINEL_TRACEPARENT = f"00-{SENTINEL_ID.zfill(32)}-{SENTINEL_ID}-01"


class Upstream(BaseHTTPRequestHandler):
    """The peer of outbound calls. It records the headers of each GET.

    `http.server` creates a handler for each connection, so `upstream` sets both attributes on a subclass.
    """

    protocol_version = "HTTP/1.1"
    recorded_headers: list[Mapping[str, str]]
    stopped: threading.Event

    def do_GET(self) -> None:
        self.recorded_headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path == "/slow":
            self.stopped.wait(1)  # longer than the caller waits
            return  # without a response
        # After a redirect, the request has an empty chunked body: a line with 0 and an empty line.
        if "transfer-encoding" in self.headers:
            self.rfile.readline()
            self.rfile.readline()
        self.send_response({"/redirect": 302, "/error": 500}.get(self.path, 200))
        if self.path == "/redirect":
            self.send_header("location", "/items/42")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"4\r\nmore\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def upstream() -> Iterator[tuple[str, list[Mapping[str, str]]]]:
    """Serve the peer, and yield its URL and the headers of every received GET."""
    recorded_headers: list[Mapping[str, str]] = []
    stopped = threading.Event()
    handler = type("Handler", (Upstream,), {"recorded_headers": recorded_headers, "stopped": stopped})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    with served(server) as url:
        try:
            yield url, recorded_headers
        finally:
            stopped.set()


@dataclass
class Service:
    """One of the two services, with the operations that a scenario needs.

    Attributes:
        folder: where the test and the service's handlers create files as signals (see shared.py).
        upstream_headers: the headers of every GET that the peer of outbound calls received from either service.
    """

    name: str
    running: Running
    agent: Agent
    folder: Path
    upstream_headers: list[Mapping[str, str]]
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    @property
    def url(self) -> str:
        return self.running.url

    def release(self, name: str) -> None:
        """Create the file `name`, so that a handler that waits for it continues."""
        (self.folder / name).touch()

    def wait_for_file(self, name: str) -> None:
        """Wait until a handler has created the file `name`."""
        eventually((self.folder / name).exists)

    def clear(self) -> None:
        """Delete the received spans and the files."""
        for path in self.folder.iterdir():
            path.unlink()
        self.agent.clear()

    def collect(self, count: int) -> list[Span]:
        """Wait for `count` spans, and return all spans that have arrived, which may be more.

        Sends one more request, with a known trace id. When its span has arrived, all earlier spans have arrived.
        """
        eventually(lambda: len(self.agent.spans()) >= count)
        # On a new connection, because the server closes the client's connection after an unhandled exception.
        httpx.get(f"{self.url}/plain", headers={"traceparent": SENTINEL_TRACEPARENT}, timeout=30)
        spans = eventually(self.agent.spans, lambda spans: any(map(is_sentinel, spans)))
        return [span for span in spans if not is_sentinel(span)]


def is_sentinel(span: Span) -> bool:
    return bool(span["trace_id"] == int(SENTINEL_ID, 16))


Services = dict[str, Service]  # by name
ServicesWith = Callable[[Mapping[str, str]], Services]  # the type of the fixture `services_with` in conftest.py


@contextmanager
def running_services(folder: Path, environments: Mapping[str, Mapping[str, str]]) -> Iterator[Services]:
    """Run a service for each of `environments`, and yield the services by name.

    The keys of `environments` are the names. The first word of a name is the framework: `quart` or `fastapi`.
    """
    with ExitStack() as stack:
        upstream_url, upstream_headers = stack.enter_context(upstream())
        services: Services = {}
        for name, variables in environments.items():
            framework = name.partition(" ")[0]
            program, *arguments = COMMANDS[framework]
            signals = folder / name
            signals.mkdir()
            agent = stack.enter_context(trace_agent())
            environment = {
                **ENVIRONMENT,
                "PYTHONPATH": str(HERE.parent),
                "CONFORMANCE_FOLDER": str(signals),
                "CONFORMANCE_UPSTREAM": upstream_url,
                "CONFORMANCE_REFUSED": f"http://127.0.0.1:{free_port()}",
                "DD_TRACE_AGENT_URL": agent.url,
                **variables,
            }
            make_environment = clean_environment if framework == "quart" else unmeasured_environment
            running = stack.enter_context(
                started([str(BIN / "ddtrace-run"), str(BIN / program), *arguments], make_environment(environment))
            )
            services[name] = Service(
                name=name, running=running, agent=agent, folder=signals, upstream_headers=upstream_headers
            )
            stack.callback(services[name].client.close)
        for service in services.values():
            service.running.wait_until_running()
        yield services
