"""Finds placeholders that were not filled in.

In a registered task definition, `${NAME}` is one, too. Elsewhere it is accepted, because a deployment fills it in.
"""

from __future__ import annotations

import re
from typing import Any

from task_check.finding import MISTAKE, Finding
from task_check.reading import Source
from task_check.task import KEY_VARIABLES
from task_check.values import MARK_END, MARK_START, mark_open, plain, quoted

RULE = "placeholder"
FIX = "fill it in"

# The forms that people and tools use. A matching part of a value is enough, except in a variable whose value may be free
# text: there, the whole value must match.
FORMS = re.compile(
    r"<[A-Za-z][\w .:/-]*>"  # <IMAGE>
    r"|\{\{(?!resolve:)[^{}]*\}\}"  # {{ image }}, but not a dynamic reference of CloudFormation
    r"|(?<![\w$\\])\$\(?[A-Za-z_]\w*\)?"  # $IMAGE, $(IMAGE), but not within a word, and not escaped ($$IMAGE, \$IMAGE)
    r"|(?<!%)%[A-Z][A-Z0-9_]*%(?!%)"  # %IMAGE%, but not a template variable of the Agent (%%host%%)
    r"|@@?[A-Z][A-Z0-9_]+@@?"  # @IMAGE@
    r"|__[A-Z][A-Z0-9_]*?__"  # __IMAGE__
    r"|#\{[^}]+\}#?"  # #{IMAGE}#
    r"|\(\([\w.-]+\)\)"  # ((image))
    r"|\[\[[^\]]+\]\]"  # [[image]]
    r"|\[[A-Z][A-Z0-9_ -]+\]"  # [IMAGE]
    r"|\{[A-Z][A-Z0-9_]+\}"  # {IMAGE}
    # YOUR_IMAGE, replace-me, TODO, xxxx
    r"|(?<![A-Za-z0-9])(?:(?:YOUR|INSERT|ENTER)_[A-Z0-9_]+|(?:your|insert|enter)[-_][a-z0-9_-]+"
    r"|(?:[Rr]eplace|REPLACE)[-_ ]?(?:me|ME|this|THIS|with|WITH)\w*|(?:[Cc]hange|CHANGE)[-_ ]?(?:me|ME)|FIXME|TODO|TBD"
    r"|PLACEHOLDER|placeholder|[Xx]{4,})(?![A-Za-z0-9])"
)
# `${NAME}`, which reading.py encloses in marks, because its value is not known yet.
INTERPOLATION = re.compile(rf"{MARK_START}(\$\{{.*?){MARK_END}")
# Fields with scripts, patterns and templates for other programs. They are not searched for placeholders.
FREE_TEXT_FIELDS = re.compile(
    r"\.(?:command|entryPoint)\[|dockerLabels\.(?!com\.datadoghq\.tags)|options\.(?!awslogs-(?:group|region))"
)
# Datadog's variables whose values may be free text. Any variable of another program may have free text.
FREE_TEXT_VARIABLES = re.compile(r"PASS|SECRET|TOKEN|KEY|REGEX|PATTERN|RULES|OBFUSC|FORMAT|TEMPLATE", re.IGNORECASE)


def placeholder_in(text: str, *, anywhere: bool) -> str:
    """Return the placeholder in `text`, "" if there is none. Without `anywhere`, it must be the whole text."""
    if "(?" in text:  # a regular expression
        return ""
    match = FORMS.search(text) if anywhere else FORMS.fullmatch(text)
    return match[0] if match else ""


def mark_placeholders(document: dict[str, Any], source: Source) -> list[Finding]:
    """Mark every value with a placeholder as open (not known yet), so that no other rule checks it.

    Returns:
        One finding for each placeholder.
    """
    marking = _Marking(source.is_registered)
    marking.mark(document, path="", container="", variable="")
    return [_finding(placeholder, places) for placeholder, places in marking.places.items()]


class _Marking:
    """One pass over a document, which it changes. `places` has the containers and fields of each placeholder."""

    def __init__(self, is_registered: bool) -> None:
        self.is_registered = is_registered
        self.places: dict[str, list[tuple[str, str]]] = {}

    def mark(self, value: Any, path: str, container: str, variable: str) -> Any:
        """Return `value`, marked if it is text with a placeholder. An object or a list is changed in place.

        `path` is the field in the document. `container` and `variable` are the names of the container and of the
        environment variable that the value belongs to, or empty.
        """
        if isinstance(value, dict):
            variable = str(value.get("name", "")) if ".environment[" in path else ""
            for name, entry in value.items():
                # In an entry of `environment`, only the value is searched. A Datadog key is left to the rule
                # key-in-clear.
                if not variable or (name == "value" and variable not in KEY_VARIABLES):
                    value[name] = self.mark(entry, f"{path}.{name}", container, variable)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                is_container = path == ".containerDefinitions" and isinstance(entry, dict)
                entry_container = str(entry.get("name", "")) if is_container else container
                value[index] = self.mark(entry, f"{path}[{index}]", entry_container, variable)
        elif isinstance(value, str) and not FREE_TEXT_FIELDS.search(path):
            return self._marked_text(value, path, container, variable)
        return value

    def _marked_text(self, value: str, path: str, container: str, variable: str) -> str:
        anywhere = not variable or (variable.startswith("DD_") and not FREE_TEXT_VARIABLES.search(variable))
        placeholder = placeholder_in(INTERPOLATION.sub(" ", value), anywhere=anywhere)
        # No deployment will fill in the `${NAME}` of a registered definition.
        if not placeholder and self.is_registered:
            match = INTERPOLATION.search(value) if anywhere else INTERPOLATION.fullmatch(value)
            placeholder = match[1] if match else ""
        if placeholder:
            # The field within its list entry: `.containerDefinitions[0].image` becomes `image`.
            field = variable or path.rpartition("].")[2].lstrip(".")
            self.places.setdefault(placeholder, []).append((container, field))
        return mark_open(value) if placeholder and MARK_START not in value else value


def _finding(placeholder: str, places: list[tuple[str, str]]) -> Finding:
    """Return the finding for `placeholder`. It belongs to the first container with it, and lists the other containers."""
    first_container = places[0][0]
    fields = dict.fromkeys(field for container, field in places if container == first_container)
    others = sorted({plain(container) for container, _ in places if container and container != first_container})
    sentence = f"{', '.join(f'`{field}`' for field in fields)} still contains the placeholder {quoted(placeholder)}"
    if others:
        sentence += f", as in {', '.join(others)}"
    return Finding(rule=RULE, level=MISTAKE, container=plain(first_container), sentence=sentence, fix=FIX)
