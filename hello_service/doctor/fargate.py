"""The check of the ECS task around the service, as its metadata endpoint tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from hello_service.doctor.case import Case
from hello_service.doctor.finding import Finding, failed, passed, skipped, warned
from hello_service.doctor.wire import NoAnswer, get

METADATA_SECONDS = 2.0
LABELS = {"DD_ENV": "env", "DD_SERVICE": "service", "DD_VERSION": "version"}


def task(case: Case) -> Finding:
    """Whether the task holds an agent that runs, and whether the labels say what the environment says.

    Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4 for Fargate".
    """
    base = case.environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not base:
        return skipped("not in an ECS task")
    try:
        document = get(base, "/task", METADATA_SECONDS).document()
    except NoAnswer as none:
        return warned(
            f"the task metadata endpoint: {none.reason.value}", "Unset ECS_CONTAINER_METADATA_URI_V4 outside of ECS"
        )
    containers = [entry for entry in document.get("Containers", []) if isinstance(entry, dict)]
    called = f"task {document.get('Family')}:{document.get('Revision')}"
    agents = [entry for entry in containers if "datadog/agent" in str(entry.get("Image"))]
    here = urlsplit(case.address.url).hostname in {"localhost", "127.0.0.1"} if case.address.usable else False
    if not agents and here and document.get("LaunchType") == "FARGATE":
        return failed(
            f"{called} has no agent container, and traces go to localhost", "Add it: deploy/task-definition.json"
        )
    for agent in agents:
        health = (agent.get("Health") or {}).get("status")
        if agent.get("KnownStatus") != "RUNNING" or health == "UNHEALTHY":
            said = f"{called}: the agent container is {agent.get('KnownStatus')}{f', {health}' if health else ''}"
            return failed(said, "Look at the agent container's log")
    if differing := sorted(name for name in LABELS if _differs(name, case.environ, containers)):
        said = f"{called}: the docker labels com.datadoghq.tags.* lack or contradict {', '.join(differing)}"
        return warned(said, "Set the labels: deploy/task-definition.json shows them")
    return passed(f"{called}: {len(agents)} agent container, labels as the environment")


def _differs(name: str, environ: Mapping[str, str], containers: list[dict[str, Any]]) -> bool:
    label = f"com.datadoghq.tags.{LABELS[name]}"
    said = {(entry.get("Labels") or {}).get(label) for entry in containers}
    return bool(environ.get(name)) and environ[name] not in said
