"""Tests of the page's responses, its access checks and its live updates, and of the child processes of `dev`."""

from __future__ import annotations

import asyncio
import html
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from time import monotonic
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from quart.typing import TestClientProtocol as Client  # pytest would collect a class whose name starts with "Test"
from tracing_data import span, wire_format

from hello_service.localview import lists, page, processes
from hello_service.localview.page import View, create_page, serving
from hello_service.localview.performance import Performance
from hello_service.localview.spans import Span, read_spans
from hello_service.localview.store import Store

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def view() -> View:
    """An empty view."""
    return View(Store(limit=1000), Performance(now=monotonic()))  # 1,000 traces are more than any test adds


@pytest.fixture
def client(view: View) -> Client:
    """A client of the page that shows `view`."""
    return create_page(view).test_client()


def add_spans(view: View, *spans: Span) -> str:
    """Add `spans` to `view` and return the trace id of the first one."""
    view.store.add(spans)
    view.performance.add(spans, monotonic())
    trace = view.store.find(str(spans[0].trace_id))
    assert trace is not None
    return trace.id


async def get(client: Client, path: str, status: int = 200, host: str = "localhost:8081") -> str:
    """Return the body of the response to a GET request. Its status must be `status`."""
    response = await client.get(path, headers={"host": host})
    body = await response.get_data(as_text=True)
    assert response.status_code == status, body
    return str(body)


async def get_json(client: Client, path: str, status: int = 200) -> Any:
    """Return the JSON document that a GET request returns."""
    return json.loads(await get(client, path, status))


async def test_without_traces_the_page_suggests_a_first_request(view: View, client: Client) -> None:
    """The other views show that they are empty."""
    view.service_url = "http://127.0.0.1:1234"

    assert "http://127.0.0.1:1234/api/relay?count=3" in await get(client, "/")
    assert "No service yet" in await get(client, "/map")
    assert "No request in the last 5 minutes" in await get(client, "/performance")


async def test_without_a_service_the_page_shows_the_command_that_starts_one(view: View, client: Client) -> None:
    """The command has the agent's address. The title has the name of the running program."""
    view.agent_url, view.program = "http://127.0.0.1:4321", "view"
    body = await get(client, "/")

    assert '<code id="start">DD_TRACE_AGENT_URL=http://127.0.0.1:4321 ddtrace-run python app.py</code>' in body
    assert 'data-copy-from="start"' in body
    assert "hello-service view</title>" in body
    assert "hello-service dev" not in body


async def test_the_list_shows_each_trace(view: View, client: Client) -> None:
    """The newest trace is first. Each row has time, route, status, duration, number of spans and a mark for errors."""
    add_spans(view, span(resource="GET /old", meta={"http.status_code": "200"}))
    bad = span(resource="GET /new", start_ms=5, duration_ms=12.3, error=True, meta={"http.status_code": "500"})
    add_spans(view, bad, span(bad, start_ms=6, duration_ms=1))
    body = await get(client, "/")

    assert body.index("GET /new") < body.index("GET /old")
    for part in (">500<", "12.3 ms", "2 spans", 'title="1 span with an error"', "2 traces kept"):
        assert part in body


async def test_a_search_filters_the_list_and_shows_its_mistakes(view: View, client: Client) -> None:
    add_spans(view, span(resource="GET /one"))
    add_spans(view, span(resource="GET /two"))
    body = await get(client, "/?q=two")

    assert "GET /two" in body
    assert "GET /one" not in body
    assert '<b id="matching">1</b> of 2 traces' in body
    assert "Unknown field &#34;foo&#34;." in await get(client, "/?q=foo:bar")
    assert "No trace matches" in await get(client, "/?q=three")


