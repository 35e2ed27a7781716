"""Tests of deploy/: options, the API key, the Agent's health and age, the values of a revision, and parameters."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import api_key
import definition
import options as command_line
import pytest
import rollout
import stack
import yaml
from aws_cli import Aws, AwsError, Failure
from fargate import VALUES, filled_definition
from running import ROOT

pytestmark = pytest.mark.deployment

KEY = "00112233445566778899aabbccddeeff"
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-AbCdEf"
MALFORMED_OPTIONS = [
    ["--sample-rate", "10%"],
    ["--sample-rate", "1.5"],
    ["--sample-rate", "nan"],
    ["--site", "https://app.datadoghq.eu"],
    ["--site", "app.datadoghq.eu"],
    ["--version", "my version/1"],
    ["--env", "Production!"],
    ["--set", "VpcID=vpc-1"],  # the parameter is VpcId
    ["--set", "VpcId=my-vpc"],
    ["--set", "TaskSubnets=subnet-1, subnet-2"],
    ["--set", "Spot=yes"],
    ["--set", "MinTasks=two"],
    ["--set", "CpuPercent=95"],  # the maximum is 90
    ["--set", "AllowedCidr=203.0.113.7"],
    ["--set", "AllowedCidr=203.0.113.7/8"],  # an address in a network, not a network
    ["--set", "CertificateArn=example.com"],
    ["--set", "TaskDefinition=hello-service:1"],  # deploy/deploy sets it
    ["--set", "Protect=false"],  # --no-protect sets it
    ["--set", "Spot"],
    ["--fill", "SAMPLE_RATE=0.1"],  # --sample-rate sets it
    ["--fill", "UNKNOWN=1"],  # the file has no such placeholder
    ["--tag", "a"],
    ["--tag", f"purpose={'a' * 257}"],
    ["--url", "hello.example.com"],
    ["--patience", "long"],
]


def check_options(*arguments: str) -> None:
    command_line.check(command_line.build_parser("Deploy.").parse_args(["up", *arguments]))


@pytest.mark.parametrize("option", MALFORMED_OPTIONS, ids="=".join)
def test_a_malformed_option_is_rejected_with_its_name_and_value(option: list[str]) -> None:
    with pytest.raises(Failure, match=r"^Nothing was done\.\n") as error:
        check_options(*option)

    assert f"{option[0]} {option[1]}: " in str(error.value)


def test_well_formed_options_are_accepted() -> None:
    check_options("--sample-rate", ".5", "--site", "us3.datadoghq.com", "--version", "1.2.3-rc_1", "--env", "pre-prod")
    check_options("--sample-rate", "0", "--site", "ddog-gov.com", "--set", "CertificateArn=", "--set", "LogDays=7")
    check_options("--url", "https://hello.example.com:8443/base", "--patience", "0", "--tag", "team=web + co")
    check_options("--tag", f"purpose={'a' * 256}", "--tag", "empty=")


@pytest.mark.parametrize("key", ["my key", "a" * 40, "arn:aws:secretsmanager:eu-west-1:1:secret:x"])
def test_a_malformed_api_key_is_rejected_without_showing_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("DD_API_KEY", key)
    with pytest.raises(Failure, match=f"DD_API_KEY has {len(key)} characters") as error:
        check_options()

    assert key not in str(error.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is not JSON"),
        ("[]", "no containerDefinitions list"),
        ('{"containerDefinitions": []}', "no container is named service"),
        ('{"containerDefinitions": [{"image": "x"}]}', "no containerDefinitions list"),
        (None, "it can't be read"),
    ],
)
def test_a_file_that_is_not_a_task_definition_is_rejected(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "task-definition.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Failure, match=problem) as error:
        definition.read(path)

    assert f"--task-definition {path}: " in str(error.value)


class FakeAws(Aws):
    """A fake AWS CLI that records every command and returns the result prepared for its `service verb`, or {}."""

    def __init__(self, **results: Any) -> None:
        # The keyword `ec2__describe_subnets` has the result of `ec2 describe-subnets`.
        self.results = {name.replace("__", " ", 1).replace("_", "-"): result for name, result in results.items()}
        self.dry_run, self.region = False, "eu-west-1"
        self.commands: list[tuple[str, ...]] = []
        self.stdins: list[str | None] = []

    def run(self, *arguments: str, stdin: str | None = None) -> Any:
        self.commands.append(arguments)
        self.stdins.append(stdin)
        result = self.results.get(" ".join(arguments[:2]), {})
        if isinstance(result, Exception):
            raise result
        return result

    @property
    def verbs(self) -> list[str]:
        return [command[1] for command in self.commands]


def secret_results(value: object = None, tag: str = "") -> dict[str, Any]:
    """Return the results of FakeAws for a stored secret that has `value` in its version v1, and `tag` as its tag."""
    description = {
        "VersionIdsToStages": {"v0": ["AWSPREVIOUS"], "v1": ["AWSCURRENT"]},
        "Tags": [{"Key": api_key.FINGERPRINT_TAG, "Value": tag}] if tag else [],
    }
    text = value if isinstance(value, str) else json.dumps(value)
    return {
        "secretsmanager__describe_secret": description,
        "secretsmanager__get_secret_value": {"SecretString": text},
        "secretsmanager__put_secret_value": {"VersionId": "v2"},
    }


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (KEY, "plain text"),
        ([KEY], "not an object"),
        ({"api_key": KEY}, "has no DD_API_KEY"),
        ({"DD_API_KEY": ""}, "not 32 hexadecimal digits"),
        ({"DD_API_KEY": 1}, "not 32 hexadecimal digits"),
        ("null", "not an object"),
    ],
)
def test_a_malformed_secret_is_reported_and_can_be_replaced(
    monkeypatch: pytest.MonkeyPatch, value: object, problem: str
) -> None:
    """Without a new key, the script fails with an explanation. With a new key, it replaces the secret."""
    aws = FakeAws(**secret_results(value))
    with pytest.raises(Failure, match=problem) as error:
        api_key.store(aws, ARN)
    monkeypatch.setenv("DD_API_KEY", KEY)
    version = api_key.store(aws, ARN)

    assert "Set DD_API_KEY" in str(error.value)
    assert KEY not in str(error.value)
    assert version == "v2"
    assert json.dumps({"DD_API_KEY": KEY}) in aws.stdins
    assert KEY not in str(aws.commands)


def test_a_stored_key_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret's tag has the version and a hash of the key, so the script needs no permission to read the key."""

    def aws_without_permission(tag: str) -> FakeAws:
        results = secret_results({}, tag)
        results["secretsmanager__get_secret_value"] = AwsError("AccessDeniedException")
        return FakeAws(**results)

    monkeypatch.setenv("DD_API_KEY", KEY)
    aws = FakeAws(**secret_results({"DD_API_KEY": "f" * 32}))
    api_key.store(aws, ARN)
    (tag_argument,) = [command[-1] for command in aws.commands if command[1] == "tag-resource"]
    # The key was stored as v2, but the current version of the fake's secret is always v1.
    tag = tag_argument.partition("Value=")[2].replace("v2:", "v1:")
    for key in (KEY, ""):
        monkeypatch.setenv("DD_API_KEY", key)
        aws = aws_without_permission(tag)

        assert api_key.store(aws, ARN) == "v1"
        assert aws.verbs == ["describe-secret"]
    # A different key is stored.
    monkeypatch.setenv("DD_API_KEY", KEY[::-1])
    assert api_key.store(aws_without_permission(tag), ARN) == "v2"
    # A key that another tool stored is kept. Without the permission to read it, it is not verified.
    monkeypatch.delenv("DD_API_KEY")
    assert api_key.store(aws_without_permission("v0:x"), ARN) == "v1"


