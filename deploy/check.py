"""The rules for an ECS task definition on Fargate with a Datadog Agent that no linter has: `python deploy/check.py FILE`.

FILE is what `aws ecs register-task-definition --cli-input-json` takes, with or without ${NAME} placeholders, or what
`aws ecs describe-task-definition` prints. botocore's own validation and cfn-lint run first, then the numbered rules
below. Every mistake is a line and a fix; the exit code is 0 without any, 1 with some, 2 when nothing could be checked.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOLS = "botocore and cfn-lint are needed: pip install botocore cfn-lint (scripts/test installs both)"

ALB_IDLE_SECONDS = 60.0  # AWS's default, and that of deploy/stack.yaml
HYPERCORN_KEEP_ALIVE_SECONDS = 5.0  # Hypercorn's default
STOP_TIMEOUT_SECONDS = 30.0  # the ECS agent's default
MOST_STOP_TIMEOUT_SECONDS = 120.0  # Fargate's limit
AGENT_MIB = 512

AGENT_IMAGE = re.compile(r"(?:^|/)(?:datadog|datadoghq)/agent(?:[:@]|$)")
AGENT_NAME = re.compile(r"datadog|dd-agent", re.IGNORECASE)
MOVING_TAG = re.compile(r"(latest|main|master|stable)\b")
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
SECRET_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:[^:\s]+(?::[^:\s]*:[^:\s]*:[^:\s]*)?")
PARAMETER_ARN = re.compile(r"arn:aws[\w-]*:ssm:[\w-]+:\d{12}:parameter/\S+")
LOOPBACK = re.compile(r"(?:http://)?(?:localhost|127\.0\.0\.1|\[?::1\]?)(?::8126)?/?")
LABELS = {"DD_SERVICE": "service", "DD_ENV": "env", "DD_VERSION": "version"}

# What ECS adds when it describes a task definition.
DESCRIBED = {"taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities"}
DESCRIBED |= {"registeredAt", "registeredBy", "deregisteredAt"}

# What a placeholder stands for while its file is checked, by its name; anything else stands for a word.
STAND_INS = (
    (re.compile("ROLE_ARN"), "arn:aws:iam::111122223333:role/stand-in"),
    (re.compile("SECRET"), "arn:aws:secretsmanager:us-east-1:111122223333:secret:stand-in-AbCdEf"),
    (re.compile("IMAGE"), "111122223333.dkr.ecr.us-east-1.amazonaws.com/stand-in:1.0.0"),
    (re.compile("REGION"), "us-east-1"),
    (re.compile("ARCHITECTURE"), "X86_64"),
    (re.compile("RATE|SECONDS"), "1"),
    (re.compile("FAMILY"), "stand-in"),
)

Container = dict[str, Any]


class UnreadableError(Exception):
    """The file is no task definition; `str()` is a sentence."""


@dataclass(frozen=True)
class Mistake:
    """What is wrong, by which rule, and what to write instead."""

    rule: str
    sentence: str
    fix: str


class Task:
    """A task definition in the form in which it is registered."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        entries = document.get("containerDefinitions")
        self.containers: list[Container] = [entry for entry in entries or [] if isinstance(entry, dict)]

    @property
    def agents(self) -> list[Container]:
        """The containers that are a Datadog Agent."""
        return [container for container in self.containers if _is_agent(container)]

    @property
    def services(self) -> list[Container]:
        """The containers that are traced: essential, no agent and no log router."""
        return [
            container
            for container in self.containers
            if not _is_agent(container)
            and "firelensConfiguration" not in container
            and container.get("essential", True)
        ]

    def called(self, name: str) -> Container | None:
        """Return the container of that name."""
        return next((container for container in self.containers if container.get("name") == name), None)


def _is_agent(container: Container) -> bool:
    named = container.get("image") == _stand_in("IMAGE") and AGENT_NAME.search(str(container.get("name")))
    return bool(named or AGENT_IMAGE.search(str(container.get("image", ""))))


