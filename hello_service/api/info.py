"""GET /info: the service and whether it is traced. Details are for the operator only."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from time import monotonic
from typing import Any
from urllib.request import ProxyHandler, build_opener

from quart import Blueprint, Request, request

from hello_service.api.openapi import response
from hello_service.api.services import services

info = Blueprint("info", __name__)

PACKAGES = ("quart", "hypercorn", "ddtrace", "httpx")
METADATA_SECONDS = 1.0
PROXY_HEADERS = re.compile(r"forwarded|x-forwarded|x-forwarded-.*|x-real-ip|via", re.IGNORECASE)
PUBLIC_TRACING_FIELDS = ("active", "reason", "traces_lost")


@info.get("/info")
@response({"application/json": {"type": "object"}})
async def show_info() -> dict[str, Any]:
    """Describe the service: name, version, environment, whether it is traced, traces lost. Contains no secret.

    With `INFO_DETAILS=true`, and for a client on the same host, also packages, settings, ECS task and current load.
    """
    found = services()
    settings, tracing = found.settings, found.tracing_status()
    public = {
        "service": settings.dd_service,
        "env": settings.dd_env,
        "version": settings.dd_version,
        "tracing": {name: tracing[name] for name in PUBLIC_TRACING_FIELDS},
    }
    if not settings.info_details and not _is_local(request):
        return public
    return {
        **public,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "uptime_seconds": round(monotonic() - found.started, 1),
        "in_flight": found.lifecycle.in_flight,
        "rejected_requests": found.rejected_requests(),
        "tasks": len(asyncio.all_tasks()),
        "tracing": tracing,
        "ecs": found.ecs,
        "settings": settings.public(),
    }


def _is_local(caller: Request) -> bool:
    """Whether `caller` connected over loopback, and no header shows that it is a proxy for another client."""
    host, *_ = caller.scope.get("client") or ("",)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket, or a test
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # IPv4 on a socket that accepts both
    return address.is_loopback and not any(PROXY_HEADERS.fullmatch(name) for name, _ in caller.headers)


async def ecs_task(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return ECS's metadata of this task, None outside of ECS, `{"error": ...}` without a response within 1 s.

    Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4 for Fargate".
    """
    base = environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not base:
        return None
    try:
        task = await asyncio.to_thread(_fetch, f"{base}/task")
    except (OSError, ValueError) as error:
        return {"error": f"no response from the task metadata endpoint: {type(error).__name__}"}
    wanted = ("Cluster", "TaskARN", "Family", "Revision", "LaunchType", "AvailabilityZone")
    return {name: task.get(name) for name in wanted}


def _fetch(url: str) -> dict[str, Any]:
    direct = build_opener(ProxyHandler({}))  # the endpoint is the task's own; a proxy must not see its address
    with direct.open(url, timeout=METADATA_SECONDS) as response:
        document: dict[str, Any] = json.load(response)
        return document
