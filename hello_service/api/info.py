"""GET /info: the service and whether it is traced. Details are for the operator only."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import platform
import re
from collections.abc import Mapping
from http.client import HTTPException
from importlib.metadata import version
from time import monotonic
from typing import Any
from urllib.request import ProxyHandler, build_opener

from quart import Blueprint, Request, request

from hello_service.api.openapi import response
from hello_service.api.services import services

info = Blueprint("info", __name__)

PACKAGES = ("quart", "hypercorn", "ddtrace", "httpx")
METADATA_SECONDS = 1.0  # timeout of each socket operation; the service starts only afterwards
# Headers that a proxy adds to a request that it forwards.
PROXY_HEADERS = re.compile(r"forwarded|x-forwarded|x-forwarded-.*|x-real-ip|via", re.IGNORECASE)
PUBLIC_TRACING_FIELDS = ("active", "reason", "traces_lost")


@info.get("/info")
@response({"application/json": {"type": "object"}})
async def show_info() -> dict[str, Any]:
    """Describe the service: name, version, environment, whether it is traced, and lost traces. It shows no secret.

    With `INFO_DETAILS=true`, or to a client on the same host, it also shows packages, settings, ECS task and load.
    """
    app_services = services()
    settings, tracing = app_services.settings, app_services.tracing_status()
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
        "uptime_seconds": round(monotonic() - app_services.started, 1),
        "in_flight": app_services.lifecycle.in_flight,
        "rejected_requests": app_services.rejected_requests(),
        "tasks": len(asyncio.all_tasks()),
        "tracing": tracing,
        "ecs": app_services.ecs,
        "settings": settings.public(),
    }


def _is_local(incoming: Request) -> bool:
    """Whether `incoming` arrived over loopback, and no header shows that a proxy forwarded it."""
    host, *_ = incoming.scope.get("client") or ("",)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket or a test client, which have no IP address
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # an IPv4 client of a dual-stack socket
    return address.is_loopback and not any(PROXY_HEADERS.fullmatch(name) for name, _ in incoming.headers)


async def ecs_task(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return ECS's metadata of this task, None outside of ECS, or `{"error": ...}` without a usable response.

    Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4 for Fargate".
    """
    base = environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not base:
        return None
    try:
        task = await asyncio.to_thread(_fetch, f"{base}/task")
    except (OSError, HTTPException, RecursionError, TypeError, ValueError) as error:
        return {"error": f"no usable response from the task metadata endpoint: {type(error).__name__}"}
    fields = ("Cluster", "TaskARN", "Family", "Revision", "LaunchType", "AvailabilityZone")
    return {name: task.get(name) for name in fields}


def _fetch(url: str) -> dict[str, Any]:
    opener = build_opener(ProxyHandler({}))  # no proxy: only the task itself can reach this address
    with opener.open(url, timeout=METADATA_SECONDS) as response:
        document = json.load(response)
    if not isinstance(document, dict):
        raise TypeError(f"expected a JSON object, got {document!r}")
    return document