async def test_suggestions_facets_and_column_headers_are_valid_links(view: View, client: Client) -> None:
    """Each link leads to a search without a mistake."""
    bad = span(resource="GET /one", error=True, meta={"http.status_code": "500"})
    add_spans(view, bad, span(bad, service="shop (old)"))
    add_spans(view, span(resource="GET /two", service="cart"))
    followed_links = 0
    for path in (
        "/",
        "/?q=stauts:error",
        '/?q=resource:"GET /one"',
        "/?q=status:",
        "/?q=service:crat",
        "/?q=(service:web",
    ):
        body = await get(client, path)
        for address in re.findall(r'href="(/\?[^"]+)"', body):
            target = await get(client, html.unescape(address))
            assert 'id="mistake"' not in target, (path, address)
            followed_links += 1

    assert followed_links > 15  # the pattern above still matches the links


async def test_an_unfinished_term_does_not_change_the_rows(view: View, client: Client) -> None:
    """With an unfinished term, the rows are not marked as live, so the page keeps its old rows."""
    add_spans(view, span())

    assert '<ol class="rows" id="rows" data-keyed ' in await get(client, "/?q=status:")
    assert '<ol class="rows" id="rows" data-live data-keyed ' in await get(client, "/?q=status:500")


async def test_a_trace_links_back_to_its_search(view: View, client: Client) -> None:
    """The page of the trace also links to the previous and the next trace that the search finds."""
    ids = [add_spans(view, span(start_ms=number, resource=f"GET /{number}")) for number in range(3)]
    add_spans(view, span(start_ms=9, resource="other"))
    search = "?q=resource_name%3AGET%2A&amp;sort=time"
    body = await get(client, f"/trace/{ids[1]}?q=resource_name:GET*&sort=time")

    assert f'href="/trace/{ids[1]}{search}"' in await get(client, "/?q=resource_name:GET*&sort=time")
    for part in (f'href="/{search}"', "2 of 3", f'href="/trace/{ids[0]}{search}"', f'href="/trace/{ids[2]}{search}"'):
        assert part in body


async def test_traces_are_returned_as_json(view: View, client: Client) -> None:
    """`q` searches, `limit` bounds the number of traces, and `since` selects those that changed after a version.

    An invalid search returns suggestions.
    """
    failed = span(
        error=True, duration_ms=12.5, meta={"error.type": "E", "error.message": "no", "http.url": "http://x/a"}
    )
    trace_id = add_spans(view, failed, span(failed, service="shop"))
    add_spans(view, span())
    response = await get_json(client, "/api/traces?q=status:error")
    failed_traces = response.pop("traces")
    changes = await get_json(client, f"/api/traces?since={response['version'] - 1}")
    no_traces = await get_json(client, "/api/traces?limit=0")
    mistake = await get_json(client, "/api/traces?q=foo:bar", 400)

    assert response == {"query": "status:error", "found": 1, "kept": 2, "dropped": 0, "version": 2}
    assert failed_traces == [
        {
            "trace_id": trace_id,
            "url": f"http://localhost:8081/trace/{trace_id}",
            "start": "2023-11-14T22:13:20+00:00",
            "duration_ms": 12.5,
            "service": "web",
            "services": ["shop", "web"],
            "operation": "asgi.request",
            "resource": "GET /api/hello",
            "http_url": "http://x/a",
            "status": "error",
            "spans": 2,
            "errors": 1,
            "error": "E: no",
        }
    ]
    assert (changes["found"], len(changes["traces"])) == (2, 1)
    assert no_traces["traces"] == []
    assert mistake == {
        "error": 'Unknown field "foo". For a span tag write @foo:bar; for plain text write "foo:bar".',
        "suggestions": ["@foo:bar", '"foo:bar"'],
    }


@pytest.mark.parametrize("start", [-(2**63), 2**62])  # the least 64-bit integer, and the limit, in the year 2116
async def test_a_trace_with_an_impossible_start_is_returned_without_it(view: View, client: Client, start: int) -> None:
    """A tracer may send any number as the start of a span."""
    add_spans(view, replace(span(), start=start))
    (trace,) = (await get_json(client, "/api/traces"))["traces"]

    assert trace["start"] is None


