"""Tests of the tree that the terminal shows for a trace."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from tracing_data import span, trace

from hello_service.localview import terminal
from hello_service.localview.spans import Trace


def tree_text(source: Trace, width: int = 160, *, on_terminal: bool = False, **options: object) -> str:
    """Return the text that is printed for the trace `source`. Its last line is empty."""
    file = io.StringIO()
    console = Console(file=file, highlight=False, width=width, color_system=None, force_terminal=on_terminal)
    terminal.draw(source, console, **options)  # type: ignore[arg-type]  # the options of draw()
    return file.getvalue()


def last_row(source: Trace, width: int) -> str:
    """Return the row of the last span in a terminal with `width` columns."""
    return tree_text(source, width, on_terminal=True).splitlines()[-2]


def test_a_trace_is_a_tree() -> None:
    """Each span has its name, resource, service, status, duration and time bar."""
    root = span(resource="GET /api/relay", duration_ms=40, meta={"http.status_code": "200"})
    client = span(root, name="http.request", resource="GET greeter/hello", start_ms=10, duration_ms=20)
    server = span(client, service="greeter", start_ms=12, duration_ms=10)
    work = span(root, name="work", start_ms=35, duration_ms=5)

    assert tree_text(trace(root, client, server, work)).splitlines() == [
        f"GET /api/relay  200  40.0 ms  4 spans  trace {trace(root).id}",
        "asgi.request        GET /api/relay     web      200  40.0 ms  ████████████████████████",
        "├─ http.request     GET greeter/hello  web      ok   20.0 ms  ······████████████······",
        "│  └─ asgi.request  GET /api/hello     greeter  ok   10.0 ms  ·······██████···········",
        "└─ work             GET /api/hello     web      ok   5.00 ms  ·····················███",
        "",
    ]


def test_an_error_has_its_type_and_message_below() -> None:
    """A span without an exception has no such line."""
    root = span(error=True)
    child = span(root, error=True, meta={"error.type": "ValueError", "error.message": "no"})
    _head, root_row, child_row, error_line, _empty = tree_text(trace(root, child)).splitlines()

    assert "error" in root_row
    assert "error" in child_row
    assert error_line == "   ValueError: no"


def test_a_link_to_the_page_replaces_the_trace_id() -> None:
    root = span()

    assert f"http://page/trace/{trace(root).id}" in tree_text(trace(root), page_url="http://page")


def test_control_characters_of_spans_are_escaped() -> None:
    """Characters that reorder text are escaped as well."""
    text = tree_text(trace(span(resource="a\x1b[2Jb\nc\u202e\x9b", error=True, meta={"error.type": "\x1b]0;x\x07"})))

    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"a\x1b[2Jb\nc\u202e\x9b" in text


STACK = """Traceback (most recent call last):
  File "/srv/shop/faults.py", line 41, in work
    json.loads("{")
  File "/usr/lib/python3.13/json/__init__.py", line 346, in loads
    raise JSONDecodeError
json.decoder.JSONDecodeError: no
"""


def test_an_error_shows_the_last_frame_of_the_projects_code() -> None:
    """Library frames are skipped."""
    error = {"error.type": "ValueError", "error.message": "no"}

    def error_line(meta: dict[str, str]) -> str:
        _head, _row, line, _empty = tree_text(trace(span(error=True, meta=meta))).splitlines()
        return line

    assert error_line({**error, "error.stack": STACK}) == "ValueError: no (faults.py:41)"
    assert error_line(error) == "ValueError: no"


def wide_trace(services: int) -> Trace:
    """Return a trace of 26 spans with long texts, many of them with characters that take two cells.

    The 25 spans below the root belong to `services` other services.
    """
    resource, name = "GET /" + "長い/" * 20, "operation." * 4
    error = {"error.type": "Fault", "error.message": "長い word " * 30, "error.stack": STACK}
    spans = [span(resource=resource, name=name, service="shop", duration_ms=4000)]
    for number in range(25):
        service = f"サービス-{number % services}"
        spans.append(span(spans[-1], resource=resource, name=name, service=service, error=True, meta=error))
    return trace(*spans)


@pytest.mark.parametrize("services", [1, 3])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int, services: int) -> None:
    """The trace id is on its own line and is never shortened."""
    wide = wide_trace(services)
    head, id_line, *rows = tree_text(wide, width, on_terminal=True).splitlines()

    assert id_line == f"trace {wide.id}"
    assert max(cell_len(line) for line in (head, *rows)) <= width
    assert head.endswith("…  ok  4.00 s  26 spans")
    assert sum(" 10.0 ms" in row for row in rows) == 25
    assert "(faults.py:41)" in "".join(row.strip() for row in rows)


def test_a_narrow_terminal_drops_columns() -> None:
    """With a single service, the order is service, bar, resource, status. Name and duration are never dropped."""
    root = span(resource="GET /api/relay/orders")
    one_service = trace(root, span(root, name="http.request"))
    rows = {width: last_row(one_service, width) for width in (90, 80, 60, 40, 20)}

    assert "web" in rows[90]
    assert "web" not in rows[80]
    assert rows[80].endswith("█")
    assert rows[60].split() == ["└─", "http.request", "GET", "/api/hello", "ok", "10.0", "ms"]
    assert rows[40].split() == ["└─", "http.request", "ok", "10.0", "ms"]
    assert rows[20].split() == ["└─", "http.re…", "10.0", "ms"]


def test_with_several_services_the_bar_is_dropped_before_the_service() -> None:
    root = span(resource="GET /api/relay/orders", service="hello-service")
    row = last_row(trace(root, span(root, service="shop")), 80)

    assert "shop" in row
    assert "█" not in row


def test_a_link_that_does_not_fit_is_on_its_own_line() -> None:
    """Without a terminal, the link is always on the first line."""
    linked_trace = trace(span())
    page_url = "http://127.0.0.1:8081"
    link = f"{page_url}/trace/{linked_trace.id}"
    narrow = tree_text(linked_trace, 80, on_terminal=True, page_url=page_url).splitlines()
    wide = tree_text(linked_trace, 100, on_terminal=True, page_url=page_url).splitlines()
    not_terminal = tree_text(linked_trace, 80, page_url=page_url).splitlines()

    assert narrow[:2] == ["GET /api/hello  ok  10.0 ms  1 span", link]
    assert wide[0].endswith(f"  1 span  {link}")
    assert not_terminal[0].endswith(f"  1 span  {link}")


def test_a_huge_trace_is_truncated() -> None:
    """The last line has the number of further spans."""
    root = span()
    lines = tree_text(trace(root, *[span(root) for _ in range(150)])).splitlines()  # more than terminal.MAX_SPANS

    assert len(lines) == 1 + terminal.MAX_SPANS + 1 + 1  # the head, the spans, the line with the number, an empty line
    assert lines[-2] == f"… and {1 + 150 - terminal.MAX_SPANS} more spans"


def test_output_that_is_not_a_terminal_is_plain_and_wide() -> None:
    console = terminal.make_console()

    assert not console.is_terminal
    assert console.color_system is None
    assert console.width == terminal.PLAIN_WIDTH


def test_colors_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that counts as a terminal has colors."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert terminal.make_console().is_terminal
