"""The environment under examination, and the requests that several checks share, each made once and concurrently."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from hello_service.doctor.wire import Response, get, in_background
from hello_service.observability.environment import tracer_environment
from hello_service.settings import Settings, SettingsError, mask_credentials

SECONDS = 7.0  # for everything, so that the whole command ends within 10 s
ENDING_SECONDS = 0.25  # then, for a child process to end by itself, and again after each signal
AGENT_SECONDS = 2.0  # as long as ddtrace itself waits

SOCKET = Path("/var/run/datadog/apm.socket")  # ddtrace uses it if it exists and no variable is set
HOSTS = ("DD_TRACE_AGENT_HOSTNAME", "DD_AGENT_HOST")
PORTS = ("DD_TRACE_AGENT_PORT", "DD_AGENT_PORT")

# The child process is not a service, so it must send nothing but its output.
CHILD = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "LOG_FORMAT": "json",
}


@dataclass(frozen=True)
class Address:
    """The address that ddtrace sends traces to, and the variables that set it, none for the default."""

    url: str
    variables: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return mask_credentials(self.url)

    @property
    def usable(self) -> bool:
        """Whether ddtrace accepts the address."""
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
            return bool(known or (parts.scheme == "unix" and parts.path))
        except ValueError:
            return False


def agent_address(environ: Mapping[str, str], default_socket: Path = SOCKET) -> Address:
    """Return the agent's address as ddtrace 4.16 finds it: from the URL, else host and port, else a socket, else localhost."""
    if url := environ.get("DD_TRACE_AGENT_URL"):
        return Address(url, ("DD_TRACE_AGENT_URL",))
    decided = [next((name for name in names if environ.get(name)), None) for names in (HOSTS, PORTS)]
    if not any(decided) and default_socket.exists():
        return Address(f"unix://{default_socket}", ())
    host = environ[decided[0]] if decided[0] else "localhost"
    port = environ[decided[1]] if decided[1] else "8126"
    shown = f"[{host}]" if ":" in host else host
    return Address(f"http://{shown}:{port}", tuple(name for name in decided if name))


def without_agent(environ: Mapping[str, str]) -> str | None:
    """Return the reason why spans are not sent to an agent, None if they are."""
    if environ.get("OTEL_TRACES_EXPORTER", "").lower() == "otlp" and not environ.get("DD_TRACE_AGENT_PROTOCOL_VERSION"):
        return "OTEL_TRACES_EXPORTER=otlp: spans are sent as OTLP, not to the agent"
    if environ.get("DD_AGENTLESS_ENABLED", "").lower() in {"true", "1"}:
        return "DD_AGENTLESS_ENABLED: spans are sent to Datadog itself, not to the agent"
    return None


class Case:
    """An environment under examination. The end of the `with` block also ends the processes started for it.

    Attributes:
        environ: the environment that a server would be started with.
        url: the running server to examine; None: the one at HOST and PORT.
        settings: None if they are invalid; then `complaints` has one reason for each bad variable.
        address: the agent's address.
        agent: a future of the agent's response to `/info`.
        planned: a future of ddtrace's configuration in this environment; empty if its process ended early.
        sent: a future of the result of ddtrace's test span.
    """

    def __init__(self, environ: Mapping[str, str], url: str | None = None, seconds: float = SECONDS) -> None:
        self.environ = environ
        self.url = url
        self.settings: Settings | None = None
        self.complaints: list[str] = []
        self.address = agent_address(environ)
        self._deadline = monotonic() + seconds
        self._children: list[subprocess.Popen[str]] = []
        self._over = False
        self._starting = threading.Lock()
        try:
            self.settings = Settings.from_environment(environ)
        except SettingsError as error:
            self.complaints = str(error).splitlines()

    def __enter__(self) -> Self:
        self.agent: Future[Response] = in_background(lambda: get(self.address.url, "/info", AGENT_SECONDS))
        tracer = in_background(lambda: self.start("hello_service.doctor.span"))
        self.planned: Future[dict[str, Any]] = in_background(lambda: _next_document(tracer.result()))
        self.sent: Future[dict[str, Any]] = in_background(
            lambda: self.planned.result() and _next_document(tracer.result())
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._starting:
            self._over = True
        for child in self._children:
            _end(child)

    @property
    def remaining(self) -> float:
        """Seconds left."""
        return max(0.0, self._deadline - monotonic())

    def start(self, *module: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Run a module of this package with the environment that `serve` would set; `extra` is for a server.

        A server's log goes to its standard output.

        Raises:
            TimeoutError: the examination is over.
        """
        environ = dict(self.environ)
        if self.settings is not None:
            environ = tracer_environment(environ, self.settings)
        with self._starting:
            if self._over:
                raise TimeoutError
            child = subprocess.Popen(  # noqa: S603 - this package's own modules
                [sys.executable, "-P", "-m", *module],
                env={**environ, **CHILD, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if extra else subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            self._children.append(child)
        return child


def _end(child: subprocess.Popen[str]) -> None:
    for end in (child.terminate, child.kill):
        try:
            child.communicate(timeout=ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            end()
    child.communicate()


def _next_document(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON object in the next line of `child`'s output, an empty one if `child` has ended."""
    assert child.stdout is not None  # noqa: S101 - `start` requests a pipe
    document: dict[str, Any] = json.loads(child.stdout.readline() or "{}")
    return document
