"""Tests of the page of a trace: rows, folds, colors, errors, links and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tracing_data import MS, span, trace, wire_format

from hello_service.localview.query import parse
from hello_service.localview.spans import LINKS_OF_A_SPAN, Link, Span, read_spans
from hello_service.localview.store import COLORS as STORE_COLORS
from hello_service.localview.store import Store
from hello_service.localview.trace_page import COLORS, MAX_INDENT, Row, Selection, Tag, TraceView


def trace_view(*spans: Span, store: Store | None = None, **selection: str) -> TraceView:
    """Return the view of the trace of `spans` with `selection`."""
    store = Store(limit=100) if store is None else store  # 100 traces are more than any test adds
    return TraceView(store.add(spans)[0], store, Selection.from_arguments(selection.items()))


def outline(page: TraceView) -> list[str]:
    """Return the visible rows as text: the level, the number of spans and the resource."""
    return [
        f"{row.level} {row.fold_size}x {row.span.resource}"
        for row in page.rows()
        if not row.hidden and not row.filtered_out
    ]


def queries(root: Span, number: int, **rest: object) -> list[Span]:
    """Return `number` equal children of `root` in the service `db`, each with a duration of 1 ms."""
    return [
        span(root, resource="SELECT 1", name="postgres.query", service="db", start_ms=2 * index, duration_ms=1, **rest)  # type: ignore[arg-type]  # the keywords of span()
        for index in range(number)
    ]


def test_the_waterfall_stays_within_its_axis() -> None:
    """This includes a span shorter than a pixel, at the very end. A bar is its start and its width, in percent.

    A span whose parent is missing is an orphan.
    """
    root = span(duration_ms=100)
    at_the_end = span(root, start_ms=100, duration_ms=0)
    orphan = span(trace=root.trace_id, parent_id=99)
    page = trace_view(root, at_the_end, span(root, start_ms=50, duration_ms=25), orphan)

    assert [(row.bars, row.orphan) for row in page.rows()] == [
        ([(0, 100)], False),
        ([(50, 25)], False),
        ([(99.85, 0.15)], False),  # a bar has at least MIN_BAR_PERCENT of the width
        ([(0, 10)], True),
    ]
    assert page.ticks == [(0, "0 ms"), (25, "25.0 ms"), (50, "50.0 ms"), (75, "75.0 ms"), (100, "100 ms")]


def test_self_time_excludes_the_time_of_children() -> None:
    """Overlapping children count once, and only within the time of their parent."""
    root = span(duration_ms=100)
    children = [
        span(root, start_ms=10, duration_ms=20),
        span(root, start_ms=20, duration_ms=20),
        span(root, start_ms=90, duration_ms=50),
    ]
    root_row, *child_rows = trace_view(root, *children).rows()

    assert root_row.self_time == (100 - 30 - 10) * MS  # children run from 10 to 40 and from 90 to 100
    assert [row.self_time for row in child_rows] == [20 * MS, 20 * MS, 50 * MS]


def test_equal_siblings_fold_into_one_row() -> None:
    """The row has their number, the sum of their durations and a bar for each. This reveals N+1 queries."""
    root = span()
    page = trace_view(root, *queries(root, 24), span(root, resource="GET /other", start_ms=99))
    _root_row, fold, *_ = page.rows()

    assert outline(page) == ["1 1x GET /api/hello", "2 24x SELECT 1", "2 1x GET /other"]
    assert fold.duration == 24 * MS
    assert fold.self_time == 24 * MS
    assert len(fold.bars) == 24
    assert fold.service == "db"
    assert not fold.expanded
    assert [row.level for row in page.rows() if row.hidden] == [3] * 24


def test_a_fold_opens() -> None:
    """The address, a chosen span in the fold or a match of the search opens a fold."""
    root = span()
    siblings = queries(root, 9)
    page = trace_view(root, *siblings)
    _root_row, fold, *_ = page.rows()
    span_id = f"{siblings[3].span_id:016x}"
    selections: list[dict[str, Any]] = [{"open": fold.id}, {"open": "all"}, {"span": span_id}, {"find": "select"}]

    assert len(outline(page)) == 1 + 1  # the root and the fold
    for selection in selections:
        assert len(outline(trace_view(root, *siblings, **selection))) == 1 + 1 + 9, selection


def test_few_equal_siblings_are_not_folded() -> None:
    root = span()

    assert len(outline(trace_view(root, *queries(root, 3)))) == 1 + 3  # FOLD_FROM is 4


def test_a_failed_span_is_not_folded_with_successful_ones() -> None:
    root = span()
    page = trace_view(root, *queries(root, 5), *queries(root, 1, error=True))

    assert outline(page)[1:] == ["2 5x SELECT 1", "2 1x SELECT 1"]


def test_folded_spans_keep_their_children() -> None:
    """Spans and children are one level deeper than without the fold."""
    root = span()
    siblings = queries(root, 4)
    children = [span(sibling, resource="below") for sibling in siblings]
    page = trace_view(root, *siblings, *children, open="all")

    assert outline(page)[2:4] == ["3 1x SELECT 1", "4 1x below"]


def test_rows_show_the_service_where_it_changes() -> None:
    """The root always shows its service."""
    root = span(service="a")
    b = span(root, service="b")

    assert [row.service for row in trace_view(root, b, span(b, service="b")).rows()] == ["a", "b", ""]


def test_no_two_services_of_a_trace_look_the_same() -> None:
    """In other views, they may share a color. If a trace has more services than colors, shapes distinguish them."""
    store = Store(limit=100)
    for number in range(STORE_COLORS):
        store.color(f"other-{number}")
    root = span(service="a")
    two_services = trace_view(root, span(root, service="other-0"), store=store)
    many_services = trace_view(root, *(span(root, service=f"service-{number}") for number in range(3 * COLORS)))
    # The CSS classes of each service: its color, and its shape if the color is used again.
    classes = [many_services.color(service) for service, _ in many_services.services]

    assert store.color("a") == store.color("other-0")
    assert two_services.color("a") != two_services.color("other-0")
    assert len(classes) == 3 * COLORS + 1
    assert len(set(classes)) == len(classes)
    assert len({color_and_shape.split()[0] for color_and_shape in classes}) == COLORS


def test_a_service_has_the_same_color_as_in_other_views() -> None:
    """The only exception is a color that another service of the trace already has."""
    store = Store(limit=100)
    store.color("first")
    root = span(service="second")
    page = trace_view(root, span(root, service="first"), store=store)

    assert [page.color(service) for service in ("first", "second")] == ["s0", "s1"]


def test_the_legend_lists_services_in_the_order_of_their_first_spans() -> None:
    """Each service comes with the number of its spans."""
    root = span()

    assert trace_view(root, span(root, service="b", start_ms=1), span(root, start_ms=2)).services == [
        ("web", 2),
        ("b", 1),
    ]


def test_errors_are_paged_from_the_deepest() -> None:
    """The deepest error is chosen by default. A pager is the position, the previous and the next error."""
    root = span(error=True)
    middle = span(root)
    deepest, other = span(middle, error=True), span(root, error=True, start_ms=5)
    spans = [root, middle, deepest, other]
    default = trace_view(*spans)
    root_chosen = trace_view(*spans, span=f"{root.span_id:016x}")
    middle_chosen = trace_view(*spans, span=f"{middle.span_id:016x}")

    assert default.span is deepest
    assert default.pager(default.errors) == (1, None, other)
    assert root_chosen.pager(root_chosen.errors) == (3, other, None)
    assert middle_chosen.pager(middle_chosen.errors) == (0, None, deepest)
    assert default.pager([]) == (0, None, None)


def test_the_details_are_open_for_an_error_or_a_chosen_span() -> None:
    """Otherwise they are open if the window has room. With `span=none` in the address, they are closed."""
    good, failed = span(), span(error=True)

    assert trace_view(failed).details == "open"
    assert trace_view(failed, span=f"{failed.span_id:016x}").details == "open"
    assert trace_view(good, span=f"{good.span_id:016x}").details == "open"
    assert trace_view(good).details == "auto"
    assert trace_view(failed, span="none").details == "closed"


@pytest.mark.parametrize(
    "span_id",
    ["x", "9" * 30, "-1", "²", "٣"],  # the last two are digits for Python, but not ASCII
)
def test_an_invalid_span_id_chooses_the_default(span_id: str) -> None:
    root = span()

    assert trace_view(root, span=span_id).span is root


def test_16_digits_are_a_hexadecimal_id() -> None:
    """Otherwise a span whose hexadecimal id is the decimal id of another one could not be chosen."""
    ten, sixteen = span(trace=1, span_id=10), span(trace=1, span_id=16)

    assert trace_view(ten, sixteen, span=f"{16:016x}").span is sixteen
    assert trace_view(ten, sixteen, span="16").span is sixteen
    assert trace_view(ten, sixteen, span="10").span is ten


def test_a_search_within_the_trace_marks_matches() -> None:
    """Names, tags and ids are searched. Rows that do not match are dimmed."""
    root = span()
    child = span(root, resource="SELECT 1", meta={"db.user": "Ada"})
    page = trace_view(root, child, find="ada")

    assert page.matches == [child]
    assert [row.classes.split()[-1] for row in page.rows()] == ["dim", "found"]
    assert trace_view(root, child, find=f"{child.span_id:016x}").matches == [child]
    assert trace_view(root, child).matches == []
    assert trace_view(root, child, find="  ").matches == []


def test_a_single_service_is_shown_with_its_ancestors() -> None:
    """The ancestors are dimmed."""
    root = span(service="a")
    b = span(root, service="b")
    page = trace_view(root, b, span(b, service="c"), span(root, service="d"), *queries(root, 5), service="c")
    rows = {row.span.service: row for row in page.rows()}

    assert [service for service, row in rows.items() if not row.filtered_out] == ["a", "b", "c"]
    assert [rows[service].classes.split()[-1] for service in "abc"] == ["dim", "dim", "s2"]  # s2 is a color


def test_every_link_keeps_the_selection() -> None:
    """A link also keeps the parameters of other views."""
    root = span()
    span_id = f"{root.span_id:016x}"
    page = trace_view(root, find="a b", q="service:web", service="web")

    assert page.link(root) == f"?q=service%3Aweb&find=a+b&service=web&span={span_id}#s{span_id}"
    assert page.selection.address(service="") == "?q=service%3Aweb&find=a+b"
    assert trace_view(root).link(root).startswith("?span=")


def test_rows_have_unique_ids() -> None:
    """This includes the rows of two spans with the same id, which a tracer may have sent twice."""
    rows = list(trace_view(span(trace=1, span_id=7), span(trace=1, span_id=7)).rows())

    assert [row.id for row in rows] == ["s0000000000000007", "s0000000000000007-2"]


def test_2000_nested_spans_are_rows() -> None:
    """The indent is limited. A recursive function would exceed Python's recursion limit of 1,000."""
    chain = [span(trace=1, span_id=number, parent_id=number - 1) for number in range(1, 2001)]
    rows: list[Row] = list(trace_view(*chain).rows())

    assert len(rows) == 2000
    assert rows[-1].level == 2000
    assert rows[-1].indent == MAX_INDENT


