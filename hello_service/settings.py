"""Every variable that an operator may set: type, unit, default, bounds. A leaf: it imports nothing of this package.

The environment is read once, at the command line, and the frozen result is passed down.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
)

MASK = "***"
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD", re.IGNORECASE)

# Part of the stop budget: background tasks end, then connections close.
BACKGROUND_SECONDS = 2.0
CLOSING_SECONDS = 3.0


class SettingsError(Exception):
    """The environment can't be used. `str()` gives every bad variable, one a line: variable, value, reason."""


def mask_credentials(url: str) -> str:
    """Return `url` without user name, password and query (tokens are often there), for logs, errors and pages."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL at all: nothing of it can be trusted to be no secret
        return MASK
    several = url.count("://") > 1
    if "@" in url and (several or (not parts.netloc and parts.scheme != "unix")):  # as in user:password@host
        return MASK
    if "@" in parts.netloc:
        parts = parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}")
    if parts.query:
        parts = parts._replace(query=MASK)
    return urlunsplit(parts) if MASK in parts.netloc + parts.query else url


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its message may quote a password, and a port that is no number is found only when it is read
        return False


def _http_url(value: str) -> str:
    if not _is_http_url(value):
        raise ValueError("must be a URL like http://host:port/path")
    return value


def _agent_url(value: str) -> str:
    if not _is_http_url(value) and not re.match("unix://[^/]*/", value):
        raise ValueError("must be http://host:port or unix:///path/to/socket")
    return value


def _paths(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _absolute(value: tuple[str, ...]) -> tuple[str, ...]:
    for path in value:
        if not path.startswith("/"):
            raise ValueError(f"must be paths that start with /, and {path!r} does not")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """What an operator decides. Field names are the variables' names in lower case.

    A field is a secret, and never shown, when its name holds KEY, SECRET, TOKEN or PASSWORD, or its type SecretStr.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on; `::` takes IPv6 and IPv4")  # noqa: S104 - in a container the address is not known before
    port: Port = Field(8080, description="Port to listen on; 0 takes a free one")
    upstream_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        None, description="What `/api/relay` calls; unset: this service's own `/api/hello`"
    )
    upstream_service: str | None = Field(
        None, description="`peer.service` of those calls; unset: the upstream's host name, or `DD_SERVICE` for its own"
    )
    upstream_timeout_seconds: float = Field(5.0, gt=0, le=300, description="Whole time of one outbound call")
    upstream_connections: int = Field(100, ge=1, le=10_000, description="Outbound connections at once")
    upstream_waiting: int = Field(
        200, ge=0, le=100_000, description="Calls that may wait for one of them; more are answered 503 at once"
    )
    upstream_body_bytes: int = Field(
        1_048_576, ge=1, le=1_073_741_824, description="Largest answer taken from the upstream"
    )
    body_bytes: int = Field(
        65_536,
        ge=1,
        le=1_073_741_824,
        description="Largest request body taken, else 413, and largest WebSocket message",
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=110, description="After SIGTERM: `/ready` says 503, requests are still served"
    )
    graceful_seconds: float = Field(
        20.0, ge=0, le=110, description="Then: time for requests in flight before they are cancelled"
    )
    flush_seconds: float = Field(5.0, ge=0, le=110, description="Then: time to send the last spans to the agent")
    keep_alive_seconds: float = Field(
        75.0, ge=1, le=4000, description="Idle connections are kept this long; longer than the load balancer's 60"
    )
    half_close_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="A client that closed its side of the connection waits this long for its response to start",
    )
    body_timeout_seconds: float = Field(
        30.0, ge=1, le=4000, description="An upload is given up when nothing of it arrives for this long"
    )
    write_timeout_seconds: float = Field(
        30.0, ge=1, le=4000, description="A response is given up when the client reads nothing of it for this long"
    )
    websocket_ping_seconds: float = Field(
        20.0,
        ge=1,
        le=4000,
        description="Time between pings of a WebSocket; a missing pong closes it after as long again",
    )
    http_implementation: Literal["httptools", "hypercorn"] = Field(
        "httptools", description="What serves HTTP and WebSocket; `hypercorn`: Hypercorn's own classes, the way back"
    )
    probe_paths: Annotated[tuple[str, ...], BeforeValidator(_paths), AfterValidator(_absolute)] = Field(
        ("/health", "/ready"), description="Paths without span, stats and access-log line, separated by commas"
    )
    info_details: bool = Field(
        False, description="Show settings, packages and ECS task at `/info` to every caller; `dev` sets it"
    )
    faults: bool = Field(False, description="Serve `/api/faults/...`, endpoints that fail on purpose")
    local_view_url: Annotated[str, AfterValidator(_http_url)] | None = Field(
        None, description="Where `GET /` links to for the traces; `dev` sets it"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text when standard error is a terminal, else JSON lines"
    )

    dd_service: str = Field("hello-service", min_length=1, description="Service name on every span")
    dd_env: str | None = Field(None, description="Environment on every span, such as `production`")
    dd_version: str | None = Field(None, description="Version on every span, such as `1.4.2`")
    dd_trace_enabled: bool = Field(True, description="`false`: no spans and no ddtrace on a request's way")
    dd_trace_sample_rate: float | None = Field(
        None, ge=0, le=1, description="Share of traces to keep; `serve` turns it into `DD_TRACE_SAMPLING_RULES`"
    )
    trust_trace_headers: bool = Field(
        True,
        description="`false` at a public edge: callers' trace ids, sampling decisions, tags and baggage are ignored",
    )
    dd_agent_host: str = Field("localhost", min_length=1, description="Host of the trace agent")
    dd_trace_agent_port: Annotated[int, Field(ge=1, le=65535)] = Field(8126, description="Port of the trace agent")
    dd_trace_agent_url: Annotated[str, AfterValidator(_agent_url)] | None = Field(
        None, description="`http://host:port` or `unix:///socket` of the agent; wins over host and port"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check `environ`. An empty variable counts as unset.

        Raises:
            SettingsError: naming every bad variable with its value and the reason, not the first only.
        """
        given: dict[str, Any] = {name: value for name in cls.model_fields if (value := environ.get(name.upper()))}
        try:
            return cls(**given)
        except ValidationError as error:
            lines = [_complaint(problem, given, cls.secrets()) for problem in error.errors()]
            raise SettingsError("\n".join(lines)) from None

    @property
    def agent_url(self) -> str:
        """The trace agent's address as ddtrace would resolve it, without credentials."""
        if self.dd_trace_agent_url is not None:
            return mask_credentials(self.dd_trace_agent_url)
        return f"http://{self.dd_agent_host}:{self.dd_trace_agent_port}"

    @property
    def stop_budget_seconds(self) -> float:
        """Longest time from SIGTERM to the exit of the process; the task's `stopTimeout` must be larger."""
        return self.drain_seconds + self.graceful_seconds + CLOSING_SECONDS + self.flush_seconds

    @classmethod
    def secrets(cls) -> frozenset[str]:
        """Return the names of the fields whose values must not be shown."""
        named = {name for name in cls.model_fields if SECRET_NAME.search(name)}
        return frozenset(named | {name for name, field in cls.model_fields.items() if _holds_secret(field.annotation)})

    def public(self) -> dict[str, Any]:
        """Return the settings by variable name, as JSON values, with secrets masked: fit for a log or a page."""
        secrets = self.secrets()
        return {
            name.upper(): MASK if name in secrets and value is not None else _without_credentials(value)
            for name, value in self.model_dump(mode="json").items()
        }

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        """Show no secret where somebody logs the settings themselves."""
        return self.public().items()


def _holds_secret(annotation: object) -> bool:
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, (Secret, SecretBytes, SecretStr)):
        return True
    return any(map(_holds_secret, get_args(annotation)))


def _without_credentials(value: Any) -> Any:
    """Return the JSON value `value` with the credentials of each URL in it masked."""
    if isinstance(value, str):
        return mask_credentials(value) if "://" in value else value
    if isinstance(value, list):
        return [_without_credentials(each) for each in value]
    return value


def _complaint(problem: Mapping[str, Any], given: Mapping[str, str], secrets: Collection[str]) -> str:
    name = str(problem["loc"][0])
    value = given.get(name, str(problem["input"]))
    shown = MASK if name in secrets else mask_credentials(value)
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ").replace(value, shown)
    if name in secrets and problem["type"] in {"value_error", "assertion_error"}:
        reason = "must be a value that its check accepts"  # what a check raises may quote a part of the secret
    elif not reason.startswith("must"):
        reason = f"must be {reason}"
    return f"{name.upper()}={shown!r}: {reason}"
