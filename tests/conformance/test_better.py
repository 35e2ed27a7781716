"""Tests of what a comparison of attributes can't show: durations, secrets, parents and children, and sampling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx
import pytest
from conformance.comparison import describe
from conformance.pair import Side
from conformance.scenarios import PARENT, RATE_0, TRACE, W3C, open_request, read_until, ws
from running import Span

Pair = dict[str, Side]
Pairs = Callable[[Mapping[str, str]], Pair]
SIDES = pytest.mark.parametrize("name", ["quart", "fastapi"])


def end_of(span: Span) -> int:
    return int(span["start"] + span["duration"])


def named(spans: list[Span], name: str) -> Span:
    """Return the only span with that name."""
    (span,) = [span for span in spans if span["name"] == name]
    return span


@SIDES
def test_a_streams_span_lasts_until_its_last_byte(both: Pair, name: str) -> None:
    with open_request(both[name], "/stream/held") as connection:
        read_until(connection, b"first")
        before_the_last = time.time_ns()
        both[name].release("stream")
        read_until(connection, b"0\r\n\r\n")
    (span,) = both[name].collect(1)

    assert end_of(span) > before_the_last


@SIDES
def test_a_span_lasts_until_a_slow_client_has_read_the_response(both: Pair, name: str) -> None:
    """The response isn't complete when the handler has produced it."""
    with open_request(both[name], "/stream/large") as connection:
        read_until(connection, b"xxx")
        spans_before_the_rest = both[name].agent.spans()
        before_the_rest = time.time_ns()
        read_until(connection, b"0\r\n\r\n")
    (span,) = both[name].collect(1)

    assert spans_before_the_rest == []
    assert end_of(span) > before_the_rest


@SIDES
async def test_interleaved_requests_keep_their_own_children(both: Pair, name: str) -> None:
    """200 concurrent requests have three children each: two tasks and a thread."""
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as client:
        await asyncio.gather(*(client.get(f"{both[name].url}/tasks/mixed/{number}") for number in range(200)))
    spans = await asyncio.to_thread(both[name].collect, 800)
    roots = {span["span_id"]: span for span in spans if span["parent_id"] == 0}
    children: dict[str, list[str]] = {}
    for span in spans:
        if span["parent_id"]:
            number = roots[span["parent_id"]]["meta"]["http.url"].rpartition("/")[2]
            children.setdefault(number, []).append(span["resource"])

    assert len(roots) == len({span["trace_id"] for span in spans}) == 200
    assert {number: sorted(names) for number, names in children.items()} == {
        str(number): [f"first {number}", f"second {number}", f"third {number}"] for number in range(200)
    }