@pytest.mark.parametrize(
    "sent",
    [
        {"span_links": [{"trace_id": 5, "trace_id_high": 9, "span_id": 6, "attributes": {"dd.kind": "executed_by"}}]},
        {
            "meta": {
                "_dd.span_links": '[{"trace_id": "6b0a1ae6000000000000000000000005", "span_id": "0000000000000006",'
                ' "attributes": {"dd.kind": "executed_by"}}]'
            }
        },
    ],
)
def test_span_links_are_read(sent: Mapping[str, object]) -> None:
    """The two versions of the protocol have different formats."""
    (received,) = read_spans([[{**wire_format(span()), **sent}]])

    assert received.links == (Link(trace_id=5, span_id=6, kind="executed_by"),)


@pytest.mark.parametrize(
    "malformed",
    [
        "{",
        "7",
        '{"a": 1}',
        "[7, null]",
        '[{"trace_id": "x", "span_id": "y"}]',
        "[" * 100_000,  # nested too deeply for the JSON parser
        '[{"trace_id": Infinity}]',
    ],
)
def test_a_malformed_span_link_is_left_out(malformed: str) -> None:
    """The span is kept."""
    (received,) = read_spans([[wire_format(span(meta={"_dd.span_links": malformed}))]])

    assert received.links == ()


