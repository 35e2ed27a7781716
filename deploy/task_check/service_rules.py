"""Rules for a traced service: its names in Datadog, its order with the Agent, its shutdown.

The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from task_check.container_rules import dependency_is_reported
from task_check.finding import HINT, MISTAKE, WARNING, Violation, rule
from task_check.task import Container, TaskDefinition, command, environment, has_more_variables, name_of, secrets
from task_check.values import is_open, number, quoted

# For each variable of unified service tagging: its tag, its OpenTelemetry attribute, and what its values distinguish.
TAGS = {"DD_SERVICE": "service", "DD_ENV": "env", "DD_VERSION": "version"}
OTEL_ATTRIBUTES = {"DD_SERVICE": "service.name", "DD_ENV": "deployment.environment", "DD_VERSION": "service.version"}
DISTINGUISHED = {"DD_SERVICE": "services", "DD_ENV": "environments", "DD_VERSION": "releases"}
# Variables that nothing reads any longer, or that are misspelled, and the right variable.
OLD_VARIABLES = {"DD_SERVICE_NAME": "DD_SERVICE", "DATADOG_SERVICE_NAME": "DD_SERVICE", "DATADOG_ENV": "DD_ENV"}
OLD_VARIABLES |= {"DATADOG_TRACE_AGENT_HOSTNAME": "DD_AGENT_HOST", "DD_TRACE_AGENT_HOST": "DD_AGENT_HOST"}
OLD_VARIABLES |= {"DD_APIKEY": "DD_API_KEY"}

CHECKED_ELSEWHERE = re.compile(r"KEY|SITE|RULES|RATE|URL|HOST|PORT|ENABLED|ENDPOINTS")  # other rules read these values

SERVER_IDLE_SECONDS = 5.0  # the default of Hypercorn and uvicorn
KEEP_ALIVE_OPTIONS = {"hypercorn": "--keep-alive", "uvicorn": "--timeout-keep-alive"}
ALB_IDLE_SECONDS = 60.0  # the default of an Application Load Balancer
STOP_TIMEOUT_SECONDS = 30.0  # the default of ECS
# The stages of hello-service's shutdown. They are copied from hello_service.settings, because that package may not be
# installed here; a test compares them.
BUDGET = {"DRAIN_SECONDS": 5.0, "GRACEFUL_SECONDS": 20.0, "FLUSH_SECONDS": 5.0}
CLOSING_SECONDS = 3.0


def is_hello_service(container: Container) -> bool:
    """Return whether `container` runs this repository's service, whose shutdown is known."""
    return bool(
        re.search(r"\b(?:hello-service|hello_service)\b", command(container))
        or environment(container).keys() & BUDGET.keys()
    )