SECRETS = [
    "token=hidden",
    "password=hidden",
    "pwd=hidden",
    "api_key=hidden",
    "secret=hidden",
    "access_token=hidden",
    "q=%7B%22password%22%3A%22hidden%22%7D",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_query_reaches_no_span(quart: Side, secret: str) -> None:
    """The rest of the query is still in the URL."""
    quart.client.get(f"{quart.url}/plain?page=2&{secret}")
    quart.client.get(f"{quart.url}/nowhere?page=2&{secret}")
    spans = quart.collect(2)

    assert "hidden" not in str(spans)
    assert all("page=2&" in span["meta"]["http.url"] for span in spans)
    assert not any("http.query.string" in span["meta"] for span in spans)


def test_a_secret_in_the_query_of_a_call_or_a_websocket_reaches_no_span(quart: Side) -> None:
    """Secrets are also redacted in the client's span and in the handshake's span."""
    quart.client.get(f"{quart.url}/call/success")
    ws("/ws/lounge?token=hidden", "hello")(quart)
    spans = quart.collect(7)

    assert "hidden" not in str(spans)
    assert named(spans, "http.request")["meta"]["http.url"].endswith("/items/42?<redacted>")


@pytest.mark.parametrize("target", ["/plain?page=2#token=hidden", "/plain%23?token=hidden", "/plain%3F?token=hidden"])
def test_a_secret_after_a_fragment_sign_reaches_no_span(quart: Side, target: str) -> None:
    """A request target has no fragment, but a client may send one."""
    with open_request(quart, target) as connection:
        read_until(connection, b"\r\n\r\n")
    spans = quart.collect(1)

    assert "hidden" not in str(spans)


def test_a_cancelled_handler_is_not_recorded_as_a_success(quart: Side) -> None:
    """With Quart 0.22 the server responds with 500. With 0.23 no response is sent, and the client waits until it
    disconnects.
    """
    try:
        status = quart.client.get(f"{quart.url}/cancelled", timeout=2).status_code
    except httpx.ReadTimeout:
        status = None
    (span,) = quart.collect(1)
    tags = {name: span["meta"].get(name) for name in ("http.status_code", "error.type", "http.client_disconnected")}

    assert tags in (
        {
            "http.status_code": "500",
            "error.type": "asyncio.exceptions.CancelledError",
            "http.client_disconnected": None,
        },
        {"http.status_code": None, "error.type": None, "http.client_disconnected": "true"},
    )
    assert str(status) == str(tags["http.status_code"])
    assert span["error"] == (status == 500)


def test_an_outbound_call_sends_its_span_id_to_the_peer(quart: Side) -> None:
    """The peer can join the trace as a child of the call's span, with the 128-bit trace id."""
    quart.client.get(f"{quart.url}/call/success", headers={"traceparent": f"{W3C}01"})
    spans = quart.collect(2)
    call = named(spans, "http.request")
    received = quart.received[-1]

    assert call["parent_id"] == named(spans, "asgi.request")["span_id"]
    assert received["traceparent"] == f"00-{TRACE}-{call['span_id']:016x}-01"
    assert received["x-datadog-parent-id"] == str(call["span_id"])


def test_a_request_is_a_child_of_its_callers_span(quart: Side) -> None:
    """The trace id and the parent come from `traceparent`."""
    response = quart.client.get(f"{quart.url}/plain", headers={"traceparent": f"{W3C}01"})
    (span,) = quart.collect(1)

    assert span["parent_id"] == int(PARENT, 16)
    assert f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}" == TRACE
    assert response.headers["traceresponse"] == f"00-{TRACE}-{span['span_id']:016x}-01"


@pytest.mark.parametrize(
    ("path", "error", "function"),
    [
        ("/unhandled", "shared.Unhandled", "unhandled"),
        ("/sync/unhandled", "shared.Unhandled", "sync_unhandled"),
        ("/grouped", "builtins.ExceptionGroup", "grouped"),
        ("/hook/before", "shared.Unhandled", "before"),
        ("/hook/after", "shared.Unhandled", "after"),
        ("/stream/broken", "shared.Unhandled", "parts"),
        ("/handled/503", "shared.Handled", "handled"),
        ("/abort/503", "werkzeug.exceptions.ServiceUnavailable", "aborted"),
        ("/returned/500", None, None),
    ],
)
def test_an_error_is_kept_with_its_exception(pairs: Pairs, path: str, error: str | None, function: str | None) -> None:
    """At a rate of 0 the span has the exception's type and the function that raised it, even if an error handler
    responded.
    """
    side = pairs(RATE_0)["quart"]
    side.clear()
    with suppress(httpx.RemoteProtocolError):
        side.client.get(side.url + path)
    (span,) = side.collect(1)
    meta = span["meta"]

    assert span["error"] == 1
    assert span["metrics"]["_sampling_priority_v1"] == 2
    if error is None:
        assert "error.type" not in meta
        assert "error.stack" not in meta
    else:
        assert meta["error.type"].endswith(error)
        assert f", in {function}\n" in meta["error.stack"]


@pytest.mark.parametrize(
    ("headers", "path", "kept"),
    [
        ({}, "/background/after", False),
        ({"traceparent": f"{W3C}01"}, "/background/after", True),
        ({}, "/background/failed", True),
    ],
)
def test_a_background_task_is_kept_if_its_request_is(
    pairs: Pairs, headers: Mapping[str, str], path: str, kept: bool
) -> None:
    """At a rate of 0 a task is kept if its caller kept the trace, or if an error occurred while the task ran."""
    side = pairs(RATE_0)["quart"]
    side.clear()
    side.client.get(side.url + path, headers=headers)
    side.release("background")
    spans = side.collect(2)
    task, request = named(spans, "quart.background_task"), named(spans, "asgi.request")

    assert task["trace_id"] != request["trace_id"]
    assert (request["metrics"]["_sampling_priority_v1"] > 0) == kept
    assert (task["metrics"]["_sampling_priority_v1"] > 0) == kept