async def test_the_log_shows_lines_with_and_without_a_trace(view: View, client: Client) -> None:
    """The page explains where the lines of other services are."""
    empty = await get(client, "/logs")
    root = span(trace=77, resource="GET /logged")
    add_spans(view, root, span(root, service="shop"))
    ids = {"dd.trace_id": f"{77:032x}", "dd.span_id": str(root.span_id)}
    view.store.add_line({"event": "line with trace", "service": "web", **ids})
    exception = "Traceback\n  x\nFault: it failed\n"
    view.store.add_line({"event": "line without trace", "level": "error", "exception": exception})
    view.store.add_line({"event": "line with dropped trace", "dd.trace_id": "99"})
    body = await get(client, "/logs")

    assert "No service was started here" in empty
    for part in (
        "line with trace",
        f'href="/trace/{77:032x}?span={root.span_id}"',
        "line without trace",
        "trace not kept",
    ):
        assert part in body
    assert "<summary>Fault: it failed</summary>" in body
    assert (
        "the lines that web writes to its standard output and standard error. The log lines of shop are in the terminal"
        in body
    )
    assert "line without trace" not in await get(client, "/logs?text=line with trace")
    for number in range(lists.ROWS):
        view.store.add_line({"event": f"line {number}"})
    assert f"the first {lists.ROWS} are shown" in await get(client, "/logs")
    assert (await get(client, "/logs?all=1")).count("<li id=") == lists.ROWS + 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        # The page's own form. The browser sends this Origin because of `Referrer-Policy: no-referrer`.
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
        ({}, 303),
        ({"Origin": "http://localhost:8081"}, 303),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8081"}, 403),
    ],
)
async def test_other_sites_cannot_clear_the_page(
    view: View, client: Client, headers: dict[str, str], status: int
) -> None:
    """A request without either header is accepted, because it is not from a web page."""
    add_spans(view, span())
    response = await client.post("/clear?back=/logs", headers={"host": "localhost:8081", **headers})
    is_rejected = status == 403

    assert response.status_code == status
    assert len(view.store) == (1 if is_rejected else 0)
    assert bool(view.performance.reports(minutes=15, now=monotonic())) == is_rejected


@pytest.mark.parametrize(
    ("back", "location"), [("/logs", "/logs"), ("/?q=a", "/?q=a"), ("//evil", "/"), ("/\\evil", "/"), ("http:x", "/")]
)
async def test_clearing_never_redirects_to_another_site(client: Client, back: str, location: str) -> None:
    response = await client.post("/clear", query_string={"back": back}, headers={"host": "localhost"})

    assert response.headers["location"] == location


async def test_the_choices_for_the_performance_view_are_remembered(view: View, client: Client) -> None:
    """The choices are window, threshold and order. The address overrides them, and invalid values are ignored."""
    add_spans(view, span(duration_ms=1000))
    await get(client, "/performance?minutes=15&apdex=2&sort=-p99")
    remembered_page = await get(client, "/performance")
    overridden_page = await get(client, "/performance?minutes=1")
    client.set_cookie("localhost", "performance_minutes", "x")
    page_with_invalid_choices = await get(client, "/performance?sort=nonsense")

    for part in ("15 min ago", "T = 2 s", 'aria-sort="descending"><a id="sort-1-p99"'):
        assert part in remembered_page
    assert "1 min ago" in overridden_page
    assert "T = 2 s" in overridden_page
    assert "5 min ago" in page_with_invalid_choices
    assert 'aria-sort="descending"><a id="sort-1-requests"' in page_with_invalid_choices


async def test_only_the_first_rows_of_a_long_list_are_shown(view: View, client: Client) -> None:
    """A link leads to all rows."""
    for number in range(lists.ROWS + 50):
        add_spans(view, span(start_ms=number))
    first_rows = await get(client, "/?q=service:web")
    all_rows = await get(client, "/?q=service:web&all=1")

    assert first_rows.count("<li id=") == lists.ROWS
    assert f"the first {lists.ROWS} are shown" in first_rows
    assert "/?q=service%3Aweb&amp;all=1" in first_rows
    assert all_rows.count("<li id=") == lists.ROWS + 50


