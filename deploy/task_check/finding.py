"""Findings, and the list of all rules.

At run time, this module imports no other module of the package, so all of them can import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from task_check.task import TaskDefinition

MISTAKE, WARNING, HINT = "mistake", "warning", "hint"
LEVELS = (MISTAKE, WARNING, HINT)  # the worst first


@dataclass(frozen=True)
class Finding:
    """A finding in a task definition: its rule, level and container, what is wrong, and what to do."""

    rule: str
    level: str
    container: str
    sentence: str
    fix: str


class Violation(NamedTuple):
    """A violation of a rule, which the rule's function yields.

    If `container` is empty, the violation is in the task. `fix` and `level`, if not empty, override those of the rule.
    """

    container: str
    sentence: str
    fix: str = ""
    level: str = ""


FindViolations = Callable[["TaskDefinition"], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """A rule: its id for `--ignore`, its default level and fix, and the function that finds its violations.

    The docstring of the function states the violation, and is the rule's row in docs/task-definition-check.md.
    """

    name: str
    level: str
    fix: str
    find: FindViolations

    def findings(self, task: TaskDefinition) -> Iterator[Finding]:
        """Yield the findings of this rule in `task`."""
        for violation in self.find(task):
            level, fix = violation.level or self.level, violation.fix or self.fix
            yield Finding(
                rule=self.name, level=level, container=violation.container, sentence=violation.sentence, fix=fix
            )


RULES: dict[str, Rule] = {}
# Rules about the form of a definition. shape.py and placeholders.py check them, so they are not in RULES.
FORM_RULES = frozenset(
    {
        "unknown-field",
        "missing-field",
        "wrong-type",
        "unknown-value",
        "null-field",
        "repeated-key",
        "value-from-in-environment",
        "value-in-secrets",
        "placeholder",
    }
)


def rule(name: str, level: str, fix: str) -> Callable[[FindViolations], FindViolations]:
    """Return a decorator that adds a function to RULES under `name`."""

    def add(find: FindViolations) -> FindViolations:
        RULES[name] = Rule(name, level, fix, find)
        return find

    return add
