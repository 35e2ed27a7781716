"""What is examined: an environment, and what the checks ask of it together, each question once and all at once."""

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

from hello_service.doctor.wire import Answer, get, in_background
from hello_service.observability.environment import tracer_environment
from hello_service.settings import Settings, SettingsError, mask_credentials

SECONDS = 7.0  # for everything, so that the whole command ends within 10 s
ENDING_SECONDS = 0.25  # then, for a process that was started: to end by itself, and again when it is told to
AGENT_SECONDS = 2.0  # as long as ddtrace itself waits

SOCKET = Path("/var/run/datadog/apm.socket")  # ddtrace uses it when nothing is set and it is there
HOSTS = ("DD_TRACE_AGENT_HOSTNAME", "DD_AGENT_HOST")
PORTS = ("DD_TRACE_AGENT_PORT", "DD_AGENT_PORT")

# The child is no service: it should say nothing to anyone but what it is asked for.
CHILD = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "LOG_FORMAT": "json",
}


@dataclass(frozen=True)
class Address:
    """Where ddtrace sends traces, and the variables that decided it, none for the default."""

    url: str
    variables: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return mask_credentials(self.url)

    @property
    def usable(self) -> bool:
        """Whether it is an address that ddtrace takes."""
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
            return bool(known or (parts.scheme == "unix" and parts.path))
        except ValueError:
            return False


def agent_address(environ: Mapping[str, str], default_socket: Path = SOCKET) -> Address:
    """Return the agent's address as ddtrace 4.16 finds it: its own URL, its own host and port, a socket, localhost."""
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
    """Return why the agent is not asked at all, None when traces go to it."""
    if environ.get("OTEL_TRACES_EXPORTER", "").lower() == "otlp" and not environ.get("DD_TRACE_AGENT_PROTOCOL_VERSION"):
        return "OTEL_TRACES_EXPORTER=otlp: spans leave as OTLP, not to the agent"
    if environ.get("DD_AGENTLESS_ENABLED", "").lower() in {"true", "1"}:
        return "DD_AGENTLESS_ENABLED: spans go to Datadog itself, not to the agent"
    return None


class Case:
    """An environment under examination, for as long as the `with` lasts; processes started for it end with it.

    Attributes:
        environ: the environment that a server would be started with.
        url: the running server to ask; None: the one that the settings name.
        settings: None when they can't be used; then `complaints` say why, one a variable.
        address: of the agent.
        agent: the agent's answer to `/info`, some time.
        planned: what ddtrace makes of the environment, some time; empty when it ended before it could say.
        sent: whether the agent took ddtrace's test span, some time.
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
        self.agent: Future[Answer] = in_background(lambda: get(self.address.url, "/info", AGENT_SECONDS))
        tracer = in_background(lambda: self.start("hello_service.doctor.span"))
        self.planned: Future[dict[str, Any]] = in_background(lambda: _said(tracer.result()))
        self.sent: Future[dict[str, Any]] = in_background(lambda: self.planned.result() and _said(tracer.result()))
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
        """Run a module of this package with the environment that `serve` would make; `extra` is for a server.

        What a server logs comes with its output.

        Raises:
            TimeoutError: when the examination is over.
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


def _said(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next line that `child` writes as the JSON object it is, an empty one when it ended without."""
    assert child.stdout is not None  # noqa: S101 - a pipe was asked for
    document: dict[str, Any] = json.loads(child.stdout.readline() or "{}")
    return document
