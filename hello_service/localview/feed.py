"""Prints traces and log lines on the terminal as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from hello_service.localview import terminal
from hello_service.localview.spans import Trace
from hello_service.localview.text import escape_hidden
from hello_service.localview.units import MILLISECOND

SLOW = 500 * MILLISECOND  # if `tree` is `slow`, only traces longer than this are drawn
# A trace without a new span for this long is considered complete and drawn. The writer of ddtrace, as `dev` configures
# it, and the polling of the agent delay a span by up to 0.2 s each.
SETTLE_SECONDS = 0.6
WAIT_SECONDS = 4.0  # how long a log line waits for its trace
MAX_WAITING = 1000  # log lines; if more are waiting, the oldest is printed
MAX_SHAPES = 1000  # of drawn traces; if there are more, the least recently drawn one is forgotten


class _WaitingLine(NamedTuple):
    """A log line that waits for its trace, to be printed after it. `since` is the time at which the line was read."""

    since: float
    trace_key: int
    text: str


class Feed:
    """Prints traces and log lines on `console`. `tree` selects the traces: `all`, `errors`, `slow` or `off`.

    With `all`, a repeated trace without an error takes one line. `now` is always in seconds of a monotonic clock.

    Attributes:
        page_url: the address of the page, for the link of each trace; None if there is no page.
    """

    def __init__(self, console: Console, tree: str) -> None:
        self.console = console
        self.tree = tree
        self.page_url: str | None = None
        self._pending: dict[int, tuple[float, Trace]] = {}  # traces not drawn yet, with the time of the last change
        self._waiting: list[_WaitingLine] = []
        self._shapes: dict[int, None] = {}  # hashes of the traces drawn so far, the most recently drawn one last

    def print(self, text: str, style: str = "") -> None:
        """Print `text` unchanged."""
        self.console.print(Text(text, style), soft_wrap=True)

    def print_after_trace(self, text: str, key: int | None, now: float) -> None:
        """Print a log line after the trace with `key`, or immediately if it has no trace or no traces are drawn."""
        if not key or self.tree == "off":
            self._print_line(text)
            return
        self._waiting.append(_WaitingLine(since=now, trace_key=key, text=text))
        if len(self._waiting) > MAX_WAITING:
            self._print_line(self._waiting.pop(0).text)

    def add(self, traces: Sequence[Trace], now: float) -> None:
        """Add traces that are new or have changed."""
        if self.tree != "off":
            self._pending.update((trace.key, (now, trace)) for trace in traces)

    def flush(self, now: float, *, end: bool = False) -> None:
        """Draw the traces that are complete, and print the lines that have waited long enough for their traces.

        With `end`, draw and print everything.
        """
        complete_traces = [
            (key, trace)
            for key, (changed_at, trace) in self._pending.items()
            if end or changed_at <= now - SETTLE_SECONDS
        ]
        for key, trace in sorted(complete_traces, key=lambda item: item[1].start):
            del self._pending[key]
            self._draw(trace)
            self._release([line for line in self._waiting if line.trace_key == key])
        overdue_lines = [
            line for line in self._waiting if line.trace_key not in self._pending and line.since <= now - WAIT_SECONDS
        ]
        self._release(self._waiting[:] if end else overdue_lines)  # a copy, because _release removes lines

    def _release(self, lines: Sequence[_WaitingLine]) -> None:
        for line in lines:
            self._waiting.remove(line)
            self._print_line(line.text)

    def _print_line(self, text: str) -> None:
        self.print(escape_hidden(text, one_line=True), "yellow")

    def _draw(self, trace: Trace) -> None:
        if self.tree == "errors" and not trace.errors:
            return
        if self.tree == "slow" and trace.duration <= SLOW:
            return
        if self.tree == "all" and not trace.errors and self._is_repeated(trace):
            terminal.draw_head(trace, self.console, self.page_url)
        else:
            terminal.draw(trace, self.console, self.page_url)

    def _is_repeated(self, trace: Trace) -> bool:
        """Return whether the same tree of names, resources, services and statuses was drawn before, and remember it."""
        rows = [(depth, span.name, span.resource, span.service, span.status) for depth, _, span in trace.walk()]
        shape = hash(tuple(rows))
        is_repeated = shape in self._shapes
        self._shapes.pop(shape, None)
        self._shapes[shape] = None
        if len(self._shapes) > MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        return is_repeated
