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


def request(ms: float = 10, *, resource: str = "GET /api/hello", child: str = "work", error: bool = False) -> Trace:
    """Return a trace of two spans. `child` is the name of the second one."""
    root = span(ms=ms, resource=resource, error=error, meta=ERROR if error else None)
    return trace(root, span(root, name=child, ms=ms / 2))


def test_a_repeated_trace_is_one_line() -> None:
    """A trace with other spans, another status or an error is a tree again."""
    output = RecordedFeed()
    lengths = []
    for each in (
        request(),
        request(20),
        request(30),
        request(child="other"),
        request(resource="GET /"),
        request(error=True),
        request(error=True),
        request(),
    ):
        output.add([each], 0)
        output.flush(feed.SETTLE_SECONDS)
        lengths.append(len(output.lines()))

    assert lengths == [4, 1, 1, 4, 4, 5, 5, 1]


def test_known_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently drawn trace is forgotten, and its repetition is drawn as a tree again."""
    monkeypatch.setattr(feed, "MAX_SHAPES", 2)
    output = RecordedFeed()
    lengths = []
    for resource in ("a", "b", "a", "c", "a", "b"):
        output.add([request(resource=resource)], 0)
        output.flush(0, end=True)
        lengths.append(len(output.lines()))

    assert lengths == [4, 4, 1, 4, 1, 4]


@pytest.mark.parametrize(
    ("tree", "expected"), [("all", ["fast", "slow", "failed"]), ("errors", ["failed"]), ("slow", ["slow"]), ("off", [])]
)
def test_the_option_tree_selects_traces(tree: str, expected: list[str]) -> None:
    output = RecordedFeed(tree)
    output.add([request(resource="fast"), request(501, resource="slow"), request(resource="failed", error=True)], 0)
    output.flush(feed.SETTLE_SECONDS)

    assert [line.split()[0] for line in output.lines() if " 2 spans " in line] == expected


def test_a_repeated_trace_is_a_tree_if_only_some_traces_are_drawn() -> None:
    output = RecordedFeed("slow")
    output.add([request(501), request(502)], 0)
    output.flush(feed.SETTLE_SECONDS)

    assert len(output.lines()) == 8


def test_a_line_comes_after_its_trace() -> None:
    """Lines of other traces wait for their own traces."""
    output = RecordedFeed()
    failed, other = request(error=True), request()
    output.print_after_trace("error: it failed", failed.key, 0)
    output.print_after_trace("error: another", other.key, 0)
    assert output.lines() == []
    output.add([failed], 0.5)
    output.flush(1)
    assert output.lines() == []
    output.flush(0.5 + feed.SETTLE_SECONDS)
    *tree, line = output.lines()

    assert len(tree) == 5
    assert line == "error: it failed"


@pytest.mark.parametrize("tree", ["errors", "slow"])
def test_a_line_of_a_trace_that_is_not_drawn_is_shown(tree: str) -> None:
    output = RecordedFeed(tree)
    one = request()
    output.print_after_trace("warning: look", one.key, 0)
    output.add([one], 0)
    output.flush(feed.SETTLE_SECONDS)

    assert output.lines() == ["warning: look"]


def test_a_line_is_shown_at_once_if_it_has_no_trace_or_no_traces_are_drawn() -> None:
    output, without_traces = RecordedFeed(), RecordedFeed("off")
    output.print_after_trace("a\x1b[2J\nb", None, 0)
    output.print_after_trace("zero", 0, 0)
    without_traces.print_after_trace("b", 1, 0)

    assert output.lines() == [r"a\x1b[2J\nb", "zero"]
    assert without_traces.lines() == ["b"]


def test_a_line_whose_trace_never_arrives_is_shown_eventually() -> None:
    """A line keeps waiting if its trace has arrived but is not complete yet."""
    output = RecordedFeed()
    incomplete = request()
    output.print_after_trace("lost", 1, 0)
    output.print_after_trace("incomplete", incomplete.key, 0)
    output.flush(feed.WAIT_SECONDS - 0.1)
    assert output.lines() == []
    output.add([incomplete], feed.WAIT_SECONDS)
    output.flush(feed.WAIT_SECONDS)

    assert output.lines() == ["lost"]


def test_the_last_traces_and_the_waiting_lines_are_printed_at_the_end() -> None:
    output = RecordedFeed()
    one = request()
    output.print_after_trace("lost", 1, 0)
    output.print_after_trace("last", one.key, 0)
    output.add([one], 0)
    output.flush(0, end=True)
    lines = output.lines()

    assert lines[0].startswith("GET /api/hello")
    assert lines[-2:] == ["last", "lost"]


def test_waiting_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_WAITING", 2)
    output = RecordedFeed()
    for number in range(1, 4):
        output.print_after_trace(f"line {number}", number, 0)

    assert output.lines() == ["line 1"]
