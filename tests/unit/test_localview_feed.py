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
        """Return the lines that were printed since the last call."""
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        return text.splitlines()


def request_trace(
    ms: float = 10, *, resource: str = "GET /api/hello", child: str = "work", error: bool = False
) -> Trace:
    """Return the trace of a request, with two spans. `child` is the name of the second one."""
    root = span(duration_ms=ms, resource=resource, error=error, meta=ERROR if error else None)
    return trace(root, span(root, name=child, duration_ms=ms / 2))


def test_a_repeated_trace_is_one_line() -> None:
    """A trace with other spans or an error is a tree."""
    steps = [
        (request_trace(), 4),  # a tree: the head, two spans and an empty line
        (request_trace(20), 1),
        (request_trace(30), 1),
        (request_trace(child="other"), 4),
        (request_trace(resource="GET /"), 4),
        (request_trace(error=True), 5),  # a tree with a line for the error
        (request_trace(error=True), 5),
        (request_trace(), 1),
    ]
    output = RecordedFeed()
    for number, (new_trace, line_count) in enumerate(steps):
        output.add([new_trace], now=0)
        output.flush(now=feed.SETTLE_SECONDS)

        assert len(output.lines()) == line_count, number


def test_remembered_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently drawn trace is forgotten, and its repetition is drawn as a tree again."""
    monkeypatch.setattr(feed, "MAX_SHAPES", 2)
    tree, line = 4, 1  # the number of lines of each
    output = RecordedFeed()
    for resource, line_count in (("a", tree), ("b", tree), ("a", line), ("c", tree), ("a", line), ("b", tree)):
        output.add([request_trace(resource=resource)], now=0)
        output.flush(now=0, end=True)

        assert len(output.lines()) == line_count, resource


@pytest.mark.parametrize(
    ("tree", "resources"),
    [("all", ["fast", "slow", "failed"]), ("errors", ["failed"]), ("slow", ["slow"]), ("off", [])],
)
def test_the_tree_option_selects_traces(tree: str, resources: list[str]) -> None:
    output = RecordedFeed(tree)
    output.add(
        [
            request_trace(resource="fast"),
            request_trace(501, resource="slow"),  # a millisecond more than feed.SLOW
            request_trace(resource="failed", error=True),
        ],
        now=0,
    )
    output.flush(now=feed.SETTLE_SECONDS)

    heads = [line for line in output.lines() if " 2 spans " in line]
    assert [head.split()[0] for head in heads] == resources


def test_a_repeated_trace_is_a_tree_if_only_some_traces_are_drawn() -> None:
    output = RecordedFeed("slow")
    output.add([request_trace(501), request_trace(502)], now=0)  # both take longer than feed.SLOW
    output.flush(now=feed.SETTLE_SECONDS)

    assert len(output.lines()) == 2 * 4  # two trees


def test_a_log_line_is_printed_after_its_trace() -> None:
    """Log lines of other traces wait for their own traces."""
    output = RecordedFeed()
    failed_trace, other_trace = request_trace(error=True), request_trace()
    output.print_after_trace("error: it failed", failed_trace.key, now=0)
    output.print_after_trace("error: another", other_trace.key, now=0)
    assert output.lines() == []
    output.add([failed_trace], now=0.5)
    output.flush(now=1)  # less than SETTLE_SECONDS after the trace arrived
    assert output.lines() == []
    output.flush(now=0.5 + feed.SETTLE_SECONDS)
    *tree, line = output.lines()

    assert len(tree) == 5
    assert line == "error: it failed"


@pytest.mark.parametrize("tree", ["errors", "slow"])
def test_a_log_line_is_printed_even_if_its_trace_is_not_drawn(tree: str) -> None:
    output = RecordedFeed(tree)
    undrawn_trace = request_trace()
    output.print_after_trace("warning: look", undrawn_trace.key, now=0)
    output.add([undrawn_trace], now=0)
    output.flush(now=feed.SETTLE_SECONDS)

    assert output.lines() == ["warning: look"]


def test_a_log_line_without_a_trace_to_wait_for_is_printed_at_once() -> None:
    """This includes all lines if no traces are drawn. Control characters are escaped."""
    output, without_traces = RecordedFeed(), RecordedFeed("off")
    output.print_after_trace("no trace\x1b[2J\n", None, now=0)
    output.print_after_trace("trace id 0", 0, now=0)
    without_traces.print_after_trace("trace id 1", 1, now=0)

    assert output.lines() == [r"no trace\x1b[2J\n", "trace id 0"]
    assert without_traces.lines() == ["trace id 1"]


def test_a_log_line_whose_trace_never_arrives_is_printed_eventually() -> None:
    """The line keeps waiting if its trace has arrived but is not complete yet."""
    output = RecordedFeed()
    incomplete_trace = request_trace()
    output.print_after_trace("lost", 1, now=0)
    output.print_after_trace("incomplete", incomplete_trace.key, now=0)
    output.flush(now=feed.WAIT_SECONDS - 0.1)
    assert output.lines() == []
    output.add([incomplete_trace], now=feed.WAIT_SECONDS)
    output.flush(now=feed.WAIT_SECONDS)

    assert output.lines() == ["lost"]


def test_the_last_traces_and_the_waiting_log_lines_are_printed_at_the_end() -> None:
    output = RecordedFeed()
    last_trace = request_trace()
    output.print_after_trace("without a trace", 1, now=0)
    output.print_after_trace("with a trace", last_trace.key, now=0)
    output.add([last_trace], now=0)
    output.flush(now=0, end=True)
    lines = output.lines()

    assert lines[0].startswith("GET /api/hello")
    assert lines[-2:] == ["with a trace", "without a trace"]


def test_waiting_log_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_WAITING", 2)
    output = RecordedFeed()
    for number in range(1, 4):
        output.print_after_trace(f"line {number}", number, now=0)

    assert output.lines() == ["line 1"]
