"""Runs cfn-lint on the task definition, for Fargate's sizes and for mistakes that this package has no rules for.

A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import json
from typing import Any

from task_check.finding import MISTAKE, Finding
from task_check.task import TaskDefinition
from task_check.values import is_open, number, quoted

# Rules of cfn-lint that this package's own rules cover.
COVERED_RULES = {"E1152", "E1156", "E3002", "E3003", "E3012", "E3030", "E3031", "E3033", "E3034"}
COVERED_RULES |= {"E3042", "E3046", "E3048", "E3049", "E3051", "E3052", "E3053", "E3054", "E3511"}
UNIQUE_RULE = "E3037"  # reports equal entries of a list
# The lists in which secret-twice, names-twice and mount-without-volume report equal entries.
COVERED_LISTS = {"Environment", "Secrets", "ContainerDefinitions", "Volumes", "MountPoints"}
# The fields whose values may be passwords. A message of cfn-lint quotes the value.
PRIVATE_FIELDS = {"Environment", "DockerLabels", "Options", "Command", "EntryPoint", "Tags"}
# Names that CloudFormation spells with more than one capital at the start.
SPECIAL_NAMES = {
    "efsVolumeConfiguration": "EFSVolumeConfiguration",
    "fsxWindowsFileServerVolumeConfiguration": "FSxWindowsFileServerVolumeConfiguration",
}
SIZE_RULE = "E3047"
# The memory in MiB that Fargate offers for each number of CPU units.
MEMORY_SIZES = {
    256: "512, 1024 or 2048",
    512: "1024 to 4096",
    1024: "2048 to 8192",
    2048: "4096 to 16384",
    4096: "8192 to 30720",
    8192: "16384 to 61440",
    16384: "32768 to 122880",
}
STAND_IN = "us-east-1"  # replaces an open value in a map, because log options accept it as a region and as a name


def lint(task: TaskDefinition, shape: Any) -> list[Finding]:
    """Return cfn-lint's findings in `task`, except those that other rules cover. cfn-lint gets no open value.

    `shape` is botocore's shape of a task definition.
    """
    from cfnlint.api import lint_all  # noqa: PLC0415 - the command reports in one sentence when it is missing

    if not task.source.is_whole:
        return []
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": _capitalized(task.document, shape)}
    return [
        _size_finding(task) if match.rule.id == SIZE_RULE else _finding(match, task)
        for match in lint_all(json.dumps({"Resources": {"Task": resource}}))
        if _is_reported(match)
    ]


def _is_reported(match: Any) -> bool:
    is_error = match.rule.id.startswith("E")  # not W (a warning) or I (information)
    is_equal_entry = match.rule.id == UNIQUE_RULE and match.path[-1] in COVERED_LISTS
    return is_error and match.rule.id not in COVERED_RULES and not is_equal_entry


def _size_finding(task: TaskDefinition) -> Finding:
    cpu, memory = task.document.get("cpu"), task.document.get("memory")
    sentence = f"Fargate has no size with cpu {quoted(cpu)} and memory {quoted(memory)}"
    units = number(cpu) or 0
    if units in MEMORY_SIZES:
        fix = f"with cpu {units:g} the memory is {MEMORY_SIZES[int(units)]} MiB"
    else:
        fix = f"cpu is one of {', '.join(map(str, MEMORY_SIZES))}"
    return Finding(rule="fargate-size", level=MISTAKE, container="", sentence=sentence, fix=fix)


def _finding(match: Any, task: TaskDefinition) -> Finding:
    """Return `match`, a finding of cfn-lint, as a finding of this package."""
    path = [str(part) for part in match.path[3:]]  # without Resources, Task and Properties
    container = ""
    if path[:1] == ["ContainerDefinitions"] and len(path) > 1:
        container = str(task.containers[int(path[1])].get("name", ""))
        path = path[2:]
    message, fix = match.message, match.rule.description
    if match.rule.id == UNIQUE_RULE:
        message, fix = "two entries are equal", "remove one of them"
    # A message that starts with a list or an object quotes a whole part of the file.
    elif message.startswith(("[", "{")) or not PRIVATE_FIELDS.isdisjoint(path):
        message = f"cfn-lint rejects the value ({match.rule.shortdesc})"
    where = f"`{'.'.join(path)}`: " if path else ""
    return Finding(f"cfn-lint-{match.rule.id}", MISTAKE, container, sentence=where + message, fix=fix)


def _capitalized(value: Any, shape: Any) -> Any:
    """Return `value` with CloudFormation's names and without open values.

    The keys of maps stay as they are, because they are the user's own.
    """
    kind = shape.type_name if shape is not None else ""
    if kind == "structure" and isinstance(value, dict):
        # ECS describes many unset lists as empty. cfn-lint would report some of them as unsupported by Fargate.
        return {
            SPECIAL_NAMES.get(name, name[:1].upper() + name[1:]): _capitalized(entry, shape.members.get(name))
            for name, entry in value.items()
            if not is_open(entry) and entry != []
        }
    if kind == "list" and isinstance(value, list):
        return [_capitalized(entry, shape.member) for entry in value if not is_open(entry)]
    if kind == "map" and isinstance(value, dict):
        return {name: STAND_IN if is_open(entry) else entry for name, entry in value.items()}
    return value
