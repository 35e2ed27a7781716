"""Tests of the list of traces: search, time range, sorting, grouping, facets and paging, and of the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_data import MS, START, span

from hello_service.localview import listing, logbook
from hello_service.localview.listing import Search, SearchError
from hello_service.localview.rows import group_websockets, path_of
from hello_service.localview.spans import Link, Span
from hello_service.localview.store import LINES, Store

NOW = datetime.fromtimestamp(START / 1_000_000_000, UTC)
HANDSHAKE = {"http.upgraded": "websocket", "runtime-id": "r", "http.url": "ws://x/ws", "http.status_code": "101"}


def store_with(*spans: Span) -> Store:
    """Return a store with `spans`."""
    store = Store(1000)
    store.add(spans)
    return store


def link(to: Span) -> tuple[Link, ...]:
    """Return the links of a span that is linked only to the span `to`."""
    return (Link(to.trace_id, to.span_id),)


def search_of(address: str) -> Search:
    """Return the search in an address."""
    return Search.from_arguments(dict(parse_qsl(urlsplit(address).query)))


@pytest.mark.parametrize(
    ("url", "resource", "path"),
    [
        ("http://x/.env", "GET 404", "/.env"),
        ("http://x/wp-login.php?a=b", "GET 404", "/wp-login.php"),
        ("http://x/api/hello?name=Ada", "GET /api/hello", ""),
        ("http://x/api/hello/Ada%20L", "GET /api/hello/<name>", "/api/hello/Ada L"),
        ("http://x", "GET /", ""),
        ("", "work", ""),
        ("http://[x/y", "GET 404", ""),
    ],
)
def test_a_path_is_shown_if_it_differs_from_the_route(url: str, resource: str, path: str) -> None:
    """The path distinguishes the requests with the resource `GET 404`."""
    assert path_of(span(resource=resource, meta={"http.url": url})) == path


def test_an_operation_that_is_not_a_request_shows_its_name() -> None:
    """A background task is an example."""
    spans = [
        span(at=1, name="quart.background_task"),
        span(at=2, meta={"http.method": "GET"}),
        span(at=3, meta={"span.kind": "server"}),
    ]
    rows = group_websockets(store_with(*spans).newest())

    assert [row.kind for row in rows] == ["", "", "quart.background_task"]


def test_messages_and_close_of_a_websocket_are_below_its_handshake() -> None:
    """The last receive is included although ddtrace does not link it, and so is the close that is linked to it."""
    handshake = span(meta=HANDSHAKE)
    messages = [
        span(at=number, name="websocket.receive", links=link(handshake), meta={"runtime-id": "r"}) for number in (1, 2)
    ]
    last = span(at=3, name="websocket.receive", meta={"runtime-id": "r"})
    close = span(at=4, name="websocket.close", links=link(last))
    other = span(at=5, resource="GET /x")
    result = listing.listing(store_with(handshake, *messages, last, close, other), Search(), NOW)

    assert [row.trace.root for row in result.rows] == [other, handshake]
    assert [row.trace.root for row in result.rows[1].messages] == [*messages, last, close]
    assert result.rows[1].messages_summary == "3 messages, close"
    assert result.found == 6


def test_messages_without_a_known_handshake_are_not_grouped() -> None:
    """With two open WebSockets, the last receive may belong to either of them. Circular links are ignored."""
    first, second = span(meta=HANDSHAKE), span(at=1, meta=HANDSHAKE)
    last = span(at=2, name="websocket.receive", meta={"runtime-id": "r"})
    lost = span(at=3, name="websocket.receive", links=link(span()))
    unlinked = span(at=4, name="websocket.close")
    forward = span(at=6, trace=901, name="websocket.close", links=link(span(trace=902)))
    back = span(at=7, trace=902, name="websocket.close", links=link(span(trace=901)))
    result = listing.listing(store_with(first, second, last, lost, unlinked, forward, back), Search(), NOW)

    assert [len(row.messages) for row in result.rows] == [1, 0, 0, 0, 0, 0]
    assert result.rows[0].trace.root is forward


def test_a_list_is_sorted_by_any_column_in_either_order() -> None:
    """With an unknown column, the newest traces come first."""
    a = span(at=3, ms=10, resource="GET /a", service="z", meta={"http.status_code": "500"})
    b = span(at=1, ms=30, resource="GET /b", service="y", meta={"http.status_code": "200"})
    c = span(at=2, ms=20, resource="GET /c", service="x", meta={"http.status_code": "404"})
    store = store_with(a, b, c, span(b))

    def order(sort: str) -> str:
        return "".join(each.root.resource[-1] for each in listing.select(store, search_of(f"/?sort={sort}"), NOW))

    assert [order(column) for column in ("time", "request", "service", "status", "duration")] == [
        "bca",
        "abc",
        "cba",
        "bca",
        "acb",
    ]
    assert [order(column) for column in ("-time", "-spans", "-duration", "nonsense")] == ["acb", "bac", "bca", "acb"]
    assert Search().sort_after_click("duration") == "-duration"
    assert Search(sort="-duration").sort_after_click("duration") == "duration"
    assert (Search().sort_after_click("time"), Search(sort="service").sort_after_click("service")) == (
        "time",
        "-service",
    )


@pytest.mark.parametrize(
    ("address", "resources"),
    [
        ("/?last=5", ["4 min ago"]),
        ("/?last=7", ["4 min ago", "yesterday"]),
        ("/?from=22:00", ["4 min ago"]),
        ("/?from=22:09:20.000&to=22:09:21", ["4 min ago"]),
        ("/?to=22:09:20", ["yesterday"]),
        ("/?from=2023-11-14T22:00:00&to=2023-11-14T22:09:20Z", []),
        ("/?from=23:50&to=22:00", []),
        ("/?from=2023-11-13T00:00:00%2B00:00&to=23:59", ["4 min ago", "yesterday"]),
    ],
)
def test_a_time_range_selects_traces(address: str, resources: list[str]) -> None:
    """A range is a number of minutes, or has a time of day or a date at its ends. A time in the future means yesterday."""
    store = store_with(
        span(at=-240_000, resource="4 min ago"),
        span(at=-23 * 3600 * 1000, resource="yesterday"),
    )

    assert [each.root.resource for each in listing.select(store, search_of(address), NOW)] == resources


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/?from=25:00", "from=25:00 is not a time. Write it like 22:13:20 or 2023-11-14T22:13:20."),
        ("/?to=soon", "to=soon is not a time."),
        ("/?from=22:10&to=22:05", "from=22:10 is not before to=22:05."),
        ("/?q=foo:bar", 'Unknown field "foo".'),
    ],
)
def test_an_invalid_search_or_time_is_an_error(address: str, message: str) -> None:
    """An empty list would hide the mistake."""
    with pytest.raises(SearchError, match=message.replace("?", r"\?")):
        listing.listing(store_with(span()), search_of(address), NOW)


def test_an_address_contains_the_whole_search() -> None:
    """Reading the address gives the same search."""
    search = Search(q='a "b"&=é', last="5", begin="10:00", end="11:00", sort="-spans", show_all=True)

    assert search_of(search.address()) == search
    assert Search().address() == "/"
    assert Search().finds_all_traces
    assert not Search(last="5").finds_all_traces


SPANS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["web", "shop", 'od"d (1)', "a OR b"]),
        st.booleans(),
        st.sampled_from(["200", "404", "500"]),
        st.sampled_from(["asgi.request", "sql"]),
    ),
    min_size=1,
    max_size=12,
)
QUERIES = st.sampled_from(
    ["", "service:web", "service:web OR status:error", "-status:error", "@http.status_code:>=400"]
)


@given(SPANS, QUERIES)
def test_a_facet_finds_as_many_traces_as_it_shows(rows: list[tuple[int, str, bool, str, str]], q: str) -> None:
    """A click on a chosen facet removes it from the search."""
    spans = [
        span(trace=trace, service=service, error=error, name=name, meta={"http.status_code": status})
        for trace, service, error, status, name in rows
    ]
    store = store_with(*spans)
    result = listing.listing(store, Search(q=q), NOW)
    for _, group in result.facets:
        for facet in group:
            narrowed = listing.listing(store, search_of(facet.address), NOW)
            if facet.is_chosen:
                assert narrowed.found >= result.found
            else:
                assert narrowed.found == facet.count
                narrowed_facets = [each for _, facets in narrowed.facets for each in facets]
                (chosen,) = [each for each in narrowed_facets if each.is_chosen and each.value == facet.value]
                assert listing.listing(store, search_of(chosen.address), NOW).found == result.found


def test_a_pager_leads_through_the_results_of_a_search() -> None:
    """The pager includes the messages of a WebSocket. A trace outside of the results has only the link to the list."""
    handshake = span(meta=HANDSHAKE)
    message = span(at=1, name="websocket.receive", links=link(handshake))
    other = span(at=2, resource="GET /x")
    store = store_with(handshake, message, other)
    newest, oldest = store.find(str(other.trace_id)), store.find(str(message.trace_id))
    assert newest
    assert oldest
    first = listing.pager(store, {}, newest, NOW)
    last = listing.pager(store, {"last": "60"}, oldest, NOW)

    assert (first.position, first.total, first.previous, first.next) == (1, 3, "", f"/trace/{handshake.trace_id:032x}")
    assert (last.position, last.next, last.list_address) == (3, "", "/?last=60")
    assert last.previous == f"/trace/{handshake.trace_id:032x}?last=60"
    assert listing.pager(store, {"q": "nothing"}, newest, NOW) == listing.Pager("/?q=nothing", 0, 0, "", "")
    assert listing.pager(store, {"q": "foo:"}, newest).position == 0


def line(number: int, level: str = "info", **rest: str) -> dict[str, str]:
    """Return a log line."""
    return {"event": f"line {number}", "level": level, "service": "web", **rest}


def test_every_line_is_in_the_log_with_its_trace() -> None:
    """The newest line is first. A line may not be JSON, may have no trace, or may belong to a trace that is not kept."""
    root = span(trace=77)
    store = store_with(root, span(service="shop"))
    ids = {"dd.trace_id": f"{77:032x}", "dd.span_id": str(root.span_id)}
    for each in (line(1, **ids), line(2, "error"), line(3, **{"dd.trace_id": "99"}), {"event": "plain"}):
        store.add_line(each)
    store.add_line(line(5, **{"dd.trace_id": f"{77:032x}", "dd.span_id": "0"}))
    log = logbook.read(store, {})

    assert [entry.line["event"] for entry in log.entries] == ["line 5", "plain", "line 3", "line 2", "line 1"]
    assert [entry.address for entry in log.entries] == [
        f"/trace/{77:032x}",
        "",
        "",
        "",
        f"/trace/{77:032x}?span={root.span_id}",
    ]
    assert [entry.trace_id for entry in log.entries][1:4] == ["", "99", ""]
    assert (log.services, log.other_services, log.lines_kept, log.lines_read) == (["web"], ["shop"], 5, 5)


def test_the_log_is_filtered() -> None:
    """The filters are a text in any field, a minimum level, and the absence of a trace."""
    store = store_with(span(trace=77))
    store.add_line(line(1, "warning", path="/Ärger", **{"dd.trace_id": f"{77:032x}"}))
    store.add_line(line(2, "critical"))
    store.add_line(line(3, "strange"))

    def events(**arguments: str) -> list[str]:
        return [str(entry.line["event"])[-1] for entry in logbook.read(store, arguments).entries]

    assert events(text=" äRGER ") == ["1"]
    assert (events(level="warning"), events(level="error"), events(level="nonsense")) == (
        ["2", "1"],
        ["2"],
        list("321"),
    )
    assert events(traceless="1") == ["3", "2"]
    assert logbook.read(store, {"text": "a b", "traceless": "1"}).address == "/logs?text=a+b&traceless=1&all=1"


def test_the_log_is_bounded_and_can_be_cleared() -> None:
    store = store_with(span())
    for number in range(LINES + 10):
        store.add_line(line(number))
    version, log = store.version, logbook.read(store, {})
    store.clear()

    assert (log.lines_kept, log.lines_read) == (LINES, LINES + 10)
    assert store.version > version
    assert (len(store), store.log(), store.dropped, store.lines_read) == (0, [], 0, 0)


def test_a_start_far_from_now_is_not_an_error() -> None:
    """A tracer may send any start time."""
    store = store_with(span(at=-1e12), span(at=1e12))

    assert len(listing.select(store, Search(begin="00:00"), NOW - timedelta(milliseconds=MS))) == 1


@pytest.mark.parametrize(
    ("q", "field"),
    [("stat", "status:"), ("a -(ser", "service:"), ("@dur", "@duration:"), ("", None), ("x", None), ("@a", None)],
)
def test_a_word_that_may_become_a_field_is_unfinished(q: str, field: str | None) -> None:
    """The error is for a search that found nothing."""
    error = listing.unfinished_field(Search(q=q))

    if field is None:
        assert error is None
    else:
        assert error is not None
        assert error.unfinished
        assert str(error).endswith(f" {field}")
