"""A correct task definition, and functions that change it, for the tests of deploy/check.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:datadog-AbCdEf"
REGISTRY = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
HEX_KEY = "0123456789abcdef" * 2
NAMES = {"DD_SERVICE": "orders", "DD_ENV": "prod", "DD_VERSION": "1.0.0"}
LOG = {"awslogs-group": "/ecs/orders", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "ecs"}

# Maps whose keys are the user's own, so CloudFormation spells them like the API.
USER_KEYS = {"dockerLabels", "options"}

Json = dict[str, Any]


class Definition:
    """A task definition with a service and an Agent. Each method changes it and returns it."""

    def __init__(self) -> None:
        self.service: Json = {
            "name": "orders",
            "image": f"{REGISTRY}/orders:1.0.0",
            "essential": True,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            "environment": [{"name": name, "value": value} for name, value in NAMES.items()],
            "dockerLabels": {f"com.datadoghq.tags.{name[3:].lower()}": value for name, value in NAMES.items()},
            "dependsOn": [{"containerName": "datadog-agent", "condition": "START"}],
            "healthCheck": {"command": ["CMD", "python", "-c", "import orders"]},
            "logConfiguration": {"logDriver": "awslogs", "options": dict(LOG)},
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

    def add(self, name: str, image: str, **fields: Any) -> Definition:
        """Add a container."""
        self.task["containerDefinitions"].append({"name": name, "image": image, **fields})
        return self

    def volume(self, name: str, **fields: Any) -> Definition:
        """Add a volume."""
        self.task.setdefault("volumes", []).append({"name": name, **fields})
        return self

    def mount(self, container: Json, name: str, path: str, **fields: Any) -> Definition:
        """Mount a volume in a container."""
        container.setdefault("mountPoints", []).append({"sourceVolume": name, "containerPath": path, **fields})
        return self

    def set(self, container: Json, name: str, value: Any) -> Definition:
        """Set an environment variable of a container."""
        container["environment"] = [entry for entry in container["environment"] if entry["name"] != name]
        container["environment"].append({"name": name, "value": value})
        return self


Change = Callable[[Definition], object]


def changed(*changes: Change) -> Json:
    """Return the correct definition with `changes` applied."""
    definition = Definition()
    for change in changes:
        change(definition)
    return copy.deepcopy(definition.task)


def service(name: str, value: Any) -> Change:
    """Set an environment variable of the service."""
    return lambda d: d.set(d.service, name, value)


def agent(name: str, value: Any) -> Change:
    """Set an environment variable of the Agent."""
    return lambda d: d.set(d.agent, name, value)


def to_service(**fields: Any) -> Change:
    """Set fields of the service's container."""
    return lambda d: d.service.update(fields)


def to_agent(**fields: Any) -> Change:
    """Set fields of the Agent's container."""
    return lambda d: d.agent.update(fields)


def to_task(**fields: Any) -> Change:
    """Set fields of the task."""
    return lambda d: d.task.update(fields)


def without(name: str) -> Change:
    """Remove a field of the task."""
    return lambda d: d.task.pop(name)


def as_cloudformation(value: Any) -> Any:
    """Return a copy of `value` with keys that begin with a capital, as CloudFormation spells them."""
    if isinstance(value, list):
        return [as_cloudformation(entry) for entry in value]
    if isinstance(value, dict):
        return {
            name[0].upper() + name[1:]: entry if name in USER_KEYS else as_cloudformation(entry)
            for name, entry in value.items()
        }
    return value
