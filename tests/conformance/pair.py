"""The two services as real processes under ddtrace-run, each with its own trace agent, and the peer that both call."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from fake_http import served
from running import BIN, QUIET, Agent, Running, Span, clean_environment, eventually, free_port, started, trace_agent

from hello_service.observability.environment import ENVIRONMENT_ONLY

HERE = Path(__file__).resolve().parent
COMMANDS = {
    "quart": ("hypercorn", "conformance.quart_app:app", "--workers", "0", "--bind", "127.0.0.1:0"),
    # With h11, because it passes unknown methods on to the application; llhttp, uvicorn's other parser, rejects them.
    "fastapi": ("uvicorn", "conformance.fastapi_app:app", "--http", "h11", "--port", "0"),
}
# Both services get the variables that `hello-service serve` sets for its tracer, and the same names.
ENVIRONMENT = {
    **QUIET,
    **{name: value for name, (value, _) in ENVIRONMENT_ONLY.items()},
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "true",  # the default
    "DD_SERVICE": "conformance",
    "DD_ENV": "test",
    "DD_VERSION": "1.2.3",
}
LAST_ID = "0b5e55ed0b5e55ed"  # trace id and parent id of the request that Side.collect sends last


class Upstream(BaseHTTPRequestHandler):
    """The peer of outbound calls. It records the headers of each GET."""

    protocol_version = "HTTP/1.1"
    received: list[Mapping[str, str]]
    stopped: threading.Event

    def do_GET(self) -> None:
        self.received.append({name.lower(): value for name, value in self.headers.items()})
        if self.path == "/slow":
            self.stopped.wait(1)
            return  # without a response
        if "transfer-encoding" in self.headers:  # a redirected request has an empty chunked body of two lines
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
    received: list[Mapping[str, str]] = []
    stopped = threading.Event()
    handler = type("Handler", (Upstream,), {"received": received, "stopped": stopped})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    with served(server) as url:
        try:
            yield url, received
        finally:
            stopped.set()


@dataclass
class Side:
    """One of the two services, with the operations that a scenario needs.

    Attributes:
        folder: where the test and the service's handlers create files as signals (see shared.py).
        received: the headers of every GET that the peer of outbound calls received, from either service.
    """

    name: str
    running: Running
    agent: Agent
    folder: Path
    received: list[Mapping[str, str]]
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
        """Forget the received spans, and delete the files."""
        for path in self.folder.iterdir():
            path.unlink()
        self.agent.clear()

    def collect(self, count: int) -> list[Span]:
        """Wait for `count` spans, and return all spans that have arrived, which may be more.

        Sends one more request, with a known trace id: once its span has arrived, all earlier ones have.
        """
        eventually(lambda: len(self.agent.spans()) >= count)
        # On a new connection, because the server closes the client's connection after an unhandled exception.
        httpx.get(f"{self.url}/plain", headers={"traceparent": f"00-{LAST_ID:0>32}-{LAST_ID}-01"}, timeout=30)
        spans = eventually(self.agent.spans, lambda spans: any(map(is_last, spans)))
        return [span for span in spans if not is_last(span)]


def is_last(span: Span) -> bool:
    return bool(span["trace_id"] == int(LAST_ID, 16))


@contextmanager
def pair(folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[dict[str, Side]]:
    """Run both services with the same environment, and yield them by name."""
    with sides(folder, dict.fromkeys(COMMANDS, extra or {})) as both:
        yield both


@contextmanager
def sides(folder: Path, environments: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Side]]:
    """Run a service for each of `environments`, and yield the services by the environments' names.

    The first word of each name is the framework.
    """
    with ExitStack() as stack:
        peer, received = stack.enter_context(upstream())
        services: dict[str, Side] = {}
        for name, extra in environments.items():
            program, *arguments = COMMANDS[name.partition(" ")[0]]
            signals = folder / name
            signals.mkdir()
            agent = stack.enter_context(trace_agent())
            environment = {
                **ENVIRONMENT,
                "PYTHONPATH": str(HERE.parent),
                "CONFORMANCE_FOLDER": str(signals),
                "CONFORMANCE_UPSTREAM": peer,
                "CONFORMANCE_REFUSED": f"http://127.0.0.1:{free_port()}",
                "DD_TRACE_AGENT_URL": agent.url,
                **extra,
            }
            running = stack.enter_context(
                started([str(BIN / "ddtrace-run"), str(BIN / program), *arguments], clean_environment(environment))
            )
            services[name] = Side(name, running, agent, signals, received)
            stack.callback(services[name].client.close)
        for side in services.values():
            side.running.wait_until_running()
        yield services
