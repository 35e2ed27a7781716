"""Filters for the templates: the CSS class of a status, and the parts of a log line."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hello_service.localview.store import Line


def status_class(status: str) -> str:
    """Return the CSS class of a status: `good`, `moved`, `bad` or `failed`."""
    if status == "error" or status.startswith("5"):
        return "failed"
    return {"4": "bad", "3": "moved"}.get(status[:1], "good")


def log_parts(line: Line) -> dict[str, Any]:
    """Return the `time`, `level`, `event` and `exception` of a line, and in `rest` its other fields as `name=value`.

    `rest` omits the logger and the fields that identify the service, the trace and the span.
    """
    omitted_fields = {"timestamp", "level", "event", "logger", "service", "env", "version", "exception"}
    other_fields = [
        f"{name}={value}" for name, value in line.items() if name not in omitted_fields and not name.startswith("dd.")
    ]
    try:
        moment = datetime.fromisoformat(str(line.get("timestamp"))).astimezone()
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
    except (ValueError, OverflowError):  # not a time, or a time that is before year 1 or after 9999 in this time zone
        time = ""
    return {
        "time": time,
        "level": str(line.get("level", "")),
        "event": str(line.get("event", "")),
        "rest": "  ".join(other_fields),
        "exception": str(line.get("exception") or ""),
    }
