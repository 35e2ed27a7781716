"""Rules for keys and secrets: no key is in plain text, and each secret has a valid ARN and a role to read it.

The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from task_check import arns
from task_check.finding import MISTAKE, WARNING, Violation, rule
from task_check.task import (
    EC2,
    FARGATE,
    KEY_VARIABLES,
    Container,
    TaskDefinition,
    command,
    environment,
    name_of,
    secrets,
)
from task_check.values import is_open, plain, quoted

# Names of log options, labels and tags whose value is a key, a token or a password.
KEY_NAME = re.compile(
    r"(?:^|[._-])api[._-]?key$|^(?:dd|datadog)[._-]key$|^apikey$|^dd[_-]?api|app_?-?key$|splunk-token|secret_?-?key|password",
    re.IGNORECASE,
)
# An API key has 32 digits, and an application key 40.
HEX_KEY = re.compile(r"(?<![0-9a-fA-F])(?:[0-9a-f]{32}|[0-9a-f]{40})(?![0-9a-fA-F])")
# A name and a key in a longer text, such as DD_API_KEY=... or api-key: ...
KEY_IN_TEXT = re.compile(
    r"(?:DD_API_KEY|DD_APP_KEY|(?:api|app)[._-]?key)['\"]?\s*[=: ]\s*['\"]?(?:[0-9a-f]{40}|[0-9a-f]{32})\b",
    re.IGNORECASE,
)
CONSEQUENCE = "where anyone who can describe the task definition can read it"


def _is_datadog_key(name: str) -> bool:
    return name in KEY_VARIABLES or bool(re.fullmatch(r"(?:DD|DATADOG)_(?:\w+_)?(?:API|APP|APPLICATION)_?KEY", name))


@rule("key-in-clear", MISTAKE, "store it in Secrets Manager, and put its ARN under `secrets`")
def no_key_is_in_plain_text(task: TaskDefinition) -> Iterator[Violation]:
    """An API or application key is in plain text in `environment`, `valueFrom`, log options, labels, tags or a command."""
    for container in task.containers:
        name, variables = name_of(container), environment(container)
        # An entry of `environment` without `value` has a `valueFrom`, which another rule reports.
        misplaced_names = {entry.get("name") for entry in container.get("environment") or [] if "value" not in entry}
        if keys := [
            variable
            for variable, value in variables.items()
            if variable not in misplaced_names and _is_plain_key(variable, value)
        ]:
            yield Violation(name, f"{_listed(keys)} is in plain text under `environment`, {CONSEQUENCE}")
        log = container.get("logConfiguration") or {}
        log_options = log.get("options") or {}
        if options := [option for option, value in log_options.items() if _is_key_option(option, str(value))]:
            fix = "move it to `secretOptions` of `logConfiguration`, with the secret's ARN as `valueFrom`"
            yield Violation(name, f"{_listed(options)} is in plain text in the log `options`, {CONSEQUENCE}", fix)
        all_labels = container.get("dockerLabels") or {}
        if labels := [label for label, value in all_labels.items() if _is_key_label(label, str(value))]:
            yield Violation(
                name,
                f"the label {_listed(labels)} holds a key in plain text, {CONSEQUENCE}",
                "remove it from the label",
            )
        router_options = (container.get("firelensConfiguration") or {}).get("options") or {}
        if options := [option for option, value in router_options.items() if _is_key_option(option, str(value))]:
            yield Violation(name, f"{_listed(options)} is in plain text in `firelensConfiguration`, {CONSEQUENCE}")
        if _command_has_key(container):
            yield Violation(name, f"the command holds a key in plain text, {CONSEQUENCE}")
        for variable, source in secrets(container).items():
            if HEX_KEY.fullmatch(source):
                yield Violation(name, f"`valueFrom` of the secret `{variable}` is the key itself, {CONSEQUENCE}")
    all_tags = {str(tag.get("key", "")): str(tag.get("value", "")) for tag in task.document.get("tags") or []}
    if tags := [tag for tag, value in all_tags.items() if _is_key_label(tag, value)]:
        yield Violation("", f"the tag {_listed(tags)} holds a key in plain text, {CONSEQUENCE}", "remove the tag")


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{plain(name)}`" for name in names)


def _is_plain_key(name: str, value: str) -> bool:
    """Return whether a variable is a key in plain text, or contains one. `ENC[...]` is a reference to a key."""
    return bool(value) and not value.startswith("ENC[") and (_is_datadog_key(name) or _holds_key(name, value))


def _holds_key(name: str, value: str) -> bool:
    """Return whether the value of a variable is a key or contains one, although its name is not that of a key."""
    # In other Datadog variables, such as DD_GIT_COMMIT_SHA, hexadecimal digits are not a key.
    is_datadog_variable = name.startswith(("DD_", "DATADOG_")) and re.search(r"ENDPOINT|KEY|TOKEN|HEADER|URL", name)
    is_key = re.search(r"(?:^|_)(?:API|APP)_?KEY$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)
    return bool(is_key or (is_datadog_variable and HEX_KEY.search(value)) or KEY_IN_TEXT.search(value))


def _is_key_name(name: str, value: str) -> bool:
    """Return whether `name` is that of a secret.

    Names such as `dd_message_key` and `tag_key` are usually those of a field, so they count only if `value` is a key.
    """
    return bool(KEY_NAME.search(name) or (re.search(r"key$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)))


def _is_key_option(name: str, value: str) -> bool:
    """Return whether a log option is a key, or a header that contains one."""
    return bool(value) and (
        _is_key_name(name, value) or bool(re.search(r"dd-api-key", value, re.IGNORECASE) and name.lower() == "header")
    )


def _is_key_label(name: str, value: str) -> bool:
    """Return whether a label or a tag is a key, or JSON that contains one.

    `%%env_KEY%%` and `ENC[...]` are references to a key, which the Agent resolves.
    """
    is_key = _is_key_name(name, value) or bool(
        re.search(r'"(?:dd_)?(?:api|app)_?key"\s*:\s*"(?!%%|ENC\[)[^"]+"', value, re.IGNORECASE)
    )
    return is_key and bool(value) and not value.startswith(("%%", "ENC["))


def _command_has_key(container: Container) -> bool:
    """Return whether the entry point, the command or the health check contains a key."""
    health_check = map(plain, (container.get("healthCheck") or {}).get("command") or [])
    return bool(KEY_IN_TEXT.search(" ".join([command(container), *health_check])))


@rule(
    "secret-arn",
    MISTAKE,
    'write "arn:aws:secretsmanager:<region>:<account>:secret:<name>", followed by ":<key>::" for one key of a JSON secret',
)
def a_secret_comes_from_an_arn(task: TaskDefinition) -> Iterator[Violation]:
    """`valueFrom` or `credentialsParameter` is neither an ARN of Secrets Manager or Parameter Store nor a parameter's name."""
    for container in task.containers:
        log_secrets = (container.get("logConfiguration") or {}).get("secretOptions") or []
        for noun, entries in (("the secret", container.get("secrets") or []), ("the log's secret", log_secrets)):
            for entry in entries:
                source = str(entry.get("valueFrom"))
                if "valueFrom" in entry and (problem := arns.source_problem(source)):
                    sentence = f"{noun} `{entry.get('name')}` comes from {quoted(source)}, {problem}"
                    yield Violation(name_of(container), sentence)
        credentials = (container.get("repositoryCredentials") or {}).get("credentialsParameter", "")
        if credentials and (problem := arns.source_problem(str(credentials))):
            yield Violation(name_of(container), f"`credentialsParameter` is {quoted(credentials)}, {problem}")