def test_a_secret_scheduled_for_deletion_is_reported() -> None:
    with pytest.raises(Failure, match="restore-secret"):
        api_key.store(FakeAws(secretsmanager__describe_secret={"DeletedDate": "2026-01-01"}), ARN)


@pytest.mark.parametrize(
    ("agents", "warning", "message"),
    [
        ([{"healthStatus": "HEALTHY"}, {"healthStatus": "HEALTHY"}], "", "healthy in 2 of 2 tasks"),
        ([{"healthStatus": "HEALTHY"}, {"healthStatus": "UNHEALTHY"}], "UNHEALTHY in 1 of 2 tasks", ""),
        ([{"healthStatus": "UNKNOWN", "lastStatus": "STOPPED"}], "UNHEALTHY in 1 of 1 tasks", ""),
        ([{"healthStatus": "UNKNOWN"}], "", "healthy in 0 of 1 tasks"),
        ([{}], "", "healthy in 0 of 1 tasks"),
        ([], "", ""),
    ],
)
def test_an_unhealthy_agent_causes_a_warning(
    capsys: pytest.CaptureFixture[str], agents: list[dict[str, str]], warning: str, message: str
) -> None:
    """No task depends on the Agent's health, so a rejected API key shows up only here. A stopped Agent is unhealthy."""
    tasks = [{"containers": [{"name": "service"}, {"name": "datadog-agent", **agent}]} for agent in agents]
    task_arns = [f"task/{number}" for number in range(len(tasks))]
    aws = FakeAws(ecs__list_tasks={"taskArns": task_arns}, ecs__describe_tasks={"tasks": tasks})
    rollout.watch_agent(aws, "hello-service", timeout_seconds=0)
    output = capsys.readouterr()

    assert warning in output.err
    assert bool(warning) == bool(output.err)
    assert message in output.out