@pytest.mark.parametrize(("headers", "kept"), [({}, True), ({"traceparent": f"{W3C}00"}, False)])
def test_a_failed_background_task_is_kept_unless_the_caller_decided(
    pairs: Pairs, headers: Mapping[str, str], kept: bool
) -> None:
    """Without a caller's decision, the task's trace is an error trace that this process started."""
    side = pairs(RATE_0)["quart"]
    side.clear()
    side.client.get(f"{side.url}/background/unhandled", headers=headers)
    task = named(side.collect(2), "quart.background_task")

    assert task["meta"]["error.message"] == "in the background"
    assert (task["metrics"]["_sampling_priority_v1"] > 0) == kept


@pytest.mark.parametrize(
    ("path", "message", "parent"),
    [
        ("/ws/lounge", "in the WebSocket", "websocket.receive"),
        ("/ws/lounge/accepts", "after accept", "asgi.request"),
    ],
)
def test_an_exception_in_an_open_websocket_is_kept(pairs: Pairs, path: str, message: str, parent: str) -> None:
    """Its span has the type, message, stack and route, and is a child of the span that was active."""
    side = pairs(RATE_0)["quart"]
    side.clear()
    ws(path, "fail")(side)
    spans = side.collect(3)
    failed = named(spans, "quart.websocket")
    names = {span["span_id"]: span["name"] for span in spans}

    assert names[failed["parent_id"]] == parent
    assert failed["error"] == 1
    assert failed["meta"]["error.type"].endswith("shared.Unhandled")
    assert failed["meta"]["error.message"] == message
    assert "quart_app.py" in failed["meta"]["error.stack"]
    assert failed["resource"].startswith("websocket /ws/<room>")
    assert failed["metrics"]["_sampling_priority_v1"] == 2


def test_work_for_a_message_is_a_child_of_the_messages_span(quart: Side) -> None:
    """The parent isn't the span of the handshake, which has ended and belongs to another trace."""
    ws("/ws/lounge/works", "hello")(quart)
    spans = quart.collect(8)
    names = {span["span_id"]: span["name"] for span in spans}

    assert {span["resource"]: names[span["parent_id"]] for span in spans if span["name"] == "work"} == {
        "before the reply": "websocket.receive",
        "after the reply": "websocket.receive",
    }


def test_a_span_has_the_exception_and_not_the_group_around_it(quart: Side) -> None:
    """Quart 0.23 runs a request in a task group, which wraps the exception of a stream."""
    with pytest.raises(httpx.RemoteProtocolError):
        quart.client.get(f"{quart.url}/stream/broken")
    (span,) = quart.collect(1)

    assert span["meta"]["error.type"].endswith("shared.Unhandled")
    assert span["meta"]["error.message"] == "in the stream"


def test_a_background_task_has_the_sampling_decision_of_its_request(pairs: Pairs) -> None:
    """This also holds for a task that starts before the response, when no decision has been made yet."""
    rules = '[{"sample_rate": 0.5}]'
    side = pairs({"DD_TRACE_SAMPLING_RULES": rules, "DD_TRACE_STATS_COMPUTATION_ENABLED": "false"})["quart"]
    side.clear()
    for _ in range(30):
        side.client.get(f"{side.url}/background/before")
    spans = describe(side.collect(90))
    kept = {label: float(span["_sampling_priority_v1"]) > 0 for label, span in spans.items() if "work" not in label}
    # A link is the label of the linked span and its attributes in braces.
    request_by_task = {
        label: span["links"].partition(" {")[0] for label, span in spans.items() if label.startswith("background")
    }

    assert len(request_by_task) == 30
    assert {task: kept[task] for task in request_by_task} == {
        task: kept[request] for task, request in request_by_task.items()
    }
    assert set(kept.values()) == {True, False}
