"""A correct task definition, and the changes with which the tables of test_check.py break it."""

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

Json = dict[str, Any]


class Definition:
    """A task definition with a service and an Agent, and how to change it. Each method returns the definition."""

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
        """Mount a volume."""
        container.setdefault("mountPoints", []).append({"sourceVolume": name, "containerPath": path, **fields})
        return self

    def set(self, container: Json, name: str, value: Any) -> Definition:
        """Set a variable."""
        container["environment"] = [entry for entry in container["environment"] if entry["name"] != name]
        container["environment"].append({"name": name, "value": value})
        return self


Change = Callable[[Definition], object]


def changed(*changes: Change) -> Json:
    """Return the definition without a mistake, after `changes`."""
    definition = Definition()
    for change in changes:
        change(definition)
    return copy.deepcopy(definition.task)


def service(name: str, value: Any) -> Change:
    """Set a variable of the service."""
    return lambda d: d.set(d.service, name, value)


def agent(name: str, value: Any) -> Change:
    """Set a variable of the Agent."""
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


def capitals(value: Any) -> Any:
    """Return `value` with CloudFormation's names; the keys of labels and log options stay."""
    if isinstance(value, list):
        return [capitals(entry) for entry in value]
    if isinstance(value, dict):
        own = {"dockerLabels", "options"}
        return {name[0].upper() + name[1:]: entry if name in own else capitals(entry) for name, entry in value.items()}
    return value
