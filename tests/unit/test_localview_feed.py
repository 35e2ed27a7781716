"""The terminal shows which traces a person has asked for, a repeated one on one line, and log lines after their traces."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from tracing_data import span, trace

from hello_service.localview import feed
from hello_service.localview.feed import Feed
from hello_service.localview.spans import Trace

ERROR = {"error.type": "ValueError", "error.message": "no"}


class Shown(Feed):
    """A feed that can be read."""

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
    """Other spans, another status or an error make it a tree again."""
    shown = Shown()
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
    """The one that came longest ago is drawn again."""
    monkeypatch.setattr(feed, "SHAPES", 2)
    shown = Shown()
    lengths = []
    for resource in ("a", "b", "a", "c", "a", "b"):
        shown.add([request(resource=resource)], 0)
        shown.flush(0, end=True)
        lengths.append(len(shown.lines()))

    assert lengths == [4, 4, 1, 4, 1, 4]


@pytest.mark.parametrize(
    ("tree", "expected"), [("all", ["fast", "slow", "failed"]), ("errors", ["failed"]), ("slow", ["slow"]), ("off", [])]
)
def test_the_traces_that_are_asked_for_are_drawn(tree: str, expected: list[str]) -> None:
    shown = Shown(tree)
    shown.add([request(resource="fast"), request(501, resource="slow"), request(resource="failed", error=True)], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert [line.split()[0] for line in shown.lines() if " 2 spans " in line] == expected


def test_a_repeated_trace_is_a_whole_tree_where_only_some_are_drawn() -> None:
    shown = Shown("slow")
    shown.add([request(501), request(502)], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert len(shown.lines()) == 8


def test_a_line_comes_after_its_trace() -> None:
    """Lines of other traces wait for theirs."""
    shown = Shown()
    failed, other = request(error=True), request()
    shown.warn("error: it failed", failed.key, 0)
    shown.warn("error: another", other.key, 0)
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
    shown = Shown(tree)
    one = request()
    shown.warn("warning: look", one.key, 0)
    shown.add([one], 0)
    shown.flush(feed.SETTLE_SECONDS)

    assert shown.lines() == ["warning: look"]


def test_a_line_of_no_trace_or_where_none_is_drawn_is_shown_at_once() -> None:
    shown, without = Shown(), Shown("off")
    shown.warn("a\x1b[2J\nb", None, 0)
    shown.warn("zero", 0, 0)
    without.warn("b", 1, 0)

    assert shown.lines() == [r"a\x1b[2J\nb", "zero"]
    assert without.lines() == ["b"]


def test_a_line_whose_trace_never_comes_is_shown_after_a_moment() -> None:
    """As long as more of its trace comes, it waits for that."""
    shown = Shown()
    coming = request()
    shown.warn("lost", 1, 0)
    shown.warn("coming", coming.key, 0)
    shown.flush(feed.HOLD_SECONDS - 0.1)
    assert shown.lines() == []
    shown.add([coming], feed.HOLD_SECONDS)
    shown.flush(feed.HOLD_SECONDS)

    assert shown.lines() == ["lost"]


def test_nothing_is_lost_at_the_end() -> None:
    """Neither what has just come nor lines that wait."""
    shown = Shown()
    one = request()
    shown.warn("lost", 1, 0)
    shown.warn("last", one.key, 0)
    shown.add([one], 0)
    shown.flush(0, end=True)
    lines = shown.lines()

    assert lines[0].startswith("GET /api/hello")
    assert lines[-2:] == ["last", "lost"]


def test_lines_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HELD", 2)
    shown = Shown()
    for number in range(1, 4):
        shown.warn(f"line {number}", number, 0)

    assert shown.lines() == ["line 1"]
