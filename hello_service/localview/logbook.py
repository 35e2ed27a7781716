"""The log of the service: its last lines, each with its trace, filtered by text and level."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from hello_service.localview.spans import Trace
from hello_service.localview.store import Line, Store

LEVELS = ("debug", "info", "warning", "error", "critical")  # the lowest first


@dataclass(frozen=True)
class Entry:
    """A line with its number in the log and its trace, None if it has no trace or that trace is not kept."""

    number: int
    line: Line
    trace: Trace | None

    @property
    def trace_id(self) -> str:
        """The trace id in the line, empty if it is missing or 0."""
        trace_id = str(self.line.get("dd.trace_id", ""))
        return trace_id if trace_id.strip("0") else ""

    @property
    def address(self) -> str:
        """The address of the line's span on the page of its trace."""
        if self.trace is None:
            return ""
        span = str(self.line.get("dd.span_id", ""))
        return f"/trace/{self.trace.id}" + (f"?{urlencode({'span': span})}" if span.strip("0") else "")


@dataclass(frozen=True)
class Log:
    """The lines that match a filter, newest first.

    Attributes:
        text, level, traceless: the filter.
        show_all: whether the page shows all lines, not only the first ones.
        lines_kept: number of lines before the filter.
        lines_read: number of lines read so far, including those dropped since.
        services: services that wrote the lines.
        other_services: services that sent traces, but have no lines here.
    """

    text: str
    level: str
    traceless: bool
    show_all: bool
    entries: list[Entry]
    lines_kept: int
    lines_read: int
    services: list[str]
    other_services: list[str]

    @property
    def address(self) -> str:
        """The address that shows all of these lines."""
        arguments = {"text": self.text, "level": self.level, "traceless": "1" if self.traceless else "", "all": "1"}
        return f"/logs?{urlencode({name: value for name, value in arguments.items() if value})}"


def read(store: Store, arguments: Mapping[str, str]) -> Log:
    """Return the lines selected by the address's arguments.

    The arguments are `text`, `level` (the lowest to show), `traceless` (only lines without a trace id) and `all` (the
    page shows all lines).
    """
    text, level = arguments.get("text", ""), arguments.get("level", "")
    if level not in LEVELS:
        level = ""
    traceless = "traceless" in arguments
    log = store.log()
    searched_text = text.strip().lower()
    entries = []
    for number, line in log:
        if level and not _reaches_level(line, level):
            continue
        if searched_text and searched_text not in json.dumps(dict(line), ensure_ascii=False, default=repr).lower():
            continue
        entry = Entry(number, line, store.find(str(line.get("dd.trace_id", ""))))
        if not (traceless and entry.trace_id):
            entries.append(entry)
    services = {str(line["service"]) for _, line in log if line.get("service")}
    other_services = {span.service for trace in store.newest() for span in trace.spans} - services
    return Log(
        text=text,
        level=level,
        traceless=traceless,
        show_all="all" in arguments,
        entries=entries,
        lines_kept=len(log),
        lines_read=store.lines_read,
        services=sorted(services),
        other_services=sorted(other_services),
    )


def _reaches_level(line: Line, level: str) -> bool:
    """Return whether `line` has `level` or a higher one."""
    line_level = str(line.get("level", "")).lower()
    return line_level in LEVELS and LEVELS.index(line_level) >= LEVELS.index(level)