@rule("secret-twice", MISTAKE, "keep one of the two")
def a_variable_is_set_once(task: TaskDefinition) -> Iterator[Violation]:
    """A variable is set twice. ECS rejects one that is both in `environment` and in `secrets`."""
    for container in task.containers:
        plain_names = [str(entry.get("name")) for entry in container.get("environment") or [] if "name" in entry]
        secret_names = [str(entry.get("name")) for entry in container.get("secrets") or [] if "name" in entry]
        for name, count in Counter([*plain_names, *secret_names]).items():
            if count > 1 and not is_open(name):
                is_in_both = name in plain_names and name in secret_names
                if is_in_both and name in KEY_VARIABLES:
                    continue  # the key in plain text is reported, and its fix removes it
                details = "in `environment` and in `secrets`" if is_in_both else f"{count} times"
                level = "" if name in secret_names else WARNING
                yield Violation(name_of(container), f"`{name}` is set {details}", level=level)


@rule(
    "execution-role",
    MISTAKE,
    '"executionRoleArn": a role with AmazonECSTaskExecutionRolePolicy and permission to read the secrets',
)
def an_execution_role_is_set_when_needed(task: TaskDefinition) -> Iterator[Violation]:
    """`executionRoleArn` is missing, but ECS needs it for secrets and, on Fargate, for awslogs and private images."""
    if task.document.get("executionRoleArn") or not task.source.is_whole:
        return
    needs: dict[str, list[str]] = {}
    for container in task.containers:
        log = container.get("logConfiguration") or {}
        if container.get("secrets") or log.get("secretOptions") or container.get("repositoryCredentials"):
            needs.setdefault("secrets", []).append(name_of(container))
        if task.on_fargate and log.get("logDriver") == "awslogs":
            needs.setdefault("awslogs", []).append(name_of(container))
        if task.on_fargate and ".dkr.ecr." in str(container.get("image")):
            needs.setdefault("a private image", []).append(name_of(container))
    if needs and task.launch_types & {FARGATE, EC2}:
        reasons = "; ".join(f"{need} ({_listed(names)})" for need, names in needs.items())
        yield Violation("", f"`executionRoleArn` is missing, but ECS needs it for {reasons}")


@rule("role-arn", MISTAKE, 'write "arn:aws:iam::<account>:role/<name>"')
def a_role_is_an_arn(task: TaskDefinition) -> Iterator[Violation]:
    """`executionRoleArn` or `taskRoleArn` is not the ARN of a role."""
    for name in ("executionRoleArn", "taskRoleArn"):
        value = str(task.document.get(name, ""))
        # ECS also accepts the bare name of the task role.
        is_short_name = name == "taskRoleArn" and re.fullmatch(r"[\w+=,.@-]+", value)
        if value and not is_open(value) and not is_short_name and not arns.ROLE.fullmatch(value):
            yield Violation("", f"`{name}` is {quoted(value)}, which is not the ARN of a role")
