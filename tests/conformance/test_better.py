"""Tests of what a comparison of attributes can't show.

These are durations, secrets, exceptions, parents and children, and sampling.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

import httpx
import pytest
from conformance.comparison import attributes_by_label
from conformance.scenarios import (
    LAST_CHUNK,
    PARENT_ID,
    RATE_0,
    SAMPLED_TRACEPARENT,
    SEND_DROPPED_TRACES,
    TRACE_ID,
    UNSAMPLED_TRACEPARENT,
    open_request,
    read_until,
    websocket,
)
from conformance.services import Service, Services, ServicesWith
from running import Span

BOTH_FRAMEWORKS = pytest.mark.parametrize("framework", ["quart", "fastapi"])


def end_ns(span: Span) -> int:
    return int(span["start"] + span["duration"])


def only_span(spans: list[Span], name: str) -> Span:
    """Return the span with that name, and fail if there isn't exactly one."""
    (span,) = [span for span in spans if span["name"] == name]
    return span


@BOTH_FRAMEWORKS
def test_the_span_of_a_stream_lasts_until_the_last_byte(services: Services, framework: str) -> None:
    with open_request(services[framework], "/stream/waiting") as connection:
        read_until(connection, b"first")
        before_last_part = time.time_ns()
        services[framework].release("stream")
        read_until(connection, LAST_CHUNK)
    (span,) = services[framework].collect(1)

    assert end_ns(span) > before_last_part


@BOTH_FRAMEWORKS
def test_a_span_lasts_until_a_slow_client_has_read_the_response(services: Services, framework: str) -> None:
    """The span doesn't end when the handler has produced the response."""
    with open_request(services[framework], "/stream/large") as connection:
        read_until(connection, b"xxx")  # the body consists of this letter
        spans_before_rest = services[framework].agent.spans()
        before_rest = time.time_ns()
        read_until(connection, LAST_CHUNK)
    (span,) = services[framework].collect(1)

    assert spans_before_rest == []
    assert end_ns(span) > before_rest


@BOTH_FRAMEWORKS
async def test_interleaved_requests_keep_their_own_children(services: Services, framework: str) -> None:
    """Each of 200 concurrent requests has three children: two tasks and a thread."""
    numbers = range(200)
    service = services[framework]
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as client:
        await asyncio.gather(*(client.get(f"{service.url}/tasks/mixed/{number}") for number in numbers))
    spans = await asyncio.to_thread(service.collect, 4 * len(numbers))  # each request and its three children
    roots = {span["span_id"]: span for span in spans if span["parent_id"] == 0}
    children: dict[str, list[str]] = {}
    for span in spans:
        if span["parent_id"]:
            url = roots[span["parent_id"]]["meta"]["http.url"]
            number = url.rpartition("/")[2]
            children.setdefault(number, []).append(span["resource"])
    trace_ids = {span["trace_id"] for span in spans}

    assert len(roots) == len(numbers)
    assert len(trace_ids) == len(numbers)
    assert {number: sorted(resources) for number, resources in children.items()} == {
        str(number): [f"first {number}", f"second {number}", f"third {number}"] for number in numbers
    }