@pytest.mark.parametrize("path", ["/", "/trace/{trace_id}", "/map", "/performance"])
async def test_spans_that_arrive_during_rendering_make_the_page_outdated(view: View, path: str) -> None:
    """Otherwise the page would never refresh to show them."""
    first = span()
    trace_id = add_spans(view, first)
    version = view.store.revision(trace_id) if path == "/trace/{trace_id}" else view.store.version
    app = create_page(view)

    @app.context_processor
    def add_second_span() -> dict[str, object]:
        """Add a span before the template is rendered."""
        return {"added": add_spans(view, span(first))}

    body = await get(app.test_client(), path.format(trace_id=trace_id))

    assert f'data-version="{version}"' in body
    assert view.store.version == 2


async def test_the_number_of_dropped_traces_is_shown(client: Client, view: View) -> None:
    """It is shown beside the number of traces kept, and on the page of a missing trace."""
    view.store.limit = 2
    for _ in range(5):
        add_spans(view, span())

    assert "2 traces kept, 3 dropped" in await get(client, "/map")
    assert "one of the 3 traces that were dropped" in await get(client, "/trace/123456", 404)


async def test_markup_in_spans_is_escaped(view: View, client: Client) -> None:
    """Every text of the spans and of the log line is a script."""
    hostile = span(
        resource=SCRIPT,
        service=SCRIPT,
        name=SCRIPT,
        error=True,
        meta={SCRIPT: SCRIPT, "error.type": SCRIPT, "error.stack": SCRIPT, "http.status_code": SCRIPT},
    )
    call = span(hostile, meta={"span.kind": "client", "peer.service": SCRIPT})
    trace_id = add_spans(view, hostile, call)
    view.store.add_line({"dd.trace_id": trace_id, "event": SCRIPT, "level": SCRIPT, "exception": SCRIPT})
    paths = ["/", f"/?q={SCRIPT}", f"/trace/{trace_id}", f"/trace/{trace_id}/span/{hostile.span_id}"]

    for path in [*paths, "/map", "/performance"]:
        body = await get(client, path)
        assert "<script>" not in body
        assert "&lt;script&gt;" in body
    script_in_path = SCRIPT.replace("/", "")  # a slash would begin another part of the path
    assert "<script>" not in await get(client, f"/trace/{script_in_path}", 404)


async def test_text_that_cannot_be_encoded_is_escaped(view: View, client: Client) -> None:
    """JSON can contain a lone surrogate, but UTF-8 and URLs can't."""
    text = "half \ud800"
    sent = wire_format(
        span(resource=text, service=text, name=text, meta={text: text, "a.tag": text, "error.stack": text})
    )
    trace_id = add_spans(view, *read_spans([[sent]]))
    view.store.add_line({"dd.trace_id": trace_id, "event": text})

    for path in ("/", f"/trace/{trace_id}", f"/trace/{trace_id}?service=x&find=half&q=y", "/map", "/performance"):
        assert r"half \ud800" in await get(client, path)


async def test_the_page_allows_only_its_own_scripts(client: Client) -> None:
    """Other sites can't show the page in a frame."""
    headers = (await client.get("/", headers={"host": "localhost"})).headers

    assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_templates_comply_with_the_content_security_policy(view: View, client: Client) -> None:
    """The pages contain no inline script or style, and nothing from another host."""
    root = span(error=True)
    trace_id = add_spans(view, root)

    for path in ("/", f"/trace/{trace_id}", "/map", "/performance", "/trace/123456"):
        body = await get(client, path, 404 if path == "/trace/123456" else 200)
        for forbidden in (" style=", "<style", "onclick", "javascript:", 'src="http', 'rel="stylesheet" href="http'):
            assert forbidden not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.evil:1", "a..b", ".", ""]
)
async def test_requests_for_other_hosts_are_rejected(client: Client, host: str) -> None:
    """This prevents DNS rebinding."""
    body = await get(client, "/", 421, host)

    assert "not served under this host name" in body


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8081", "localhost", "LOCALHOST:1", "[::1]:8081", "[::1]", "192.0.2.2:8081", "laptop:8081"]
)
async def test_requests_for_local_names_are_served(client: Client, host: str) -> None:
    """Any port is accepted, because it may be forwarded."""
    assert "Traces" in await get(client, "/", host=host)


