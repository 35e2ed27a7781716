"""What handlers work with: everything that `create_app` opened for them, typed."""

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
    """What is open while the app serves.

    Attributes:
        upstream: the peer of `/api/relay`.
        tracing_status: returns whether this process is traced, why not, and the traces lost, as JSON values.
        rejected_requests: returns how many requests the server rejected, by reason.
        ecs: what ECS reports of this task; None outside of ECS.
        started: when the app began to serve, by `time.monotonic()`.
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
    found: Services = current_app.extensions["services"]
    return found
