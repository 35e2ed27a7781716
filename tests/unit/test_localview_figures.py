"""Requests, errors and latencies are counted right, with their units, and placed where a picture has them."""

from __future__ import annotations

import random

import pytest
from tracing_data import MS, span, trace

from hello_service.localview import drawing, performance, service_map, units
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
    """Three digits that count."""
    assert units.duration(nanoseconds) == text


def test_other_numbers_have_units_too() -> None:
    """Nothing is rounded to a false zero."""
    assert [units.count(number, "span") for number in (0, 1, 1234)] == ["0 spans", "1 span", "1,234 spans"]
    assert [units.percent(share) for share in (0, 0.0001, 0.004, 0.123, 1)] == [
        "0 %",
        "< 0.1 %",
        "0.4 %",
        "12 %",
        "100 %",
    ]
    assert [units.rate(number) for number in (0.354, 12.44, 1200)] == ["0.35 req/s", "12.4 req/s", "1,200 req/s"]
    assert units.clock(1_700_000_000_123_456_789).endswith(":20.123")
    assert units.clock(10**30) == "no valid time"


def test_percentiles_are_within_one_per_cent() -> None:
    """Average and maximum are exact."""
    chance = random.Random(1)
    values = sorted(round(chance.lognormvariate(15, 2)) for _ in range(5000))
    latencies = Latencies()
    for value in values:
        latencies.add(value)

    for percent in performance.PERCENTILES:
        true = values[-(-len(values) * percent // 100) - 1]
        assert latencies.percentile(percent) == pytest.approx(true, rel=0.0101)
    assert latencies.average == sum(values) / len(values)
    assert latencies.max == values[-1]


def test_without_requests_there_are_no_figures() -> None:
    """Zero, and no Apdex."""
    nothing = Figures()

    assert (nothing.all.percentile(95), nothing.all.average, nothing.error_rate) == (0, 0, 0)
    assert nothing.apdex(0.5) is None
    assert Performance(0).reports(5, 10) == []


def test_apdex_counts_errors_as_frustrated() -> None:
    """Satisfied plus half of tolerating, of all."""
    figures = Figures()
    for ms, error in ((100, False), (490, False), (1500, False), (3000, False), (10, True)):
        figures.add(span(ms=ms, error=error))

    assert figures.apdex(0.5) == pytest.approx((2 + 0.5) / 5)
    assert figures.apdex(0.05) == pytest.approx(0.1)
    assert figures.error_rate == 0.2


def test_requests_are_counted_by_service_and_resource_over_time() -> None:
    """The busiest first; what is older than the window is left out; work within a service is none of its requests."""
    counted = Performance(now=1000)
    root = span(ms=20)
    counted.add([root, span(root, name="work")], now=1001)
    counted.add([span(service="db", resource="SELECT"), span(), span(resource="POST /api/hello", error=True)], now=1031)
    web, db = counted.reports(1, now=1040)

    assert (web.service, web.total.requests, web.total.errors) == ("web", 3, 1)
    assert [(resource, figures.requests) for resource, figures in web.resources] == [
        ("GET /api/hello", 2),
        ("POST /api/hello", 1),
    ]
    assert web.seconds == 40
    assert [figures.requests for figures in web.course] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0]
    assert sum(figures.requests for figures in web.course) == 3
    assert db.total.requests == 1
    assert [report.total.requests for report in counted.reports(1, now=1070)] == [2, 1]
    assert counted.reports(1, now=1100) == []


def test_the_window_is_no_longer_than_asked() -> None:
    """Requests per second are of the time that is shown."""
    counted = Performance(now=0)
    counted.add([span()], now=599)
    (report,) = counted.reports(5, now=600)

    assert 295 <= report.seconds <= 300
    assert len(report.course) == 60


def test_resources_without_end_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in place of a route does not take all memory."""
    monkeypatch.setattr(performance, "RESOURCES", 3)
    counted = Performance(now=0)
    counted.add([span(resource=f"GET /{number}") for number in range(10)], now=1)
    counted.add([span(service=f"service-{number}") for number in range(10)], now=1)
    reports = {report.service: report for report in counted.reports(1, now=2)}

    assert reports["web"].total.requests == 10
    assert reports["web"].resources[0][0] == performance.OTHERS
    assert reports[performance.OTHERS].total.requests == 10


def test_the_map_counts_calls_by_the_callers_span() -> None:
    """A client's span with a server's below it; one with a peer; a span of another service."""
    root = span(ms=50)
    call = span(root, ms=30, meta={"span.kind": "client", "peer.service": "greeter.example"})
    served = span(call, service="greeter", ms=20, meta={"span.kind": "server"})
    database = span(served, service="postgres", ms=5, error=True, name="postgres.query")
    outside = span(root, ms=9, meta={"span.kind": "client", "peer.service": "mail"})
    plain = span(root, meta={"span.kind": "client"})
    again = span(call, service="greeter", meta={"span.kind": "server"})
    drawn = service_map.service_map([trace(root, call, served, database, outside, plain, again)])
    calls = {(edge.source.service, edge.target.service): edge.figures for edge in drawn.edges}
    nodes = {node.service: node for node in drawn.nodes}

    assert set(calls) == {("web", "greeter"), ("greeter", "postgres"), ("web", "mail")}
    assert calls["web", "greeter"].durations == [30 * MS]
    assert calls["greeter", "postgres"].error_rate == 1
    assert (calls["web", "mail"].average, calls["web", "mail"].p95) == (9 * MS, 9 * MS)
    assert [nodes[name].inferred for name in ("web", "greeter", "postgres", "mail")] == [False, False, False, True]
    assert nodes["web"].x < nodes["greeter"].x < nodes["postgres"].x
    assert nodes["mail"].x == nodes["greeter"].x
    assert nodes["mail"].y != nodes["greeter"].y
    assert nodes["mail"].figures.requests == 1
    assert nodes["postgres"].figures.error_rate == 0


def test_the_map_of_calls_in_a_circle_ends() -> None:
    """And of a service that calls itself."""
    root = span(service="a")
    b = span(root, service="b", meta={"span.kind": "server"})
    c = span(b, service="c")
    back = span(c, service="a")
    own = span(back, service="a", meta={"span.kind": "client", "peer.service": "a"})
    drawn = service_map.service_map([trace(root, b, c, back, own)])
    edges = {(edge.source.service, edge.target.service): edge for edge in drawn.edges}

    assert set(edges) == {("a", "b"), ("b", "c"), ("c", "a"), ("a", "a")}
    assert len({node.x for node in drawn.nodes}) == 3
    for edge in edges.values():
        assert edge.path.startswith("M")
        x, y = edge.label
        assert 0 <= x <= drawn.width
        assert 0 <= y <= drawn.height


def test_an_empty_map_is_drawn() -> None:
    """Nothing has come yet."""
    drawn = service_map.service_map([])
    figures = service_map.Figures()

    assert (drawn.nodes, drawn.edges) == ([], [])
    assert (figures.average, figures.p95, figures.error_rate) == (0, 0, 0)


def test_services_that_two_call_stand_behind_both() -> None:
    """The longest way decides."""
    root = span(service="a")
    b = span(root, service="b")
    c = span(b, service="c")
    drawn = service_map.service_map([trace(root, b, c, span(root, service="c"), span(root, service="b"))])
    x = {node.service: node.x for node in drawn.nodes}

    assert x["a"] < x["b"] < x["c"]


@pytest.mark.parametrize(
    ("status", "grade"),
    [("200", "good"), ("ok", "good"), ("301", "moved"), ("404", "bad"), ("500", "failed"), ("error", "failed")],
)
def test_a_status_has_a_grade(status: str, grade: str) -> None:
    """Which is its colour."""
    assert drawing.grade(status) == grade


def test_a_log_line_is_shown_without_what_stands_elsewhere() -> None:
    """Ids, service, env and version are the trace's."""
    line = {
        "timestamp": "2026-11-22T10:00:00.123456Z",
        "level": "error",
        "event": "it failed",
        "path": "/x",
        "dd.trace_id": "1",
        "service": "web",
        "exception": "Traceback",
    }

    assert drawing.log_line(line) | {"time": ""} == {
        "time": "",
        "level": "error",
        "event": "it failed",
        "rest": "path=/x",
        "exception": "Traceback",
    }
    assert drawing.log_line(line)["time"].endswith(":00.123")
    assert drawing.log_line({})["time"] == ""


def test_a_resource_links_to_its_traces() -> None:
    """By a search; what can't be quoted is left out of it."""
    assert drawing.search_for("web", "GET /") == 'service:"web" resource_name:"GET /"'
    assert drawing.search_for("web", 'a"b') == 'service:"web"'


def test_charts_have_a_bar_and_lines_where_there_were_requests() -> None:
    """Errors stand within the bar."""
    some, more = Figures(), Figures()
    some.add(span(ms=10))
    for error in (True, False):
        more.add(span(ms=20, error=error))
    most, bars = drawing.bars([Figures(), some, more])
    highest, lines = drawing.lines([Figures(), some, more], (95, 50))

    assert most == 2
    assert [(bar.x, bar.top, bar.failed) for bar in bars] == [(120, 42, 84), (240, 0, 42)]
    assert highest == pytest.approx(20 * MS, rel=0.01)
    assert [percent for percent, _ in lines] == [95, 50]
    assert lines[0][1].split()[-1] == "360.00,0.00"
    assert drawing.bars([]) == (0, [])
    assert drawing.lines([], (50,)) == (0, [(50, "")])
