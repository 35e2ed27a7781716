"""Checks an ECS task definition with a Datadog Agent against rules that no linter has, for `deploy/check.py`.

A file passes through `reading`, `shape`, `placeholders` and `task`, then through the modules of rules and `linter`. The
package needs botocore and cfn-lint, and nothing else from this repository.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from task_check import agent_rules, container_rules, fargate_rules, secret_rules, service_rules, tracing_rules
from task_check.finding import LEVELS, RULES, Finding
from task_check.linter import lint
from task_check.placeholders import mark_placeholders
from task_check.reading import UnreadableError, decode, read
from task_check.shape import conform, model
from task_check.task import FARGATE, Task
from task_check.values import plain

RULE_MODULES = (agent_rules, tracing_rules, service_rules, secret_rules, container_rules, fargate_rules)
# All rules, in the order of docs/task-definition-check.md.
ORDERED_RULES = [rule for theme in RULE_MODULES for rule in RULES.values() if rule.find.__module__ == theme.__name__]


@dataclass(frozen=True)
class Report:
    """The findings of one file, mistakes first, and notes on the file."""

    findings: list[Finding]
    notes: list[str]


def check(data: bytes | str) -> Report:
    """Return the findings for the task definitions in `data`.

    Raises:
        UnreadableError: when `data` has no task definition.
        ModuleNotFoundError: when botocore or cfn-lint is missing.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    for source in read(data if isinstance(data, str) else decode(data)):
        document, found = conform(source)
        found += mark_placeholders(document, source)
        task = Task(document, source)
        for rule in ORDERED_RULES:
            found += rule.findings(task)
        found += lint(task, model())
        where = f"{source.name}: " if source.name else ""
        if other := sorted(task.platforms - {FARGATE}):
            skipped = "" if task.on_fargate else ", so the Fargate rules are skipped"
            notes.append(f"{where}this definition is for {' and '.join(other)}{skipped}")
        elif not task.platforms:
            notes.append(f"{where}no field shows that this is for Fargate, so the Fargate rules are skipped")
        if not source.whole:
            notes.append(f"{where}this is a list of containers, so fields of the task are not checked")
        for each in dict.fromkeys(found):  # each finding once
            container = f"{where}{plain(each.container)}" if each.container else where.removesuffix(": ")
            findings.append(replace(each, container=container, sentence=plain(each.sentence), fix=plain(each.fix)))
    return Report(sorted(findings, key=lambda each: LEVELS.index(each.level)), notes)


__all__ = ["Finding", "Report", "UnreadableError", "check"]