def test_span_links_are_shown_in_both_directions() -> None:
    """The order of arrival does not matter. A link to a trace that is not kept is also shown."""
    store = Store(limit=10)
    request = span(trace=1)
    task = span(trace=2, links=(Link(trace_id=1, span_id=request.span_id), Link(trace_id=99, span_id=98)))
    store.add([task])
    links_before_request = len(store.links_to(request))  # the link is stored before its target arrives
    request_page = trace_view(request, store=store)
    task_trace = store.find("2")
    assert task_trace is not None
    task_page = TraceView(task_trace, store, Selection())

    assert links_before_request == 1
    assert [(linked.direction, linked.span) for linked in request_page.links] == [("from", task)]
    assert [(linked.direction, linked.span) for linked in task_page.links] == [("to", request), ("to", None)]
    assert store.revision("1") == 2  # the request's span, and the link to it


def test_links_to_a_span_are_bounded() -> None:
    """A WebSocket may have any number of messages, and the targets of links may never arrive."""
    store = Store(limit=2)
    target = span(trace=1)
    sources = [span(trace=2, links=(Link(trace_id=1, span_id=target.span_id),)) for _ in range(LINKS_OF_A_SPAN + 5)]
    store.add([target, *sources])
    link_count = len(store.links_to(target))
    # A store keeps the links to at most 2 * limit traces.
    links_to_missing_traces = tuple(Link(trace_id=trace_id, span_id=1) for trace_id in range(10, 20))
    store.add([span(trace=2, links=links_to_missing_traces)])

    assert link_count == LINKS_OF_A_SPAN
    assert store.links_to(target) == []  # the oldest targets are forgotten


