"""Draws a trace in the terminal as a tree, with name, resource, service, status, duration and time bar of each span.

In a narrow terminal, columns are shortened, then left out, so that each span takes one line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from hello_service.localview import stack, units
from hello_service.localview.spans import Span, Trace
from hello_service.localview.text import escape_hidden

BAR_WIDTH = 24
GAP = "  "  # between columns
PLAIN_WIDTH = 200  # of a line if standard output is not a terminal
MAX_SPANS = 100  # drawn for each trace; the page shows all of them
NAME, RESOURCE, SERVICE, STATUS, DURATION, BAR = range(6)  # the columns
MIN_WIDTHS = ((RESOURCE, 20), (SERVICE, 12), (NAME, 24))  # of the columns that can shrink, in this order


def make_console() -> Console:
    """Return the console for standard output: with colors on a terminal, plain text elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, color_system=None)


def draw(trace: Trace, console: Console, page_url: str | None = None) -> None:
    """Print `trace` on `console`, with a link to its page if there is a `page_url`."""
    text = _head(trace, console, page_url)
    rows: list[tuple[str, Span]] = []
    is_last_child: list[bool] = []  # for each ancestor of the span, and for the span itself
    for depth, is_last, span in islice(trace.walk(), MAX_SPANS):
        is_last_child[depth:] = [is_last]
        rows.append((_branch(is_last_child), span))
    widths = _widths(rows, console.width)
    for branch, span in rows:
        _add_row(text, widths, branch, span, trace)
        if span.error and "error.type" in span.meta:
            _add_error(text, len(branch), span, console)
    if len(trace.spans) > MAX_SPANS:
        text.append(f"\n… and {units.quantity(len(trace.spans) - MAX_SPANS, 'more span')}", "dim")
    text.append("\n")
    console.print(text, soft_wrap=True)


def draw_head(trace: Trace, console: Console, page_url: str | None = None) -> None:
    """Print what `draw` prints above the spans of `trace`."""
    console.print(_head(trace, console, page_url), soft_wrap=True)


def _head(trace: Trace, console: Console, page_url: str | None) -> Text:
    """Return resource, status, duration, number of spans and link. A link that doesn't fit has a line of its own."""
    root = trace.root
    link = f"{page_url}/trace/{trace.id}" if page_url else f"trace {trace.id}"
    resource = _clean(root.resource)
    rest = [_clean(root.status), units.duration(trace.duration), units.quantity(len(trace.spans), "span")]
    line = GAP.join([resource, *rest, link])
    if console.is_terminal and cell_len(line) > console.width:
        available = console.width - sum(cell_len(part) + len(GAP) for part in rest)
        shortened = _fit(resource, max(1, available)).rstrip()
        line = f"{GAP.join([shortened, *rest])}\n{link}"
    return Text().append(line, "bold red" if trace.errors else "bold")


def _cells(branch: str, span: Span) -> tuple[str, str, str, str, str]:
    """Return the texts of all columns except `BAR`."""
    name = branch + _clean(span.name)
    return name, _clean(span.resource), _clean(span.service), _clean(span.status), units.duration(span.duration)


def _widths(rows: Sequence[tuple[str, Span]], width: int) -> dict[int, int]:
    """Return the columns that fit into `width`, each with its own width.

    Columns are left out, the least important first, until the others fit when shrunk. If even the remaining ones are
    too wide, the name is shortened further.
    """
    cells_by_column = zip(*(_cells(branch, span) for branch, span in rows), strict=True)
    widths = {column: max(map(cell_len, cells)) for column, cells in enumerate(cells_by_column)} | {BAR: BAR_WIDTH}
    min_widths = dict(MIN_WIDTHS)
    has_several_services = len({span.service for _, span in rows}) > 1
    least_important = (BAR, SERVICE) if has_several_services else (SERVICE, BAR)
    for column in (*least_important, RESOURCE, STATUS):
        shrunk_widths = [min(full_width, min_widths.get(key, full_width)) for key, full_width in widths.items()]
        if _line_width(shrunk_widths) <= width:
            break
        del widths[column]
    excess = _line_width(widths.values()) - width
    for column, min_width in MIN_WIDTHS:
        if column in widths:
            shrink = max(0, min(excess, widths[column] - min_width))
            widths[column] -= shrink
            excess -= shrink
    widths[NAME] = max(1, widths[NAME] - max(0, excess))
    return widths


def _line_width(widths: Collection[int]) -> int:
    """Return the width of a line whose columns have these `widths`."""
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _add_row(text: Text, widths: dict[int, int], branch: str, span: Span, trace: Trace) -> None:
    red = "red" if span.error else ""
    styles = (red, red, "cyan", red or "green", "", red or "blue")  # by column
    cells = (*_cells(branch, span), _bar(span, trace))
    text.append("\n")
    for position, (column, width) in enumerate(widths.items()):
        cell = cells[column]
        text.append(GAP if position else "")
        text.append(cell.rjust(width) if column == DURATION else _fit(cell, width), styles[column])


def _add_error(text: Text, indent: int, span: Span, console: Console) -> None:
    """Add the error of `span` with its source location. On a terminal, long lines are wrapped."""
    frame = own_frame(span)
    location = f" ({frame.file}:{frame.line})" if frame else ""
    error = Text(_clean(f"{span.meta['error.type']}: {span.meta.get('error.message', '')}{location}"), "red")
    indent = min(indent, console.width // 2)  # leaves room for the text
    for line in error.wrap(console, console.width - indent) if console.is_terminal else [error]:
        text.append(f"\n{' ' * indent}").append(line)


def own_frame(span: Span) -> stack.Frame | None:
    """Return the innermost frame of the project's own code in the error of `span`, None if there is none."""
    failures = stack.failures(span.meta.get("error.stack", ""), Path.cwd())  # each has its innermost frame first
    return next((failure.own_frames[0] for failure in failures if failure.own_frames), None)


def _fit(cell: str, width: int) -> str:
    """Return `cell` shortened or padded to `width`."""
    return set_cell_size(cell, width) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"


def _branch(is_last_child: list[bool]) -> str:
    """Return what draws the tree before a span's name. `is_last_child` has a value for each ancestor and the span."""
    if len(is_last_child) == 1:
        return ""
    ancestors = "".join("   " if is_last else "│  " for is_last in is_last_child[1:-1])
    return ancestors + ("└─ " if is_last_child[-1] else "├─ ")


def _bar(span: Span, trace: Trace) -> str:
    """Return a bar that shows when `span` ran within `trace`. Its filled part has at least one character."""
    begin = min((span.start - trace.start) * BAR_WIDTH // trace.duration, BAR_WIDTH - 1)
    length = min(max(1, round(span.duration * BAR_WIDTH / trace.duration)), BAR_WIDTH - begin)
    return "·" * begin + "█" * length + "·" * (BAR_WIDTH - begin - length)


def _clean(text: str) -> str:
    """Return a span's text on one line and without control characters, which would change the terminal's state."""
    return escape_hidden(text, one_line=True)
