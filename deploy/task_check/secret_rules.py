"""Rules for keys and secrets: none is in plain text, and each has a valid ARN and a role that can read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from task_check import arns
from task_check.arns import source_problem
from task_check.finding import MISTAKE, WARNING, Found, rule
from task_check.task import EC2, FARGATE, KEYS, Container, Task, environment, secrets
from task_check.values import is_open, plain, shown

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


def _datadog(name: str) -> bool:
    return name in KEYS or bool(re.fullmatch(r"(?:DD|DATADOG)_(?:\w+_)?(?:API|APP|APPLICATION)_?KEY", name))


@rule("key-in-clear", MISTAKE, "store it in Secrets Manager, and put its ARN under `secrets`")
def no_key_is_in_plain_text(task: Task) -> Iterator[Found]:
    """An API or application key is in plain text in `environment`, log options, labels, tags or a command."""
    for container in task.containers:
        name, variables = str(container.get("name")), environment(container)
        clear = [
            each
            for each, value in variables.items()
            if value and not value.startswith("ENC[") and (_datadog(each) or _holds_key(each, value))
        ]
        misplaced = {entry.get("name") for entry in container.get("environment") or [] if "value" not in entry}
        if clear := [each for each in clear if each not in misplaced]:
            yield Found(name, f"{_list(clear)} is in plain text under `environment`, {READABLE}")
        log = container.get("logConfiguration") or {}
        if options := [each for each, value in (log.get("options") or {}).items() if _option(each, str(value))]:
            fix = "move it to `secretOptions` of `logConfiguration`, with the secret's ARN as `valueFrom`"
            yield Found(name, f"{_list(options)} is in plain text in the log `options`, {READABLE}", fix)
        labels = container.get("dockerLabels") or {}
        if labels := [each for each, value in labels.items() if _label(each, str(value))]:
            yield Found(
                name, f"the label {_list(labels)} holds a key in plain text, {READABLE}", "remove it from the label"
            )
        router = (container.get("firelensConfiguration") or {}).get("options") or {}
        if options := [each for each, value in router.items() if _option(each, str(value))]:
            yield Found(name, f"{_list(options)} is in plain text in `firelensConfiguration`, {READABLE}")
        if _in_command(container):
            yield Found(name, f"the command holds a key in plain text, {READABLE}")
        for variable, source in secrets(container).items():
            if HEX_KEY.fullmatch(source):
                yield Found(name, f"`valueFrom` of the secret `{variable}` is the key itself, {READABLE}")
    tags = {str(tag.get("key", "")): str(tag.get("value", "")) for tag in task.document.get("tags") or []}
    if tagged := [each for each, value in tags.items() if _label(each, value)]:
        yield Found("", f"the tag {_list(tagged)} holds a key in plain text, {READABLE}", "remove the tag")


def _list(names: list[str]) -> str:
    return ", ".join(f"`{plain(name)}`" for name in names)


def _holds_key(name: str, value: str) -> bool:
    """Return whether a variable with another name has a key as its value, or in its value."""
    is_datadogs = name.startswith(("DD_", "DATADOG_")) and re.search(r"ENDPOINT|KEY|TOKEN|HEADER|URL", name)
    is_key = re.search(r"(?:^|_)(?:API|APP)_?KEY$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)
    return bool(is_key or (is_datadogs and HEX_KEY.search(value)) or KEY_IN_TEXT.search(value))


def _names_key(name: str, value: str) -> bool:
    """Return whether `name` is the name of a secret; `dd_message_key` and `tag_key` are names of fields, unless their value is a key."""
    return bool(KEY_NAME.search(name) or (re.search(r"key$", name, re.IGNORECASE) and HEX_KEY.fullmatch(value)))


def _option(name: str, value: str) -> bool:
    """Return whether a log option is a key; a header contains it in its value."""
    return bool(value) and (
        _names_key(name, value) or bool(re.search(r"dd-api-key", value, re.IGNORECASE) and name.lower() == "header")
    )


def _label(name: str, value: str) -> bool:
    named = _names_key(name, value) or bool(
        re.search(r'"(?:dd_)?(?:api|app)_?key"\s*:\s*"(?!%%|ENC\[)[^"]+"', value, re.IGNORECASE)
    )
    return named and bool(value) and not value.startswith(("%%", "ENC["))


def _in_command(container: Container) -> bool:
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
def a_secret_comes_from_an_arn(task: Task) -> Iterator[Found]:
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
                yield Found(str(container.get("name")), f"{what} comes from {shown(source)}, {problem}")
        credentials = (container.get("repositoryCredentials") or {}).get("credentialsParameter", "")
        if credentials and (problem := source_problem(str(credentials))):
            yield Found(str(container.get("name")), f"`credentialsParameter` is {shown(credentials)}, {problem}")


@rule("secret-twice", MISTAKE, "keep one of the two")
def a_variable_is_set_once(task: Task) -> Iterator[Found]:
    """A variable is set twice. ECS rejects one that is both in `environment` and in `secrets`."""
    for container in task.containers:
        values = [str(entry.get("name")) for entry in container.get("environment") or [] if "name" in entry]
        hidden = [str(entry.get("name")) for entry in container.get("secrets") or [] if "name" in entry]
        for name, count in Counter([*values, *hidden]).items():
            if count > 1 and not is_open(name):
                both = "in `environment` and in `secrets`" if name in values and name in hidden else f"{count} times"
                if name in KEYS and "and" in both:
                    continue  # the key in plain text is reported, and its fix removes it
                level = "" if name in hidden else WARNING
                yield Found(str(container.get("name")), f"`{name}` is set {both}", "", level)


@rule(
    "execution-role",
    MISTAKE,
    '"executionRoleArn": a role with AmazonECSTaskExecutionRolePolicy and permission to read the secrets',
)
def an_execution_role_is_set_when_needed(task: Task) -> Iterator[Found]:
    """`executionRoleArn` is missing, but ECS needs it for secrets and, on Fargate, for awslogs and private images."""
    if task.document.get("executionRoleArn") or not task.source.whole:
        return
    needs: dict[str, list[str]] = {}
    for container in task.containers:
        log = container.get("logConfiguration") or {}
        if container.get("secrets") or log.get("secretOptions") or container.get("repositoryCredentials"):
            needs.setdefault("secrets", []).append(str(container.get("name")))
        if task.on_fargate and log.get("logDriver") == "awslogs":
            needs.setdefault("awslogs", []).append(str(container.get("name")))
        if task.on_fargate and ".dkr.ecr." in str(container.get("image")):
            needs.setdefault("a private image", []).append(str(container.get("name")))
    if needs and task.platforms & {FARGATE, EC2}:
        reasons = "; ".join(f"{need} ({_list(names)})" for need, names in needs.items())
        yield Found("", f"`executionRoleArn` is missing, but ECS needs it for {reasons}")


@rule("role-arn", MISTAKE, 'write "arn:aws:iam::<account>:role/<name>"')
def a_role_is_an_arn(task: Task) -> Iterator[Found]:
    """`executionRoleArn` or `taskRoleArn` is not the ARN of a role."""
    for name in ("executionRoleArn", "taskRoleArn"):
        value = str(task.document.get(name, ""))
        is_short_name = name == "taskRoleArn" and re.fullmatch(r"[\w+=,.@-]+", value)
        if value and not is_open(value) and not is_short_name and not arns.ROLE.fullmatch(value):
            yield Found("", f"`{name}` is {shown(value)}, which is not the ARN of a role")