def environment(container: Container) -> dict[str, str]:
    """Return the variables that `container` sets in the open."""
    return {str(entry.get("name")): str(entry.get("value", "")) for entry in container.get("environment") or []}


def secrets(container: Container) -> dict[str, str]:
    """Return where the secret variables of `container` come from."""
    return {str(entry.get("name")): str(entry.get("valueFrom", "")) for entry in container.get("secrets") or []}


@dataclass(frozen=True)
class Rule:
    """A function that yields a sentence for each mistake, its number, and the fix."""

    number: int
    find: Callable[[Task], Iterator[str]]
    fix: str


RULES: list[Rule] = []


def rule(number: int, fix: str) -> Callable[[Callable[[Task], Iterator[str]]], Callable[[Task], Iterator[str]]]:
    """Make a function the rule of that number."""

    def numbered(find: Callable[[Task], Iterator[str]]) -> Callable[[Task], Iterator[str]]:
        RULES.append(Rule(number, find, fix))
        return find

    return numbered


@rule(1, 'add a container with the image "public.ecr.aws/datadog/agent:<version>"')
def an_agent_is_in_the_task(task: Task) -> Iterator[str]:
    """On Fargate there is no host that could run one."""
    if not task.agents:
        yield "no container is a Datadog Agent: nobody takes the traces"


@rule(2, '"DD_TRACE_AGENT_URL": "http://localhost:8126", or none of these variables: all containers share one loopback')
def the_service_points_at_the_agent(task: Task) -> Iterator[str]:
    """The names of containers, as Compose has them, do not resolve in a task."""
    for container in task.services:
        for name in ("DD_TRACE_AGENT_URL", "DD_AGENT_HOST", "DD_TRACE_AGENT_HOSTNAME"):
            value = environment(container).get(name)
            if value and not LOOPBACK.fullmatch(value) and not value.startswith("unix://"):
                yield f"{container.get('name')}: {name} is not the task's own loopback"
        if environment(container).get("DD_TRACE_AGENT_PORT", "8126") != "8126":
            yield f"{container.get('name')}: DD_TRACE_AGENT_PORT is not the agent's 8126"


@rule(3, '{"name": "ECS_FARGATE", "value": "true"} in the agent\'s environment; DD_ECS_FARGATE does nothing')
def the_agent_knows_that_it_is_on_fargate(task: Task) -> Iterator[str]:
    """Without it the agent looks for a host, and tags nothing with the task."""
    for container in task.agents:
        if environment(container).get("ECS_FARGATE", "").lower() != "true":
            yield f"{container.get('name')}: ECS_FARGATE is not true"
    for container in task.containers:
        if "DD_ECS_FARGATE" in environment(container):
            yield f"{container.get('name')}: DD_ECS_FARGATE is a misspelling of ECS_FARGATE"


@rule(4, '"secrets": [{"name": "DD_API_KEY", "valueFrom": "<arn of the secret>:DD_API_KEY::"}] of the agent')
def the_api_key_is_a_secret_of_the_agent(task: Task) -> Iterator[str]:
    """Whoever may describe the task definition reads its environment."""
    for container in task.containers:
        if "DD_API_KEY" in environment(container):
            yield f"{container.get('name')}: DD_API_KEY stands in the open, in the environment"
    for container in task.agents:
        if "DD_API_KEY" not in environment(container) and "DD_API_KEY" not in secrets(container):
            yield f"{container.get('name')}: the agent has no DD_API_KEY"


@rule(5, '"arn:aws:secretsmanager:...:secret:name-AbCdEf", with ":<key>::" behind it for one key of a key/value secret')
def a_secret_is_named_by_its_arn(task: Task) -> Iterator[str]:
    """Of Secrets Manager or of Parameter Store; one key of a key/value secret needs all three fields behind the ARN."""
    for container in task.containers:
        for name, source in secrets(container).items():
            if not SECRET_ARN.fullmatch(source) and not PARAMETER_ARN.fullmatch(source):
                yield f"{container.get('name')}: the secret {name} does not come from an ARN of the right form"