async def test_a_message_of_a_span_without_an_error_is_one_of_its_tags(view: View, client: Client) -> None:
    """A service may handle an error and only record it."""
    body = await get(client, f"/trace/{add_spans(view, span(meta={'error.message': 'retried'}))}")

    assert "retried" in body


async def test_a_trace_shows_its_spans_and_the_details_of_one(view: View, client: Client) -> None:
    """The details are those of the span in the address, or of the deepest error, or of the root."""
    root = span(error=True, resource="GET /root", meta={"error.type": "OuterError"})
    child = span(root, error=True, service="greeter", meta={"error.type": "InnerError", "error.message": "no"})
    good = span(root, meta={"some.tag": "some value"}, metrics={"a.metric": 0.5})
    trace_id = add_spans(view, root, child, good)
    view.store.add_line({"dd.trace_id": trace_id, "dd.span_id": str(good.span_id), "event": "line of the good span"})
    body = await get(client, f"/trace/{trace_id}")
    detail = await get(client, f"/trace/{trace_id}/span/{good.span_id}")

    assert "InnerError" in body
    assert "OuterError" not in body
    assert body.count('role="row" id="s') == 3
    assert "1 line with this trace id" in body
    assert "OuterError" in await get(client, f"/trace/{trace_id}?span={root.span_id}")
    for part in ("some.tag", "some value", "a.metric", "0.5", "line of the good span"):
        assert part in detail
    other_trace_id = add_spans(view, span(resource="GET /root"))
    assert "GET /root" in await get(client, f"/trace/{other_trace_id}/span/none")


@pytest.mark.parametrize("form", ["00-{id}-00000000000000aa-01", "{lower_half}", "{decimal}"])
async def test_every_form_of_the_id_finds_the_trace(view: View, client: Client, form: str) -> None:
    """The forms are the `traceresponse` header, the lower 64 bits and the decimal number."""
    trace_id = add_spans(view, span(trace=0xABC, meta={"_dd.p.tid": "6b03707200000000"}))
    text = form.format(id=trace_id, lower_half=trace_id[16:], decimal=0xABC)
    response = await client.get(f"/trace/{text}", headers={"host": "localhost"})
    with_query = await client.get(f"/trace/{text}?span=7&q=a+b", headers={"host": "localhost"})

    assert (response.status_code, response.headers["location"]) == (302, f"/trace/{trace_id}")
    assert with_query.headers["location"] == f"/trace/{trace_id}?span=7&q=a+b"


async def test_a_trace_is_returned_as_json(view: View, client: Client) -> None:
    """The JSON includes its log lines. For a trace that is not kept, the status is 404."""
    root = span(meta={"a": "b"})
    trace_id = add_spans(view, root)
    view.store.add_line({"dd.trace_id": trace_id, "event": "request"})
    document = await get_json(client, f"/trace/{trace_id}/json")

    assert document["trace_id"] == trace_id
    assert [(row["resource"], row["meta"]) for row in document["spans"]] == [("GET /api/hello", {"a": "b"})]
    assert document["logs"] == [{"dd.trace_id": trace_id, "event": "request"}]
    assert "no longer kept" in await get(client, "/trace/123456/json", 404)
    assert "no longer kept" in await get(client, "/trace/123456/span/1", 404)


async def test_a_trace_of_5000_spans_is_drawn(view: View, client: Client) -> None:
    """Each span has its own row. A recursive function would exceed Python's recursion limit of 1,000."""
    chain = [span(trace=1, span_id=number, parent_id=number - 1, start_ms=number) for number in range(1, 5001)]
    body = await get(client, f"/trace/{add_spans(view, *chain)}")

    assert body.count('role="row" id="s') == 5000
    assert "4999▸" in body  # instead of an indent, a deep row has its level


