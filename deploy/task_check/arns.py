"""Checks a `valueFrom`: an ARN of Secrets Manager or Parameter Store, or a parameter's name. A leaf."""

from __future__ import annotations

import re

from task_check.values import CLOSE, OPEN, is_open

SECRET = re.compile(
    r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:[\w/+=.@!-]+(?::(?P<key>[^:]*)(?P<rest>:[^:]*:[^:]*)?)?"
)
PARAMETER = re.compile(r"arn:aws[\w-]*:ssm:[\w-]+:\d{12}:parameter/[\w.-][\w./-]*")
PARAMETER_NAME = re.compile(r"[\w./-]+")
ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")

NO_COLONS = "which lacks the two colons after the key"


def source_problem(source: str) -> str:
    """Return the problem with a `valueFrom` as a clause, "" if it is valid. Its open parts are taken to be valid."""
    if is_open(source):
        rest = source.rpartition(CLOSE)[2]  # such as ":KEY" in "${ARN}:KEY"
        starts_open = source.startswith(OPEN) and "arn:" not in rest
        return NO_COLONS if starts_open and re.fullmatch(r":[^:]+:?", rest) else ""
    if not source:
        return "which is empty"
    if match := SECRET.fullmatch(source):
        return NO_COLONS if match["key"] is not None and match["rest"] is None else ""
    if source.startswith("arn:"):
        if re.search(r":ssm:.*:parameter/[^:]+:", source):
            return "but Parameter Store has no keys inside a parameter"
        return "" if PARAMETER.fullmatch(source) else "which is not the ARN of a secret or a parameter"
    return "" if PARAMETER_NAME.fullmatch(source) else "which is neither an ARN nor the name of a parameter"
