"""Rules for keys and secrets: no key is in plain text, and each secret has a valid ARN and a role to read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from task_check import arns
from task_check.arns import source_problem
from task_check.finding import MISTAKE, WARNING, Violation, rule
from task_check.task import EC2, FARGATE, KEY_VARIABLES, Container, Task, environment, name_of, secrets
from task_check.values import is_open, plain, quoted

KEY_NAME = re.compile(
    r"(?:^|[._-])api[._-]?key$|^(?:dd|datadog)[._-]key$|^apikey$|^dd[_-]?api|app_?-?key$|splunk-token|secret_?-?key|password",
    re.IGNORECASE,
)
HEX_KEY = re.compile(r"(?<![0-9a-fA-F])(?:[0-9a-f]{32}|[0-9a-f]{40})(?![0-9a-fA-F])")
KEY_IN_TEXT = re.compile(
    r"(?:DD_API_KEY|DD_APP_KEY|(?:api|app)[._-]?key)['\"]?\s*[=: ]\s*['\"]?(?:[0-9a-f]{40}|[0-9a-f]{32})\b",
    re.IGNORECASE,
)
READABLE = "where anyone who can describe the task definition can read it"


def _is_datadog_key(name: str) -> bool:
    return name in KEY_VARIABLES or bool(re.fullmatch(r"(?:DD|DATADOG)_(?:\w+_)?(?:API|APP|APPLICATION)_?KEY", name))


@rule("key-in-clear", MISTAKE, "store it in Secrets Manager, and put its ARN under `secrets`")
def no_key_is_in_plain_text(task: Task) -> Iterator[Violation]:
    """An API or application key is in plain text in `environment`, log options, labels, tags or a command."""
    for container in task.containers:
        name, variables = name_of(container), environment(container)
        clear = [
            each
            for each, value in variables.items()
            if value and not value.startswith("ENC[") and (_is_datadog_key(each) or _holds_key(each, value))
        ]
        misplaced = {entry.get("name") for entry in container.get("environment") or [] if "value" not in entry}
        if clear := [each for each in clear if each not in misplaced]:
            yield Violation(name, f"{_listed(clear)} is in plain text under `environment`, {READABLE}")
        log = container.get("logConfiguration") or {}
        if options := [each for each, value in (log.get("options") or {}).items() if _is_key_option(each, str(value))]:
            fix = "move it to `secretOptions` of `logConfiguration`, with the secret's ARN as `valueFrom`"
            yield Violation(name, f"{_listed(options)} is in plain text in the log `options`, {READABLE}", fix)
        labels = container.get("dockerLabels") or {}
        if labels := [each for each, value in labels.items() if _is_key_label(each, str(value))]:
            yield Violation(
                name, f"the label {_listed(labels)} holds a key in plain text, {READABLE}", "remove it from the label"
            )
        router = (container.get("firelensConfiguration") or {}).get("options") or {}
        if options := [each for each, value in router.items() if _is_key_option(each, str(value))]:
            yield Violation(name, f"{_listed(options)} is in plain text in `firelensConfiguration`, {READABLE}")
        if _command_has_key(container):
            yield Violation(name, f"the command holds a key in plain text, {READABLE}")
        for variable, source in secrets(container).items():
            if HEX_KEY.fullmatch(source):
                yield Violation(name, f"`valueFrom` of the secret `{variable}` is the key itself, {READABLE}")
    tags = {str(tag.get("key", "")): str(tag.get("value", "")) for tag in task.document.get("tags") or []}
    if tagged := [each for each, value in tags.items() if _is_key_label(each, value)]:
        yield Violation("", f"the tag {_listed(tagged)} holds a key in plain text, {READABLE}", "remove the tag")


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{plain(name)}`" for name in names)


def _holds_key(name: str, value: str) -> bool:
    """Return whether the value of a variable is a key or contains one, although its name is not that of a key."""
    is_datadog_variable = name.startswith(("DD_", "DATADOG_")) and re.search(r"ENDPOINT|KEY|TOKEN|HEADER|URL", name)
    is_key = re.search(r"(?:^|_)(?:API|APP)_?KEY$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)
    return bool(is_key or (is_datadog_variable and HEX_KEY.search(value)) or KEY_IN_TEXT.search(value))


def _names_key(name: str, value: str) -> bool:
    """Return whether `name` names a secret.

    Names such as `dd_message_key` and `tag_key` usually name a field, so they count only if their value is a key.
    """
    return bool(KEY_NAME.search(name) or (re.search(r"key$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)))


def _is_key_option(name: str, value: str) -> bool:
    """Return whether a log option is a key, or a header that contains one."""
    return bool(value) and (
        _names_key(name, value) or bool(re.search(r"dd-api-key", value, re.IGNORECASE) and name.lower() == "header")
    )


def _is_key_label(name: str, value: str) -> bool:
    named = _names_key(name, value) or bool(
        re.search(r'"(?:dd_)?(?:api|app)_?key"\s*:\s*"(?!%%|ENC\[)[^"]+"', value, re.IGNORECASE)
    )
    return named and bool(value) and not value.startswith(("%%", "ENC["))


def _command_has_key(container: Container) -> bool:
    check = (container.get("healthCheck") or {}).get("command") or []
    words = " ".join(
        plain(word) for word in [*(container.get("entryPoint") or []), *(container.get("command") or []), *check]
    )
    return bool(KEY_IN_TEXT.search(words))


@rule(
    "secret-arn",
    MISTAKE,
    'write "arn:aws:secretsmanager:<region>:<account>:secret:<name>", followed by ":<key>::" for one key of a JSON secret',
)
def a_secret_comes_from_an_arn(task: Task) -> Iterator[Violation]:
    """`valueFrom` is neither an ARN of Secrets Manager or Parameter Store nor a parameter's name."""
    for container in task.containers:
        log = (container.get("logConfiguration") or {}).get("secretOptions") or []
        named = [*(("", each) for each in container.get("secrets") or []), *(("log's ", each) for each in log)]
        sources = [
            (f"the {kind}secret `{each.get('name')}`", str(each["valueFrom"]))
            for kind, each in named
            if "valueFrom" in each
        ]
        for what, source in sources:
            if problem := source_problem(source):
                yield Violation(name_of(container), f"{what} comes from {quoted(source)}, {problem}")
        credentials = (container.get("repositoryCredentials") or {}).get("credentialsParameter", "")
        if credentials and (problem := source_problem(str(credentials))):
            yield Violation(name_of(container), f"`credentialsParameter` is {quoted(credentials)}, {problem}")


