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
LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to connect to a server on all addresses
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD", re.IGNORECASE)

# A part of the stop budget: once requests in flight are canceled, the server has CLOSING_SECONDS to end. Of these,
# background tasks have BACKGROUND_SECONDS.
BACKGROUND_SECONDS = 2.0
CLOSING_SECONDS = 3.0


class SettingsError(Exception):
    """The environment is invalid. `str()` lists every bad variable, one per line: variable, value, reason."""


def http_url(host: str, port: int | str) -> str:
    """Return `http://host:port`, with an IPv6 address in brackets."""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{port}"


def local_url(host: str, port: int) -> str:
    """Return the URL of a server that listens on `host` and `port`, for clients on the same machine."""
    return http_url(LOOPBACKS.get(host, host), port)


def mask_credentials(url: str) -> str:
    """Return `url` without user name, password and query, which may contain a token, for logs, errors and pages."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL, so any part of it may be a secret
        return MASK
    is_list = url.count("://") > 1  # of several URLs; the code below would mask only the first
    if "@" in url and (is_list or (not parts.netloc and parts.scheme != "unix")):  # as in user:password@host
        return MASK
    if "@" in parts.netloc:
        parts = parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}")
    if parts.query:
        parts = parts._replace(query=MASK)
    is_masked = MASK in parts.netloc + parts.query
    return urlunsplit(parts) if is_masked else url  # urlunsplit may write a URL differently


def _is_http_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its message may quote a password; urlsplit checks the port only when `parts.port` is read
        return False


def _check_http_url(value: str) -> str:
    if not _is_http_url(value):
        raise ValueError("must be a URL like http://host:port/path")
    return value


def _check_agent_url(value: str) -> str:
    # ddtrace needs the path of a unix URL, and ignores a host before it.
    if not _is_http_url(value) and not re.match("unix://[^/]*/", value):
        raise ValueError("must be http://host:port or unix:///path/to/socket")
    return value


def _split_paths(value: object) -> object:
    """Return the comma-separated paths in a string as a tuple, and any other value unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_absolute(value: tuple[str, ...]) -> tuple[str, ...]:
    for path in value:
        if not path.startswith("/"):
            raise ValueError(f"must be paths that start with /, got {path!r}")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """The operator's configuration. Field names are the variables' names in lower case.

    An upper bound without a comment only rejects an obvious mistake, such as a value in the wrong unit.

    A field is secret and never shown if its name contains KEY, SECRET, TOKEN or PASSWORD, or if its type is one of
    pydantic's secret types, such as SecretStr.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("0.0.0.0", min_length=1, description="Address to listen on; `::` accepts IPv6 and IPv4")  # noqa: S104 - a container's address is not known in advance
    port: Port = Field(8080, description="Port to listen on; 0 picks a free port")
    upstream_url: Annotated[str, AfterValidator(_check_http_url)] | None = Field(
        None, description="URL that `/api/relay` calls; unset: this service's own `/api/hello`"
    )
    upstream_service: str | None = Field(
        None,
        description="`peer.service` of those calls; unset: the upstream's host name, or `DD_SERVICE` for this service itself",
    )
    upstream_timeout_seconds: float = Field(
        5.0, gt=0, le=300, description="Time limit of an outbound call, from start to end"
    )
    upstream_connections: int = Field(
        100, ge=1, le=10_000, description="Maximum number of concurrent outbound connections"
    )
    upstream_waiting: int = Field(
        200, ge=0, le=100_000, description="Calls that may wait for a free connection; any more get a 503 at once"
    )
    upstream_body_bytes: int = Field(
        1_048_576, ge=1, le=1_073_741_824, description="Maximum size of an upstream response body"
    )
    body_bytes: int = Field(
        65_536,
        ge=1,
        le=1_073_741_824,
        description="Maximum size of a request body (larger: 413) and of a WebSocket message",
    )
    # Fargate kills a container 120 s after SIGTERM at the latest, so each stage of the stop is limited to 110 s.
    drain_seconds: float = Field(
        5.0, ge=0, le=110, description="First stage after SIGTERM: `/ready` returns 503, requests are still served"
    )
    graceful_seconds: float = Field(
        20.0, ge=0, le=110, description="Second stage: time for requests in flight to finish before they are canceled"
    )
    flush_seconds: float = Field(5.0, ge=0, le=110, description="Last stage: time to send the last spans to the agent")
    # 4000 s is the longest idle timeout of an Application Load Balancer, so no timeout of a connection needs more.
    keep_alive_seconds: float = Field(
        75.0,
        ge=1,
        le=4000,
        description="How long an idle connection stays open; set it above the load balancer's idle timeout (60)",
    )
    half_close_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="How long a response may take to start after the client has closed its side of the connection",
    )
    body_timeout_seconds: float = Field(
        30.0, ge=1, le=4000, description="Maximum time without receiving any of a request body (then 408)"
    )
    write_timeout_seconds: float = Field(
        30.0,
        ge=1,
        le=4000,
        description="Maximum time without the client reading any of a response, or without a response to a client that"
        " has closed its side or pipelined too much (then the connection is aborted)",
    )
    websocket_ping_seconds: float = Field(
        20.0,
        ge=1,
        le=4000,
        description="Time between WebSocket pings; without a pong within the same time, the WebSocket is closed",
    )
    http_implementation: Literal["httptools", "hypercorn"] = Field(
        "httptools",
        description="Implementation of HTTP and WebSocket; `hypercorn`: Hypercorn's own classes, as a fallback, "
        "without body, write and half-close timeouts and without WebSocket pings",
    )
    probe_paths: Annotated[tuple[str, ...], BeforeValidator(_split_paths), AfterValidator(_check_absolute)] = Field(
        ("/health", "/ready"), description="Paths without spans, stats and access-log lines"
    )
    info_details: bool = Field(
        False, description="Show settings, packages and ECS task at `/info` to every client; `dev` sets it"
    )
    faults: bool = Field(False, description="Serve `/api/faults/...`, endpoints that fail on purpose")
    local_view_url: Annotated[str, AfterValidator(_check_http_url)] | None = Field(
        None, description="URL of the trace page that `GET /` links to; `dev` sets it"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Minimum log level")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text if standard error is a terminal, JSON lines otherwise"
    )

    dd_service: str = Field("hello-service", min_length=1, description="Service name on every span")
    dd_env: str | None = Field(None, description="Environment on every span, such as `production`")
    dd_version: str | None = Field(None, description="Version on every span, such as `1.4.2`")
    dd_trace_enabled: bool = Field(True, description="`false`: no spans, and no ddtrace code in the request path")
    dd_trace_sample_rate: float | None = Field(
        None, ge=0, le=1, description="Fraction of traces to keep; `serve` turns it into `DD_TRACE_SAMPLING_RULES`"
    )
    trust_trace_headers: bool = Field(
        True,
        description="Set `false` at a public edge to ignore clients' trace ids, sampling decisions, tags and baggage",
    )
    dd_agent_host: str = Field("localhost", min_length=1, description="Host of the trace agent")
    dd_trace_agent_port: Annotated[int, Field(ge=1, le=65535)] = Field(8126, description="Port of the trace agent")
    dd_trace_agent_url: Annotated[str, AfterValidator(_check_agent_url)] | None = Field(
        None, description="`http://host:port` or `unix:///socket` of the agent; overrides host and port"
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check `environ`. An empty variable counts as unset.

        Raises:
            SettingsError: it lists every bad variable, not only the first.
        """
        values: dict[str, Any] = {name: value for name in cls.model_fields if (value := environ.get(name.upper()))}
        try:
            return cls(**values)
        except ValidationError as error:
            lines = [_error_line(problem, values, cls.secret_fields()) for problem in error.errors()]
            raise SettingsError("\n".join(lines)) from None

    @property
    def agent_url(self) -> str:
        """The trace agent's address in these settings, without credentials."""
        if self.dd_trace_agent_url is not None:
            return mask_credentials(self.dd_trace_agent_url)
        return http_url(self.dd_agent_host, self.dd_trace_agent_port)

    @property
    def stop_budget_seconds(self) -> float:
        """Longest time from SIGTERM to the exit of the process; the task's `stopTimeout` must be larger."""
        return self.drain_seconds + self.graceful_seconds + CLOSING_SECONDS + self.flush_seconds

    @classmethod
    def secret_fields(cls) -> frozenset[str]:
        """Return the names of the fields whose values must not be shown."""
        by_name = {name for name in cls.model_fields if SECRET_NAME.search(name)}
        by_type = {name for name, field in cls.model_fields.items() if _holds_secret(field.annotation)}
        return frozenset(by_name | by_type)

    def public(self) -> dict[str, Any]:
        """Return the settings by variable name, as JSON values, with secrets masked: fit for a log or a page."""
        secrets = self.secret_fields()
        return {
            name.upper(): MASK if name in secrets and value is not None else _mask_all_credentials(value)
            for name, value in self.model_dump(mode="json").items()
        }

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        """Keep secrets out of `repr()`, and so out of a log line that contains the settings."""
        return self.public().items()


def _holds_secret(annotation: object) -> bool:
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, (Secret, SecretBytes, SecretStr)):
        return True
    return any(map(_holds_secret, get_args(annotation)))


def _mask_all_credentials(value: Any) -> Any:
    """Return the JSON value `value` with the credentials of each URL in it masked."""
    if isinstance(value, str):
        return mask_credentials(value) if "://" in value else value
    if isinstance(value, list):
        return [_mask_all_credentials(item) for item in value]
    return value


def _error_line(problem: Mapping[str, Any], values: Mapping[str, str], secrets: Collection[str]) -> str:
    """Return a line of a SettingsError for one of pydantic's errors, with secrets masked."""
    name = str(problem["loc"][0])
    value = values.get(name, str(problem["input"]))
    masked = MASK if name in secrets else mask_credentials(value)
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ").replace(value, masked)
    if name in secrets and problem["type"] in {"value_error", "assertion_error"}:
        reason = "must be a value that its validator accepts"  # a validator's message may quote part of the secret
    elif not reason.startswith("must"):
        reason = f"must be {reason}"
    return f"{name.upper()}={masked!r}: {reason}"
