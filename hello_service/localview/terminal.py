"""Draws a trace in the terminal as a tree, with name, resource, service, status, duration and time bar of each span.

In a narrow terminal, columns are shortened, then left out, so that each span takes one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from hello_service.localview import stack, units
from hello_service.localview.spans import Span, Trace
from hello_service.localview.text import visible

BAR_WIDTH = 24
GAP = "  "  # between columns
PLAIN_WIDTH = 200  # if standard output is not a terminal
SPANS = 100  # of a trace; the page shows all
NAME, RESOURCE, SERVICE, STATUS, DURATION, BAR = range(6)  # the columns
MIN_WIDTHS = ((RESOURCE, 20), (SERVICE, 12), (NAME, 24))  # of the columns that can shrink, in the order of shrinking


def make_console() -> Console:
    """Return the console for standard output: with colors on a terminal, plain text elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, color_system=None)


def draw(trace: Trace, console: Console, page_url: str | None = None) -> None:
    """Print `trace` on `console`, with a link to its page if there is a `page_url`."""
    text = _head(trace, console, page_url)
    rows: list[tuple[str, Span]] = []
    lasts: list[bool] = []  # whether the span, and each of its ancestors, is the last child
    for number, (depth, last, span) in enumerate(trace.walk()):
        if number == SPANS:
            break
        lasts[depth:] = [last]
        rows.append((_branch(lasts), span))
    widths = _widths(rows, console.width)
    for branch, span in rows:
        _row(text, widths, branch, span, trace)
        if span.error and "error.type" in span.meta:
            _error(text, len(branch), span, console)
    if len(trace.spans) > SPANS:
        text.append(f"\n… and {units.count(len(trace.spans) - SPANS, 'span')} more", "dim")
    text.append("\n")
    console.print(text, soft_wrap=True)


def draw_head(trace: Trace, console: Console, page_url: str | None = None) -> None:
    """Print only the first line of `trace`."""
    console.print(_head(trace, console, page_url), soft_wrap=True)


def _head(trace: Trace, console: Console, page_url: str | None) -> Text:
    """Return resource, status, duration, number of spans and link. If the link doesn't fit, it gets its own line."""
    root = trace.root
    link = f"{page_url}/trace/{trace.id}" if page_url else f"trace {trace.id}"
    resource = _clean(root.resource)
    rest = [_clean(root.status), units.duration(trace.duration), units.count(len(trace.spans), "span")]
    line = GAP.join([resource, *rest, link])
    if console.is_terminal and cell_len(line) > console.width:
        available = console.width - sum(cell_len(part) + len(GAP) for part in rest)
        shortened = _fitted(resource, max(1, available)).rstrip()
        line = f"{GAP.join([shortened, *rest])}\n{link}"
    return Text().append(line, "bold red" if trace.errors else "bold")


def _cells(branch: str, span: Span) -> tuple[str, str, str, str, str]:
    name = branch + _clean(span.name)
    return name, _clean(span.resource), _clean(span.service), _clean(span.status), units.duration(span.duration)


def _widths(rows: Sequence[tuple[str, Span]], width: int) -> dict[int, int]:
    """Return the columns that fit into `width`, each with its own width.

    Columns are left out, least important first, until the others fit when shrunk. If even the last ones are too
    wide, the name is shortened further.
    """
    columns = zip(*(_cells(branch, span) for branch, span in rows), strict=True)
    widths = {number: max(map(cell_len, column)) for number, column in enumerate(columns)} | {BAR: BAR_WIDTH}
    min_widths = dict(MIN_WIDTHS)
    has_several_services = len({span.service for _, span in rows}) > 1
    least_important = (BAR, SERVICE) if has_several_services else (SERVICE, BAR)
    for column in (*least_important, RESOURCE, STATUS):
        if _line_width(min(size, min_widths.get(number, size)) for number, size in widths.items()) <= width:
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


def _line_width(widths: Iterable[int]) -> int:
    """Return the width of a line whose columns have these `widths`."""
    sizes = list(widths)
    return sum(sizes) + len(GAP) * (len(sizes) - 1)


def _row(text: Text, widths: dict[int, int], branch: str, span: Span, trace: Trace) -> None:
    red = "red" if span.error else ""
    styles = (red, red, "cyan", red or "green", "", red or "blue")  # of the columns
    cells = (*_cells(branch, span), _bar(span, trace))
    text.append("\n")
    for position, (column, width) in enumerate(widths.items()):
        cell = cells[column]
        text.append(GAP if position else "")
        text.append(cell.rjust(width) if column == DURATION else _fitted(cell, width), styles[column])


def _error(text: Text, indent: int, span: Span, console: Console) -> None:
    """Add the error of `span` with its position in the code. On a terminal, long lines are wrapped."""
    frame = own_frame(span)
    position = f" ({frame.file}:{frame.line})" if frame else ""
    error = Text(_clean(f"{span.meta['error.type']}: {span.meta.get('error.message', '')}{position}"), "red")
    indent = min(indent, console.width // 2)
    for line in error.wrap(console, console.width - indent) if console.is_terminal else [error]:
        text.append(f"\n{' ' * indent}").append(line)


def own_frame(span: Span) -> stack.Frame | None:
    """Return the innermost frame of the project's own code in the error of `span`, None if there is none."""
    failures = stack.failures(span.meta.get("error.stack", ""), Path.cwd())
    return next((failure.own[0] for failure in failures if failure.own), None)


def _fitted(cell: str, width: int) -> str:
    """Return `cell` shortened or padded to `width`."""
    return set_cell_size(cell, width) if cell_len(cell) <= width else set_cell_size(cell, width - 1) + "…"


def _branch(lasts: list[bool]) -> str:
    """Return the lines before a span's name. `lasts`: for each ancestor and the span, whether it is the last child."""
    if len(lasts) == 1:
        return ""
    return "".join("   " if last else "│  " for last in lasts[1:-1]) + ("└─ " if lasts[-1] else "├─ ")


def _bar(span: Span, trace: Trace) -> str:
    begin = min((span.start - trace.start) * BAR_WIDTH // trace.duration, BAR_WIDTH - 1)
    length = min(max(1, round(span.duration * BAR_WIDTH / trace.duration)), BAR_WIDTH - begin)
    return "·" * begin + "█" * length + "·" * (BAR_WIDTH - begin - length)


def _clean(text: str) -> str:
    """Return a span's text on one line and without control characters, which would change the terminal's state."""
    return visible(text, one_line=True)
