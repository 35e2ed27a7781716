"""Every variable that an operator may set: type, unit, default, bounds. A leaf: it imports nothing of this package.

The environment is read once, at the command line, and the frozen result is passed down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

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
    if not parts.netloc and "@" in url and parts.scheme != "unix":  # as in user:password@host
        return MASK
    if "@" in parts.netloc:
        parts = parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}")
    if parts.query:
        parts = parts._replace(query=MASK)
    return urlunsplit(parts) if MASK in parts.netloc + parts.query else url


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be a URL like http://host:port/path")
    return value


def _agent_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "unix" and parts.path:
        return value
    if parts.scheme in {"http", "https"} and parts.hostname:
        return value
    raise ValueError("must be http://host:port or unix:///path/to/socket")


def _paths(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _absolute(value: tuple[str, ...]) -> tuple[str, ...]:
    for path in value:
        if not path.startswith("/"):
            raise ValueError(f"must be paths that start with /, and {path!r} does not")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]


class _GivenEnvironment(EnvSettingsSource):
    """The mapping that was passed in, in place of the process's own environment."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self.environ = environ
        super().__init__(settings_cls)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self.environ.items() if value != ""}


class Settings(BaseSettings):
    """What an operator decides. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

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
    probe_paths: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_paths), AfterValidator(_absolute)] = Field(
        ("/health", "/ready"), description="Paths without span, stats and access-log line, separated by commas"
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
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the interface of pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from arguments alone: what the process's environment holds never leaks in."""
        return (init_settings,)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check `environ`. An empty variable counts as unset.

        Raises:
            SettingsError: naming every bad variable with its value and the reason, not the first only.
        """
        try:
            return cls(**_GivenEnvironment(cls, environ)())
        except ValidationError as error:
            lines = [_complaint(problem) for problem in error.errors()]
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

    def public(self) -> dict[str, Any]:
        """Return the settings by variable name, as JSON values, with credentials masked: fit for a log or a page."""
        shown: dict[str, Any] = {}
        for name, value in self.model_dump(mode="json").items():
            masked = mask_credentials(value) if isinstance(value, str) and name.endswith("_url") else value
            shown[name.upper()] = masked
        return shown


def _complaint(problem: Mapping[str, Any]) -> str:
    variable = str(problem["loc"][0]).upper()
    value = str(problem["input"])
    shown = MASK if SECRET_NAME.search(variable) else mask_credentials(value)
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if not reason.startswith("must"):
        reason = f"must be {reason}"
    return f"{variable}={shown!r}: {reason}"
