"""A trace as a tree in the terminal: name, resource, service, status, duration and when each span ran."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hello_service.localview.spans import Span, Trace

BAR = 24  # characters
PLAIN_WIDTH = 200  # where there is no terminal to measure


def console() -> Console:
    """Return the console to draw on: colours on a terminal, plain text elsewhere."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, color_system=None)


def draw(trace: Trace, on: Console) -> None:
    """Print `trace` on the console `on`."""
    root = trace.root
    style = "bold red" if trace.errors else "bold"
    spans = f"{len(trace.spans)} span{'s' if len(trace.spans) != 1 else ''}"
    on.print(Text(f"{root.resource}  {root.status}  {_ms(trace.duration)}  {spans}  trace {trace.id}", style))
    table = Table.grid(padding=(0, 2))
    for overflow, justify in (("fold", "left"), ("ellipsis", "left"), ("ellipsis", "left"), ("fold", "left")):
        table.add_column(overflow=overflow, justify=justify)  # type: ignore[arg-type]  # rich's own literals
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    ancestors: list[bool] = []
    for depth, last, span in trace.walk():
        ancestors[depth:] = [last]
        red = "red" if span.error else ""
        branch = _branch(ancestors)
        table.add_row(
            Text.assemble((branch, "dim"), (span.name, red)),
            Text(span.resource, red),
            Text(span.service, "cyan"),
            Text(span.status, red or "green"),
            Text(_ms(span.duration)),
            Text(_bar(span, trace), red or "blue"),
        )
        if span.error and "error.type" in span.meta:
            kind, message = span.meta["error.type"], span.meta.get("error.message", "")
            table.add_row(Text(" " * len(branch)), Text(f"{kind}: {message}", "red"))
    on.print(table)
    on.print()


def _branch(lasts: list[bool]) -> str:
    if len(lasts) == 1:
        return ""
    return "".join("   " if last else "│  " for last in lasts[1:-1]) + ("└─ " if lasts[-1] else "├─ ")


def _bar(span: Span, trace: Trace) -> str:
    begin = (span.start - trace.start) * BAR // trace.duration
    length = max(1, round(span.duration * BAR / trace.duration))
    begin = min(begin, BAR - 1)
    return "·" * begin + "█" * min(length, BAR - begin) + "·" * max(0, BAR - begin - length)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"
