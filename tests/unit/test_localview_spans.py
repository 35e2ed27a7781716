"""Tests of spans and traces, in any order of arrival, and of the store that keeps them."""

from __future__ import annotations

import math

import pytest
from tracing_data import MS, span, trace, wire_format

from hello_service.localview import spans as spans_module
from hello_service.localview.spans import read_spans
from hello_service.localview.store import COLORS, LINES_OF_A_TRACE, SERVICES, Store, trace_key


def test_a_span_is_read_as_it_was_sent() -> None:
    """No field is lost in the protocol."""
    sent = span(error=True, meta={"a": "b", "span.kind": "server"})
    (received,) = read_spans([[wire_format(sent)]])

    assert received == sent
    assert received.kind == "server"


def test_missing_fields_have_defaults_and_malformed_spans_are_left_out() -> None:
    """The well-formed spans are kept."""
    good = {"trace_id": 1, "span_id": 2, "name": "work"}
    infinite = {**good, "start": math.inf}  # json.loads accepts Infinity
    (received,) = read_spans([[{"name": "no ids"}, good, {"trace_id": "x", "span_id": 1}, infinite, None]])  # type: ignore[list-item]  # malformed on purpose

    assert (received.resource, received.service, received.start, received.duration) == ("work", "no service", 0, 0)


@pytest.mark.parametrize(
    ("fields", "is_request"),
    [
        ({"parent_id": 0}, True),
        ({"parent_id": 7}, False),
        ({"parent_id": 7, "metrics": {"_dd.top_level": 1}}, True),
        ({"parent_id": 7, "meta": {"span.kind": "server"}}, True),
        ({"parent_id": 7, "meta": {"span.kind": "client"}}, False),
    ],
)
def test_a_request_is_a_span_that_enters_a_service(fields: dict[str, object], is_request: bool) -> None:
    """Work within a service does not count as a request."""
    assert span(**fields).enters_service is is_request  # type: ignore[arg-type]  # the keywords of span()


def test_a_trace_has_its_whole_id_root_duration_and_errors() -> None:
    """The order of the spans does not matter."""
    root = span(trace=0xAB, duration_ms=20, meta={"_dd.p.tid": "6b03000000000000"})  # the upper half of the id
    late = span(root, start_ms=15, duration_ms=10, error=True)
    early = span(root, start_ms=-1, duration_ms=3)
    one_trace = trace(late, early, root)

    assert one_trace.id == "6b0300000000000000000000000000ab"
    assert one_trace.root is root
    assert one_trace.duration == 26 * MS  # from -1 to 25 ms
    assert one_trace.errors == 1


def test_an_invalid_upper_half_of_a_trace_id_is_ignored() -> None:
    """Otherwise links to the trace would be broken."""
    one_trace = trace(span(trace=1, meta={"_dd.p.tid": "../../../../../x"}))

    assert one_trace.id == f"{1:032x}"


def test_tags_are_text_and_metrics_are_numbers() -> None:
    """Values of other types are converted or left out."""
    sent = {"trace_id": 1, "span_id": 2, "meta": {"a": 1, "b": None}, "metrics": {"c": "text", "d": 0.5}}
    (received,) = read_spans([[sent]])

    assert (received.meta, received.metrics) == ({"a": "1", "b": "None"}, {"d": 0.5})


def test_the_earliest_span_is_the_root_of_a_trace_without_one() -> None:
    """The actual root may arrive later, or never."""
    late, early = span(trace=1, parent_id=99, start_ms=1), span(trace=1, parent_id=99)

    assert trace(late, early).root is early


def test_parents_come_before_children_and_children_are_sorted_by_start() -> None:
    """Each span comes with its depth and a flag for the last child."""
    root = span()
    b, a = span(root, start_ms=5), span(root, start_ms=1)
    c = span(a)

    assert list(trace(c, b, root, a).walk()) == [(0, True, root), (1, False, a), (2, True, c), (1, True, b)]


def test_spans_with_a_missing_parent_or_in_a_cycle_are_walked() -> None:
    """Each span is walked once."""
    orphan = span(trace=1, parent_id=12345)
    cycle_1, cycle_2 = span(trace=1, span_id=71, parent_id=72), span(trace=1, span_id=72, parent_id=71, start_ms=1)
    cycle_of_one = span(trace=1, span_id=73, parent_id=73)
    walked = [(depth, walked_span) for depth, _, walked_span in trace(orphan, cycle_1, cycle_2, cycle_of_one).walk()]

    assert walked == [(0, orphan), (0, cycle_of_one), (0, cycle_1), (1, cycle_2)]


