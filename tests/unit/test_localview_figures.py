"""Tests of the figures of services, their units and charts, of the service map, and of statuses and log lines."""

from __future__ import annotations

import itertools
import math
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_data import MS, span, trace

from hello_service.localview import charts, map_layout, performance, query, service_map, template_filters, units
from hello_service.localview.performance import Figures, Latencies, Performance

SECOND = 1000 * MS


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ms"),
        (850, "850 ns"),
        (12_345, "12.3 µs"),
        (4_560_000, "4.56 ms"),
        (123_400_000, "123 ms"),
        (1_200_000_000, "1.20 s"),
        (200 * SECOND, "3 min 20 s"),
        (2000 * 60 * SECOND, "2,000 min 0 s"),
    ],
)
def test_a_duration_has_a_unit(nanoseconds: int, text: str) -> None:
    """From a microsecond up to a minute, a duration has at least three significant digits."""
    assert units.duration(nanoseconds) == text


def test_counts_shares_rates_and_times_are_formatted() -> None:
    """No share above 0 is rounded to 0%."""
    assert [units.quantity(number, "span") for number in (0, 1, 1234)] == ["0 spans", "1 span", "1,234 spans"]
    assert [units.percent(share) for share in (0, 0.0001, 0.004, 0.123, 1)] == [
        "0%",
        "< 0.1%",
        "0.4%",
        "12%",
        "100%",
    ]
    assert [units.rate(number) for number in (0.354, 12.44, 1200)] == ["0.35 req/s", "12.4 req/s", "1,200 req/s"]
    assert units.clock(1_700_000_000_123_456_789).endswith(":20.123")  # hour and minute depend on the local time zone
    assert units.clock(10**30) == "no valid time"


def test_percentiles_are_within_one_percent() -> None:
    """Average and maximum are exact."""
    generator = random.Random(1)
    # Half of the durations are below 3.3 ms (e**15 ns), and nearly all are between 8 µs and 1.3 s.
    values = sorted(round(generator.lognormvariate(15, 2)) for _ in range(5000))
    latencies = Latencies()
    for value in values:
        latencies.add(value)

    for percent in performance.PERCENTILES:
        exact = values[math.ceil(len(values) * percent / 100) - 1]
        # The result is the middle of a bucket that is 2% wide, so it differs by a factor of at most 1.02 ** 0.5.
        assert latencies.percentile(percent) == pytest.approx(exact, rel=0.0101)
    assert latencies.average == sum(values) / len(values)
    assert latencies.max == values[-1]


def test_figures_without_requests_are_zero() -> None:
    """Apdex is None, and there are no reports."""
    figures = Figures()

    assert figures.latencies.percentile(95) == 0
    assert figures.latencies.average == 0
    assert figures.error_rate == 0
    assert figures.apdex(threshold_seconds=0.5) is None
    assert Performance(now=0).reports(minutes=5, now=10) == []


def test_apdex_counts_errors_as_frustrated() -> None:
    """Apdex is the number of satisfied requests plus half of the tolerating ones, divided by the number of all.

    Satisfied requests take at most the threshold, tolerating ones at most four times the threshold.
    """
    figures = Figures()
    for ms, error in ((100, False), (490, False), (1500, False), (3000, False), (10, True)):
        figures.add(span(duration_ms=ms, error=error))

    assert figures.apdex(threshold_seconds=0.5) == pytest.approx((2 + 1 / 2) / 5)
    assert figures.apdex(threshold_seconds=0.05) == pytest.approx((0 + 1 / 2) / 5)
    assert figures.error_rate == 0.2