async def test_spans_with_a_missing_parent_or_in_a_cycle_are_drawn(view: View, client: Client) -> None:
    """A span whose parent is missing is marked."""
    cycle = [span(trace=1, span_id=71, parent_id=72), span(trace=1, span_id=72, parent_id=71)]
    orphan = span(trace=1, parent_id=99)
    body = await get(client, f"/trace/{add_spans(view, *cycle, orphan)}")

    assert body.count('role="row" id="s') == 3
    assert body.count("Its parent span is missing") == 1


async def test_calls_between_services_are_drawn(view: View, client: Client) -> None:
    """Each call has its number of requests, its errors and its latency."""
    root = span()
    call = span(root, duration_ms=7, error=True, meta={"span.kind": "client", "peer.service": "mail"})
    add_spans(view, root, call)
    body = await get(client, "/map")

    assert "inferred" in body
    for part in ("1 request", "100% errors", "p95 7.00 ms"):
        assert part in body


@pytest.mark.parametrize(
    ("requests", "labels"),
    [
        (1, "<span>1</span><span></span>"),
        (2, "<span>2</span><span>1</span>"),
        (3, "<span>5</span><span></span>"),  # half of 5 is not a number of requests
    ],
)
async def test_the_middle_label_of_an_axis_is_exact(view: View, client: Client, requests: int, labels: str) -> None:
    """The label is left out if it is not a whole number."""
    view.performance.add([span() for _ in range(requests)], monotonic())

    assert f'<div class="y" aria-hidden="true">{labels}<span>0</span></div>' in await get(client, "/performance")


async def test_the_performance_view_has_the_requested_window_and_threshold(view: View, client: Client) -> None:
    """Invalid values are ignored."""
    add_spans(view, span(duration_ms=1000), span(duration_ms=10))
    loose = await get(client, "/performance?apdex=1.1&minutes=1")
    strict = await get(client, "/performance?apdex=0.001")

    assert "T = 1.1 s" in loose
    assert ">1.00<" in loose
    assert "1 min ago" in loose
    assert ">0.00<" in strict
    for invalid in ("apdex=-1&minutes=7", "apdex=nan", "apdex=x&minutes=y"):
        body = await get(client, f"/performance?{invalid}")
        assert "T = 0.5 s" in body
        assert "5 min ago" in body


async def next_event(events: AsyncIterator[bytes]) -> bytes:
    """Return the next event, or fail after 10 seconds."""
    return await asyncio.wait_for(anext(events), 10)


