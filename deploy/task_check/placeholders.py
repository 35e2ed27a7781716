"""Finds placeholders that were not filled in. `${NAME}` is accepted, because a deployment fills it in."""

from __future__ import annotations

import re
from typing import Any

from task_check.finding import MISTAKE, Finding
from task_check.reading import Source
from task_check.task import KEY_VARIABLES
from task_check.values import CLOSE, OPEN, mark_open, plain, quoted

RULE = "placeholder"
FIX = "fill it in"

# The forms that people and tools use. A whole value that matches is always a placeholder; a part of a value is one only
# outside free text.
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
OPEN_VALUE = re.compile(rf"{OPEN}(\$\{{.*?){CLOSE}")
# Free text: fields and variables that contain scripts, patterns and templates for another program.
FREE_TEXT_FIELDS = re.compile(
    r"\.(?:command|entryPoint)\[|dockerLabels\.(?!com\.datadoghq\.tags)|options\.(?!awslogs-(?:group|region))"
)
FREE_TEXT_VARIABLES = re.compile(r"PASS|SECRET|TOKEN|KEY|REGEX|PATTERN|RULES|OBFUSC|FORMAT|TEMPLATE", re.IGNORECASE)


def placeholder_in(text: str, *, anywhere: bool) -> str:
    """Return the placeholder in `text`, or an empty string; without `anywhere`, only if it is the whole text."""
    if "(?" in text:  # a regular expression
        return ""
    match = FORMS.search(text) if anywhere else FORMS.fullmatch(text)
    return match[0] if match else ""


def mark_placeholders(document: dict[str, Any], source: Source) -> list[Finding]:
    """Mark every value with a placeholder as open, so that no other rule reads it, and return one finding for each."""
    marking = _Marking(source.registered)
    marking.value(document, "", "", "")
    return [_finding(placeholder, places) for placeholder, places in marking.places.items()]


class _Marking:
    """One pass over a document, which it changes. `places` has the containers and fields of each placeholder."""

    def __init__(self, registered: bool) -> None:
        self.registered = registered
        self.places: dict[str, list[tuple[str, str]]] = {}

    def value(self, value: Any, path: str, container: str, variable: str) -> Any:
        if isinstance(value, dict):
            variable = str(value.get("name", "")) if ".environment[" in path else ""
            for name, entry in value.items():
                if not variable or (name == "value" and variable not in KEY_VARIABLES):
                    value[name] = self.value(entry, f"{path}.{name}", container, variable)
        elif isinstance(value, list):
            for at, entry in enumerate(value):
                is_container = path == ".containerDefinitions" and isinstance(entry, dict)
                inside = str(entry.get("name", "")) if is_container else container
                value[at] = self.value(entry, f"{path}[{at}]", inside, variable)
        elif isinstance(value, str) and not FREE_TEXT_FIELDS.search(path):
            return self._text(value, path, container, variable)
        return value

    def _text(self, value: str, path: str, container: str, variable: str) -> str:
        anywhere = not variable or (variable.startswith("DD_") and not FREE_TEXT_VARIABLES.search(variable))
        placeholder = ""
        if OPEN not in value:
            placeholder = placeholder_in(value, anywhere=anywhere)
        elif self.registered:  # no deployment will fill in the `${NAME}` of a registered definition
            match = OPEN_VALUE.search(value) if anywhere else OPEN_VALUE.fullmatch(value)
            placeholder = match[1] if match else ""
        if placeholder:
            where = variable or path.rpartition("].")[2].lstrip(".")
            self.places.setdefault(placeholder, []).append((container, where))
        return mark_open(value) if placeholder and OPEN not in value else value


def _finding(placeholder: str, places: list[tuple[str, str]]) -> Finding:
    """Return the finding for the first container with `placeholder`, which also lists the other containers."""
    container = places[0][0]
    fields = dict.fromkeys(field for inside, field in places if inside == container)
    others = sorted({plain(inside) for inside, _ in places if inside and inside != container})
    sentence = f"{', '.join(f'`{field}`' for field in fields)} still contains the placeholder {quoted(placeholder)}"
    if others:
        sentence += f", as in {', '.join(others)}"
    return Finding(RULE, MISTAKE, plain(container), sentence, FIX)
