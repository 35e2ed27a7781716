"""Tests of the files that deploy/check.py reads and rejects, and of its command line.

A value is open if it isn't known yet, such as `${NAME}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import task_check
from moto.server import ThreadedMotoServer
from running import BIN, ROOT, clean_environment
from task_definitions import (
    HEX_KEY,
    REGISTRY,
    SECRET,
    agent_fields,
    agent_variable,
    as_cloudformation,
    changed,
    service_fields,
    service_variable,
    task_fields,
)

pytestmark = pytest.mark.deployment

SHIPPED = ROOT / "deploy" / "task-definition.json"
CHECK = [sys.executable, str(ROOT / "deploy" / "check.py")]


@pytest.fixture(autouse=True)
def _without_cfn_lint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off cfn-lint in this process, because it is slow, for all tests but that of the shipped file."""
    if request.function is not test_the_shipped_file_passes:
        monkeypatch.setattr(task_check, "lint", lambda *_: [])


def broken_rules(data: str | bytes) -> list[str]:
    return [finding.rule for finding in task_check.check(data).findings]


def as_template(task: dict[str, Any], **other_resources: Any) -> dict[str, Any]:
    """Return a CloudFormation template with the definition `task`."""
    return {
        "Resources": {
            "Task": {"Type": "AWS::ECS::TaskDefinition", "Properties": as_cloudformation(task)},
            **other_resources,
        }
    }


def as_registered(task: dict[str, Any]) -> dict[str, Any]:
    """Return a definition as ECS returns it: with the fields that ECS adds, and with empty values."""
    added_fields = {
        "revision": 7,
        "status": "ACTIVE",
        "registeredBy": "x",
        "compatibilities": ["EC2", "FARGATE"],
        "volumes": [],
    }
    empty_fields = {"cpu": 0, "mountPoints": [], "systemControls": []}
    containers = [{**empty_fields, **container} for container in task["containerDefinitions"]]
    return {**task, **added_fields, "containerDefinitions": containers}


# The forms in which users keep a definition, each with a function that converts a definition to it.
FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "registered": as_registered,
    "described": lambda task: {"taskDefinition": as_registered(task), "tags": []},
    "containers": lambda task: task["containerDefinitions"],
    "template": as_template,
    "resource": lambda task: as_template(task)["Resources"]["Task"],
    "properties": as_cloudformation,
    "capitalized containers": lambda task: as_cloudformation(task)["ContainerDefinitions"],
    "containers as text": lambda task: {**task, "containerDefinitions": json.dumps(task["containerDefinitions"])},
    "several": lambda task: [task, {"taskDefinition": task}],
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": str.encode,
    "utf-8 with BOM": lambda text: text.encode("utf-8-sig"),
    "utf-16 with BOM": lambda text: text.encode("utf-16"),
    "utf-16 without BOM": lambda text: text.encode("utf-16-le"),
}


def test_the_shipped_file_passes() -> None:
    assert task_check.check(SHIPPED.read_bytes()) == task_check.Report(findings=[], notes=[])


@pytest.mark.parametrize("convert", FORMS.values(), ids=FORMS)
def test_every_form_is_read(convert: Callable[[dict[str, Any]], Any]) -> None:
    correct, broken = changed(), changed(agent_variable("DD_APM_ENABLED", "false"))

    assert broken_rules(json.dumps(convert(correct))) == []
    assert set(broken_rules(json.dumps(convert(broken)))) == {"apm-disabled"}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_every_encoding_is_read(encode: Callable[[str], bytes]) -> None:
    """The finding shows that the content was read."""
    assert broken_rules(encode(json.dumps(changed(service_fields(user=None)), indent=1))) == ["null-field"]


