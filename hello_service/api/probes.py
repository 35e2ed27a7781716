"""GET /health (alive), GET /ready (may take traffic), GET /info (what runs here)."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from time import monotonic
from typing import Any, Literal
from urllib.request import ProxyHandler, build_opener

from pydantic import BaseModel
from quart import Blueprint
from quart_schema import document_response

from hello_service.api.openapi import response
from hello_service.api.services import services

probes = Blueprint("probes", __name__)

PACKAGES = ("quart", "hypercorn", "ddtrace", "httpx")
METADATA_SECONDS = 1.0


class Alive(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ready"]


class Stopping(BaseModel):
    status: Literal["stopping"]


@probes.get("/health")
@document_response(Alive)
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@probes.get("/ready")
@document_response(Ready)
@document_response(Stopping, 503)
async def ready() -> tuple[dict[str, str], int]:
    """Say whether this process may take traffic: 503 as soon as it is stopping."""
    if services().lifecycle.stopping:
        return {"status": "stopping"}, 503
    return {"status": "ready"}, 200


@probes.get("/info")
@response({"application/json": {"type": "object"}})
async def info() -> dict[str, Any]:
    """Describe what runs here: versions, environment, ECS task, tracing. Holds no secret."""
    found = services()
    settings = found.settings
    return {
        "service": settings.dd_service,
        "env": settings.dd_env,
        "version": settings.dd_version,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "uptime_seconds": round(monotonic() - found.started, 1),
        "in_flight": found.lifecycle.in_flight,
        "tasks": len(asyncio.all_tasks()),
        "tracing": found.tracing_status(),
        "ecs": found.ecs,
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
