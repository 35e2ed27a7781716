"""Rules for an ECS task definition with a Datadog Agent, which no linter has. The command is `deploy/check.py`.

reading -> shape -> placeholders -> task -> the rules by theme -> linter. It needs botocore and cfn-lint, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from task_check import agent_rules, container_rules, fargate_rules, secret_rules, service_rules, tracing_rules
from task_check.finding import LEVELS, RULES, Finding
from task_check.linter import lint
from task_check.placeholders import mark
from task_check.reading import UnreadableError, decode, read
from task_check.shape import conform, model
from task_check.task import FARGATE, Task
from task_check.values import plain

THEMES = (agent_rules, tracing_rules, service_rules, secret_rules, container_rules, fargate_rules)
ORDERED = [rule for theme in THEMES for rule in RULES.values() if rule.find.__module__ == theme.__name__]


@dataclass(frozen=True)
class Report:
    """The findings of one file, mistakes first, and notes on the file."""

    findings: list[Finding]
    notes: list[str]


def check(data: bytes | str) -> Report:
    """Return the findings for the task definitions in `data`.

    Raises:
        UnreadableError: when there is none.
        ModuleNotFoundError: when botocore or cfn-lint is missing.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    for source in read(data if isinstance(data, str) else decode(data)):
        document, found = conform(source)
        found += mark(document, source)
        task = Task(document, source)
        for rule in ORDERED:
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
        for each in dict.fromkeys(found):
            container = f"{where}{plain(each.container)}" if each.container else where.removesuffix(": ")
            findings.append(replace(each, container=container, sentence=plain(each.sentence), fix=plain(each.fix)))
    return Report(sorted(findings, key=lambda each: LEVELS.index(each.level)), notes)


__all__ = ["Finding", "Report", "UnreadableError", "check"]