def test_a_template_in_yaml_is_read() -> None:
    text = f"""
Resources:
  Task:
    Type: AWS::ECS::TaskDefinition
    Properties:
      Family: orders
      Cpu: 256
      Memory: 512
      NetworkMode: awsvpc
      RequiresCompatibilities: [FARGATE]
      ExecutionRoleArn: !GetAtt Role.Arn
      ContainerDefinitions:
        - Name: datadog-agent
          Image: !Sub "${{AWS::AccountId}}.dkr.ecr.${{AWS::Region}}.amazonaws.com/datadog/agent:7.60.0"
          Environment: [{{Name: ECS_FARGATE, Value: true}}, {{Name: DD_API_KEY, Value: !Ref Key}}]
          DockerLabels: {{owner: {HEX_KEY}}}
"""
    (finding,) = task_check.check(text).findings

    # The registered definition would have DD_API_KEY in plain text. The label's name is not that of a key.
    assert (finding.rule, finding.container) == ("key-in-clear", "datadog-agent")
    assert "`DD_API_KEY`" in finding.sentence


def test_cloudformation_functions_are_resolved_as_far_as_the_file_allows() -> None:
    task = as_cloudformation(changed())
    service, agent = task["ContainerDefinitions"]
    task.update(
        ExecutionRoleArn={"Fn::GetAtt": ["Role", "Arn"]},
        Cpu={"Ref": "Cpu"},
        Memory=1024,
        Volumes={"Ref": "AWS::NoValue"},
    )
    service["Image"] = {
        "Fn::Join": ["", [{"Ref": "AWS::AccountId"}, ".dkr.ecr.", {"Ref": "AWS::Region"}, ".amazonaws.com/orders:1"]]
    }
    service["StartTimeout"] = {"Fn::Join": ["", ["60", {"Ref": "AWS::NoValue"}]]}
    service["PortMappings"][0]["ContainerPort"] = "8080"
    service["Environment"][1]["Value"] = {"Ref": "Stage"}
    service["StopTimeout"] = {"Fn::If": ["Long", {"Ref": "AWS::NoValue"}, 500]}
    agent["Secrets"][0]["ValueFrom"] = {"Fn::Sub": ["${Arn}:DD_API_KEY::", {"Arn": {"Ref": "Secret"}}]}
    agent["Essential"] = "false"
    text = json.dumps({"Resources": {"Task": {"Type": "AWS::ECS::TaskDefinition", "Properties": task}}})

    assert broken_rules(text) == ["limits"]  # for the 500 seconds of StopTimeout
    assert broken_rules(text.replace(":DD_API_KEY::", ":DD_API_KEY")) == ["secret-arn", "limits"]


def test_findings_are_separate_for_each_resource_of_a_template() -> None:
    other_resource = as_template(changed(agent_fields(memory=256)))["Resources"]["Task"]
    (finding,) = task_check.check(json.dumps(as_template(changed(), Other=other_resource))).findings

    assert (finding.rule, finding.container) == ("agent-memory", "Other: datadog-agent")


def test_terraform_interpolations_are_open() -> None:
    containers = json.dumps(changed()["containerDefinitions"])
    for old, new in (
        ("8080", "${var.port}"),
        ("512", '${lookup(var.sizes, "agent", 512)}'),
        (f'"{REGISTRY}/orders:1.0.0"', '"${aws_ecr_repository.orders.repository_url}:${replace(var.tag, "/", "-")}"'),
        (SECRET, "${aws_secretsmanager_secret.key.arn}"),
        ('"prod"', '"${var.env}"'),
    ):
        containers = containers.replace(old, new)

    assert broken_rules(containers) == []
    assert broken_rules(containers.replace('"ECS_FARGATE"', '"DD_ECS_FARGATE"')) == ["ecs-fargate"]


def test_an_open_value_is_a_mistake_only_in_a_registered_definition() -> None:
    task = changed(service_fields(image="${IMAGE}"))
    (finding,) = task_check.check(json.dumps(as_registered(task))).findings

    assert broken_rules(json.dumps(task)) == []
    assert finding.rule == "placeholder"
    assert "`${IMAGE}`" in finding.sentence


