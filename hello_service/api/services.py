"""The typed services that `create_app` opens for handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quart import current_app

from hello_service.clients.upstream import Upstream
from hello_service.middleware.in_flight import Lifecycle
from hello_service.settings import Settings


@dataclass(frozen=True)
class Services:
    """The services that are open while the app serves.

    Attributes:
        upstream: the peer of `/api/relay`.
        tracing_status: returns the fields of `tracing` at `/info`, such as whether this process is traced.
        rejected_requests: returns the number of requests that the server rejected, by reason.
        ecs: ECS's metadata of this task; None outside of ECS.
        started: the `time.monotonic()` at which the app started to serve.
    """

    settings: Settings
    lifecycle: Lifecycle
    upstream: Upstream
    tracing_status: Callable[[], Mapping[str, Any]]
    rejected_requests: Callable[[], Mapping[str, int]]
    ecs: Mapping[str, Any] | None
    started: float


def services() -> Services:
    """Return the services of the app that handles the current request."""
    app_services: Services = current_app.extensions["services"]
    return app_services
