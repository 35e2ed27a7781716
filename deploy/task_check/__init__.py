"""Checks an ECS task definition with a Datadog Agent against rules that no linter has, for `deploy/check.py`.

A file passes through `reading`, `shape`, `placeholders` and `task`, then through the modules of rules and `linter`. The
package needs botocore and cfn-lint, but no other code of this repository.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from task_check import agent_rules, container_rules, fargate_rules, secret_rules, service_rules, tracing_rules
from task_check.finding import LEVELS, RULES, Finding
from task_check.linter import lint
from task_check.placeholders import mark_placeholders
from task_check.reading import UnreadableError, decode, read
from task_check.shape import conform, request_shape
from task_check.task import FARGATE, TaskDefinition
from task_check.values import plain

RULE_MODULES = (agent_rules, tracing_rules, service_rules, secret_rules, container_rules, fargate_rules)
# All rules, in the order of docs/task-definition-check.md.
ORDERED_RULES = [rule for module in RULE_MODULES for rule in RULES.values() if rule.find.__module__ == module.__name__]


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
        document, task_findings = conform(source)
        task_findings += mark_placeholders(document, source)
        task = TaskDefinition(document, source)
        for rule in ORDERED_RULES:
            task_findings += rule.findings(task)
        task_findings += lint(task, request_shape())
        prefix = f"{source.name}: " if source.name else ""
        if other_launch_types := sorted(task.launch_types - {FARGATE}):
            consequence = "" if task.on_fargate else ", so the Fargate rules are skipped"
            notes.append(f"{prefix}this definition is for {' and '.join(other_launch_types)}{consequence}")
        elif not task.launch_types:
            notes.append(f"{prefix}no field shows that this is for Fargate, so the Fargate rules are skipped")
        if not source.is_whole:
            notes.append(f"{prefix}this is a list of containers, so fields of the task are not checked")
        for finding in dict.fromkeys(task_findings):  # without repetitions
            container = f"{prefix}{plain(finding.container)}" if finding.container else source.name
            sentence, fix = plain(finding.sentence), plain(finding.fix)
            findings.append(replace(finding, container=container, sentence=sentence, fix=fix))
    return Report(findings=sorted(findings, key=lambda finding: LEVELS.index(finding.level)), notes=notes)


__all__ = ["Finding", "Report", "UnreadableError", "check"]