def test_requests_are_counted_by_service_and_resource_over_time() -> None:
    """Services are sorted by name. Requests before the window, and spans of work within a service, are not counted.

    The time series of a report has buckets of 5 seconds.
    """
    counter = Performance(now=1000)
    root = span(duration_ms=20)
    counter.add([root, span(root, name="work")], now=1001)
    counter.add([span(service="db", resource="SELECT"), span(), span(resource="POST /api/hello", error=True)], now=1031)
    db, web = counter.reports(minutes=1, now=1040)

    assert (web.service, web.total.requests, web.total.errors) == ("web", 3, 1)
    assert [(resource, figures.requests) for resource, figures in web.resources] == [
        ("GET /api/hello", 2),
        ("POST /api/hello", 1),
    ]
    assert web.seconds == 40  # since the counter was created
    # The first bucket begins at 985.
    assert [figures.requests for figures in web.series] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0]
    assert db.total.requests == 1
    assert [report.total.requests for report in counter.reports(minutes=1, now=1070)] == [1, 2]
    assert counter.reports(minutes=1, now=1100) == []


def test_a_report_covers_no_more_than_its_window() -> None:
    """The rate is computed from the seconds of the report."""
    counter = Performance(now=0)
    counter.add([span()], now=599)
    (report,) = counter.reports(minutes=5, now=600)

    assert 295 <= report.seconds <= 300  # the last of its buckets of 5 seconds is not complete
    assert len(report.series) == 60


