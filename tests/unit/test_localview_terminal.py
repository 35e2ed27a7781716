"""The terminal shows a trace as a tree that can be read, whatever its spans hold."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from tracing_data import span, trace

from hello_service.localview import terminal
from hello_service.localview.spans import Trace


def drawn(of: Trace, width: int = 160, *, on_terminal: bool = False, **options: object) -> str:
    """Return what is printed for `of`."""
    on = Console(file=io.StringIO(), highlight=False, width=width, color_system=None, force_terminal=on_terminal)
    terminal.draw(of, on, **options)  # type: ignore[arg-type]  # the options of draw()
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def test_a_trace_is_a_tree_with_everything_to_know() -> None:
    """Name, resource, service, status, duration and when it ran."""
    root = span(resource="GET /api/relay", ms=40, meta={"http.status_code": "200"})
    call = span(root, name="http.request", resource="GET greeter/hello", at=10, ms=20)
    served = span(call, service="greeter", at=12, ms=10)
    later = span(root, name="work", at=35, ms=5)

    assert drawn(trace(root, call, served, later)).splitlines() == [
        f"GET /api/relay  200  40.0 ms  4 spans  trace {trace(root).id}",
        "asgi.request        GET /api/relay     web      200  40.0 ms  ████████████████████████",
        "├─ http.request     GET greeter/hello  web      ok   20.0 ms  ······████████████······",
        "│  └─ asgi.request  GET /api/hello     greeter  ok   10.0 ms  ·······██████···········",
        "└─ work             GET /api/hello     web      ok   5.00 ms  ·····················███",
        "",
    ]


def test_an_error_has_its_type_and_message_below() -> None:
    """Where there is one."""
    root = span(error=True)
    below = span(root, error=True, meta={"error.type": "ValueError", "error.message": "no"})
    lines = drawn(trace(root, below)).splitlines()

    assert lines[3] == "   ValueError: no"
    assert "error" in lines[1]


def test_the_page_is_linked() -> None:
    """In place of the id."""
    root = span()

    assert f"http://page/trace/{trace(root).id}" in drawn(trace(root), page_url="http://page")


def test_text_of_spans_does_not_steer_the_terminal() -> None:
    """Control characters and those that reorder text are shown escaped."""
    text = drawn(trace(span(resource="a\x1b[2Jb\nc\u202e\x9b", error=True, meta={"error.type": "\x1b]0;x\x07"})))

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


def test_an_error_has_its_place_in_the_own_code() -> None:
    """A library's frame is not what a person looks for."""
    error = {"error.type": "ValueError", "error.message": "no"}

    assert drawn(trace(span(error=True, meta={**error, "error.stack": STACK}))).splitlines()[2] == (
        "ValueError: no (faults.py:41)"
    )
    assert drawn(trace(span(error=True, meta=error))).splitlines()[2] == "ValueError: no"


def wide_and_long(services: int) -> Trace:
    """Return a trace whose columns are all long, partly of characters that take two cells."""
    long = {"resource": "GET /" + "長い/" * 20, "service": "shop", "name": "operation." * 4}
    error = {"error.type": "Fault", "error.message": "長い word " * 30, "error.stack": STACK}
    spans = [span(**long, ms=4000)]  # type: ignore[arg-type]  # text
    for number in range(25):
        spans.append(span(spans[-1], **long | {"service": f"サービス-{number % services}"}, error=True, meta=error))  # type: ignore[arg-type]
    return trace(*spans)


@pytest.mark.parametrize("services", [1, 3])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int, services: int) -> None:
    """But for the link, which stays whole on its own line."""
    of = wide_and_long(services)
    head, link, *rows = drawn(of, width, on_terminal=True).splitlines()

    assert link == f"trace {of.id}"
    assert max(cell_len(line) for line in (head, *rows)) <= width
    assert head.endswith("…  ok  4.00 s  26 spans")
    assert sum(" 10.0 ms" in row for row in rows) == 25
    assert "(faults.py:41)" in "".join(row.strip() for row in rows)


def test_a_narrow_terminal_drops_columns() -> None:
    """The service where it is the same everywhere, then the bar, the resource and the status; name and duration stay."""
    one = trace(root := span(resource="GET /api/relay/orders"), span(root, name="http.request"))
    rows = {width: drawn(one, width, on_terminal=True).splitlines()[-2] for width in (90, 80, 60, 40, 20)}

    assert "web" in rows[90]
    assert "web" not in rows[80]
    assert rows[80].endswith("█")
    assert rows[60].split() == ["└─", "http.request", "GET", "/api/hello", "ok", "10.0", "ms"]
    assert rows[40].split() == ["└─", "http.request", "ok", "10.0", "ms"]
    assert rows[20].split() == ["└─", "http.re…", "10.0", "ms"]


def test_several_services_are_kept_longer_than_the_bar() -> None:
    one = trace(root := span(resource="GET /api/relay/orders", service="hello-service"), span(root, service="shop"))
    row = drawn(one, 80, on_terminal=True).splitlines()[-2]

    assert "shop" in row
    assert "█" not in row


def test_the_link_stands_on_its_own_line_where_it_does_not_fit() -> None:
    """Text that is for no terminal has it always on the first."""
    one = trace(span())
    link = f"http://127.0.0.1:8081/trace/{one.id}"
    page = "http://127.0.0.1:8081"

    assert drawn(one, 80, on_terminal=True, page_url=page).splitlines()[:2] == [
        "GET /api/hello  ok  10.0 ms  1 span",
        link,
    ]
    assert drawn(one, 100, on_terminal=True, page_url=page).splitlines()[0].endswith(f"  1 span  {link}")
    assert drawn(one, 80, page_url=page).splitlines()[0].endswith(f"  1 span  {link}")


def test_a_huge_trace_is_cut_and_says_so() -> None:
    """The page shows all of it."""
    root = span()
    lines = drawn(trace(root, *[span(root) for _ in range(150)])).splitlines()

    assert len(lines) == 1 + terminal.SPANS + 1 + 1
    assert lines[-2] == "… and 51 spans more"


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the text is plain and wide."""
    plain = terminal.console()
    is_terminal = plain.is_terminal
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert (is_terminal, plain.width, plain.color_system) == (False, terminal.PLAIN_WIDTH, None)
    assert terminal.console().is_terminal
