"""Finds placeholders that were not filled in. Only `${NAME}` is accepted, because a deployment fills it in."""

from __future__ import annotations

import re
from typing import Any

from task_check.finding import MISTAKE, Finding
from task_check.reading import Source
from task_check.task import KEYS
from task_check.values import CLOSE, OPEN, opened, plain, shown

RULE = "placeholder"
FIX = "fill it in"

# The forms that people and tools use. A match of a whole value is always a placeholder, a part only outside free text.
FORMS = re.compile(
    r"<[A-Za-z][\w .:/-]*>"
    r"|\{\{(?!resolve:)[^{}]*\}\}"
    r"|(?<![\w$\\])\$\(?[A-Za-z_]\w*\)?"
    r"|(?<!%)%[A-Z][A-Z0-9_]*%(?!%)"
    r"|@@?[A-Z][A-Z0-9_]+@@?"
    r"|__[A-Z][A-Z0-9_]*?__"
    r"|#\{[^}]+\}#?"
    r"|\(\([\w.-]+\)\)"
    r"|\[\[[^\]]+\]\]"
    r"|\[[A-Z][A-Z0-9_ -]+\]"
    r"|\{[A-Z][A-Z0-9_]+\}"
    r"|(?<![A-Za-z0-9])(?:(?:YOUR|INSERT|ENTER)_[A-Z0-9_]+|(?:your|insert|enter)[-_][a-z0-9_-]+"
    r"|(?:[Rr]eplace|REPLACE)[-_ ]?(?:me|ME|this|THIS|with|WITH)\w*|(?:[Cc]hange|CHANGE)[-_ ]?(?:me|ME)|FIXME|TODO|TBD"
    r"|PLACEHOLDER|placeholder|[Xx]{4,})(?![A-Za-z0-9])"
)
OPENED = re.compile(rf"{OPEN}(\$\{{.*?){CLOSE}")
# Scripts, patterns and templates for another program.
FREE = re.compile(
    r"\.(?:command|entryPoint)\[|dockerLabels\.(?!com\.datadoghq\.tags)|options\.(?!awslogs-(?:group|region))"
)
FREE_NAMES = re.compile(r"PASS|SECRET|TOKEN|KEY|REGEX|PATTERN|RULES|OBFUSC|FORMAT|TEMPLATE", re.IGNORECASE)


def unfilled(text: str, *, anywhere: bool) -> str:
    """Return the placeholder in `text`, or an empty string."""
    if "(?" in text:
        return ""
    match = FORMS.search(text) if anywhere else FORMS.fullmatch(text)
    return match[0] if match else ""


def mark(document: dict[str, Any], source: Source) -> list[Finding]:
    """Mark every value with a placeholder as open, so that no other rule reads it, and return one finding for each."""
    walk = _Walk(source.registered)
    walk.value(document, "", "", "")
    return [_finding(found, where) for found, where in walk.places.items()]


class _Walk:
    def __init__(self, registered: bool) -> None:
        self.registered = registered
        self.places: dict[str, list[tuple[str, str]]] = {}

    def value(self, value: Any, path: str, container: str, variable: str) -> Any:
        if isinstance(value, dict):
            variable = str(value.get("name", "")) if ".environment[" in path else ""
            for name, entry in value.items():
                if not variable or (name == "value" and variable not in KEYS):
                    value[name] = self.value(entry, f"{path}.{name}", container, variable)
        elif isinstance(value, list):
            for at, entry in enumerate(value):
                is_container = path == ".containerDefinitions" and isinstance(entry, dict)
                inside = str(entry.get("name", "")) if is_container else container
                value[at] = self.value(entry, f"{path}[{at}]", inside, variable)
        elif isinstance(value, str) and not FREE.search(path):
            return self._text(value, path, container, variable)
        return value

    def _text(self, value: str, path: str, container: str, variable: str) -> str:
        anywhere = not variable or (variable.startswith("DD_") and not FREE_NAMES.search(variable))
        if OPEN in value:
            match = (OPENED.search if anywhere else OPENED.fullmatch)(value) if self.registered else None
            found = match[1] if match else ""
        else:
            found = unfilled(value, anywhere=anywhere)
        if found:
            where = variable or path.rpartition("].")[2].lstrip(".")
            self.places.setdefault(found, []).append((container, where))
        return opened(value) if found and OPEN not in value else value


def _finding(found: str, where: list[tuple[str, str]]) -> Finding:
    container = where[0][0]
    fields = ", ".join(f"`{field}`" for field in dict.fromkeys(field for inside, field in where if inside == container))
    others = sorted({plain(inside) for inside, _ in where if inside and inside != container})
    too = f", as in {', '.join(others)}" if others else ""
    return Finding(RULE, MISTAKE, plain(container), f"{fields} still contains the placeholder {shown(found)}{too}", FIX)
