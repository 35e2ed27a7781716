"""What the terminal shows as it comes in: traces, folded where they repeat, and the log lines that matter."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from hello_service.localview import terminal
from hello_service.localview.spans import Trace
from hello_service.localview.text import visible
from hello_service.localview.units import MILLISECOND

SLOW = 500 * MILLISECOND
SETTLE_SECONDS = 0.6  # a trace is drawn when nothing more of it has come for so long
HOLD_SECONDS = 4.0  # a line waits so long for its trace
HELD = 1000  # lines that wait; the oldest is printed when there are more
SHAPES = 1000  # of traces that were drawn; the one that came longest ago is forgotten


class Feed:
    """Prints traces and log lines on the console `on`; `tree` selects traces: `all`, `errors`, `slow` or `off`.

    Attributes:
        page_url: where traces are linked to, None where there is no page.
    """

    def __init__(self, on: Console, tree: str) -> None:
        self.on = on
        self.tree = tree
        self.page_url: str | None = None
        self._open: dict[int, tuple[float, Trace]] = {}  # traces that are not drawn yet, and when something came last
        self._held: list[tuple[float, int, str]] = []  # lines that wait for their traces, with time and trace key
        self._shapes: dict[int, None] = {}

    def say(self, text: str, style: str = "") -> None:
        """Print `text` as it is."""
        self.on.print(Text(text, style), soft_wrap=True)

    def warn(self, text: str, key: int | None, now: float) -> None:
        """Print a line of a log, after its trace where `key` is the trace's."""
        if not key or self.tree == "off":
            self._warn(text)
            return
        self._held.append((now, key, text))
        if len(self._held) > HELD:
            self._warn(self._held.pop(0)[2])

    def add(self, traces: Sequence[Trace], now: float) -> None:
        """Take traces that have changed."""
        if self.tree != "off":
            self._open.update((trace.key, (now, trace)) for trace in traces)

    def flush(self, now: float, *, end: bool = False) -> None:
        """Draw each trace of which nothing more has come for a moment; print lines whose traces don't come.

        At the `end`, all of them.
        """
        done = [key for key, (last, _) in self._open.items() if end or last <= now - SETTLE_SECONDS]
        for trace in sorted((self._open.pop(key)[1] for key in done), key=lambda trace: trace.start):
            self._draw(trace)
            self._release([held for held in self._held if held[1] == trace.key])
        late = [held for held in self._held if held[1] not in self._open and held[0] <= now - HOLD_SECONDS]
        self._release(self._held[:] if end else late)

    def _release(self, held: Sequence[tuple[float, int, str]]) -> None:
        for each in held:
            self._held.remove(each)
            self._warn(each[2])

    def _warn(self, text: str) -> None:
        self.say(visible(text, one_line=True), "yellow")

    def _draw(self, trace: Trace) -> None:
        if self.tree == "errors" and not trace.errors:
            return
        if self.tree == "slow" and trace.duration <= SLOW:
            return
        if self.tree == "all" and not trace.errors and self._is_repeated(trace):
            terminal.draw_head(trace, self.on, self.page_url)
        else:
            terminal.draw(trace, self.on, self.page_url)

    def _is_repeated(self, trace: Trace) -> bool:
        """Whether a trace of the same spans, but for their times, was drawn before."""
        rows = [(depth, span.name, span.resource, span.service, span.status) for depth, _, span in trace.walk()]
        shape = hash(tuple(rows))
        known = shape in self._shapes
        self._shapes.pop(shape, None)
        self._shapes[shape] = None
        if len(self._shapes) > SHAPES:
            del self._shapes[next(iter(self._shapes))]
        return known
