"""Functions for single values of a task definition.

A value is open if it isn't known yet: `${NAME}`, CloudFormation's functions, unfilled placeholders.
"""

from __future__ import annotations

import re
from typing import Any

# Two private-use characters enclose text whose value is known only when the file has been rendered.
MARK_START, MARK_END = "\ue000", "\ue001"

NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(vcpu|gb)?\s*", re.IGNORECASE)
KEY = re.compile(r"\b(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{32})\b")  # an application key or an API key


class OpenList(list[Any]):
    """A list whose entries are not all known yet, such as `"environment": ${jsonencode(...)}`."""


def mark_open(text: str) -> str:
    """Mark `text` as a value that is not known yet."""
    return f"{MARK_START}{text}{MARK_END}"


def is_open(value: Any) -> bool:
    """Return whether `value` is a text with a part that is not known yet, or an `OpenList`."""
    return isinstance(value, OpenList) or (isinstance(value, str) and MARK_START in value)


def plain(value: Any) -> str:
    """Return `value` as it is in the file, without the marks of open text."""
    return str(value).replace(MARK_START, "").replace(MARK_END, "")


def quoted(value: Any) -> str:
    """Return `value` for a message: in backticks, shortened, without anything that looks like a key."""
    text = KEY.sub("...", plain(value))
    return f"`{text if len(text) <= 100 else text[:97] + '...'}`"


def number(value: Any) -> float | None:
    """Return `value` as a number; None if it is open or not a number. `1 vCPU` is 1024 units, and `1 GB` is 1024 MiB."""
    match = NUMBER.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    return float(match[1]) * (1024 if match[2] else 1) if match else None


def values_by_name(entries: Any, value_key: str) -> dict[str, str]:
    """Return a dictionary from the `name` of each of `entries` to its value under `value_key`."""
    return {str(entry["name"]): str(entry.get(value_key) or "") for entry in entries or [] if "name" in entry}