def test_an_unstable_service_is_reported_with_its_last_event() -> None:
    service = {"runningCount": 1, "desiredCount": 2, "events": [{"message": "(service x) was unable to place a task."}]}
    aws = FakeAws(ecs__wait=AwsError("Max attempts exceeded"), ecs__describe_services={"services": [service]})
    with pytest.raises(
        Failure, match=r"1 of 2 tasks are running\. \(service x\) was unable to place a task\. .*rollback"
    ):
        rollout.wait_until_stable(aws, "hello-service")


def test_the_values_of_a_revision_can_be_read_back() -> None:
    """AWS may list named items in any order."""
    template = json.loads(definition.FILE.read_text())
    revision = filled_definition(logs_to="datadog", readonly_agent=True)
    for container in revision["containerDefinitions"]:
        container.get("environment", []).reverse()
    revision["containerDefinitions"].reverse()
    values = definition.values_in(template, revision)

    assert values.keys() >= {"ENVIRONMENT", "DD_SITE", "SAMPLE_RATE"}
    assert values.items() <= VALUES.items()


def test_an_old_agent_gets_a_hint() -> None:
    """An Agent is old if its release month began over 90 days ago. Without a release month, there is no hint."""
    task = filled_definition()
    hint = definition.agent_hint(task, today=date(2027, 1, 1))

    assert definition.agent_hint(task, today=date(2026, 12, 30)) is None
    assert hint is not None
    assert "The Datadog Agent 7.84.6 was released in 2026-10, over 90 days ago" in hint
    definition.container(task, "datadog-agent")["dockerLabels"] = {}  # type: ignore[index]  # the task has an Agent
    assert definition.agent_hint(task, today=date(2027, 1, 1)) is None


def test_compose_and_task_definition_pin_the_same_agent_and_release() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    agent = definition.container(filled_definition(), "datadog-agent") or {}

    assert f"image: {agent['image']} # released {agent['dockerLabels'][definition.RELEASE_LABEL]}\n" in compose