def test_a_chain_of_5000_spans_is_walked() -> None:
    """The walk is not recursive. Python's recursion limit is 1,000."""
    chain = [span(trace=1, span_id=number, parent_id=number - 1) for number in range(1, 5001)]

    assert [depth for depth, _, _ in trace(*chain).walk()] == list(range(5000))


def test_spans_beyond_the_limit_of_a_trace_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a trace that never ends would exhaust the memory."""
    monkeypatch.setattr(spans_module, "SPANS_OF_A_TRACE", 3)
    one_trace = trace(*[span(trace=1) for _ in range(5)])

    assert (len(one_trace.spans), one_trace.dropped) == (3, 2)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("6b037072000000009171ffa412f4e523", 0x9171FFA412F4E523),
        (" 9171FFA412F4E523 ", 0x9171FFA412F4E523),
        ("00-6b037072000000009171ffa412f4e523-f748b07e49e71eb4-01", 0x9171FFA412F4E523),
        ("1234", 1234),
        ("hello", None),
        ("", None),
    ],
)
def test_a_trace_id_is_accepted_in_every_form(text: str, key: int | None) -> None:
    """The forms are those in log lines and headers, and the decimal number. The key is the lower 64 bits."""
    assert trace_key(text) == key


def test_the_store_keeps_the_last_traces_and_counts_the_dropped_ones() -> None:
    """The traces are sorted by start, the newest first."""
    store = Store(limit=3)
    spans = [span(start_ms=number) for number in range(5)]
    store.add(spans)

    assert [kept_trace.root for kept_trace in store.newest()] == [spans[4], spans[3], spans[2]]
    assert (len(store), store.dropped) == (3, 2)
    assert store.find(str(spans[0].trace_id)) is None
    assert store.find("no id") is None


def test_the_store_limits_its_total_number_of_spans_but_keeps_one_trace() -> None:
    """A trace over the limit displaces all older ones."""
    store = Store(limit=100, spans=10)
    store.add([span(trace=1) for _ in range(6)])
    store.add([span(trace=2) for _ in range(12)])

    assert [kept_trace.key for kept_trace in store.newest()] == [2]
    assert store.dropped == 1


def test_spans_of_several_processes_are_one_trace() -> None:
    """The order of arrival does not matter."""
    store = Store(limit=10)
    root = span(trace=5)
    store.add([span(root, service="other")])
    (changed,) = store.add([root])

    assert {changed_span.service for changed_span in changed.spans} == {"web", "other"}
    assert changed.root is root


def test_log_lines_may_arrive_before_or_after_their_trace() -> None:
    """A line without a trace id belongs to no trace. The number of lines of a trace is limited."""
    store = Store(limit=2)
    line = {"dd.trace_id": f"{7:032x}", "event": "request"}
    store.add_line(line)
    store.add_line({"event": "no trace"})
    (trace_seven,) = store.add([span(trace=7)])
    revision_before = store.revision(trace_seven.id)  # one span and one line
    for _ in range(LINES_OF_A_TRACE + 5):
        store.add_line(line)

    assert revision_before == 2
    assert store.lines(trace_seven) == [line] * LINES_OF_A_TRACE
    assert store.revision("unknown") == 0


def test_lines_of_traces_that_never_arrive_are_forgotten() -> None:
    """The oldest lines are forgotten first."""
    store = Store(limit=2)
    for number in range(1, 6):  # a store keeps the lines of at most 2 * limit traces
        store.add_line({"dd.trace_id": f"{number:032x}"})
    (first,) = store.add([span(trace=1)])
    (last,) = store.add([span(trace=5)])

    assert store.lines(first) == []
    assert len(store.lines(last)) == 1


def test_a_service_keeps_its_color() -> None:
    """The number of services may exceed the number of colors, and the number of services whose color is remembered."""
    store = Store(limit=1)
    services = [f"service-{number}" for number in range(SERVICES + 20)]
    first_colors = [store.color(service) for service in services]

    assert first_colors[:COLORS] == list(range(COLORS))
    assert [store.color(service) for service in services] == first_colors
    assert max(first_colors) < COLORS


def test_adding_no_spans_does_not_change_the_version() -> None:
    store = Store(limit=1)
    store.add([])

    assert store.version == 0
