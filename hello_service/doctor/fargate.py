"""The check of the service's ECS task, from its metadata endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from hello_service.doctor.context import CheckContext
from hello_service.doctor.finding import Finding, failed, passed, skipped, warned
from hello_service.doctor.wire import NoResponse, get

METADATA_SECONDS = 2.0  # for the response of the endpoint
# The last part of the docker label com.datadoghq.tags.* for each variable.
LABELS = {"DD_ENV": "env", "DD_SERVICE": "service", "DD_VERSION": "version"}


def task(context: CheckContext) -> Finding:
    """Check that the task has a running agent, and that its labels agree with the environment.

    Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4 for Fargate".
    """
    base = context.environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not base:
        return skipped("not in an ECS task")
    try:
        document = get(base, "/task", METADATA_SECONDS).document()
    except NoResponse as error:
        return warned(
            f"the task metadata endpoint: {error.reason.value}", "Unset ECS_CONTAINER_METADATA_URI_V4 outside of ECS"
        )
    containers = [entry for entry in document.get("Containers", []) if isinstance(entry, dict)]
    name = f"task {document.get('Family')}:{document.get('Revision')}"
    agents = [entry for entry in containers if "datadog/agent" in str(entry.get("Image"))]
    agent_is_local = context.address.usable and urlsplit(context.address.url).hostname in {"localhost", "127.0.0.1"}
    if not agents and agent_is_local and document.get("LaunchType") == "FARGATE":
        return failed(
            f"{name} has no agent container, and traces go to localhost", "Add one, as in deploy/task-definition.json"
        )
    for agent in agents:
        status, health = agent.get("KnownStatus"), (agent.get("Health") or {}).get("status")
        if status != "RUNNING" or health == "UNHEALTHY":
            state = f"{status}, {health}" if health else status
            return failed(f"{name}: the agent container is {state}", "Check the agent container's log")
    if differing := sorted(variable for variable in LABELS if _differs(variable, context.environ, containers)):
        sentence = f"{name}: the docker labels com.datadoghq.tags.* lack or contradict {', '.join(differing)}"
        return warned(sentence, "Set the labels, as in deploy/task-definition.json")
    plural = "" if len(agents) == 1 else "s"
    return passed(f"{name}: {len(agents)} agent container{plural}, labels agree with the environment")


def _differs(name: str, environ: Mapping[str, str], containers: list[dict[str, Any]]) -> bool:
    """Whether the variable `name` is set, and no container has its value as the label."""
    label = f"com.datadoghq.tags.{LABELS[name]}"
    values = {(entry.get("Labels") or {}).get(label) for entry in containers}
    return bool(environ.get(name)) and environ[name] not in values