def test_an_unknown_value_in_a_registered_definition_is_not_a_placeholder() -> None:
    """A value that ECS does not accept is also marked as open, like `${NAME}`, so that no other rule checks it."""
    assert broken_rules(json.dumps(as_registered(changed(task_fields(networkMode="vpc"))))) == ["unknown-value"]


NOT_TASK_DEFINITIONS = (
    ("{", "it is not JSON: line 1"),
    ("", "it is empty"),
    ("[]", "no containerDefinitions"),
    ("{}", "no containerDefinitions"),
    ("3", "neither JSON nor"),
    ('{"containerDefinitions": [\n  {"name": "x",}\n]}', "a trailing comma (line 2)"),
    ('{"containerDefinitions": [],\n}', "a trailing comma (line 1)"),
    ('// first\n{"containerDefinitions": [] /* second */}\n', "comments are not JSON (line 1, 2)"),
    ('{"containerDefinitions": [] # why\n}', "comments are not JSON (line 1)"),
    ('{"cpu": {{ cpu }}}', "render it first"),
    ("local name = 'x'; {}", "neither JSON nor"),
    ('{\n  "name": std.extVar("x")\n}', "it is Jsonnet"),
    ('{\n  "name": std.extVar("x"),\n}', "it is Jsonnet"),
    ('resource "aws_ecs_task_definition" "x" {\n}', "it is HCL"),
    ('{"jobDefinitionName": "x", "type": "container"}', "this is an AWS Batch job definition"),
    ('{"Resources": {"J": {"Type": "AWS::Batch::JobDefinition", "Properties": {}}}}', "this is an AWS Batch job"),
    ('{"Resources": {"B": {"Type": "AWS::S3::Bucket", "Properties": {}}}}', "no resource of the type AWS::ECS::Task"),
    ('{"AWSEBDockerrunVersion": 2, "containerDefinitions": []}', "Elastic Beanstalk"),
    ('{"apiVersion": "v1", "kind": "Pod"}', "a Kubernetes manifest"),
    ('{"containerDefinitions": "["}', "text that is not JSON"),
)


@pytest.mark.parametrize(("text", "sentence"), NOT_TASK_DEFINITIONS, ids=range(len(NOT_TASK_DEFINITIONS)))
def test_a_file_that_is_not_a_task_definition_is_rejected(text: str, sentence: str) -> None:
    with pytest.raises(task_check.UnreadableError) as error:
        task_check.check(text)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_slashes_and_commas_inside_strings_are_accepted() -> None:
    assert broken_rules(json.dumps(changed(service_variable("LINKS", 'http://a/ # ,] ,} /* \\" //')))) == []


def test_bytes_that_are_not_text_are_rejected() -> None:
    with pytest.raises(task_check.UnreadableError, match="save it as UTF-8"):
        task_check.check(b"\x89PNG\r\n\x1a\n")


def test_a_described_definition_is_read(tmp_path: Path) -> None:
    """The check reads the output of `aws ecs describe-task-definition`."""
    file = tmp_path / "task-definition.json"
    file.write_text(json.dumps(changed(service_fields(stopTimeout=60))))
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1"}
        environ = {**clean_environment(keys), "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        aws = [str(BIN / "aws"), "ecs"]
        register = [*aws, "register-task-definition", "--cli-input-json", f"file://{file}"]
        subprocess.run(register, env=environ, check=True, capture_output=True, timeout=60)
        describe = [*aws, "describe-task-definition", "--task-definition", "orders", "--output", "json"]
        description = subprocess.run(
            describe, env=environ, check=True, capture_output=True, text=True, timeout=60
        ).stdout
    finally:
        server.stop()

    assert "taskDefinitionArn" in description
    assert broken_rules(description) == []
    assert broken_rules(description.replace('"stopTimeout": 60', '"stopTimeout": 99999')) == ["limits"]


def run_check(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*CHECK, *arguments]
    environ = clean_environment(variables)
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False, env=environ)