@rule(6, 'DD_SERVICE, DD_ENV, DD_VERSION in "environment", and the labels com.datadoghq.tags.service, .env, .version')
def labels_and_environment_agree(task: Task) -> Iterator[str]:
    """Unified service tagging on Fargate needs both."""
    for container in task.services:
        labels, variables = container.get("dockerLabels") or {}, environment(container)
        for variable, tag in LABELS.items():
            if variable not in variables:
                yield f"{container.get('name')}: {variable} is not set"
            if labels.get(f"com.datadoghq.tags.{tag}") != variables.get(variable):
                yield f"{container.get('name')}: the label com.datadoghq.tags.{tag} does not say what {variable} says"


@rule(7, 'ask with what the image has: ["CMD", "python", "-c", "..."], for the agent ["CMD-SHELL", "agent health"]')
def a_health_check_needs_no_curl(task: Task) -> Iterator[str]:
    """Slim images have neither curl nor wget, and the check then always fails."""
    for container in task.containers:
        command = " ".join(map(str, (container.get("healthCheck") or {}).get("command", [])))
        if found := re.search(r"\b(curl|wget)\b", command):
            yield f"{container.get('name')}: the health check needs {found[1]}"


@rule(8, "name a container of this task definition")
def what_is_depended_on_exists(task: Task) -> Iterator[str]:
    """Nobody says so before the task is to start."""
    for container, depended, _ in _dependencies(task):
        if task.called(depended) is None:
            yield f"{container.get('name')}: dependsOn names {depended}, which is no container"
        elif depended == container.get("name"):
            yield f"{depended}: dependsOn names the container itself"


@rule(9, "HEALTHY needs a healthCheck there, COMPLETE and SUCCESS need essential: false; START always works")
def what_is_depended_on_can_come_true(task: Task) -> Iterator[str]:
    """Otherwise the task waits until it is given up."""
    for container, depended, condition in _dependencies(task):
        there = task.called(depended)
        if there is None:
            continue
        if condition == "HEALTHY" and not there.get("healthCheck"):
            yield f"{container.get('name')}: waits for {depended} to be HEALTHY, which has no health check"
        if condition in {"COMPLETE", "SUCCESS"} and there.get("essential", True):
            yield f"{container.get('name')}: waits for {depended} to end, which is essential and ends the task with it"


@rule(10, '"dependsOn": [{"containerName": "<agent>", "condition": "HEALTHY"}] of the service')
def the_agent_stops_last(task: Task) -> Iterator[str]:
    """Containers stop in the reverse order of dependsOn: without it the agent may go before the last spans come."""
    agents = {container.get("name") for container in task.agents}
    depending = {str(container.get("name")) for container, depended, _ in _dependencies(task) if depended in agents}
    for container in task.services:
        if agents and container.get("name") not in depending:
            yield f"{container.get('name')}: does not depend on the agent, which may stop first"


def _dependencies(task: Task) -> Iterator[tuple[Container, str, str]]:
    for container in task.containers:
        for entry in container.get("dependsOn") or []:
            yield container, str(entry.get("containerName")), str(entry.get("condition"))


@rule(11, "at most 120")
def stop_timeout_is_one_that_fargate_has(task: Task) -> Iterator[str]:
    """Registering the task definition fails otherwise."""
    for container in task.containers:
        if _number(container.get("stopTimeout"), STOP_TIMEOUT_SECONDS) > MOST_STOP_TIMEOUT_SECONDS:
            yield f"{container.get('name')}: stopTimeout is over Fargate's {MOST_STOP_TIMEOUT_SECONDS:g} s"


