"""Tests of the page of a trace: rows, folds, colours, errors, links and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tracing_data import MS, span, trace, wire

from hello_service.localview.spans import LINKS_OF_A_SPAN, Link, Span, read_spans
from hello_service.localview.store import COLORS as COLORS_OF_ALL
from hello_service.localview.store import Store
from hello_service.localview.trace_page import COLORS, Row, Selection, Tag, TraceView


def trace_view(*spans: Span, store: Store | None = None, **selected: str) -> TraceView:
    """Return the view of the trace of `spans` with the selection `selected`."""
    store = Store(100) if store is None else store
    return TraceView(store.add(spans)[0], store, Selection.from_arguments(selected.items()))


def outline(page: TraceView) -> list[str]:
    """Return the visible rows, each with its level and its number of spans."""
    return [
        f"{row.level} {row.fold_size}x {row.span.resource}"
        for row in page.rows()
        if not row.hidden and not row.filtered_out
    ]


def queries(root: Span, number: int, **rest: object) -> list[Span]:
    """Return `number` equal children of `root`, each with a duration of 1 ms."""
    return [
        span(root, resource="SELECT 1", name="postgres.query", service="db", at=2 * each, ms=1, **rest)  # type: ignore[arg-type]  # the keywords of span()
        for each in range(number)
    ]


def test_the_waterfall_stays_within_its_axis() -> None:
    """This includes a span shorter than a pixel and a span at the very end."""
    root = span(ms=100)
    page = trace_view(root, span(root, at=100, ms=0), span(root, at=50, ms=25), span(trace=root.trace_id, parent_id=99))

    assert [(row.bars, row.orphan) for row in page.rows()] == [
        ([(0, 100)], False),
        ([(50, 25)], False),
        ([(99.85, 0.15)], False),
        ([(0, 10)], True),
    ]
    assert page.ticks == [(0, "0 ms"), (25, "25.0 ms"), (50, "50.0 ms"), (75, "75.0 ms"), (100, "100 ms")]


def test_self_time_excludes_the_time_of_children() -> None:
    """Overlapping children count once, and only within the time of their parent."""
    root = span(ms=100)
    rows = list(trace_view(root, span(root, at=10, ms=20), span(root, at=20, ms=20), span(root, at=90, ms=50)).rows())

    assert [row.self_time for row in rows] == [60 * MS, 20 * MS, 20 * MS, 50 * MS]


def test_equal_siblings_fold_into_one_row() -> None:
    """The row has their number, the sum of their durations and a bar for each. This reveals N+1 queries."""
    root = span()
    page = trace_view(root, *queries(root, 24), span(root, resource="GET /other", at=99))
    fold = list(page.rows())[1]

    assert outline(page) == ["1 1x GET /api/hello", "2 24x SELECT 1", "2 1x GET /other"]
    assert (fold.duration, fold.self_time, len(fold.bars), fold.expanded, fold.service) == (
        24 * MS,
        24 * MS,
        24,
        False,
        "db",
    )
    assert [row.level for row in page.rows() if row.hidden] == [3] * 24


def test_a_fold_opens() -> None:
    """The address, a chosen span in the fold or a match of the search opens a fold."""
    root = span()
    siblings = queries(root, 9)
    closed = trace_view(root, *siblings)
    fold = list(closed.rows())[1]
    number = f"{siblings[3].span_id:016x}"
    choices: list[dict[str, Any]] = [{"open": fold.id}, {"open": "all"}, {"span": number}, {"find": "select"}]

    assert len(outline(closed)) == 2
    for selected in choices:
        assert len(outline(trace_view(root, *siblings, **selected))) == 11, selected


def test_few_equal_siblings_are_not_folded_and_failed_ones_stay_visible() -> None:
    """A failed span is not folded with successful ones."""
    root = span()

    assert len(outline(trace_view(root, *queries(root, 3)))) == 4
    assert outline(trace_view(root, *queries(root, 5), *queries(root, 1, error=True), span="none"))[1:] == [
        "2 5x SELECT 1",
        "2 1x SELECT 1",
    ]


def test_folded_spans_keep_their_children() -> None:
    """Spans and children are one level deeper than without the fold."""
    root = span()
    siblings = queries(root, 4)
    page = trace_view(root, *siblings, *(span(each, resource="below") for each in siblings), open="all")

    assert outline(page)[2:4] == ["3 1x SELECT 1", "4 1x below"]


def test_rows_show_the_service_where_it_changes() -> None:
    """The root always shows its service."""
    root = span(service="a")
    b = span(root, service="b")

    assert [row.service for row in trace_view(root, b, span(b, service="b")).rows()] == ["a", "b", ""]


def test_no_two_services_of_a_trace_share_a_colour() -> None:
    """Services may share a colour in other views. If there are more services than colours, shapes distinguish them."""
    store = Store(100)
    for number in range(COLORS_OF_ALL):
        store.color(f"other-{number}")
    root = span(service="a")
    two = trace_view(root, span(root, service="other-0"), store=store)
    many = trace_view(root, *(span(root, service=f"service-{number}") for number in range(3 * COLORS)))
    colors = [many.color(service) for service, _ in many.services]

    assert store.color("a") == store.color("other-0")
    assert two.color("a") != two.color("other-0")
    assert len(set(colors)) == len(colors) == 3 * COLORS + 1
    assert len({each.split()[0] for each in colors}) == COLORS


def test_a_service_has_the_same_colour_as_in_other_views() -> None:
    """The only exception is a colour that another service of the trace already has."""
    store = Store(100)
    store.color("first")
    root = span(service="second")
    page = trace_view(root, span(root, service="first"), store=store)

    assert [page.color(service) for service in ("first", "second")] == ["s0", "s1"]


def test_the_legend_lists_services_by_their_first_span() -> None:
    """Each service has the number of its spans."""
    root = span()

    assert trace_view(root, span(root, service="b", at=1), span(root, at=2)).services == [("web", 2), ("b", 1)]


def test_errors_are_paged_from_the_deepest() -> None:
    """The deepest error is chosen by default."""
    root = span(error=True)
    middle = span(root)
    deep, side = span(middle, error=True), span(root, error=True, at=5)
    page = trace_view(root, middle, deep, side)
    last = trace_view(root, middle, deep, side, span=f"{root.span_id:016x}")
    no_error = trace_view(root, middle, deep, side, span=f"{middle.span_id:016x}")

    assert page.span is deep
    assert page.pager(page.errors) == (1, None, side)
    assert last.pager(last.errors) == (3, side, None)
    assert no_error.pager(no_error.errors) == (0, None, deep)
    assert page.pager([]) == (0, None, None)
    assert [each.details for each in (page, last, trace_view(span()), trace_view(root, span="none"))] == [
        "open",
        "open",
        "auto",
        "closed",
    ]


@pytest.mark.parametrize("odd", ["x", "²", "9" * 30, "-1", "٣"])
def test_an_invalid_span_id_chooses_the_default(odd: str) -> None:
    root = span()

    assert trace_view(root, span=odd).span is root


def test_16_digits_are_a_hexadecimal_id() -> None:
    """Otherwise a span whose hexadecimal id is the decimal id of another one could not be chosen."""
    ten, sixteen = span(trace=1, span_id=10), span(trace=1, span_id=16)

    assert trace_view(ten, sixteen, span=f"{16:016x}").span is sixteen
    assert trace_view(ten, sixteen, span="16").span is sixteen
    assert trace_view(ten, sixteen, span="10").span is ten


def test_a_search_within_the_trace_marks_matches() -> None:
    """Names, tags and ids are searched. Rows that do not match are dimmed."""
    root = span()
    one = span(root, resource="SELECT 1", meta={"db.user": "Ada"})
    page = trace_view(root, one, find="ada")

    assert page.matches == [one]
    assert [row.classes.split()[-1] for row in page.rows()] == ["dim", "found"]
    assert trace_view(root, one, find=f"{one.span_id:016x}").matches == [one]
    assert trace_view(root, one).matches == []
    assert trace_view(root, one, find="  ").matches == []


def test_a_single_service_is_shown_with_its_ancestors() -> None:
    """The ancestors are dimmed."""
    root = span(service="a")
    b = span(root, service="b")
    page = trace_view(root, b, span(b, service="c"), span(root, service="d"), *queries(root, 5), service="c")
    rows = {row.span.service: row for row in page.rows()}

    assert [service for service, row in rows.items() if not row.filtered_out] == ["a", "b", "c"]
    assert [rows[service].classes.split()[-1] for service in "abc"] == ["dim", "dim", "s2"]


def test_every_link_keeps_the_selection() -> None:
    """A link also keeps the parameters of other views."""
    root = span()
    page = trace_view(root, find="a b", q="service:web", service="web")

    assert page.link(root) == f"?q=service%3Aweb&find=a+b&service=web&span={root.span_id:016x}#s{root.span_id:016x}"
    assert page.selection.address(service="") == "?q=service%3Aweb&find=a+b"
    assert trace_view(root).link(root).startswith("?span=")


def test_rows_have_unique_ids() -> None:
    """This includes the rows of two spans with the same id, which a tracer may have sent twice."""
    rows = list(trace_view(span(trace=1, span_id=7), span(trace=1, span_id=7)).rows())

    assert [row.id for row in rows] == ["s0000000000000007", "s0000000000000007-2"]


def test_2000_nested_spans_are_rows() -> None:
    """The indent is limited."""
    chain = [span(trace=1, span_id=number, parent_id=number - 1) for number in range(1, 2001)]
    rows: list[Row] = list(trace_view(*chain).rows())

    assert (len(rows), rows[-1].level, rows[-1].indent) == (2000, 2000, 16)


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
    (received,) = read_spans([[{**wire(span()), **sent}]])

    assert received.links == (Link(5, 6, "executed_by"),)


@pytest.mark.parametrize(
    "odd",
    [
        "{",
        "7",
        '{"a": 1}',
        "[7, null]",
        '[{"trace_id": "x", "span_id": "y"}]',
        "[" * 100_000,
        '[{"trace_id": Infinity}]',
    ],
)
def test_a_malformed_span_link_is_left_out(odd: str) -> None:
    """The span is kept."""
    (received,) = read_spans([[wire(span(meta={"_dd.span_links": odd}))]])

    assert received.links == ()


def test_span_links_are_shown_in_both_directions() -> None:
    """The order of arrival does not matter. A link to a trace that is not kept is also shown."""
    store = Store(10)
    request = span(trace=1)
    task = span(trace=2, links=(Link(1, request.span_id), Link(99, 98)))
    store.add([task])
    links_before_request = len(store.links_to(request))
    request_page = trace_view(request, store=store)
    task_trace = store.find("2")
    assert task_trace is not None
    task_page = TraceView(task_trace, store, Selection())

    assert links_before_request == 1
    assert [(each.direction, each.span) for each in request_page.links] == [("from", task)]
    assert [(each.direction, each.span) for each in task_page.links] == [("to", request), ("to", None)]
    assert store.revision("1") == 2


def test_links_to_a_span_are_bounded() -> None:
    """A WebSocket may have any number of messages, and the targets of links may never arrive."""
    store = Store(2)
    target = span(trace=1)
    store.add([target, *(span(trace=2, links=(Link(1, target.span_id),)) for _ in range(LINKS_OF_A_SPAN + 5))])
    number = len(store.links_to(target))
    store.add([span(trace=2, links=tuple(Link(number, 1) for number in range(10, 20)))])

    assert number == LINKS_OF_A_SPAN
    assert store.links_to(target) == []


def test_tags_and_metrics_are_one_table() -> None:
    """The tags of tracer and process are in a table of their own."""
    page = trace_view(
        span(
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
    own, other = page.tags

    assert own == [Tag("a.size", "5"), Tag("http.method", "GET")]
    assert other == [Tag("_dd.p.dm", "-0"), Tag("language", "python"), Tag("process_id", "7")]


@pytest.mark.parametrize(
    ("name", "value", "term"),
    [
        ("http.url", "http://x/a b", '@http.url:"http://x/a b"'),
        ("db.statement", 'SELECT "a" FROM b', "@db.statement:*SELECT*a*FROM*b*"),
        ("odd name", "x", ""),
        ("empty", "", ""),
        ("quotes", '""', ""),
    ],
)
def test_a_tag_has_a_search_term(name: str, value: str, term: str) -> None:
    """The term is empty if the search language can't express the tag."""
    assert Tag(name, value).term == term


def test_a_stack_trace_is_shown_once() -> None:
    """The stack trace is shown with the error, and the log line links to it."""
    store = Store(10)
    text = "Traceback (most recent call last):\n  File ...\nFault: no"
    root = span(trace=1, error=True, meta={"error.stack": f"{text}\n"})
    below = span(root)
    lines = [
        {"dd.trace_id": "1", "dd.span_id": str(root.span_id), "exception": text},
        {"dd.trace_id": "1", "dd.span_id": str(below.span_id), "exception": f"…\n{text}"},
        {"dd.trace_id": "1", "exception": "Other: no"},
        {"dd.trace_id": "1"},
    ]
    for line in lines:
        store.add_line(line)
    page = trace_view(root, below, store=store)

    assert [page.exception_span(line) for line in lines] == [root, root, None, None]
    assert page.lines == lines[:1]
    assert [page.writer(line) for line in lines] == [root, below, None, None]
    assert len(trace(root).spans) == 1


def test_a_span_has_its_parent() -> None:
    """The root has no parent."""
    root = span()
    below = span(root)
    page = trace_view(root, below)

    assert page.parent(below) is root
    assert page.parent(root) is None