SECRETS = [
    "token=hidden",
    "password=hidden",
    "pwd=hidden",
    "api_key=hidden",
    "secret=hidden",
    "access_token=hidden",
    "q=%7B%22password%22%3A%22hidden%22%7D",  # {"password":"hidden"}
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_query_reaches_no_span(quart: Service, secret: str) -> None:
    """The rest of the query is still in the URL."""
    quart.client.get(f"{quart.url}/plain?page=2&{secret}")
    quart.client.get(f"{quart.url}/nowhere?page=2&{secret}")
    spans = quart.collect(2)

    assert "hidden" not in str(spans)
    assert all("page=2&" in span["meta"]["http.url"] for span in spans)
    assert not any("http.query.string" in span["meta"] for span in spans)


def test_a_secret_in_the_query_of_a_call_or_a_websocket_reaches_no_span(quart: Service) -> None:
    """Secrets are also redacted in the client's span and in the handshake's span."""
    quart.client.get(f"{quart.url}/call/success")
    websocket("/ws/lounge?token=hidden", "hello")(quart)
    # The call has two spans, and the WebSocket has five: handshake, message, reply, disconnect and close.
    spans = quart.collect(2 + 5)

    assert "hidden" not in str(spans)
    assert only_span(spans, "http.request")["meta"]["http.url"].endswith("/items/42?<redacted>")


@pytest.mark.parametrize("target", ["/plain?page=2#token=hidden", "/plain%23?token=hidden", "/plain%3F?token=hidden"])
def test_a_secret_near_an_unusual_delimiter_reaches_no_span(quart: Service, target: str) -> None:
    """A request target shouldn't have a fragment, but a client may send one. It may also encode `#` and `?`."""
    with open_request(quart, target) as connection:
        read_until(connection, b"\r\n\r\n")
    spans = quart.collect(1)

    assert "hidden" not in str(spans)


def test_a_canceled_handler_is_not_recorded_as_a_success(quart: Service) -> None:
    """With Quart 0.22 the server responds with 500. With 0.23 no response is sent, and the client waits until it
    disconnects.
    """
    try:
        status = quart.client.get(f"{quart.url}/canceled", timeout=2).status_code
    except httpx.ReadTimeout:
        status = None
    (span,) = quart.collect(1)
    tags = {name: span["meta"].get(name) for name in ("http.status_code", "error.type", "http.client_disconnected")}

    if status is None:  # Quart 0.23
        assert tags == {"http.status_code": None, "error.type": None, "http.client_disconnected": "true"}
        assert span["error"] == 0
    else:
        assert status == 500
        assert tags == {
            "http.status_code": "500",
            "error.type": "asyncio.exceptions.CancelledError",
            "http.client_disconnected": None,
        }
        assert span["error"] == 1


def test_an_outbound_call_sends_its_span_id_to_the_peer(quart: Service) -> None:
    """The peer can join the trace as a child of the call's span, with the 128-bit trace id."""
    quart.client.get(f"{quart.url}/call/success", headers={"traceparent": SAMPLED_TRACEPARENT})
    spans = quart.collect(2)
    call = only_span(spans, "http.request")
    sent_headers = quart.upstream_headers[-1]

    assert call["parent_id"] == only_span(spans, "asgi.request")["span_id"]
    assert sent_headers["traceparent"] == f"00-{TRACE_ID}-{call['span_id']:016x}-01"
    assert sent_headers["x-datadog-parent-id"] == str(call["span_id"])


def test_a_request_is_a_child_of_its_callers_span(quart: Service) -> None:
    """The trace id and the parent come from `traceparent`."""
    response = quart.client.get(f"{quart.url}/plain", headers={"traceparent": SAMPLED_TRACEPARENT})
    (span,) = quart.collect(1)

    assert span["parent_id"] == int(PARENT_ID, 16)
    assert f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}" == TRACE_ID
    assert response.headers["traceresponse"] == f"00-{TRACE_ID}-{span['span_id']:016x}-01"


@pytest.mark.parametrize(
    ("path", "error", "function"),
    [
        ("/unhandled", "shared.Unhandled", "unhandled"),
        ("/sync/unhandled", "shared.Unhandled", "sync_unhandled"),
        ("/grouped", "builtins.ExceptionGroup", "grouped"),
        ("/hook/before", "shared.Unhandled", "fail_before"),
        ("/hook/after", "shared.Unhandled", "fail_after"),
        ("/stream/broken", "shared.Unhandled", "parts"),
        ("/handled/503", "shared.Handled", "handled"),
        ("/abort/503", "werkzeug.exceptions.ServiceUnavailable", "aborted"),
        ("/returned/500", None, None),
    ],
)
def test_an_error_is_kept_with_its_exception(
    services_with: ServicesWith, path: str, error: str | None, function: str | None
) -> None:
    """At a sampling rate of 0, the span is kept. It has the exception's type and the function that raised it, even if
    an error handler responded.
    """
    quart = services_with(RATE_0)["quart"]
    quart.clear()
    with suppress(httpx.RemoteProtocolError):
        quart.client.get(quart.url + path)
    (span,) = quart.collect(1)
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
    ("headers", "path", "is_kept"),
    [
        ({}, "/background/after", False),
        ({"traceparent": SAMPLED_TRACEPARENT}, "/background/after", True),
        ({}, "/background/failed", True),
    ],
    ids=["sampled out", "kept by the caller", "failed"],
)
def test_a_background_task_is_kept_if_its_request_is_kept(
    services_with: ServicesWith, headers: Mapping[str, str], path: str, is_kept: bool
) -> None:
    """At a sampling rate of 0, both are kept if the caller kept the trace, or if the request failed before the task
    ended.
    """
    quart = services_with(RATE_0)["quart"]
    quart.clear()
    quart.client.get(quart.url + path, headers=headers)
    quart.release("background")
    spans = quart.collect(2)
    task, request = only_span(spans, "quart.background_task"), only_span(spans, "asgi.request")

    assert task["trace_id"] != request["trace_id"]
    assert (request["metrics"]["_sampling_priority_v1"] > 0) == is_kept
    assert (task["metrics"]["_sampling_priority_v1"] > 0) == is_kept