@rule(12, "a larger stopTimeout, or smaller DRAIN_SECONDS, GRACEFUL_SECONDS or FLUSH_SECONDS")
def stop_timeout_covers_the_shutdown(task: Task) -> Iterator[str]:
    """The service is killed otherwise, with its last requests and spans."""
    from hello_service.settings import Settings, SettingsError  # noqa: PLC0415 - `--help` works without the service's needs

    budget = ("DRAIN_SECONDS", "GRACEFUL_SECONDS", "FLUSH_SECONDS", "KEEP_ALIVE_SECONDS")
    for container in task.services:
        variables = {name: value for name, value in environment(container).items() if name in budget}
        try:
            seconds = Settings.from_environment(variables).stop_budget_seconds
        except SettingsError as error:
            yield f"{container.get('name')}: {str(error).splitlines()[0]}"
            continue
        timeout = _number(container.get("stopTimeout"), STOP_TIMEOUT_SECONDS)
        if timeout <= seconds:
            unset = "" if "stopTimeout" in container else " (it is not set)"
            yield f"{container.get('name')}: stopTimeout {timeout:g} s{unset} is not above the shutdown's {seconds:g} s"


@rule(13, f'"memory": {AGENT_MIB} of the agent')
def the_agent_has_memory(task: Task) -> Iterator[str]:
    """With 256 MiB it is killed."""
    for container in task.agents:
        if _number(container.get("memory"), AGENT_MIB) < AGENT_MIB:
            yield f"{container.get('name')}: the agent's memory is under {AGENT_MIB} MiB"


@rule(14, "a larger memory of the task, or smaller ones of its containers")
def containers_fit_the_tasks_memory(task: Task) -> Iterator[str]:
    """Fargate has no more than the task's."""
    whole = _number(task.document.get("memory"), 0.0)
    if not whole:
        return
    for container in task.containers:
        if (limit := _number(container.get("memory"), 0.0)) > whole:
            yield f"{container.get('name')}: its memory of {limit:g} MiB is more than the task's {whole:g}"
    reserved = sum(_number(entry.get("memoryReservation") or entry.get("memory"), 0.0) for entry in task.containers)
    if reserved > whole:
        yield f"the containers reserve {reserved:g} MiB together, and the task has {whole:g}"


@rule(15, '"executionRoleArn": a role with AmazonECSTaskExecutionRolePolicy and secretsmanager:GetSecretValue')
def an_execution_role_is_there_when_needed(task: Task) -> Iterator[str]:
    """ECS takes secrets, writes logs and pulls private images by it, before anything of the task runs."""
    if task.document.get("executionRoleArn"):
        return
    for container in task.containers:
        needs = {
            "secrets": bool(container.get("secrets")),
            "awslogs": (container.get("logConfiguration") or {}).get("logDriver") == "awslogs",
            "a private image": ".dkr.ecr." in str(container.get("image")),
        }
        if reasons := [need for need, needed in needs.items() if needed]:
            yield f"{container.get('name')}: needs an execution role for {', '.join(reasons)}"


@rule(16, "remove it: Fargate has no privileged containers, devices, shared memory, tmpfs, links or security options")
def nothing_is_privileged(task: Task) -> Iterator[str]:
    """Registering or running the task fails otherwise."""
    for container in task.containers:
        linux = container.get("linuxParameters") or {}
        named = [name for name in ("privileged", "links", "dockerSecurityOptions") if container.get(name)]
        named += [name for name in ("devices", "sharedMemorySize", "tmpfs", "maxSwap", "swappiness") if linux.get(name)]
        if named:
            yield f"{container.get('name')}: {', '.join(named)} is not for Fargate"


@rule(17, "drop capabilities only; Fargate adds none but SYS_PTRACE")
def no_capability_is_added(task: Task) -> Iterator[str]:
    """Registering the task definition fails otherwise."""
    for container in task.containers:
        added = ((container.get("linuxParameters") or {}).get("capabilities") or {}).get("add") or []
        if refused := [name for name in added if name != "SYS_PTRACE"]:
            yield f"{container.get('name')}: adds the capabilities {', '.join(map(str, refused))}"