def test_tags_and_metrics_are_in_the_same_table() -> None:
    """Tags of the tracer and of the process are in a second table. Tags of an error and of links are in neither table."""
    page = trace_view(
        span(
            error=True,
            meta={
                "http.method": "GET",
                "_dd.p.dm": "-0",
                "language": "python",
                "error.type": "E",
                "_dd.span_links": "[]",
            },
            metrics={"a.size": 5.0, "process_id": 7},
        )
    )
    first_table, second_table = page.tags

    assert first_table == [Tag("a.size", "5"), Tag("http.method", "GET")]
    assert second_table == [Tag("_dd.p.dm", "-0"), Tag("language", "python"), Tag("process_id", "7")]


@pytest.mark.parametrize(
    ("name", "value", "term"),
    [
        ("http.route", "/a", '@http.route:"/a"'),
        ("size", "5", "@size:5"),
        ("empty", "", ""),
    ],
)
def test_a_tag_has_a_search_term(name: str, value: str, term: str) -> None:
    """The term is empty for a tag without a value."""
    assert Tag(name, value).term == term


@given(name=st.text(min_size=1), value=st.text(min_size=1))
@example(name="file", value="C:\\")
@example(name="share", value="\\\\server\\x")
@example(name="db.statement", value='SELECT "a" FROM b')
@example(name="odd name", value="*")
def test_the_search_term_of_a_tag_finds_its_span(name: str, value: str) -> None:
    tagged_span = span(meta={name: value})
    untagged_span = span(meta={name: f"{value}x"})

    assert parse(Tag(name, value).term).matches(trace(tagged_span))
    assert not parse(Tag(name, value).term).matches(trace(untagged_span))


def test_a_stack_trace_is_shown_once() -> None:
    """The page shows it with the error of a span. A log line with the same exception links to that span."""
    store = Store(limit=10)
    text = "Traceback (most recent call last):\n  File ...\nFault: no"
    root = span(trace=1, error=True, meta={"error.stack": f"{text}\n"})
    child = span(root)
    lines = [
        {"dd.trace_id": "1", "dd.span_id": str(root.span_id), "exception": text},
        {"dd.trace_id": "1", "dd.span_id": str(child.span_id), "exception": f"…\n{text}"},
        {"dd.trace_id": "1", "exception": "Other: no"},
        {"dd.trace_id": "1"},
    ]
    for line in lines:
        store.add_line(line)
    page = trace_view(root, child, store=store)

    assert [page.exception_span(line) for line in lines] == [root, root, None, None]
    assert page.lines == lines[:1]  # the lines of the chosen span, which is the root
    assert [page.writer(line) for line in lines] == [root, child, None, None]


def test_the_parent_of_a_span_is_found() -> None:
    """The root has no parent."""
    root = span()
    child = span(root)
    page = trace_view(root, child)

    assert page.parent(child) is root
    assert page.parent(root) is None
