"""The context of a run of the doctor: the environment to examine, the deadline, and results that several checks share.

The shared requests and processes start once, concurrently.
"""

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
from hello_service.settings import Settings, SettingsError, http_url, mask_credentials

TOTAL_SECONDS = 7.0  # for all checks together, so that the whole command ends within 10 s
EXIT_SECONDS = 0.25  # how long a child process may take to exit, before SIGTERM and again before SIGKILL
AGENT_SECONDS = 2.0  # ddtrace's own timeout

SOCKET = Path("/var/run/datadog/apm.socket")  # ddtrace uses it if it exists and no variable is set
HOST_VARIABLES = ("DD_TRACE_AGENT_HOSTNAME", "DD_AGENT_HOST")
PORT_VARIABLES = ("DD_TRACE_AGENT_PORT", "DD_AGENT_PORT")

# Variables of each child process. The first three switch off what ddtrace does only for a real service.
CHILD_ENVIRONMENT = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "LOG_FORMAT": "json",  # `server.py` searches the log
}


@dataclass(frozen=True)
class Address:
    """The address that ddtrace sends traces to, and the variables that set it: none for the default address."""

    url: str
    variables: tuple[str, ...]

    @property
    def masked_url(self) -> str:
        """The URL without credentials."""
        return mask_credentials(self.url)

    @property
    def usable(self) -> bool:
        """Whether ddtrace accepts the address."""
        try:
            parts = urlsplit(self.url)
            is_http = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
            return bool(is_http or (parts.scheme == "unix" and parts.path))
        except ValueError:
            return False


def agent_address(environ: Mapping[str, str], default_socket: Path = SOCKET) -> Address:
    """Return the agent's address as ddtrace 4.16 chooses it.

    The variable of the URL comes first, then those of host and port, then the default socket if it exists, then
    localhost.
    """
    if url := environ.get("DD_TRACE_AGENT_URL"):
        return Address(url, ("DD_TRACE_AGENT_URL",))
    host_variable = next((name for name in HOST_VARIABLES if environ.get(name)), None)
    port_variable = next((name for name in PORT_VARIABLES if environ.get(name)), None)
    variables = tuple(name for name in (host_variable, port_variable) if name)
    if not variables and default_socket.exists():
        return Address(f"unix://{default_socket}", variables=())
    host = environ[host_variable] if host_variable else "localhost"
    port = environ[port_variable] if port_variable else "8126"
    return Address(http_url(host, port), variables)


def no_agent_reason(environ: Mapping[str, str]) -> str | None:
    """Return the reason why spans are not sent to an agent, or None if they are."""
    # DD_TRACE_AGENT_PROTOCOL_VERSION makes ddtrace ignore OTEL_TRACES_EXPORTER=otlp.
    if environ.get("OTEL_TRACES_EXPORTER", "").lower() == "otlp" and not environ.get("DD_TRACE_AGENT_PROTOCOL_VERSION"):
        return "OTEL_TRACES_EXPORTER=otlp: spans are sent as OTLP, not to the agent"
    if environ.get("DD_AGENTLESS_ENABLED", "").lower() in {"true", "1"}:
        return "DD_AGENTLESS_ENABLED: spans are sent to Datadog itself, not to the agent"
    return None


class CheckContext:
    """The environment, the deadline and the shared results of one run. Each check receives it.

    Leaving the `with` block ends the processes that were started in it.

    Attributes:
        environ: the environment to examine, which a server would be started with.
        url: the running server to examine; None: the one at HOST and PORT.
        settings: None if a variable is invalid; `settings_errors` then has one reason for each invalid variable.
        address: the agent's address.
        agent: a future of the agent's response to `/info`.
        configuration: a future of ddtrace's configuration in this environment; empty if its process ended early.
        test_span: a future of the result of ddtrace's test span; empty if its process ended early.
    """

    def __init__(self, environ: Mapping[str, str], url: str | None = None, seconds: float = TOTAL_SECONDS) -> None:
        self.environ = environ
        self.url = url
        self.settings: Settings | None = None
        self.settings_errors: list[str] = []
        self.address = agent_address(environ)
        self._deadline = monotonic() + seconds
        self._children: list[subprocess.Popen[str]] = []
        self._ended = False
        self._start_lock = threading.Lock()
        try:
            self.settings = Settings.from_environment(environ)
        except SettingsError as error:
            self.settings_errors = str(error).splitlines()

    def __enter__(self) -> Self:
        self.agent: Future[Response] = in_background(lambda: get(self.address.url, "/info", AGENT_SECONDS))
        child = in_background(lambda: self.start("hello_service.doctor.span"))

        def read_test_span() -> dict[str, Any]:
            """Return the child's second line, which follows its configuration; an empty result if it ended early."""
            return _next_document(child.result()) if self.configuration.result() else {}

        self.configuration: Future[dict[str, Any]] = in_background(lambda: _next_document(child.result()))
        self.test_span: Future[dict[str, Any]] = in_background(read_test_span)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._start_lock:
            self._ended = True
        for child in self._children:
            _stop(child)

    @property
    def remaining(self) -> float:
        """Number of seconds until the deadline."""
        return max(0.0, self._deadline - monotonic())

    def start(self, *module: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Run a module of this package in a child process, with the environment that `serve` would set.

        `module` is the module's name, followed by its arguments.
        `extra` adds the variables of a server, whose log (on standard error) then goes to standard output.

        Raises:
            TimeoutError: the `with` block has ended.
        """
        environ = dict(self.environ)
        if self.settings is not None:
            environ = tracer_environment(environ, self.settings)
        with self._start_lock:
            if self._ended:
                raise TimeoutError
            child = subprocess.Popen(  # noqa: S603 - this package's own modules
                [sys.executable, "-P", "-m", *module],  # -P: import nothing from the working directory
                env={**environ, **CHILD_ENVIRONMENT, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if extra else subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            self._children.append(child)
        return child


def _stop(child: subprocess.Popen[str]) -> None:
    """Wait for `child` to exit, if necessary after SIGTERM and then SIGKILL."""
    for send_signal in (child.terminate, child.kill):
        try:
            child.communicate(timeout=EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            send_signal()
    child.communicate()


def _next_document(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON object in the next line of `child`'s output, or an empty one if `child` has ended."""
    assert child.stdout is not None  # noqa: S101 - `start` requests a pipe
    document: dict[str, Any] = json.loads(child.stdout.readline() or "{}")
    return document