@rule("secret-twice", MISTAKE, "keep one of the two")
def a_variable_is_set_once(task: Task) -> Iterator[Violation]:
    """A variable is set twice. ECS rejects one that is both in `environment` and in `secrets`."""
    for container in task.containers:
        values = [str(entry.get("name")) for entry in container.get("environment") or [] if "name" in entry]
        hidden = [str(entry.get("name")) for entry in container.get("secrets") or [] if "name" in entry]
        for name, count in Counter([*values, *hidden]).items():
            if count > 1 and not is_open(name):
                is_in_both = name in values and name in hidden
                if is_in_both and name in KEY_VARIABLES:
                    continue  # the key in plain text is reported, and its fix removes it
                details = "in `environment` and in `secrets`" if is_in_both else f"{count} times"
                level = "" if name in hidden else WARNING
                yield Violation(name_of(container), f"`{name}` is set {details}", "", level)


@rule(
    "execution-role",
    MISTAKE,
    '"executionRoleArn": a role with AmazonECSTaskExecutionRolePolicy and permission to read the secrets',
)
def an_execution_role_is_set_when_needed(task: Task) -> Iterator[Violation]:
    """`executionRoleArn` is missing, but ECS needs it for secrets and, on Fargate, for awslogs and private images."""
    if task.document.get("executionRoleArn") or not task.source.whole:
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
    if needs and task.platforms & {FARGATE, EC2}:
        reasons = "; ".join(f"{need} ({_listed(names)})" for need, names in needs.items())
        yield Violation("", f"`executionRoleArn` is missing, but ECS needs it for {reasons}")


@rule("role-arn", MISTAKE, 'write "arn:aws:iam::<account>:role/<name>"')
def a_role_is_an_arn(task: Task) -> Iterator[Violation]:
    """`executionRoleArn` or `taskRoleArn` is not the ARN of a role."""
    for name in ("executionRoleArn", "taskRoleArn"):
        value = str(task.document.get(name, ""))
        is_short_name = name == "taskRoleArn" and re.fullmatch(r"[\w+=,.@-]+", value)
        if value and not is_open(value) and not is_short_name and not arns.ROLE.fullmatch(value):
            yield Violation("", f"`{name}` is {quoted(value)}, which is not the ARN of a role")