@rule(18, "a name of its own for each")
def names_are_different(task: Task) -> Iterator[str]:
    """Whatever refers to a container does so by its name."""
    for name, count in Counter(str(container.get("name")) for container in task.containers).items():
        if count > 1:
            yield f"{count} containers are called {name}"


@rule(19, "a full version as the tag, or a digest (@sha256:...)")
def images_are_pinned(task: Task) -> Iterator[str]:
    """Otherwise two tasks of one revision may run different code."""
    for container in task.containers:
        last = str(container.get("image", "")).rpartition("/")[2]
        tag = last.partition(":")[2]
        moving = not tag or MOVING_TAG.match(tag) or (_is_agent(container) and re.fullmatch(r"\d+(-jmx)?", tag))
        if "@sha256:" not in last and moving:
            yield f"{container.get('name')}: the image's tag may change"


@rule(20, "remove the port mapping: inside the task no port of the agent needs one (8126 is tcp, 8125 is udp)")
def the_trace_port_is_not_udp(task: Task) -> Iterator[str]:
    """Traces are HTTP."""
    for container in task.containers:
        for mapping in container.get("portMappings") or []:
            if mapping.get("containerPort") == 8126 and mapping.get("protocol") == "udp":
                yield f"{container.get('name')}: maps 8126/udp, and traces come by tcp"


@rule(21, "KEEP_ALIVE_SECONDS (hypercorn: --keep-alive) above the load balancer's idle time of 60 s")
def idle_connections_outlive_the_load_balancers(task: Task) -> Iterator[str]:
    """A load balancer that sends a request on a connection that was just closed answers 502."""
    for container in task.services:
        kept = _number(environment(container).get("KEEP_ALIVE_SECONDS"), ALB_IDLE_SECONDS + 1)
        command = [str(part) for part in [*(container.get("entryPoint") or []), *(container.get("command") or [])]]
        words = " ".join(command).split()
        if any(word.endswith("hypercorn") for word in words):
            given = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--keep-alive"]
            kept = _number(given[0], HYPERCORN_KEEP_ALIVE_SECONDS) if given else HYPERCORN_KEEP_ALIVE_SECONDS
        if kept <= ALB_IDLE_SECONDS:
            yield f"{container.get('name')}: closes idle connections after {kept:g} s, the load balancer after 60 s"


@rule(22, "remove it")
def no_host_name_is_set(task: Task) -> Iterator[str]:
    """On Fargate it makes a host, which is billed, of every task."""
    for container in task.containers:
        if "DD_HOSTNAME" in environment(container):
            yield f"{container.get('name')}: DD_HOSTNAME is set"


