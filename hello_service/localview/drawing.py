"""Where the parts of the page's pictures stand, and log lines as text: what templates can't work out themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hello_service.localview.store import Line


def grade(status: str) -> str:
    """Return how a status looks: `good`, `moved`, `bad` or `failed`."""
    if status == "error" or status.startswith("5"):
        return "failed"
    return {"4": "bad", "3": "moved"}.get(status[:1], "good")


def log_line(line: Line) -> dict[str, Any]:
    """Return a line's `time`, `level`, `event`, the `rest` as `name=value`, and `exception`."""
    hidden = {"timestamp", "level", "event", "logger", "service", "env", "version", "exception"}
    rest = [f"{name}={value}" for name, value in line.items() if name not in hidden and not name.startswith("dd.")]
    try:
        moment = datetime.fromisoformat(str(line.get("timestamp"))).astimezone()
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    except ValueError:
        time = ""
    return {
        "time": time,
        "level": str(line.get("level", "")),
        "event": str(line.get("event", "")),
        "rest": "  ".join(rest),
        "exception": str(line.get("exception") or ""),
    }
