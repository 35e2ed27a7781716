"""A correct task definition, and functions that change it, for the tests of deploy/check.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:datadog-AbCdEf"
REGISTRY = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
HEX_KEY = "0123456789abcdef" * 2  # has the form of a Datadog API key: 32 hexadecimal digits
UNIFIED_TAGS = {"DD_SERVICE": "orders", "DD_ENV": "prod", "DD_VERSION": "1.0.0"}
LOG_OPTIONS = {"awslogs-group": "/ecs/orders", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "ecs"}

# The keys in these fields are the user's own, so CloudFormation doesn't capitalize them.
FIELDS_WITH_USER_KEYS = {"dockerLabels", "options"}

Json = dict[str, Any]


class Definition:
    """A task definition with a service and an Agent. Each method changes it and returns it."""

    def __init__(self) -> None:
        self.service: Json = {
            "name": "orders",
            "image": f"{REGISTRY}/orders:1.0.0",
            "essential": True,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            "environment": [{"name": name, "value": value} for name, value in UNIFIED_TAGS.items()],
            "dockerLabels": {
                f"com.datadoghq.tags.{name.removeprefix('DD_').lower()}": value for name, value in UNIFIED_TAGS.items()
            },
            "dependsOn": [{"containerName": "datadog-agent", "condition": "START"}],
            "healthCheck": {"command": ["CMD", "python", "-c", "import orders"]},
            "logConfiguration": {"logDriver": "awslogs", "options": dict(LOG_OPTIONS)},
        }
        self.agent: Json = {
            "name": "datadog-agent",
            "image": "public.ecr.aws/datadog/agent:7.60.0",
            "essential": False,
            "memory": 512,
            "environment": [{"name": "ECS_FARGATE", "value": "true"}],
            "secrets": [{"name": "DD_API_KEY", "valueFrom": f"{SECRET}:DD_API_KEY::"}],
            "healthCheck": {"command": ["CMD-SHELL", "agent health"]},
        }
        self.task: Json = {
            "family": "orders",
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": "512",
            "memory": "1024",
            "executionRoleArn": ROLE,
            "containerDefinitions": [self.service, self.agent],
        }

    def add_container(self, name: str, image: str, **fields: Any) -> Definition:
        self.task["containerDefinitions"].append({"name": name, "image": image, **fields})
        return self

    def add_volume(self, name: str, **fields: Any) -> Definition:
        self.task.setdefault("volumes", []).append({"name": name, **fields})
        return self

    def mount(self, container: Json, name: str, path: str, **fields: Any) -> Definition:
        container.setdefault("mountPoints", []).append({"sourceVolume": name, "containerPath": path, **fields})
        return self

    def set_variable(self, container: Json, name: str, value: Any) -> Definition:
        container["environment"] = [entry for entry in container["environment"] if entry["name"] != name]
        container["environment"].append({"name": name, "value": value})
        return self


Change = Callable[[Definition], object]


def changed(*changes: Change) -> Json:
    """Return the correct definition with `changes` applied. It shares no values with them."""
    definition = Definition()
    for change in changes:
        change(definition)
    return copy.deepcopy(definition.task)


def service_variable(name: str, value: Any) -> Change:
    """Return a change that sets an environment variable of the service."""
    return lambda definition: definition.set_variable(definition.service, name, value)


def agent_variable(name: str, value: Any) -> Change:
    """Return a change that sets an environment variable of the Agent."""
    return lambda definition: definition.set_variable(definition.agent, name, value)


def service_fields(**fields: Any) -> Change:
    """Return a change that sets fields of the service's container."""
    return lambda definition: definition.service.update(fields)


def agent_fields(**fields: Any) -> Change:
    """Return a change that sets fields of the Agent's container."""
    return lambda definition: definition.agent.update(fields)


def task_fields(**fields: Any) -> Change:
    """Return a change that sets fields of the task."""
    return lambda definition: definition.task.update(fields)


def without_field(name: str) -> Change:
    """Return a change that removes a field of the task."""
    return lambda definition: definition.task.pop(name)


def as_cloudformation(value: Any) -> Any:
    """Return a copy of `value` with keys that begin with a capital letter, as CloudFormation spells them."""
    if isinstance(value, list):
        return [as_cloudformation(entry) for entry in value]
    if isinstance(value, dict):
        result = {}
        for name, entry in value.items():
            capitalized = name[0].upper() + name[1:]
            result[capitalized] = entry if name in FIELDS_WITH_USER_KEYS else as_cloudformation(entry)
        return result
    return value
