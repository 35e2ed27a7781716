"""Tests of deploy/task-definition.json: botocore and cfn-lint accept it, and it agrees with the service's code."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import definition
import pytest
import yaml
from aws_cli import Failure
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, StructureShape
from botocore.validate import ParamValidator
from fargate import VALUES, filled_definition
from running import BIN, ROOT
from task_definitions import as_cloudformation

from hello_service.settings import Settings

pytestmark = pytest.mark.deployment


def containers() -> dict[str, dict[str, Any]]:
    """Return the containers of the filled-in definition by name."""
    return {container["name"]: container for container in filled_definition()["containerDefinitions"]}


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["environment"]}


def input_shape() -> Any:
    """Return botocore's model of RegisterTaskDefinition's parameters."""
    model = ServiceModel(Loader().load_service_model("ecs", "service-2"))
    return model.operation_model("RegisterTaskDefinition").input_shape


def enum_errors(shape: Any, value: Any, path: str = "") -> Iterator[str]:
    """Yield an error for each value that is not in its enumeration. botocore itself does not check enumerations."""
    if isinstance(shape, StructureShape):
        for name, member in value.items():
            yield from enum_errors(shape.members[name], member, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        for member in value:
            yield from enum_errors(shape.member, member, f"{path}[]")
    elif isinstance(shape, MapShape):
        for member in value.values():
            yield from enum_errors(shape.value, member, f"{path}{{}}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}: {value!r} is not one of {shape.enum}"


def test_the_api_accepts_every_key_and_value() -> None:
    """botocore's model has every key, the type of its value, and every value of an enumeration."""
    shape = input_shape()

    assert ParamValidator().validate(filled_definition(), shape).generate_report() == ""
    assert list(enum_errors(shape, filled_definition())) == []


def test_a_wrong_value_of_an_enumeration_is_reported() -> None:
    """This proves that `enum_errors` can find it, even deep inside the definition."""
    wrong_definition = filled_definition()
    wrong_definition["containerDefinitions"][0]["dependsOn"][0]["condition"] = "READY"

    (error,) = enum_errors(input_shape(), wrong_definition)
    assert error.startswith(".containerDefinitions[].dependsOn[].condition: 'READY'")


def test_cloudformation_would_accept_the_definition(tmp_path: Path) -> None:
    """cfn-lint, which also checks Fargate's limits, accepts the definition as an AWS::ECS::TaskDefinition."""
    template = tmp_path / "task.yaml"
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": as_cloudformation(filled_definition())}
    template.write_text(yaml.safe_dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Task": resource}}))
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--", str(template)]  # I: informational rules, too
    process = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (process.stdout, process.returncode) == ("", 0)


def test_these_tests_have_a_value_for_each_placeholder() -> None:
    assert set(definition.PLACEHOLDER.findall(definition.FILE.read_text())) == set(VALUES)


def test_missing_values_are_reported() -> None:
    """One message lists every placeholder without a value."""
    with pytest.raises(Failure, match=r"placeholders without a value: IMAGE, REGION\. Add --fill IMAGE"):
        definition.fill(definition.FILE.read_text(), {**VALUES, "IMAGE": "", "REGION": ""})


def test_a_value_cannot_break_out_of_its_string() -> None:
    """Quotes in a value are escaped."""
    assert json.loads(definition.fill('{"a": "${A}"}', {"A": 'x", "b": "y'})) == {"a": 'x", "b": "y'}


def test_the_agent_is_configured_for_fargate() -> None:
    """The Agent has ECS_FARGATE, no DD_HOSTNAME, its own health check and at least 512 MiB of memory.

    Its key is only in the secret.
    """
    agent = containers()["datadog-agent"]

    assert environment(agent)["ECS_FARGATE"] == "true"
    assert "DD_HOSTNAME" not in environment(agent)
    assert agent["memory"] >= 512
    assert agent["healthCheck"]["command"] == ["CMD-SHELL", "agent health"]
    assert agent["secrets"] == [{"name": "DD_API_KEY", "valueFrom": f"{VALUES['SECRET_ARN']}:DD_API_KEY::"}]
    assert "secrets" not in containers()["service"]
    assert "DD_API_KEY" not in environment(agent)


def test_the_service_is_tagged_for_tracer_and_agent() -> None:
    """Environment and labels have the same service, env and version."""
    service = containers()["service"]
    labels = service["dockerLabels"]

    for tag in ("service", "env", "version"):
        assert environment(service)[f"DD_{tag.upper()}"] == labels[f"com.datadoghq.tags.{tag}"]


def test_the_service_waits_for_its_agent_and_stops_before_it() -> None:
    """The service also starts if the Agent is unhealthy, so a rejected API key doesn't stop the task."""
    service, agent = containers()["service"], containers()["datadog-agent"]

    assert service["dependsOn"] == [{"containerName": "datadog-agent", "condition": "START"}]
    assert service["essential"]
    assert not agent["essential"]
    assert agent["restartPolicy"]["enabled"]  # a dead Agent is restarted


def test_the_health_check_is_that_of_the_image() -> None:
    """ECS ignores the Dockerfile's health check, so the definition repeats it."""
    # The CMD of the health check is indented, unlike the CMD that starts the service.
    (check_command,) = re.findall(r"^ +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert containers()["service"]["healthCheck"]["command"] == ["CMD", *json.loads(check_command)]


def test_the_service_stops_within_the_stop_timeout() -> None:
    """ECS kills the container after `stopTimeout`, at most 120 s on Fargate. The service's budget must be shorter."""
    service = containers()["service"]
    budget = Settings.from_environment(environment(service)).stop_budget_seconds

    assert budget < service["stopTimeout"] <= 120


def test_the_containers_fit_into_the_memory_of_the_task() -> None:
    memory_of_containers = sum(container["memory"] for container in containers().values())

    assert memory_of_containers <= int(filled_definition()["memory"])


def test_a_full_log_blocks_no_container() -> None:
    for container in containers().values():
        assert container["logConfiguration"]["options"]["mode"] == "non-blocking"


def test_the_service_is_not_root_and_writes_no_files() -> None:
    service = containers()["service"]

    assert service["user"] == "10001:10001"
    assert service["readonlyRootFilesystem"]
