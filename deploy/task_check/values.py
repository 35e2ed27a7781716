"""Open values, which are not known yet: `${NAME}`, CloudFormation's functions, unfilled placeholders. A leaf."""

from __future__ import annotations

import re
from typing import Any

# Two private-use characters enclose text whose value is known only when the file has been rendered.
OPEN, CLOSE = "\ue000", "\ue001"

NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(vcpu|gb)?\s*", re.IGNORECASE)
KEY = re.compile(r"\b(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{32})\b")  # an application key or an API key


class OpenList(list[Any]):
    """A list, some or all of whose entries are not in the file, such as `"environment": ${jsonencode(...)}`."""


def mark_open(text: str) -> str:
    """Mark `text` as a value that is not known yet."""
    return f"{OPEN}{text}{CLOSE}"


def is_open(value: Any) -> bool:
    """Return whether `value`, or a part of it, is not known yet."""
    return isinstance(value, OpenList) or (isinstance(value, str) and OPEN in value)


def plain(value: Any) -> str:
    """Return `value` as it is in the file, without the marks of open text."""
    return str(value).replace(OPEN, "").replace(CLOSE, "")


def quoted(value: Any) -> str:
    """Return `value` for a message: in backticks, shortened, without anything that looks like a key."""
    text = KEY.sub("...", plain(value))
    return f"`{text if len(text) <= 100 else text[:97] + '...'}`"


def number(value: Any) -> float | None:
    """Return `value` as a number, with vCPU and GB converted to units and MiB; None if it is open or not a number."""
    match = NUMBER.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    return float(match[1]) * (1024 if match[2] else 1) if match else None


def mapping(entries: Any, value: str) -> dict[str, str]:
    """Return a list of `{"name": ..., value: ...}` as a dictionary; `value` is the name of the second field."""
    return {str(entry["name"]): str(entry.get(value) or "") for entry in entries or [] if "name" in entry}
