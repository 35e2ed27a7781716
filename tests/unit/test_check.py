"""The rules for a task definition: each finds the file that breaks it alone, and a file without a mistake passes all."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import check
import pytest
from moto.server import ThreadedMotoServer
from running import BIN, ROOT, clean_environment

SHIPPED = ROOT / "deploy" / "task-definition.json"
CHECK = [sys.executable, str(ROOT / "deploy" / "check.py")]
NAMES = {"DD_SERVICE": "hello", "DD_ENV": "prod", "DD_VERSION": "1.0.0"}
SECRET = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:datadog-AbCdEf"

GOOD: dict[str, Any] = {
    "family": "hello",
    "requiresCompatibilities": ["FARGATE"],
    "networkMode": "awsvpc",
    "cpu": "512",
    "memory": "1024",
    "executionRoleArn": "arn:aws:iam::111122223333:role/execution",
    "containerDefinitions": [
        {
            "name": "service",
            "image": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/hello:1.0.0",
            "essential": True,
            "memory": 512,
            "stopTimeout": 60,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            "environment": [{"name": name, "value": value} for name, value in NAMES.items()],
            "dockerLabels": {
                "com.datadoghq.tags.service": "hello",
                "com.datadoghq.tags.env": "prod",
                "com.datadoghq.tags.version": "1.0.0",
            },
            "dependsOn": [{"containerName": "datadog-agent", "condition": "HEALTHY"}],
            "healthCheck": {"command": ["CMD", "python", "-c", "import hello"]},
            "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
        },
        {
            "name": "datadog-agent",
            "image": "public.ecr.aws/datadog/agent:7.60.0",
            "essential": False,
            "memory": 512,
            "environment": [{"name": "ECS_FARGATE", "value": "true"}],
            "secrets": [{"name": "DD_API_KEY", "valueFrom": f"{SECRET}:DD_API_KEY::"}],
            "healthCheck": {"command": ["CMD-SHELL", "agent health"]},
        },
    ],
}


class Parts(NamedTuple):
    """A task definition, and two of its containers."""

    task: dict[str, Any]
    service: dict[str, Any]
    agent: dict[str, Any]


Break = Callable[[Parts], object]


def variable(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def extra(task: dict[str, Any], **container: Any) -> None:
    """Add a container that is not essential, and so no service."""
    task["containerDefinitions"].append({"name": "extra", "image": "busybox:1.36", "essential": False, **container})


def no_agent(parts: Parts) -> None:
    del parts.task["containerDefinitions"][1], parts.service["dependsOn"]


def twice_extra(parts: Parts) -> None:
    extra(parts.task)
    extra(parts.task)


# number of the rule, how the file breaks it, a part of the sentence
BROKEN: tuple[tuple[int, Break, str], ...] = (
    (1, no_agent, "no container is a Datadog Agent"),
    (2, lambda p: p.service["environment"].append(variable("DD_AGENT_HOST", "datadog-agent")), "DD_AGENT_HOST is not"),
    (
        2,
        lambda p: p.service["environment"].append(variable("DD_TRACE_AGENT_URL", "http://agent:8126")),
        "AGENT_URL is not",
    ),
    (2, lambda p: p.service["environment"].append(variable("DD_TRACE_AGENT_PORT", "8125")), "not the agent's 8126"),
    (3, lambda p: p.agent.update(environment=[]), "ECS_FARGATE is not true"),
    (3, lambda p: p.agent["environment"].append(variable("DD_ECS_FARGATE", "true")), "misspelling"),
    (4, lambda p: p.agent.pop("secrets"), "the agent has no DD_API_KEY"),
    (4, lambda p: p.service["environment"].append(variable("DD_API_KEY", "0" * 32)), "stands in the open"),
    (5, lambda p: p.agent["secrets"][0].update(valueFrom="datadog"), "DD_API_KEY does not come from an ARN"),
    (
        5,
        lambda p: p.agent["secrets"][0].update(valueFrom=f"{SECRET}:DD_API_KEY"),
        "not come from an ARN of the right form",
    ),
    (6, lambda p: p.service.pop("dockerLabels"), "com.datadoghq.tags.service does not say what DD_SERVICE says"),
    (6, lambda p: p.service["dockerLabels"].update({"com.datadoghq.tags.env": "test"}), "tags.env does not say"),
    (6, lambda p: p.service["environment"].pop(), "DD_VERSION is not set"),
    (7, lambda p: p.service["healthCheck"].update(command=["CMD-SHELL", "curl -f localhost || exit 1"]), "needs curl"),
    (7, lambda p: p.service["healthCheck"].update(command=["CMD", "wget", "-q", "localhost"]), "needs wget"),
    (
        8,
        lambda p: p.service["dependsOn"].append({"containerName": "db", "condition": "START"}),
        "names db, which is no",
    ),
    (8, lambda p: p.agent.update(dependsOn=[{"containerName": "datadog-agent", "condition": "START"}]), "itself"),
    (9, lambda p: p.agent.pop("healthCheck"), "datadog-agent to be HEALTHY, which has no health check"),
    (9, lambda p: p.agent.update(dependsOn=[{"containerName": "service", "condition": "SUCCESS"}]), "service to end"),
    (10, lambda p: p.service.pop("dependsOn"), "service: does not depend on the agent"),
    (11, lambda p: p.service.update(stopTimeout=121), "stopTimeout is over Fargate's 120 s"),
    (12, lambda p: p.service.pop("stopTimeout"), "stopTimeout 30 s (it is not set) is not above the shutdown's 33 s"),
    (12, lambda p: p.service["environment"].append(variable("DRAIN_SECONDS", "40")), "not above the shutdown's 68 s"),
    (12, lambda p: p.service["environment"].append(variable("DRAIN_SECONDS", "long")), "DRAIN_SECONDS='long'"),
    (13, lambda p: p.agent.update(memory=256), "the agent's memory is under 512 MiB"),
    (14, lambda p: p.service.update(memory=768), "reserve 1280 MiB together, and the task has 1024"),
    (14, lambda p: p.service.update(memory=2048, memoryReservation=256), "its memory of 2048 MiB is more than"),
    (15, lambda p: p.task.pop("executionRoleArn"), "datadog-agent: needs an execution role for secrets"),
    (16, lambda p: p.service.update(privileged=True), "service: privileged is not for Fargate"),
    (16, lambda p: p.agent.update(linuxParameters={"sharedMemorySize": 64}), "sharedMemorySize is not for Fargate"),
    (17, lambda p: p.service["linuxParameters"]["capabilities"].update(add=["NET_ADMIN"]), "capabilities NET_ADMIN"),
    (18, twice_extra, "2 containers are called extra"),
    (19, lambda p: p.agent.update(image="public.ecr.aws/datadog/agent:latest"), "datadog-agent: the image's tag may"),
    (19, lambda p: p.agent.update(image="gcr.io/datadoghq/agent:7"), "datadog-agent: the image's tag may change"),
    (19, lambda p: p.agent.update(image="datadog/agent:latest-jmx"), "datadog-agent: the image's tag may change"),
    (19, lambda p: p.service.update(image="localhost:5000/hello"), "service: the image's tag may change"),
    (20, lambda p: p.agent.update(portMappings=[{"containerPort": 8126, "protocol": "udp"}]), "maps 8126/udp"),
    (21, lambda p: p.service["environment"].append(variable("KEEP_ALIVE_SECONDS", "30")), "connections after 30 s"),
    (21, lambda p: p.service.update(command=["ddtrace-run", "hypercorn", "hello:app"]), "connections after 5 s"),
    (21, lambda p: p.service.update(command=["hypercorn", "--keep-alive", "60", "x:y"]), "connections after 60 s"),
    (22, lambda p: p.agent["environment"].append(variable("DD_HOSTNAME", "web")), "DD_HOSTNAME is set"),
)
# What is right although it looks like a mistake.
FINE: tuple[Break, ...] = (
    lambda p: p.service["environment"].append(variable("DD_TRACE_AGENT_URL", "http://localhost:8126")),
    lambda p: p.service["environment"].append(variable("DD_TRACE_AGENT_URL", "unix:///var/run/datadog/apm.socket")),
    lambda p: p.agent["secrets"][0].update(valueFrom=SECRET),
    lambda p: p.agent["secrets"][0].update(valueFrom="arn:aws:ssm:eu-west-1:111122223333:parameter/datadog/key"),
    lambda p: p.service.update(memory=1024, memoryReservation=256),
    lambda p: p.service["linuxParameters"]["capabilities"].update(add=["SYS_PTRACE"]),
    lambda p: p.service.update(image="hello@sha256:" + "0" * 64),
    lambda p: p.service.update(command=["hypercorn", "--keep-alive", "75", "x:y"]),
    lambda p: extra(p.task, firelensConfiguration={"type": "fluentbit"}, essential=True),
    lambda p: p.task.pop("memory") and p.task.update(memory="2048"),
)


def broken(change: Break) -> str:
    """Return the good file with `change`."""
    task = copy.deepcopy(GOOD)
    change(Parts(task, *task["containerDefinitions"][:2]))
    return json.dumps(task)


def test_a_file_without_a_mistake_passes() -> None:
    """By all three: botocore, cfn-lint, the rules."""
    assert check.check(json.dumps(GOOD)) == []


@pytest.mark.skipif(not SHIPPED.exists(), reason="deploy/task-definition.json is not there yet")
def test_the_shipped_file_passes() -> None:
    """With its placeholders."""
    assert check.check(SHIPPED.read_text()) == []


@pytest.mark.parametrize(
    ("number", "change", "sentence"), BROKEN, ids=[f"{row[0]}-{at}" for at, row in enumerate(BROKEN)]
)
def test_a_rule_finds_the_file_that_breaks_it_alone(number: int, change: Break, sentence: str) -> None:
    """And no other rule complains."""
    task = check.Task(check.read(broken(change)))
    mistakes = check.own_mistakes(task)

    assert {mistake.rule for mistake in mistakes} == {str(number)}
    assert any(sentence in mistake.sentence for mistake in mistakes), mistakes
    assert all(mistake.fix for mistake in mistakes)


def test_every_rule_has_a_number_of_its_own_and_a_file_that_breaks_it() -> None:
    """In order."""
    numbers = [rule.number for rule in check.RULES]

    assert numbers == list(range(1, len(numbers) + 1))
    assert {number for number, *_ in BROKEN} == set(numbers)
    assert all(rule.find.__doc__ for rule in check.RULES)


@pytest.mark.parametrize("change", FINE, ids=range(len(FINE)))
def test_what_is_right_passes(change: Break) -> None:
    """However unusual."""
    assert check.own_mistakes(check.Task(check.read(broken(change)))) == []


@pytest.mark.parametrize(
    ("change", "rule", "sentence"),
    [
        (
            lambda p: p.service.update(colour="red"),
            "botocore",
            'Unknown parameter in containerDefinitions[0]: "colour"',
        ),
        (lambda p: p.service.update(environment="DD_ENV=prod"), "botocore", "Invalid type for parameter"),
        (
            lambda p: p.task.update(networkMode="vpc"),
            "botocore",
            "networkMode must be one of bridge, host, awsvpc, none",
        ),
        (lambda p: p.task.update(containerDefinitions=[]), "cfn-lint", ""),
        (lambda p: p.task.update(cpu="512", memory="8192"), "cfn-lint", "memory"),
    ],
)
def test_what_botocore_and_cfn_lint_know_is_asked_of_them(change: Break, rule: str, sentence: str) -> None:
    """Unknown names, wrong types, values outside of an enumeration, sizes that Fargate lacks."""
    mistakes = check.check(broken(change))

    assert any(each.rule.startswith(rule) and sentence.lower() in each.sentence.lower() for each in mistakes), mistakes


def test_a_placeholder_stands_for_something_fitting() -> None:
    """An image of a placeholder is told by the container's name."""
    text = broken(lambda p: (p.agent.update(image="${AGENT_IMAGE}"), p.service.update(image="${IMAGE}")))
    text = text.replace(SECRET, "${SECRET_ARN}").replace(GOOD["executionRoleArn"], "${EXECUTION_ROLE_ARN}")
    text = text.replace('"prod"', '"${ENVIRONMENT}"')

    assert check.check(text) == []