@rule(
    "tags-missing",
    WARNING,
    "set DD_SERVICE, DD_ENV and DD_VERSION, and the labels com.datadoghq.tags.service, .env and .version",
)
def a_service_is_named(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_SERVICE`, `DD_ENV`, `DD_VERSION` or their labels are missing; unified service tagging on Fargate needs both."""
    for container in task.services:
        variables, labels = _tags(container), container.get("dockerLabels") or {}
        unset_variables, missing_labels = [], []
        for variable, tag in TAGS.items():
            label = f"com.datadoghq.tags.{tag}"
            # An image often sets DD_VERSION itself.
            may_be_in_image = variable == "DD_VERSION" and label in labels
            if variable not in variables and not has_more_variables(container) and not may_be_in_image:
                unset_variables.append(variable)
            if label not in labels and (variable in variables or has_more_variables(container)):
                missing_labels.append(label)
        if unset_variables:
            distinguished = _joined(DISTINGUISHED[variable] for variable in unset_variables)
            sentence = f"{_with_verb(unset_variables)} not set, so Datadog can't distinguish {distinguished}"
            yield Violation(name_of(container), sentence)
        if missing_labels and task.on_fargate:
            variables_are_elsewhere = has_more_variables(container) and not variables
            noun = "labels" if len(missing_labels) > 1 else "label"
            yield Violation(
                name_of(container),
                f"the {noun} {_with_verb(missing_labels)} missing, so container metrics lack these tags",
                "add the labels to `dockerLabels`, with the values of the variables",
                level=HINT if variables_are_elsewhere and len(missing_labels) == len(TAGS) else "",
            )


def _joined(words: Iterable[str]) -> str:
    """Return `words` as `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _with_verb(names: list[str]) -> str:
    """Return `names` and the verb of a sentence about them: `a` is, or `a`, `b` are."""
    return ", ".join(f"`{name}`" for name in names) + (" are" if len(names) > 1 else " is")


def _tags(container: Container) -> dict[str, str]:
    """Return the variables of unified service tagging, however they are set."""
    variables = {**secrets(container), **environment(container)}
    result = {name: variables[name] for name in TAGS if variables.get(name)}
    tags = dict(part.split(":", 1) for part in re.split(r"[,\s]+", variables.get("DD_TAGS", "")) if ":" in part)
    attributes = dict(
        part.split("=", 1) for part in variables.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in part
    )
    for name, tag in TAGS.items():
        value = tags.get(tag) or attributes.get(OTEL_ATTRIBUTES[name])
        if value and name not in result:
            result[name] = value
    if "DD_SERVICE" not in result and variables.get("OTEL_SERVICE_NAME"):
        result["DD_SERVICE"] = variables["OTEL_SERVICE_NAME"]
    return result


@rule("tags-differ", MISTAKE, "give both the same value")
def labels_and_environment_agree(task: TaskDefinition) -> Iterator[Violation]:
    """A label `com.datadoghq.tags.*` differs from its variable."""
    for container in task.services:
        variables, labels = environment(container), container.get("dockerLabels") or {}
        for variable, tag in TAGS.items():
            label, value = labels.get(f"com.datadoghq.tags.{tag}"), variables.get(variable)
            if not label or not value or is_open(label) or is_open(value):
                continue
            if label.strip().lower() != value.strip().lower():
                sentence = f"`{variable}` is {quoted(value)}, and the label com.datadoghq.tags.{tag} is {quoted(label)}"
                yield Violation(name_of(container), sentence)


@rule("agent-order", WARNING, '"dependsOn": [{"containerName": "<Agent>", "condition": "START"}] in the service')
def the_agent_stops_last(task: TaskDefinition) -> Iterator[Violation]:
    """A service does not depend on the Agent, which may then stop first and lose the last spans."""
    agents = {name_of(container) for container in task.agents}
    for container in task.services:
        is_partly_open = is_open(container.get("dependsOn"))
        if not agents or is_partly_open or task.depends_on_any(container, agents):
            continue
        if not dependency_is_reported(task, container):
            agent = quoted(next(iter(agents)))
            sentence = f"does not depend on the Agent {agent}, so the Agent may stop first and the last spans are lost"
            if any(task.depends_on_any(agent_container, {name_of(container)}) for agent_container in task.agents):
                sentence = f"the Agent {agent} depends on this service, so the Agent starts last and stops first"
            yield Violation(name_of(container), sentence)


@rule("old-variable", WARNING, "rename it")
def no_variable_is_out_of_date(task: TaskDefinition) -> Iterator[Violation]:
    """A variable that nothing reads is used instead of the right one."""
    for container in [*task.services, *task.agents]:
        for name, replacement in OLD_VARIABLES.items():
            if name in environment(container):
                yield Violation(
                    name_of(container),
                    f"`{name}` does nothing; the variable is `{replacement}`",
                    f"rename it to {replacement}",
                )


@rule("untidy-value", WARNING, "remove the spaces or quotes")
def values_are_tidy(task: TaskDefinition) -> Iterator[Violation]:
    """A Datadog variable has spaces or quotes around its name or value."""
    for container in task.containers:
        for name, value in environment(container).items():
            is_text = name.startswith("DD_") and not CHECKED_ELSEWHERE.search(name)
            if name != name.strip() or (is_text and value and value != value.strip(" \t\r\n\"'")):
                yield Violation(name_of(container), f"`{name}` has spaces or quotes around its name or value")


@rule("stop-timeout", MISTAKE, "a larger stopTimeout, or smaller DRAIN_SECONDS, GRACEFUL_SECONDS or FLUSH_SECONDS")
def stop_timeout_covers_the_shutdown(task: TaskDefinition) -> Iterator[Violation]:
    """hello-service only: its shutdown takes longer than `stopTimeout`, so it is killed and its last spans are lost."""
    for container in task.services:
        variables = environment(container)
        if not is_hello_service(container) or any(is_open(variables.get(name)) for name in BUDGET):
            continue
        seconds, has_invalid_value = CLOSING_SECONDS, False
        for name, default in BUDGET.items():
            value = number(variables.get(name) or str(default))
            if value is None:
                yield Violation(
                    name_of(container),
                    f"`{name}` is {quoted(variables[name])}, which is not a number of seconds",
                    "write a number",
                )
                has_invalid_value = True
            seconds += value or 0
        timeout = number(container.get("stopTimeout", STOP_TIMEOUT_SECONDS))
        if timeout is not None and timeout <= seconds and not has_invalid_value:
            origin = "" if "stopTimeout" in container else " (its default)"
            yield Violation(
                name_of(container),
                f"`stopTimeout` {timeout:g} s{origin} is not above the {seconds:g} s that a shutdown takes",
            )


@rule("keep-alive", WARNING, "make it longer than the load balancer's idle timeout (60 s by default)")
def idle_connections_outlive_the_load_balancers(task: TaskDefinition) -> Iterator[Violation]:
    """Hypercorn or uvicorn closes idle connections after 5 s (the default) or less, or hello-service after 60 s or less. A load balancer then responds with 502."""
    for container in task.services:
        words = command(container).split()
        for server, option in KEEP_ALIVE_OPTIONS.items():
            if not any(word.rpartition("/")[2] == server for word in words) or not container.get("portMappings"):
                continue
            values = [words[index + 1] for index, word in enumerate(words[:-1]) if word == option]
            values += [word.partition("=")[2] for word in words if word.startswith(option + "=")]
            seconds = number(values[-1]) if values else SERVER_IDLE_SECONDS
            if seconds is not None and seconds <= SERVER_IDLE_SECONDS:
                yield Violation(
                    name_of(container),
                    f"{server} closes idle connections after {seconds:g} s",
                    f"pass {option} 75, or more than the load balancer's idle timeout",
                    level="" if server == "hypercorn" else HINT,
                )
        keep_alive = number(environment(container).get("KEEP_ALIVE_SECONDS"))
        if keep_alive is not None and is_hello_service(container) and keep_alive <= ALB_IDLE_SECONDS:
            yield Violation(
                name_of(container),
                f"`KEEP_ALIVE_SECONDS` is {keep_alive:g}, and a load balancer's idle timeout is 60 s by default",
            )
