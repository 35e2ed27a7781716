"""The terminal shows a trace as a tree that can be read, whatever its spans hold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tracing_data import span, trace

from hello_service.localview import terminal
from hello_service.localview.spans import Trace


def drawn(of: Trace, width: int = 160, **options: object) -> str:
    """Return what is printed for `of`."""
    on = Console(file=io.StringIO(), highlight=False, width=width, color_system=None)
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


@pytest.mark.parametrize("width", [80, 110])
def test_a_narrow_terminal_shortens_what_is_long(width: int) -> None:
    """Each span stays on a line of its own, with its bar."""
    root = span(resource="GET /" + "long/" * 20, service="a-service-with-a-very-long-name", name="operation." * 4)
    row = drawn(trace(root), width).splitlines()[1]

    assert "…" in row
    assert row.endswith("█" * terminal.BAR)


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