def test_too_many_resources_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a tracer that uses paths as resources would exhaust the memory. New services are counted as one, too."""
    monkeypatch.setattr(performance, "MAX_RESOURCES", 3)
    counter = Performance(now=0)
    counter.add([span(resource=f"GET /{number}") for number in range(10)], now=1)
    counter.add([span(service=f"service-{number}") for number in range(10)], now=1)
    reports = {report.service: report for report in counter.reports(minutes=1, now=2)}

    assert reports["web"].total.requests == 10
    assert dict(reports["web"].resources)[performance.OTHERS].requests == 10 - 3
    assert reports[performance.OTHERS].total.requests == 10


def test_the_map_counts_calls_by_the_callers_span() -> None:
    """A call is a client span with a server span below it or with the tag `peer.service`.

    A span whose parent belongs to another service, such as a database span, is also a call.
    """
    root = span(duration_ms=50)
    client = span(root, duration_ms=30, meta={"span.kind": "client", "peer.service": "greeter.example"})
    server = span(client, service="greeter", duration_ms=20, meta={"span.kind": "server"})
    second_server = span(client, service="greeter", meta={"span.kind": "server"})  # the same call
    database = span(server, service="postgres", duration_ms=5, error=True, name="postgres.query")
    mail_client = span(root, duration_ms=9, meta={"span.kind": "client", "peer.service": "mail"})
    client_without_peer = span(root, meta={"span.kind": "client"})
    traces = [trace(root, client, server, database, mail_client, client_without_peer, second_server)]
    graph, layout = map_layout.draw(service_map.service_map(traces), service=None)
    calls = {(edge.source.service, edge.target.service): edge.figures for edge in graph.edges}
    nodes = {node.service: node for node in graph.nodes}
    places = {place.node.service: place for place in layout.places}

    assert set(calls) == {("web", "greeter"), ("greeter", "postgres"), ("web", "mail")}
    assert calls["web", "greeter"].durations == [30 * MS]
    assert calls["greeter", "postgres"].error_rate == 1
    assert calls["web", "mail"].average == 9 * MS
    assert calls["web", "mail"].p95 == 9 * MS
    # `mail` is inferred from `peer.service`, because it has no span of its own.
    assert [nodes[name].inferred for name in ("web", "greeter", "postgres", "mail")] == [False, False, False, True]
    assert places["web"].x < places["greeter"].x < places["postgres"].x
    assert places["mail"].x == places["greeter"].x
    assert places["mail"].y != places["greeter"].y
    assert nodes["mail"].figures.requests == 1
    assert nodes["postgres"].figures.error_rate == 0  # its span is a call, but does not count as a request


def test_nodes_and_edges_link_to_the_requests_that_they_count() -> None:
    """The names of services may contain any characters."""
    names = ["web", 'a "quoted" -> name', "mail (old)"]
    root = span(service=names[0], meta={"span.kind": "server"})
    client = span(root, service=names[0], meta={"span.kind": "client"})
    server = span(client, service=names[1], meta={"span.kind": "server"})
    outbound = span(server, service=names[1], meta={"span.kind": "client", "peer.service": names[2]})
    traces = [trace(root, client, server, outbound), trace(span(service=names[0]))]
    graph = service_map.service_map(traces)

    assert [node.service for node in graph.nodes] == sorted(names)
    elements: list[service_map.Node | service_map.Edge] = [*graph.nodes, *graph.edges]
    for element in elements:
        search = query.parse(element.search)
        matching_spans = [match for one_trace in traces for match in search.spans(one_trace)]
        assert element.figures.requests > 0
        assert len(matching_spans) == element.figures.requests


def overlap(first: map_layout.Box, second: map_layout.Box) -> bool:
    first_left, first_top, first_right, first_bottom = first
    second_left, second_top, second_right, second_bottom = second
    overlap_in_x = first_left < second_right and second_left < first_right
    overlap_in_y = first_top < second_bottom and second_top < first_bottom
    return overlap_in_x and overlap_in_y


def overlapping_pairs(layout: map_layout.Drawing) -> list[tuple[map_layout.Box, map_layout.Box]]:
    """Return the pairs of nodes and labels that overlap."""
    boxes = [place.box for place in layout.places]
    boxes += [map_layout._label_box(line.label) for line in layout.lines if line.label]
    return [pair for pair in itertools.combinations(boxes, 2) if overlap(*pair)]


@given(
    # Up to 16 services, which is more than MAX_SERVICES.
    calls=st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=60),
    chosen=st.integers(-1, 16),  # -1 and 16 are unknown services
)
def test_nothing_overlaps_on_any_map(calls: set[tuple[int, int]], chosen: int) -> None:
    """All nodes and the centers of all labels are within the drawing.

    The number of columns is limited, and so is the number of services unless one is chosen.
    """
    numbers = sorted({number for call in calls for number in call})
    nodes = {number: service_map.Node(f"service-{number}") for number in numbers}
    edges = [service_map.Edge(nodes[source], nodes[target]) for source, target in sorted(calls)]
    graph, layout = map_layout.draw(service_map.Map([*nodes.values()], edges), service=f"service-{chosen}")

    assert overlapping_pairs(layout) == []
    for left, top, right, bottom in [place.box for place in layout.places]:
        assert 0 <= left < right <= layout.width
        assert 0 <= top < bottom <= layout.height
    for line in layout.lines:
        if line.label:
            assert 0 <= line.label[0] <= layout.width
            assert 0 <= line.label[1] <= layout.height
    assert len({place.x for place in layout.places}) <= map_layout.MAX_COLUMNS
    if graph.chosen is None:
        assert len(layout.places) <= map_layout.MAX_SERVICES
    _, drawn_edges = graph.parts_to_draw()
    assert len(layout.lines) == len(drawn_edges)


def test_with_many_services_only_one_and_its_neighbors_are_drawn() -> None:
    """That service is the chosen one. By default, it is the one with the most neighbors."""
    hub = span(service="hub")
    neighbors = [span(hub, service=f"service-{number:02}") for number in range(18)]  # more than MAX_SERVICES
    whole_map = service_map.service_map([trace(hub, *neighbors)])
    graph, layout = map_layout.draw(whole_map, service=None)
    chosen_graph, chosen_layout = map_layout.draw(whole_map, service="service-03")

    assert graph.chosen is not None
    assert graph.chosen.service == "hub"
    assert len(layout.places) == 1 + 18
    assert layout.unlabeled == 0
    assert chosen_graph.chosen is not None
    assert chosen_graph.chosen.service == "service-03"
    assert len(chosen_layout.places) == 2  # the chosen service and the hub
    assert len(chosen_graph.nodes) == 1 + 18


def test_a_chain_too_long_for_the_width_is_drawn_as_one_service_and_its_neighbors() -> None:
    chain = [span(service="service-0")]
    for number in range(1, map_layout.MAX_COLUMNS + 1):
        chain.append(span(chain[-1], service=f"service-{number}"))
    whole_map = service_map.service_map([trace(*chain)])
    graph, _ = map_layout.draw(whole_map, service=None)

    assert graph.chosen is not None
    assert not map_layout.can_draw_whole(whole_map)


def test_cyclic_calls_are_drawn() -> None:
    """A call from a service to itself is also drawn."""
    root = span(service="a")
    b = span(root, service="b", meta={"span.kind": "server"})
    c = span(b, service="c")
    call_to_a = span(c, service="a")
    call_to_itself = span(call_to_a, service="a", meta={"span.kind": "client", "peer.service": "a"})
    whole_map = service_map.service_map([trace(root, b, c, call_to_a, call_to_itself)])
    graph, layout = map_layout.draw(whole_map, service=None)
    edges = {(edge.source.service, edge.target.service) for edge in graph.edges}

    assert edges == {("a", "b"), ("b", "c"), ("c", "a"), ("a", "a")}
    assert len({place.x for place in layout.places}) == 3
    assert all(line.path.startswith("M") and line.label for line in layout.lines)


def test_an_empty_map_is_drawn() -> None:
    graph, layout = map_layout.draw(service_map.service_map([]), service="web")
    figures = service_map.Figures()

    assert graph.nodes == []
    assert graph.chosen is None
    assert layout.lines == []
    assert (figures.average, figures.p95, figures.error_rate) == (0, 0, 0)


def test_a_service_is_right_of_all_its_callers() -> None:
    """The longest chain of calls determines the position."""
    root = span(service="a")
    b = span(root, service="b")
    c = span(b, service="c")
    whole_map = service_map.service_map([trace(root, b, c, span(root, service="c"), span(root, service="b"))])
    _, layout = map_layout.draw(whole_map, service=None)
    x = {place.node.service: place.x for place in layout.places}

    assert x["a"] < x["b"] < x["c"]


@pytest.mark.parametrize(
    ("status", "css_class"),
    [("200", "good"), ("ok", "good"), ("301", "moved"), ("404", "bad"), ("500", "failed"), ("error", "failed")],
)
def test_a_status_has_a_css_class(status: str, css_class: str) -> None:
    """The class determines the color of a status on the page."""
    assert template_filters.status_class(status) == css_class


def test_a_log_line_is_shown_without_the_fields_of_its_trace() -> None:
    """The fields of the trace are the ids, service, env and version."""
    line = {
        "timestamp": "2026-11-22T10:00:00.123456Z",
        "level": "error",
        "event": "it failed",
        "path": "/x",
        "dd.trace_id": "1",
        "service": "web",
        "exception": "Traceback",
    }
    row = template_filters.log_parts(line)

    assert row.pop("time").endswith(":00.123")  # hour and minute depend on the local time zone
    assert row == {
        "level": "error",
        "event": "it failed",
        "rest": "path=/x",
        "exception": "Traceback",
    }
    assert template_filters.log_parts({})["time"] == ""


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_log_line_with_an_impossible_time_is_shown_without_it(timestamp: str) -> None:
    """In UTC, these times are before the year 1 or after 9999. Some languages use the first for an unset time."""
    assert template_filters.log_parts({"timestamp": timestamp, "event": "x"})["time"] == ""


def test_charts_have_a_bar_and_lines_where_there_were_requests() -> None:
    """Errors are a part of the bar, and a line has a gap where there was no request.

    Each of the four buckets is 90 wide, and the chart is 84 high. A y of 0 is the top.
    """
    one_request, two_requests, no_request = Figures(), Figures(), Figures()
    one_request.add(span(duration_ms=10))
    for error in (True, False):
        two_requests.add(span(duration_ms=20, error=error))
    count_axis_end, bars = charts.bars([no_request, one_request, two_requests, no_request])
    time_axis_end, lines = charts.lines([one_request, no_request, two_requests, two_requests], percentiles=(95, 50))
    _, (first_piece, second_piece) = lines[0]

    assert count_axis_end == 2
    assert [(bar.x, bar.top, bar.errors_top) for bar in bars] == [(90, 42, 84), (180, 0, 42)]
    assert time_axis_end == 20 * MS
    assert [(percent, len(pieces)) for percent, pieces in lines] == [(95, 2), (50, 2)]
    assert first_piece.startswith("0.00,")
    # A piece has a point at both ends of each of its buckets.
    assert [point.split(",")[0] for point in second_piece.split()] == ["180.00", "270.00", "270.00", "360.00"]
    assert charts.bars([]) == (1, [])
    assert charts.lines([no_request], percentiles=(50,)) == (MS, [(50, [])])


@pytest.mark.parametrize(
    ("highest", "end"),
    [(0, 1), (1, 1), (1.2, 2), (2, 2), (3, 5), (7, 10), (14, 20), (60, 100), (210, 500), (1000, 1000)],
)
def test_an_axis_ends_at_a_round_number(highest: float, end: float) -> None:
    """The end is 1, 2 or 5 times a power of ten, and at least 1."""
    assert charts.axis_end(highest) == end


def test_each_bucket_of_a_chart_has_its_time_and_values() -> None:
    """Time and values are text for a tooltip and for screen readers."""
    counter = Performance(now=0)
    counter.add([span(duration_ms=10), span(duration_ms=10, error=True)], now=21)
    (report,) = counter.reports(minutes=1, now=32)
    buckets = charts.buckets(report, last_start=datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC))

    assert len(buckets) == 12
    assert (buckets[-1].time, buckets[-1].text) == ("12:00:00", "no request")
    assert (buckets[-3].time, buckets[-3].text) == (
        "11:59:50",
        "2 requests, 1 error, p50 9.91 ms, p95 9.91 ms, p99 9.91 ms",  # within 1% of 10 ms
    )
    assert (buckets[1].x, buckets[1].width) == (30, 30)  # the chart is 360 wide


def test_the_bar_of_a_duration_is_logarithmic() -> None:
    """Its length does not depend on other traces, so it never changes."""
    # 0% is 0.1 ms or less, and 100% is 10 s or more.
    assert [charts.bar_percent(ms * MS) for ms in (0, 1, 10_000, 99_999)] == [0, 20, 100, 100]


def test_resources_are_sorted_by_any_column() -> None:
    """Ties are sorted by name."""
    counter = Performance(now=0)
    for name, ms, error in (("b", 30, False), ("c", 10, True), ("a", 30, False), ("a", 30, False)):
        counter.add([span(resource=name, duration_ms=ms, error=error)], now=1)
    (report,) = counter.reports(minutes=1, now=2)

    def order(column: str) -> str:
        return "".join(name for name, _ in charts.sort_resources(report, column, threshold=0.5))

    assert (order("resource"), order("-resource")) == ("abc", "cba")
    assert (order("requests"), order("-requests")) == ("bca", "abc")
    assert (order("p95"), order("-p95")) == ("cab", "abc")
    assert (order("-errors"), order("apdex")) == ("cab", "cab")
    for column in charts.COLUMNS:
        assert sorted(order(column)) == sorted(order(f"-{column}")) == ["a", "b", "c"]


def test_a_resource_has_a_search_for_its_requests() -> None:
    """Quotation marks in its name are escaped."""
    counter = Performance(now=0)
    counter.add([span()], now=1)
    (report,) = counter.reports(minutes=1, now=2)

    assert charts.requests_search(report, 'GET "x"') == r'service:web resource_name:"GET \"x\""'


def test_all_figures_can_be_cleared() -> None:
    counter = Performance(now=0)
    counter.add([span()], now=1)
    counter.clear(now=2)

    assert counter.reports(minutes=1, now=3) == []