def test_what_ecs_describes_is_taken(tmp_path: Path) -> None:
    """The output of the AWS CLI for a task definition that is registered."""
    file = tmp_path / "good.json"
    file.write_text(json.dumps(GOOD))
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1"}
        environ = {**clean_environment(keys), "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        aws = [str(BIN / "aws"), "ecs"]
        register = [*aws, "register-task-definition", "--cli-input-json", f"file://{file}"]
        subprocess.run(register, env=environ, check=True, capture_output=True, timeout=60)
        describe = [*aws, "describe-task-definition", "--task-definition", "hello", "--output", "json"]
        described = subprocess.run(describe, env=environ, check=True, capture_output=True, text=True, timeout=60).stdout
    finally:
        server.stop()

    assert "taskDefinitionArn" in described
    assert check.check(described) == []
    assert [
        mistake.rule for mistake in check.check(described.replace('"stopTimeout": 60', '"stopTimeout": 99999'))
    ] == ["11"]


# After the many guides for EC2 and Compose that are copied to Fargate.
COPIED = {
    "family": "web",
    "requiresCompatibilities": ["FARGATE"],
    "networkMode": "awsvpc",
    "cpu": "256",
    "memory": "512",
    "containerDefinitions": [
        {
            "name": "web",
            "image": "web:latest",
            "environment": [{"name": "DD_AGENT_HOST", "value": "datadog"}],
            "healthCheck": {"command": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"]},
            "logConfiguration": {"logDriver": "awslogs"},
            "dependsOn": [{"containerName": "datadog", "condition": "HEALTHY"}],
        },
        {
            "name": "datadog",
            "image": "datadog/agent:latest",
            "memory": 256,
            "privileged": True,
            "environment": [
                {"name": "DD_API_KEY", "value": "0" * 32},
                {"name": "DD_ECS_FARGATE", "value": "true"},
            ],
            "portMappings": [{"containerPort": 8126, "protocol": "udp"}],
        },
    ],
}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [*CHECK, *arguments]
    environment = {**clean_environment(), **environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_copied_file_gets_all_its_lines_at_once(tmp_path: Path) -> None:
    """Each with its fix below."""
    file = tmp_path / "copied.json"
    file.write_text(json.dumps(COPIED))
    done = run(str(file))
    lines = done.stdout.splitlines()

    assert done.returncode == 1
    for number in (2, 3, 4, 6, 7, 9, 12, 13, 15, 16, 19, 20):
        at = next(at for at, line in enumerate(lines) if line.startswith(f"{file}: [{number}] "))
        assert lines[at + 1].startswith(("    -> ", f"{file}: [{number}] "))
    assert "0" * 32 not in done.stdout


def test_the_command_says_when_there_is_no_mistake(tmp_path: Path) -> None:
    """Exit code 0."""
    file = tmp_path / "good.json"
    file.write_text(json.dumps(GOOD))
    done = run(str(file))

    assert (done.returncode, done.stdout) == (0, f"{file}: no mistake\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "it is not JSON"),
        ("[]", "no containerDefinitions"),
        ("{}", "no containerDefinitions"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_task_definition_is_refused(text: str | None, sentence: str, tmp_path: Path) -> None:
    """Exit code 2, and one sentence."""
    file = tmp_path / "file.json"
    if text is not None:
        file.write_text(text)
    done = run(str(file))

    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["botocore", "cfnlint"])
def test_a_tool_that_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    """With the command that installs it."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    file = tmp_path / "good.json"
    file.write_text(json.dumps(GOOD))
    done = run(str(file), PYTHONPATH=os.fspath(tmp_path))

    assert done.returncode == 2
    assert "pip install botocore cfn-lint" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0)])
def test_the_command_explains_itself(arguments: tuple[str, ...], code: int) -> None:
    """Without a file there is nothing to check."""
    done = run(*arguments)

    assert (done.returncode, "deploy/check.py FILE" in done.stdout) == (code, True)
