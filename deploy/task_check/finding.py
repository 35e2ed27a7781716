"""Findings, and the list of all rules. A leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from task_check.task import Task

MISTAKE, WARNING, HINT = "mistake", "warning", "hint"
LEVELS = (MISTAKE, WARNING, HINT)


@dataclass(frozen=True)
class Finding:
    """A finding in a task definition: its rule, level and container, what is wrong, and what to do."""

    rule: str
    level: str
    container: str
    sentence: str
    fix: str


class Found(NamedTuple):
    """A finding as a rule's function yields it. An empty `container` means the task; `fix` and `level` replace the rule's own."""

    container: str
    sentence: str
    fix: str = ""
    level: str = ""


Find = Callable[["Task"], Iterator[Found]]


@dataclass(frozen=True)
class Rule:
    """A function that finds one kind of mistake. Its docstring is the rule's line in docs/task-definition-check.md."""

    name: str
    level: str
    fix: str
    find: Find

    def findings(self, task: Task) -> Iterator[Finding]:
        """Yield the findings of this rule in `task`."""
        for found in self.find(task):
            yield Finding(self.name, found.level or self.level, found.container, found.sentence, found.fix or self.fix)


RULES: dict[str, Rule] = {}


def rule(name: str, level: str, fix: str) -> Callable[[Find], Find]:
    """Add the function to RULES."""

    def add(find: Find) -> Find:
        RULES[name] = Rule(name, level, fix, find)
        return find

    return add