async def test_each_change_is_one_event(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event has the version of the store. Without changes, comments reveal a dead connection.

    The events end when the page closes.
    """
    monkeypatch.setattr(page, "EVENT_SECONDS", 0.01)
    events = page._changes(view, trace_id=None)
    first = await next_event(events)
    add_spans(view, span())
    second = await next_event(events)
    monkeypatch.setattr(page, "HEARTBEAT_SECONDS", 2.5)
    clock = count(monotonic())  # each reading is a second later
    monkeypatch.setattr(page, "monotonic", lambda: next(clock))
    comment = await next_event(events)
    view.closing.set()

    assert (first, second) == (b"data: 0\n\n", b"data: 1\n\n")
    assert comment == b":\n\n"
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_the_page_of_a_trace_gets_no_event_for_other_traces(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "EVENT_SECONDS", 0.01)
    root = span(trace=77)
    events = page._changes(view, trace_id=f"{77:032x}")
    received = [await next_event(events)]
    add_spans(view, span(), span())
    add_spans(view, root)
    received.append(await next_event(events))
    add_spans(view, span(root))
    received.append(await next_event(events))

    assert received == [b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"]


async def test_open_connections_do_not_delay_the_stop(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client waits for events, and another does not read its large response."""
    monkeypatch.setattr(page, "CLOSE_SECONDS", 0.3)
    # The JSON of this trace has more than 5 MB, which is more than the buffers of the connection.
    trace_id = add_spans(view, *[span(trace=1, meta={"tag": "x" * 1000}) for _ in range(5000)])
    listener = processes.bind("127.0.0.1", 0, option="")
    address = listener.getsockname()
    async with aiohttp.ClientSession() as session:
        async with serving(view, listener):
            events = await session.get(f"http://127.0.0.1:{address[1]}/events")
            event = await events.content.readline()
            reader, writer = await asyncio.open_connection(*address, limit=1)  # the reader buffers almost nothing
            writer.write(f"GET /trace/{trace_id}/json HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            beginning = await reader.readexactly(len(b"HTTP/1.1"))
            stop_began = monotonic()
        stop_ended = monotonic()
        writer.close()
        events.close()

        assert event == b"data: 1\n"
        assert beginning == b"HTTP/1.1"
        assert stop_ended - stop_began < 20  # without a limit, the page would not stop while this client is connected
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"http://127.0.0.1:{address[1]}/")


async def test_lines_of_any_length_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is cut, and the lines after it are complete.

    Both the limit and the long lines exceed the 64 KiB that are read at once.
    """
    monkeypatch.setattr(processes, "LINE_BYTES", 100_000)
    stream = asyncio.StreamReader()
    stream.feed_data(b"first\n" + b"x" * 250_000 + b"\nafter\xff\n" + b"y" * 250_000 + b"\nlast")
    stream.feed_eof()
    lines = [line async for line in processes.lines(stream)]

    assert lines == ["first", "x" * 100_000, "after\ufffd", "y" * 100_000, "last"]


async def test_a_long_line_without_a_line_feed_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LINE_BYTES", 10)
    stream = asyncio.StreamReader()
    stream.feed_data(b"z" * 70_000)  # more than the 64 KiB that are read at once
    stream.feed_eof()

    assert [line async for line in processes.lines(stream)] == ["z" * 10]


class LateSession:
    """A session in which the first `refusals` connections are refused, and the next one gets a response."""

    def __init__(self, refusals: int) -> None:
        self.refusals_left = refusals
        self.has_responded = False

    @asynccontextmanager
    async def get(self, _url: str) -> AsyncIterator[None]:
        """Refuse the connection, or return a response."""
        if self.refusals_left > 0:
            self.refusals_left -= 1
            raise aiohttp.ClientConnectionError
        self.has_responded = True
        yield


RUNNING, EXITED = SimpleNamespace(returncode=None), SimpleNamespace(returncode=1)  # fake child processes


async def test_a_slow_process_gets_time_to_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "POLL_SECONDS", 0)
    session = LateSession(3)
    await processes.wait_for_response(session, "http://agent/info", RUNNING)  # type: ignore[arg-type]  # fakes with the attributes that are used

    assert session.has_responded


async def test_a_process_that_exits_without_a_response_is_an_error() -> None:
    """The wait ends at once."""
    with pytest.raises(processes.StartError, match="The embedded trace agent did not start"):
        await processes.wait_for_response(LateSession(1), "http://agent/info", EXITED)  # type: ignore[arg-type]  # fakes, as above


async def test_a_process_that_does_not_respond_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_SECONDS", -1)  # the deadline has already passed

    with pytest.raises(processes.StartError, match="The embedded trace agent did not start"):
        await processes.wait_for_response(LateSession(1), "http://agent/info", RUNNING)  # type: ignore[arg-type]  # fakes, as above


def test_a_busy_port_is_reported_with_the_option_to_change_it() -> None:
    """The message includes the reason."""
    with socket.socket() as busy_socket:
        busy_socket.bind(("127.0.0.1", 0))
        busy_socket.listen()
        port = busy_socket.getsockname()[1]
        with pytest.raises(processes.StartError) as error:
            processes.bind("127.0.0.1", port, option="--view-port")

    assert str(error.value) == (
        f"Can't listen on 127.0.0.1 port {port}: Address already in use. Choose another port with --view-port."
    )


async def test_a_websocket_for_another_host_is_closed(view: View) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app: Any = create_page(view)
    await app.asgi_app({"type": "websocket", "headers": [(b"host", b"evil.example")]}, None, send)

    assert sent == [{"type": "websocket.close"}]
