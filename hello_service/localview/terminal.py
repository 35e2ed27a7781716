"""A trace as a tree in the terminal: name, resource, service, status, duration and when each span ran."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from hello_service.localview import units
from hello_service.localview.spans import Span, Trace
from hello_service.localview.text import visible

BAR = 24  # characters
PLAIN_WIDTH = 200  # where there is no terminal to measure
SPANS = 100  # of one trace; the page shows all


def console() -> Console:
    """Return the console to draw on: colours on a terminal, plain text elsewhere."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, color_system=None)


def draw(trace: Trace, on: Console, page_url: str | None = None) -> None:
    """Print `trace` on the console `on`, with a link to it on the page at `page_url`."""
    root = trace.root
    where = f"{page_url}/trace/{trace.id}" if page_url else f"trace {trace.id}"
    head = [root.resource, root.status, units.duration(trace.duration), units.count(len(trace.spans), "span"), where]
    text = Text().append("  ".join(_clean(part) for part in head), "bold red" if trace.errors else "bold")
    rows: list[tuple[str, Span]] = []
    ancestors: list[bool] = []
    for number, (depth, last, span) in enumerate(trace.walk()):
        if number == SPANS:
            break
        ancestors[depth:] = [last]
        rows.append((_branch(ancestors), span))
    widths = _widths(rows, on.width)
    for branch, span in rows:
        _row(text, widths, branch, span, trace)
    if len(trace.spans) > SPANS:
        text.append(f"\n… and {units.count(len(trace.spans) - SPANS, 'span')} more", "dim")
    text.append("\n")
    on.print(text, soft_wrap=True)


def _cells(branch: str, span: Span) -> tuple[str, str, str, str, str]:
    name = branch + _clean(span.name)
    return name, _clean(span.resource), _clean(span.service), _clean(span.status), units.duration(span.duration)


def _widths(rows: list[tuple[str, Span]], width: int) -> list[int]:
    """Return the width of each column; name, resource and service shrink in turn where the terminal is narrow."""
    columns = zip(*(_cells(branch, span) for branch, span in rows), strict=True)
    widths = [max(map(cell_len, column)) for column in columns]
    over = sum(widths) + 2 * len(widths) + BAR - width
    for column, least in ((1, 20), (2, 12), (0, 24)):
        shrink = max(0, min(over, widths[column] - least))
        widths[column] -= shrink
        over -= shrink
    return widths


def _row(text: Text, widths: list[int], branch: str, span: Span, trace: Trace) -> None:
    cells = _cells(branch, span)
    styles = ("red" if span.error else "", "red" if span.error else "", "cyan", "red" if span.error else "green", "")
    text.append("\n")
    for place, (cell, width, style) in enumerate(zip(cells, widths, styles, strict=True)):
        fitted = set_cell_size(cell, width) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"
        text.append(cell.rjust(width) if place == len(cells) - 1 else fitted, style)
        text.append("  ")
    text.append(_bar(span, trace), "red" if span.error else "blue")
    if span.error and "error.type" in span.meta:
        kind, message = span.meta["error.type"], span.meta.get("error.message", "")
        text.append(f"\n{' ' * len(branch)}{_clean(f'{kind}: {message}')}", "red")


def _branch(lasts: list[bool]) -> str:
    if len(lasts) == 1:
        return ""
    return "".join("   " if last else "│  " for last in lasts[1:-1]) + ("└─ " if lasts[-1] else "├─ ")


def _bar(span: Span, trace: Trace) -> str:
    begin = min((span.start - trace.start) * BAR // trace.duration, BAR - 1)
    length = min(max(1, round(span.duration * BAR / trace.duration)), BAR - begin)
    return "·" * begin + "█" * length + "·" * (BAR - begin - length)


def _clean(text: str) -> str:
    """Return text of a span on one line: it must not steer the terminal."""
    return visible(text, one_line=True)