def _number(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def botocore_mistakes(document: dict[str, Any]) -> list[Mistake]:
    """Return what botocore's own validation finds, and values that are in none of its enumerations."""
    from botocore.session import get_session  # noqa: PLC0415 - the reason for its absence is said in one sentence
    from botocore.validate import ParamValidator  # noqa: PLC0415 - the same

    operation = get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    report = ParamValidator().validate(document, operation.input_shape).generate_report()
    found = [line for line in report.splitlines() if line]
    found += list(_outside_of_enumerations(document, operation.input_shape, ""))
    return [Mistake("botocore", line, "correct it as RegisterTaskDefinition has it") for line in found]


def _outside_of_enumerations(value: Any, shape: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        for name in value.keys() & shape.members.keys():
            yield from _outside_of_enumerations(value[name], shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list" and isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _outside_of_enumerations(entry, shape.member, f"{path}[{index}]")
    elif getattr(shape, "enum", None) and isinstance(value, str) and value not in shape.enum:
        yield f"{path.lstrip('.')} must be one of {', '.join(shape.enum)}"


def cfn_lint_mistakes(document: dict[str, Any]) -> list[Mistake]:
    """Return what cfn-lint finds in the same task definition as a CloudFormation resource."""
    from botocore.session import get_session  # noqa: PLC0415 - the reason for its absence is said in one sentence
    from cfnlint.api import lint_all  # noqa: PLC0415 - the same

    shape = get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": _capitalised(document, shape)}
    found = [match for match in lint_all(json.dumps({"Resources": {"Task": resource}})) if match.rule.id[0] in "EW"]
    return [
        Mistake(f"cfn-lint {match.rule.id}", f"{_place(match.path)}: {match.message}", str(match.rule.shortdesc))
        for match in found
    ]


def _place(path: list[str | int]) -> str:
    """Return where in the task definition cfn-lint's `path` points."""
    return ".".join(map(str, path[3:])) or "the task"


def _capitalised(value: Any, shape: Any) -> Any:
    """Return `value` with the names of CloudFormation; the keys of maps are the user's own."""
    special = {"efsVolumeConfiguration": "EFSVolumeConfiguration"}
    special["fsxWindowsFileServerVolumeConfiguration"] = "FSxWindowsFileServerVolumeConfiguration"
    if shape is not None and shape.type_name == "structure" and isinstance(value, dict):
        return {
            special.get(name, name[:1].upper() + name[1:]): _capitalised(entry, shape.members.get(name))
            for name, entry in value.items()
        }
    if shape is not None and shape.type_name == "list" and isinstance(value, list):
        return [_capitalised(entry, shape.member) for entry in value]
    return value


def own_mistakes(task: Task) -> list[Mistake]:
    """Return what the rules above find, in their order."""
    found: list[Mistake] = []
    for each in RULES:
        try:
            found += [Mistake(str(each.number), sentence, each.fix) for sentence in each.find(task)]
        except (AttributeError, TypeError):  # a value of a wrong type, which botocore has named
            continue
    return found


def _stand_in(name: str) -> str:
    return next((value for pattern, value in STAND_INS if pattern.search(name)), "word")


def read(text: str) -> dict[str, Any]:
    """Return the task definition in `text`, in the form in which it is registered, placeholders filled.

    Raises:
        UnreadableError: when it is none.
    """
    try:
        document = json.loads(PLACEHOLDER.sub(lambda match: _stand_in(match[1]), text))
    except ValueError as error:
        raise UnreadableError(f"it is not JSON: {error}") from None
    if isinstance(document, dict) and isinstance(document.get("taskDefinition"), dict):
        document = {name: value for name, value in document["taskDefinition"].items() if name not in DESCRIBED}
    if not isinstance(document, dict) or "containerDefinitions" not in document:
        raise UnreadableError("it holds no containerDefinitions")
    # An empty list is nothing to ECS, which describes many; cfn-lint takes some for a use of what Fargate lacks.
    return {name: value for name, value in document.items() if value != [] or name == "containerDefinitions"}


def check(text: str) -> list[Mistake]:
    """Return every mistake in the task definition `text`.

    Raises:
        UnreadableError: when it is none.
        ModuleNotFoundError: when botocore or cfn-lint is missing.
    """
    document = read(text)
    return [*botocore_mistakes(document), *cfn_lint_mistakes(document), *own_mistakes(Task(document))]


def main(arguments: list[str]) -> int:
    """Print the mistakes of the files and return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the service's stop budget
    count = 0
    for name in arguments:
        try:
            mistakes = check(Path(name).read_text())
        except ModuleNotFoundError as error:
            print(f"{error.name} is missing. {TOOLS}", file=sys.stderr)
            return 2
        except (OSError, UnicodeError, UnreadableError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        for mistake in mistakes:
            print(f"{name}: [{mistake.rule}] {mistake.sentence}\n    -> {mistake.fix}")
        count += len(mistakes)
    print(f"{count} mistakes" if count else f"{', '.join(arguments)}: no mistake")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
