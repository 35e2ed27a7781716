"""Tests of the list of traces: search, time range, sorting, grouping, facets and paging, and of the log."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_data import START, span

from hello_service.localview import listing, logbook
from hello_service.localview.listing import Pager, Search, SearchError
from hello_service.localview.rows import group_websockets, path_of
from hello_service.localview.spans import Link, Span
from hello_service.localview.store import LINES, Store

NOW = datetime.fromtimestamp(START / 1_000_000_000, UTC)  # 2023-11-14 22:13:20
# The tags of a WebSocket's handshake. `runtime-id` identifies the process.
HANDSHAKE = {"http.upgraded": "websocket", "runtime-id": "r", "http.url": "ws://x/ws", "http.status_code": "101"}


def store_with(*spans: Span) -> Store:
    store = Store(limit=1000)  # more traces than any test adds
    store.add(spans)
    return store


def links_to(target: Span) -> tuple[Link, ...]:
    """Return the links of a span whose only link is to the span `target`."""
    return (Link(target.trace_id, target.span_id),)


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
        ("http://[x/y", "GET 404", ""),  # not a valid URL
    ],
)
def test_a_path_is_shown_if_it_differs_from_the_route(url: str, resource: str, path: str) -> None:
    """The path distinguishes the requests with the resource `GET 404`."""
    assert path_of(span(resource=resource, meta={"http.url": url})) == path


def test_an_operation_that_is_not_a_request_shows_its_name() -> None:
    """A background task is an example."""
    spans = [
        span(start_ms=1, name="quart.background_task"),
        span(start_ms=2, meta={"http.method": "GET"}),
        span(start_ms=3, meta={"span.kind": "server"}),
    ]
    newest_first = group_websockets(store_with(*spans).newest())

    assert [row.kind for row in newest_first] == ["", "", "quart.background_task"]


def test_messages_and_close_of_a_websocket_are_below_its_handshake() -> None:
    """This includes the last receive, which ddtrace does not link, and the close, which is linked to the last receive."""
    handshake = span(meta=HANDSHAKE)
    messages = [
        span(start_ms=start_ms, name="websocket.receive", links=links_to(handshake), meta={"runtime-id": "r"})
        for start_ms in (1, 2)
    ]
    last = span(start_ms=3, name="websocket.receive", meta={"runtime-id": "r"})
    close = span(start_ms=4, name="websocket.close", links=links_to(last))
    other = span(start_ms=5, resource="GET /x")
    result = listing.listing(store_with(handshake, *messages, last, close, other), Search(), NOW)

    assert [row.trace.root for row in result.rows] == [other, handshake]
    assert [row.trace.root for row in result.rows[1].messages] == [*messages, last, close]
    assert result.rows[1].messages_summary == "3 messages, close"
    assert result.found == 6


def test_an_open_websocket_has_only_messages() -> None:
    handshake = span(meta=HANDSHAKE)
    message = span(start_ms=1, name="websocket.receive", links=links_to(handshake))
    (row,) = listing.listing(store_with(handshake, message), Search(), NOW).rows

    assert row.messages_summary == "1 message"


def test_messages_without_a_known_handshake_are_not_grouped() -> None:
    """With two open WebSockets, the last receive may belong to either of them.

    Of two spans that link to each other, the later one is below the earlier one.
    """
    first, second = span(meta=HANDSHAKE), span(start_ms=1, meta=HANDSHAKE)
    last = span(start_ms=2, name="websocket.receive", meta={"runtime-id": "r"})
    lost = span(start_ms=3, name="websocket.receive", links=links_to(span()))  # its handshake is not kept
    unlinked = span(start_ms=4, name="websocket.close")
    forward = span(start_ms=6, trace=901, name="websocket.close", links=links_to(span(trace=902)))
    back = span(start_ms=7, trace=902, name="websocket.close", links=links_to(span(trace=901)))
    result = listing.listing(store_with(first, second, last, lost, unlinked, forward, back), Search(), NOW)
    newest, *others = result.rows

    assert newest.trace.root is forward
    assert [row.trace.root for row in newest.messages] == [back]  # only this one links to an earlier span
    assert newest.messages_summary == "close"
    assert [row.messages for row in others] == [[]] * 5


def test_a_list_is_sorted_by_any_column_in_either_order() -> None:
    """With an unknown column, the newest traces come first."""
    a = span(start_ms=3, duration_ms=10, resource="GET /a", service="z", meta={"http.status_code": "500"})
    b = span(start_ms=1, duration_ms=30, resource="GET /b", service="y", meta={"http.status_code": "200"})
    c = span(start_ms=2, duration_ms=20, resource="GET /c", service="x", meta={"http.status_code": "404"})
    store = store_with(a, b, c, span(b))

    def order(sort: str) -> str:
        return "".join(trace.root.resource[-1] for trace in listing.select(store, search_of(f"/?sort={sort}"), NOW))

    assert (order("time"), order("-time")) == ("bca", "acb")
    assert (order("duration"), order("-duration")) == ("acb", "bca")
    assert (order("request"), order("service"), order("status")) == ("abc", "cba", "bca")
    assert order("-spans") == "bac"
    assert order("nonsense") == order("-time")


def test_a_click_on_a_column_sorts_by_it_and_a_second_click_reverses_the_order() -> None:
    """The first click on durations or times gives the descending order. By default, the newest trace is first."""
    assert Search().sort_after_click("duration") == "-duration"
    assert Search(sort="-duration").sort_after_click("duration") == "duration"
    assert Search().sort_after_click("time") == "time"
    assert Search(sort="service").sort_after_click("service") == "-service"


@pytest.mark.parametrize(
    ("address", "resources"),
    [
        ("/?last=5", ["4 min ago"]),
        ("/?last=7", ["4 min ago", "yesterday"]),  # not one of the offered numbers, so it is ignored
        ("/?from=22:00", ["4 min ago"]),
        ("/?from=22:09:20.000&to=22:09:21", ["4 min ago"]),
        ("/?to=22:09:20", ["yesterday"]),
        ("/?from=2023-11-14T22:00:00&to=2023-11-14T22:09:20Z", []),  # the end of a range is exclusive
        ("/?from=23:50&to=22:00", []),
        ("/?from=2023-11-15", []),  # tomorrow: a date is never moved
        ("/?from=23:00:00%2B01:00", ["4 min ago"]),
        ("/?from=23:00:00.000000", ["4 min ago", "yesterday"]),
        ("/?from=23:00&to=23:30", ["yesterday"]),
        ("/?from=23:50&to=23:40", ["4 min ago"]),  # until tonight
        ("/?from=2023-11-13T00:00:00%2B00:00&to=23:59", ["4 min ago", "yesterday"]),
    ],
)
def test_a_time_range_selects_traces(address: str, resources: list[str]) -> None:
    """A range is a number of minutes, or begins or ends at a time of day or a date.

    A range that begins at a future time of day begins at that time yesterday.
    """
    store = store_with(
        span(start_ms=-4 * 60 * 1000, resource="4 min ago"),  # at 22:09:20
        span(start_ms=-23 * 3600 * 1000, resource="yesterday"),  # at 23:13:20
    )

    assert [trace.root.resource for trace in listing.select(store, search_of(address), NOW)] == resources


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/?from=25:00", "from=25:00 is not a time. Write it like 22:13:20 or 2023-11-14T22:13:20."),
        ("/?to=soon", "to=soon is not a time."),
        ("/?from=22:10&to=22:05", "from=22:10 is not before to=22:05."),
        ("/?last=5&to=22:05", "to=22:05 is before the last 5 minutes."),
        ("/?last=5&from=22:00&to=22:05", "to=22:05 is before the last 5 minutes."),
        ("/?q=foo:bar", 'Unknown field "foo".'),
    ],
)
def test_an_invalid_search_or_time_is_an_error(address: str, message: str) -> None:
    """An empty list would hide the mistake."""
    with pytest.raises(SearchError, match=re.escape(message)):
        listing.listing(store_with(span()), search_of(address), NOW)


def test_an_address_contains_the_whole_search() -> None:
    """Reading the address gives the same search."""
    search = Search(q='a "b"&=é', last="5", begin="10:00", end="11:00", sort="-spans", show_all=True)

    assert search_of(search.address()) == search
    assert Search().address() == "/"


def test_a_search_without_text_or_time_range_finds_everything() -> None:
    assert Search().finds_all_traces
    assert not Search(last="5").finds_all_traces


SPANS = st.lists(
    st.builds(
        span,
        trace=st.integers(1, 4),
        service=st.sampled_from(["web", "shop", 'od"d (1)', "a OR b"]),  # a search must quote the last two
        error=st.booleans(),
        meta=st.fixed_dictionaries({"http.status_code": st.sampled_from(["200", "404", "500"])}),
        name=st.sampled_from(["asgi.request", "sql"]),
    ),
    min_size=1,
    max_size=12,
)
QUERIES = st.sampled_from(
    ["", "service:web", "service:web OR status:error", "-status:error", "@http.status_code:>=400"]
)


def all_facets(result: listing.Listing) -> list[listing.Facet]:
    """Return the facets of all fields."""
    return [facet for _, facets in result.facets for facet in facets]


@given(spans=SPANS, q=QUERIES)
def test_the_count_of_a_facet_is_the_number_of_traces_that_a_click_finds(spans: list[Span], q: str) -> None:
    """A click on a chosen facet removes it from the search."""
    store = store_with(*spans)
    result = listing.listing(store, Search(q=q), NOW)
    for facet in all_facets(result):
        after_click = listing.listing(store, search_of(facet.address), NOW)
        if facet.is_chosen:
            assert after_click.found >= result.found
        else:
            assert after_click.found == facet.count
            (chosen,) = [
                candidate
                for candidate in all_facets(after_click)
                if candidate.is_chosen and candidate.value == facet.value
            ]
            assert listing.listing(store, search_of(chosen.address), NOW).found == result.found


def test_a_pager_leads_through_the_results_of_a_search() -> None:
    """The pager includes the messages of a WebSocket. A trace outside of the results has only the link to the list."""
    handshake = span(meta=HANDSHAKE)
    message = span(start_ms=1, name="websocket.receive", links=links_to(handshake))
    other = span(start_ms=2, resource="GET /x")
    store = store_with(handshake, message, other)
    first, last = store.find(str(other.trace_id)), store.find(str(message.trace_id))  # a message is below its handshake
    assert first
    assert last
    middle_address = f"/trace/{handshake.trace_id:032x}"

    assert listing.pager(store, arguments={}, trace=first, now=NOW) == Pager(
        list_address="/", position=1, total=3, previous="", next=middle_address
    )
    assert listing.pager(store, arguments={"last": "60"}, trace=last, now=NOW) == Pager(
        list_address="/?last=60", position=3, total=3, previous=f"{middle_address}?last=60", next=""
    )
    assert listing.pager(store, arguments={"q": "nothing"}, trace=first, now=NOW) == Pager(
        list_address="/?q=nothing", position=0, total=0, previous="", next=""
    )
    assert listing.pager(store, arguments={"q": "foo:"}, trace=first).position == 0  # this search is invalid


def line(number: int, level: str = "info", **rest: str) -> dict[str, str]:
    """Return a log line."""
    return {"event": f"line {number}", "level": level, "service": "web", **rest}


def test_every_line_is_in_the_log_with_its_trace() -> None:
    """The newest line is first. Some lines are not JSON, have no trace, or belong to a trace that is not kept."""
    root = span(trace=77)
    store = store_with(root, span(service="shop"))
    ids = {"dd.trace_id": f"{77:032x}", "dd.span_id": str(root.span_id)}
    store.add_line(line(1, **ids))
    store.add_line(line(2, "error"))
    store.add_line(line(3, **{"dd.trace_id": "99"}))
    store.add_line({"event": "plain"})
    store.add_line(line(5, **{"dd.trace_id": f"{77:032x}", "dd.span_id": "0"}))
    log = logbook.read(store, arguments={})

    assert [entry.line["event"] for entry in log.entries] == ["line 5", "plain", "line 3", "line 2", "line 1"]
    assert [entry.address for entry in log.entries] == [
        f"/trace/{77:032x}",
        "",
        "",
        "",
        f"/trace/{77:032x}?span={root.span_id}",
    ]
    assert [entry.trace_id for entry in log.entries] == [f"{77:032x}", "", "99", "", f"{77:032x}"]
    assert (log.services, log.other_services) == (["web"], ["shop"])
    assert (log.lines_kept, log.lines_read) == (5, 5)


def test_the_log_is_filtered() -> None:
    """The filters are a text in any field, a minimum level, and the absence of a trace."""
    store = store_with(span(trace=77))
    store.add_line(line(1, "warning", path="/Ärger", **{"dd.trace_id": f"{77:032x}"}))
    store.add_line(line(2, "critical"))
    store.add_line(line(3, "strange"))

    def events(**arguments: str) -> list[object]:
        return [entry.line["event"] for entry in logbook.read(store, arguments).entries]

    assert events(text=" äRGER ") == ["line 1"]
    assert events(level="warning") == ["line 2", "line 1"]
    assert events(level="error") == ["line 2"]
    assert events(level="nonsense") == ["line 3", "line 2", "line 1"]
    assert events(traceless="1") == ["line 3", "line 2"]
    # This address shows all matching lines, not only the first ones.
    assert logbook.read(store, {"text": "a b", "traceless": "1"}).address == "/logs?text=a+b&traceless=1&all=1"


def test_the_log_is_bounded_and_can_be_cleared() -> None:
    store = store_with(span())
    for number in range(LINES + 10):
        store.add_line(line(number))
    version_before = store.version
    log = logbook.read(store, arguments={})
    store.clear()

    assert (log.lines_kept, log.lines_read) == (LINES, LINES + 10)
    assert store.version > version_before
    assert (len(store), store.log(), store.dropped, store.lines_read) == (0, [], 0, 0)


def test_a_start_far_from_now_is_not_an_error() -> None:
    """A tracer may send any start time."""
    store = store_with(span(start_ms=-1e12), span(start_ms=1e12))  # 32 years before NOW, and 32 years after it

    assert len(listing.select(store, Search(begin="00:00"), NOW)) == 1


@pytest.mark.parametrize(
    ("q", "field"),
    [("stat", "status:"), ("a -(ser", "service:"), ("@dur", "@duration:"), ("", None), ("x", None), ("@a", None)],
)
def test_a_word_that_may_become_a_field_is_unfinished(q: str, field: str | None) -> None:
    """The page shows this error if the search finds nothing."""
    error = listing.unfinished_field_error(Search(q=q))

    if field is None:
        assert error is None
    else:
        assert error is not None
        assert error.unfinished
        assert str(error).endswith(f" {field}")
