"""Tests of the terminal's output: which traces are drawn, repeated traces, and log lines after their traces."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tracing_data import span, trace

from hello_service.localview import feed
from hello_service.localview.feed import Feed
from hello_service.localview.spans import Trace

ERROR = {"error.type": "ValueError", "error.message": "no"}


class RecordedFeed(Feed):
    """A feed whose output can be read."""

    def __init__(self, tree: str = "all") -> None:
        self.file = io.StringIO()
        super().__init__(Console(file=self.file, highlight=False, width=160, color_system=None), tree)

    def lines(self) -> list[str]:
        """Return the lines since the last call."""
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        return text.splitlines()


def request(ms: float = 10, *, resource: str = "GET /api/hello", below: str = "work", error: bool = False) -> Trace:
    """Return a trace of two spans."""
    root = span(ms=ms, resource=resource, error=error, meta=ERROR if error else None)
    return trace(root, span(root, name=below, ms=ms / 2))


def test_a_repeated_trace_is_one_line() -> None:
    """A trace with other spans, another status or an error is a tree again."""
    shown = RecordedFeed()
    lengths = []
    for each in (
        request(),
        request(20),
        request(30),
        request(below="other"),
        request(resource="GET /"),
        request(error=True),
        request(error=True),
        request(),
    ):
        shown.add([each], 0)
        shown.flush(feed.SETTLE_SECONDS)
        lengths.append(len(shown.lines()))

    assert lengths == [4, 1, 1, 4, 4, 5, 5, 1]


def test_known_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently drawn one is forgotten and drawn as a tree again."""
    monkeypatch.setattr(feed, "SHAPES", 2)
    shown = RecordedFeed()
    lengths = []
    for resource in ("a", "b", "a", "c", "a", "b"):
        shown.add([request(resource=resource)], 0)
        shown.flush(0, end=True)
        lengths.append(len(shown.lines()))

    assert lengths == [4, 4, 1, 4, 1, 4]


@pytest.mark.parametrize(
    ("tree", "expected"), [("all", ["fast", "slow", "failed"]), ("errors", ["failed"]), ("slow", ["slow"]), ("off", [])]
)
def test_the_option_tree_selects_traces(tree: str, expected: list[str]) -> None:
    shown = RecordedFeed(tree)
    shown.add([request(resource="fast"), request(501, resource="slow"), request(resource="failed", error=True)], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert [line.split()[0] for line in shown.lines() if " 2 spans " in line] == expected


def test_a_repeated_trace_is_a_tree_if_only_some_traces_are_drawn() -> None:
    shown = RecordedFeed("slow")
    shown.add([request(501), request(502)], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert len(shown.lines()) == 8


def test_a_line_comes_after_its_trace() -> None:
    """Lines of other traces wait for their own traces."""
    shown = RecordedFeed()
    failed, other = request(error=True), request()
    shown.print_after_trace("error: it failed", failed.key, 0)
    shown.print_after_trace("error: another", other.key, 0)
    assert shown.lines() == []
    shown.add([failed], 0.5)
    shown.flush(1)
    assert shown.lines() == []
    shown.flush(0.5 + feed.SETTLE_SECONDS)
    *tree, line = shown.lines()

    assert len(tree) == 5
    assert line == "error: it failed"


@pytest.mark.parametrize("tree", ["errors", "slow"])
def test_a_line_of_a_trace_that_is_not_drawn_is_shown(tree: str) -> None:
    shown = RecordedFeed(tree)
    one = request()
    shown.print_after_trace("warning: look", one.key, 0)
    shown.add([one], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert shown.lines() == ["warning: look"]


def test_a_line_is_shown_at_once_if_it_has_no_trace_or_none_is_drawn() -> None:
    shown, without = RecordedFeed(), RecordedFeed("off")
    shown.print_after_trace("a\x1b[2J\nb", None, 0)
    shown.print_after_trace("zero", 0, 0)
    without.print_after_trace("b", 1, 0)

    assert shown.lines() == [r"a\x1b[2J\nb", "zero"]
    assert without.lines() == ["b"]


def test_a_line_whose_trace_never_arrives_is_shown_in_the_end() -> None:
    """A line keeps waiting while its trace is still receiving spans."""
    shown = RecordedFeed()
    coming = request()
    shown.print_after_trace("lost", 1, 0)
    shown.print_after_trace("coming", coming.key, 0)
    shown.flush(feed.WAIT_SECONDS - 0.1)
    assert shown.lines() == []
    shown.add([coming], feed.WAIT_SECONDS)
    shown.flush(feed.WAIT_SECONDS)

    assert shown.lines() == ["lost"]


def test_nothing_is_lost_at_the_end() -> None:
    """The last traces and the waiting lines are printed."""
    shown = RecordedFeed()
    one = request()
    shown.print_after_trace("lost", 1, 0)
    shown.print_after_trace("last", one.key, 0)
    shown.add([one], 0)
    shown.flush(0, end=True)
    lines = shown.lines()

    assert lines[0].startswith("GET /api/hello")
    assert lines[-2:] == ["last", "lost"]


def test_waiting_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_WAITING", 2)
    shown = RecordedFeed()
    for number in range(1, 4):
        shown.print_after_trace(f"line {number}", number, 0)

    assert shown.lines() == ["line 1"]
