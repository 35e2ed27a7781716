"""deploy/task-definition.json, asked of those who know the format, and held against what it repeats of other files."""

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
from fargate import VALUES, filled
from running import BIN, ROOT

from hello_service.settings import Settings

pytestmark = pytest.mark.deployment

# Maps whose keys are a person's own words, which CloudFormation does not spell with a capital.
OWN_WORDS = {"dockerLabels", "options"}


def containers() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in filled()["containerDefinitions"]}


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def register_model() -> Any:
    model = ServiceModel(Loader().load_service_model("ecs", "service-2"))
    return model.operation_model("RegisterTaskDefinition").input_shape


def wrong_enums(shape: Any, value: Any, where: str = "") -> Iterator[str]:
    """Yield each value that the model of the API does not list, which botocore itself lets through."""
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


def as_cloudformation(value: Any) -> Any:
    """Spell keys as CloudFormation does."""
    if isinstance(value, list):
        return [as_cloudformation(each) for each in value]
    if isinstance(value, dict):
        return {
            key[0].upper() + key[1:]: each if key in OWN_WORDS else as_cloudformation(each)
            for key, each in value.items()
        }
    return value


def test_the_api_knows_every_key_and_value() -> None:
    """botocore's model of RegisterTaskDefinition: keys, types, required ones, and each enumeration."""
    shape = register_model()

    assert ParamValidator().validate(filled(), shape).generate_report() == ""
    assert list(wrong_enums(shape, filled())) == []


def test_a_wrong_value_would_be_seen() -> None:
    """The walk over the enumerations finds one that is deep inside."""
    wrong = filled()
    wrong["containerDefinitions"][0]["dependsOn"][0]["condition"] = "READY"

    (found,) = wrong_enums(register_model(), wrong)
    assert found.startswith(".containerDefinitions[].dependsOn[].condition: 'READY'")


def test_cloudformation_would_take_it(tmp_path: Path) -> None:
    """cfn-lint, which knows what Fargate lacks, has nothing to say on it as AWS::ECS::TaskDefinition."""
    template = tmp_path / "task.yaml"
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": as_cloudformation(filled())}
    template.write_text(yaml.safe_dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Task": resource}}))
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--", str(template)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("", 0)


def test_every_placeholder_is_one_that_the_script_fills_in() -> None:
    """None is left over, and none is filled in that is not there."""
    assert set(definition.PLACEHOLDER.findall(definition.FILE.read_text())) == set(VALUES)


def test_a_missing_value_is_named() -> None:
    """Each placeholder without a value, in one sentence."""
    with pytest.raises(Failure, match=r"placeholders without a value: IMAGE, REGION\. Add --fill IMAGE"):
        definition.fill(definition.FILE.read_text(), {**VALUES, "IMAGE": "", "REGION": ""})


def test_a_value_can_not_break_out_of_its_string() -> None:
    """Quotes in a value stay a part of it."""
    assert json.loads(definition.fill('{"a": "${A}"}', {"A": 'x", "b": "y'})) == {"a": 'x", "b": "y'}


def test_the_agent_knows_that_it_is_on_fargate() -> None:
    """ECS_FARGATE, no DD_HOSTNAME, 512 MiB, its own health check, the key from the secret's JSON and nowhere else."""
    agent = containers()["datadog-agent"]

    assert environment(agent)["ECS_FARGATE"] == "true"
    assert "DD_HOSTNAME" not in environment(agent)
    assert agent["memory"] >= 512
    assert agent["healthCheck"]["command"] == ["CMD-SHELL", "agent health"]
    assert agent["secrets"] == [{"name": "DD_API_KEY", "valueFrom": f"{VALUES['SECRET_ARN']}:DD_API_KEY::"}]
    assert "secrets" not in containers()["service"]
    assert "DD_API_KEY" not in environment(agent)


def test_the_service_is_tagged_for_tracer_and_agent() -> None:
    """Environment and labels say the same service, env and version."""
    service = containers()["service"]
    labels = service["dockerLabels"]

    for tag in ("service", "env", "version"):
        assert environment(service)[f"DD_{tag.upper()}"] == labels[f"com.datadoghq.tags.{tag}"]


def test_the_service_waits_for_its_agent_and_stops_before_it() -> None:
    """`dependsOn` START, so that an API key that Datadog refuses stops no task; an Agent that dies is started again."""
    service, agent = containers()["service"], containers()["datadog-agent"]

    assert service["dependsOn"] == [{"containerName": "datadog-agent", "condition": "START"}]
    assert (service["essential"], agent["essential"], agent["restartPolicy"]["enabled"]) == (True, False, True)


def test_the_health_check_is_that_of_the_image() -> None:
    """ECS does not look at the Dockerfile's: the two are the same."""
    (check,) = re.findall(r"^ +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert containers()["service"]["healthCheck"]["command"] == ["CMD", *json.loads(check)]


def test_a_stop_has_the_time_it_needs() -> None:
    """ECS kills after `stopTimeout`, at most 120 s on Fargate: the service's own budget is shorter."""
    service = containers()["service"]
    budget = Settings.from_environment(environment(service)).stop_budget_seconds

    assert budget < service["stopTimeout"] <= 120


def test_the_containers_fit_into_the_task() -> None:
    """Their memory is the task's, and each writes its log where a full log can't stop it."""
    definition = filled()

    assert sum(each["memory"] for each in containers().values()) <= int(definition["memory"])
    for each in containers().values():
        assert each["logConfiguration"]["options"]["mode"] == "non-blocking"
    assert containers()["service"]["readonlyRootFilesystem"]
    assert containers()["service"]["user"] == "10001:10001"