@pytest.mark.parametrize(
    ("task", "arguments", "code", "last_line"),
    [
        (changed(), (), 0, "-: no mistake"),
        (changed(service_fields(healthCheck={"command": ["CMD-SHELL", "curl localhost"]})), (), 0, "1 hint"),
        (changed(agent_fields(memory=256)), (), 3, "1 warning"),
        (changed(agent_fields(memory=256), agent_variable("DD_HOSTNAME", "x"), agent_variable("DD_SITE", "EU")), (), 1, "2 mistakes, 1 warning"),
        (changed(agent_fields(memory=256)), ("--ignore", "site,agent-memory"), 0, "-: no mistake"),
        (changed(agent_fields(memory=256)), ("--ignore", "cfn-lint-E1234, placeholder,", "--ignore", ""), 3, "1 warning"),  # empty names are skipped
    ],
)  # fmt: skip
def test_the_exit_code_depends_on_the_worst_level(
    task: dict[str, Any], arguments: tuple[str, ...], code: int, last_line: str
) -> None:
    """Hints alone don't count. 2 is the exit code of a file that can't be checked."""
    result = run_check("-", *arguments, stdin=json.dumps(task))

    assert (result.returncode, result.stdout.splitlines()[-1]) == (code, last_line)


def test_an_unknown_rule_cannot_be_ignored() -> None:
    """Otherwise a misspelled or renamed rule would have no effect, without a message."""
    result = run_check("-", "--ignore", "agent-memory,agent-memroy", stdin=json.dumps(changed()))

    assert result.returncode == 2
    assert "--ignore agent-memroy: there is no such rule" in result.stderr


def test_each_finding_is_a_line_followed_by_its_fix() -> None:
    result = run_check("-", stdin=json.dumps(changed(agent_variable("DD_API_KEY", HEX_KEY))))
    line, fix, _ = result.stdout.splitlines()

    assert line.startswith("-: mistake [key-in-clear] datadog-agent: `DD_API_KEY` is in plain text")
    assert fix.startswith("    -> ")
    assert HEX_KEY not in result.stdout


def test_the_json_output_has_the_findings() -> None:
    result = run_check("--json", "-", stdin=json.dumps(changed(agent_fields(memory=256))))
    (report,) = json.loads(result.stdout)

    assert (result.returncode, report["file"], report["notes"]) == (3, "-", [])
    assert [(finding["rule"], finding["level"]) for finding in report["findings"]] == [("agent-memory", "warning")]
    assert report["findings"][0].keys() == {"rule", "level", "container", "sentence", "fix"}


def test_a_missing_file_is_reported() -> None:
    result = run_check("missing.json")

    assert (result.returncode, result.stderr) == (2, "missing.json: No such file or directory\n")


def pythonpath_without(folder: Path, *modules: str) -> str:
    """Return a PYTHONPATH with which none of `modules` can be imported."""
    lines = "".join(f"sys.modules[{module!r}] = None\n" for module in modules)  # importing None raises an ImportError
    (folder / "sitecustomize.py").write_text(f"import sys\n{lines}")
    return os.fspath(folder)


@pytest.mark.parametrize("package", ["botocore", "cfnlint"])
def test_a_missing_package_is_reported(package: str, tmp_path: Path) -> None:
    result = run_check("-", stdin=json.dumps(changed()), PYTHONPATH=pythonpath_without(tmp_path, package))

    assert result.returncode == 2
    assert "pip install botocore cfn-lint" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_check_needs_no_package_of_the_service(tmp_path: Path) -> None:
    modules = ("hello_service", "pydantic_settings", "quart", "ddtrace")
    result = run_check(str(SHIPPED), PYTHONPATH=pythonpath_without(tmp_path, *modules))

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0)])
def test_the_command_shows_its_usage(arguments: tuple[str, ...], code: int) -> None:
    result = run_check(*arguments)

    assert result.returncode == code
    assert "check.py" in result.stdout + result.stderr
