"""Tests of deploy/task-definition.json: botocore and cfn-lint accept it, and it agrees with other files."""

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
    return {each["name"]: each for each in filled_definition()["containerDefinitions"]}


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def input_shape() -> Any:
    """Return botocore's model of RegisterTaskDefinition's parameters."""
    model = ServiceModel(Loader().load_service_model("ecs", "service-2"))
    return model.operation_model("RegisterTaskDefinition").input_shape


def wrong_enums(shape: Any, value: Any, where: str = "") -> Iterator[str]:
    """Yield an error for each value that is not in its enumeration, which botocore does not validate."""
    if isinstance(shape, StructureShape):
        for name, member in value.items():
            yield from wrong_enums(shape.members[name], member, f"{where}.{name}")
    elif isinstance(shape, ListShape):
        for member in value:
            yield from wrong_enums(shape.member, member, f"{where}[]")
    elif isinstance(shape, MapShape):
        for member in value.values():
            yield from wrong_enums(shape.value, member, f"{where}{{}}")
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where}: {value!r} is none of {shape.enum}"


def test_the_api_accepts_every_key_and_value() -> None:
    """botocore's model has every key, with the type of its value, and every value of an enumeration."""
    shape = input_shape()

    assert ParamValidator().validate(filled_definition(), shape).generate_report() == ""
    assert list(wrong_enums(shape, filled_definition())) == []


def test_a_wrong_value_of_an_enumeration_is_found() -> None:
    """It may be deeply nested."""
    wrong = filled_definition()
    wrong["containerDefinitions"][0]["dependsOn"][0]["condition"] = "READY"

    (error,) = wrong_enums(input_shape(), wrong)
    assert error.startswith(".containerDefinitions[].dependsOn[].condition: 'READY'")


def test_cloudformation_would_accept_the_definition(tmp_path: Path) -> None:
    """cfn-lint, which also checks Fargate's limits, has no finding for it as an AWS::ECS::TaskDefinition."""
    template = tmp_path / "task.yaml"
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": as_cloudformation(filled_definition())}
    template.write_text(yaml.safe_dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Task": resource}}))
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--", str(template)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("", 0)


def test_values_are_defined_for_exactly_the_placeholders() -> None:
    assert set(definition.PLACEHOLDER.findall(definition.FILE.read_text())) == set(VALUES)


def test_missing_values_are_reported() -> None:
    """One message has every placeholder without a value."""
    with pytest.raises(Failure, match=r"placeholders without a value: IMAGE, REGION\. Add --fill IMAGE"):
        definition.fill(definition.FILE.read_text(), {**VALUES, "IMAGE": "", "REGION": ""})


def test_a_value_cannot_break_out_of_its_string() -> None:
    """Quotes in a value are escaped."""
    assert json.loads(definition.fill('{"a": "${A}"}', {"A": 'x", "b": "y'})) == {"a": 'x", "b": "y'}


def test_the_agent_is_configured_for_fargate() -> None:
    """It has ECS_FARGATE, no DD_HOSTNAME, 512 MiB and its own health check. Only the secret has its key."""
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
    """It doesn't wait until the Agent is healthy, so a rejected API key stops no task. A dead Agent is restarted."""
    service, agent = containers()["service"], containers()["datadog-agent"]

    assert service["dependsOn"] == [{"containerName": "datadog-agent", "condition": "START"}]
    assert (service["essential"], agent["essential"], agent["restartPolicy"]["enabled"]) == (True, False, True)


def test_the_health_check_is_that_of_the_image() -> None:
    """ECS ignores the Dockerfile's health check, so the definition repeats it."""
    (check,) = re.findall(r"^ +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert containers()["service"]["healthCheck"]["command"] == ["CMD", *json.loads(check)]


def test_the_service_stops_within_the_stop_timeout() -> None:
    """ECS kills the container after `stopTimeout`, at most 120 s on Fargate. The service's budget must be shorter."""
    service = containers()["service"]
    budget = Settings.from_environment(environment(service)).stop_budget_seconds

    assert budget < service["stopTimeout"] <= 120


def test_the_containers_fit_into_the_task() -> None:
    """Together they reserve no more memory than the task has. Also, a full log blocks no container."""
    definition = filled_definition()

    assert sum(each["memory"] for each in containers().values()) <= int(definition["memory"])
    for each in containers().values():
        assert each["logConfiguration"]["options"]["mode"] == "non-blocking"
    assert containers()["service"]["readonlyRootFilesystem"]
    assert containers()["service"]["user"] == "10001:10001"