def test_the_parameters_match_those_that_a_yaml_library_reads() -> None:
    """stack.py reads stack.yaml without a YAML library."""
    loader = type("Loader", (yaml.BaseLoader,), {})  # a subclass, because `add_multi_constructor` changes it
    # The tags of CloudFormation, such as !Ref, would be errors. No parameter has one.
    loader.add_multi_constructor("!", lambda *_: None)  # type: ignore[attr-defined]
    parameters = yaml.load(stack.TEMPLATE.read_text(), Loader=loader)["Parameters"]

    assert stack.declared_parameters() == parameters


def planned_parameters(current: dict[str, str], changes: dict[str, str]) -> dict[str, str]:
    """Return the planned parameters for a stack that has `current`, and `changes` from the command line."""
    defaults = {
        "VpcId": "vpc-1",
        "LoadBalancerSubnets": "subnet-1",
        "TaskSubnets": "subnet-1",
        "AllowedCidr": "10.0.0.0/16",
    }
    parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in {**defaults, **current}.items()]
    description = {"StackStatus": "UPDATE_COMPLETE", "Parameters": parameters}
    return stack.Stack(FakeAws(), "hello-service").planned_parameters(description, changes, open_http=False)


@pytest.mark.parametrize(
    ("current", "changes", "problem"),
    [
        ({"Scheme": "internal"}, {"Scheme": "internet-facing"}, "Scheme=internet-facing: it is internal"),
        ({}, {"VpcId": "vpc-2"}, "VpcId=vpc-2: it is vpc-1"),
        ({}, {"MinTasks": "20"}, "MinTasks=20 is more than MaxTasks=10"),
        ({}, {"AllowedCidr": "0.0.0.0/1"}, "over plain HTTP"),
        ({"CertificateArn": "arn", "AllowedCidr": "0.0.0.0/0"}, {"CertificateArn": ""}, "over plain HTTP"),
    ],
)
def test_an_unsafe_or_impossible_change_is_rejected(
    current: dict[str, str], changes: dict[str, str], problem: str
) -> None:
    with pytest.raises(Failure, match=problem):
        planned_parameters(current, changes)


def test_parameters_that_are_not_changed_keep_their_values() -> None:
    """A parameter that the template no longer has is left out. A service open over plain HTTP may stay open."""
    parameters = planned_parameters({"AllowedCidr": "0.0.0.0/0", "Spot": "true", "Gone": "x"}, {"MinTasks": "3"})

    assert (parameters["Spot"], parameters["MinTasks"], parameters["MaxTasks"]) == ("true", "3", "10")
    assert "Gone" not in parameters


def test_a_network_is_checked_before_it_is_used() -> None:
    """Each subnet must exist, and those of the load balancer must be in two availability zones."""
    parameters = {
        "VpcId": "vpc-1",
        "LoadBalancerSubnets": "subnet-1,subnet-2",
        "TaskSubnets": "subnet-3",
        "AllowedCidr": "10.0.0.0/16",
    }

    def subnets(zones: dict[str, str]) -> dict[str, Any]:
        entries = [{"SubnetId": name, "AvailabilityZone": zone, "VpcId": "vpc-1"} for name, zone in zones.items()]
        return {"Subnets": entries}

    def plan(**results: Any) -> None:
        new_stack = stack.Stack(FakeAws(**results), "hello-service")
        new_stack.planned_parameters(description=None, changes=parameters, open_http=False)

    plan(ec2__describe_subnets=subnets({"subnet-1": "a", "subnet-2": "b", "subnet-3": "a"}))
    missing_subnet = AwsError("(InvalidSubnetID.NotFound) The subnet ID 'subnet-2' does not exist.")
    with pytest.raises(Failure, match="subnet-2 is not in eu-west-1"):
        plan(ec2__describe_subnets=missing_subnet)
    with pytest.raises(Failure, match="two availability zones"):
        plan(ec2__describe_subnets=subnets({"subnet-1": "a", "subnet-2": "a", "subnet-3": "a"}))
