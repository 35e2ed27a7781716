"""The forms of ARNs, and a check of `valueFrom`, the ARN of a secret or a parameter, or a parameter's name."""

from __future__ import annotations

import re

from task_check.values import MARK_END, MARK_START, is_open

# ECS accepts the ARN of the secret, optionally followed by :<JSON key>:<version stage>:<version id>. A key without the
# two colons after it also matches, so that it gets its own message.
SECRET = re.compile(
    r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:[\w/+=.@!-]+(?::(?P<key>[^:]*)(?P<versions>:[^:]*:[^:]*)?)?"
)
PARAMETER = re.compile(r"arn:aws[\w-]*:ssm:[\w-]+:\d{12}:parameter/[\w.-][\w./-]*")
PARAMETER_NAME = re.compile(r"[\w./-]+")
ROLE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+")

NO_COLONS = "which lacks the two colons after the key"


def source_problem(source: str) -> str:
    """Return the problem with a `valueFrom` as a clause, "" if it is valid.

    Parts that are not known yet (see values.py) count as valid.
    """
    if is_open(source):
        suffix = source.rpartition(MARK_END)[2]  # such as ":KEY" in "${ARN}:KEY", whose open part counts as the ARN
        return NO_COLONS if source.startswith(MARK_START) and re.fullmatch(r":[^:]+:?", suffix) else ""
    if not source:
        return "which is empty"
    if match := SECRET.fullmatch(source):
        return NO_COLONS if match["key"] is not None and match["versions"] is None else ""
    if source.startswith("arn:"):
        if re.search(r":ssm:.*:parameter/[^:]+:", source):
            return "but Parameter Store has no keys inside a parameter"
        return "" if PARAMETER.fullmatch(source) else "which is not the ARN of a secret or a parameter"
    return "" if PARAMETER_NAME.fullmatch(source) else "which is neither an ARN nor the name of a parameter"