@pytest.mark.parametrize(
    ("headers", "is_kept"),
    [({}, True), ({"traceparent": UNSAMPLED_TRACEPARENT}, False)],
    ids=["no caller", "dropped by the caller"],
)
def test_a_failed_background_task_is_kept_unless_the_caller_dropped_the_trace(
    services_with: ServicesWith, headers: Mapping[str, str], is_kept: bool
) -> None:
    """Without a caller, the task's trace is an error trace that this process started."""
    quart = services_with(RATE_0)["quart"]
    quart.clear()
    quart.client.get(f"{quart.url}/background/unhandled", headers=headers)
    task = only_span(quart.collect(2), "quart.background_task")

    assert task["meta"]["error.message"] == "in the background"
    assert (task["metrics"]["_sampling_priority_v1"] > 0) == is_kept


@pytest.mark.parametrize(
    ("path", "message", "parent"),
    [
        ("/ws/lounge", "in the WebSocket", "websocket.receive"),
        ("/ws/lounge/accepts", "after accept", "asgi.request"),
    ],
)
def test_an_exception_in_an_open_websocket_is_kept(
    services_with: ServicesWith, path: str, message: str, parent: str
) -> None:
    """The exception's span has its type, message and stack, and the route. Its parent is the span that was active."""
    quart = services_with(RATE_0)["quart"]
    quart.clear()
    websocket(path, "fail")(quart)
    spans = quart.collect(3)  # at least the handshake, the exception and the close
    names_by_id = {span["span_id"]: span["name"] for span in spans}
    span = only_span(spans, "quart.websocket")

    assert names_by_id[span["parent_id"]] == parent
    assert span["error"] == 1
    assert span["meta"]["error.type"].endswith("shared.Unhandled")
    assert span["meta"]["error.message"] == message
    assert "quart_app.py" in span["meta"]["error.stack"]
    assert span["resource"].startswith("websocket /ws/<room>")
    assert span["metrics"]["_sampling_priority_v1"] == 2


def test_work_for_a_message_is_a_child_of_the_messages_span(quart: Service) -> None:
    """The parent isn't the span of the handshake, which has ended and belongs to another trace."""
    websocket("/ws/lounge/works", "hello")(quart)
    spans = quart.collect(8)  # handshake, message, two replies, two spans of work, disconnect and close
    names_by_id = {span["span_id"]: span["name"] for span in spans}
    parents = {span["resource"]: names_by_id[span["parent_id"]] for span in spans if span["name"] == "work"}

    assert parents == {
        "before the reply": "websocket.receive",
        "after the reply": "websocket.receive",
    }


def test_a_span_has_the_exception_and_not_the_group_around_it(quart: Service) -> None:
    """Quart 0.23 runs a request in a task group, which wraps the exception of a stream."""
    with pytest.raises(httpx.RemoteProtocolError):
        quart.client.get(f"{quart.url}/stream/broken")
    (span,) = quart.collect(1)

    assert span["meta"]["error.type"].endswith("shared.Unhandled")
    assert span["meta"]["error.message"] == "in the stream"


def test_a_background_task_has_the_sampling_decision_of_its_request(services_with: ServicesWith) -> None:
    """The task starts before the response, when no decision has been made yet."""
    task_count = 30  # all 30 get the same decision only once in 500 million runs
    rules = '[{"sample_rate": 0.5}]'
    quart = services_with({"DD_TRACE_SAMPLING_RULES": rules, **SEND_DROPPED_TRACES})["quart"]
    quart.clear()
    for _ in range(task_count):
        quart.client.get(f"{quart.url}/background/before")
    spans = attributes_by_label(quart.collect(3 * task_count))  # each request, its task and the work in the task
    is_kept = {
        label: float(span["_sampling_priority_v1"]) > 0
        for label, span in spans.items()
        if not label.startswith("work")  # a child has no priority of its own
    }
    # A link is the label of the linked span and its attributes in braces.
    request_by_task = {
        label: span["links"].partition(" {")[0] for label, span in spans.items() if label.startswith("background")
    }

    assert len(request_by_task) == task_count
    for task, request in request_by_task.items():
        assert is_kept[task] == is_kept[request]
    assert set(is_kept.values()) == {True, False}
