"""GET /health (alive), GET /ready (may take traffic), GET /info (what runs here)."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from time import monotonic
from typing import Any
from urllib.request import ProxyHandler, build_opener

from quart import Blueprint, current_app

from hello_service.settings import Settings

probes = Blueprint("probes", __name__)

PACKAGES = ("quart", "hypercorn", "ddtrace", "httpx")
METADATA_SECONDS = 1.0


@probes.get("/health")
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@probes.get("/ready")
async def ready() -> tuple[dict[str, str], int]:
    """Say whether this process may take traffic: 503 as soon as it is stopping."""
    if current_app.extensions["lifecycle"].stopping:
        return {"status": "stopping"}, 503
    return {"status": "ready"}, 200


@probes.get("/info")
async def info() -> dict[str, Any]:
    """Describe what runs here: versions, environment, ECS task, tracing. Holds no secret."""
    settings: Settings = current_app.extensions["settings"]
    return {
        "service": settings.dd_service,
        "env": settings.dd_env,
        "version": settings.dd_version,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "uptime_seconds": round(monotonic() - current_app.extensions["started"], 1),
        "in_flight": current_app.extensions["lifecycle"].in_flight,
        "rejected_requests": current_app.extensions["rejected_requests"](),
        "tasks": len(asyncio.all_tasks()),
        "tracing": current_app.extensions["tracing_status"](),
        "ecs": current_app.extensions["ecs"],
        "settings": settings.public(),
    }


async def ecs_task(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what ECS says of this task, None outside of ECS, `{"error": ...}` where it does not answer in 1 s.

    Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4 for Fargate".
    """
    base = environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not base:
        return None
    try:
        task = await asyncio.to_thread(_fetch, f"{base}/task")
    except (OSError, ValueError) as error:
        return {"error": f"the task metadata endpoint gave no answer: {type(error).__name__}"}
    wanted = ("Cluster", "TaskARN", "Family", "Revision", "LaunchType", "AvailabilityZone")
    return {name: task.get(name) for name in wanted}


def _fetch(url: str) -> dict[str, Any]:
    direct = build_opener(ProxyHandler({}))  # the endpoint is the task's own; a proxy must not see its address
    with direct.open(url, timeout=METADATA_SECONDS) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
