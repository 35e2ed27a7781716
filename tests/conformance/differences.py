"""The table of all differences between Quart and FastAPI, each with its reason.

A difference that isn't in the table fails the test of its scenario. A row that matches no difference also fails a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from conformance.comparison import Difference

SAME = "same meaning"
BETTER = "better here"
SERVER = "server difference"


@dataclass(frozen=True)
class Row:
    """A row of the table. It accepts differences, and gives the reason.

    The fields before `verdict` are shell patterns. None means that the service lacks the attribute.

    `verdict` is SAME (the same meaning in other words), BETTER (tracing.py records more than ddtrace's FastAPI
    integration, or a more accurate value) or SERVER (Hypercorn and uvicorn give their applications different
    information).
    """

    scenario: str
    span: str
    attribute: str
    quart: str | None
    fastapi: str | None
    verdict: str
    reason: str

    def covers(self, scenario: str, difference: Difference) -> bool:
        """Return whether this row explains `difference` in `scenario`."""
        return (
            fnmatchcase(scenario, self.scenario)
            and fnmatchcase(difference.span, self.span)
            and fnmatchcase(difference.attribute, self.attribute)
            and _matches(difference.quart, self.quart)
            and _matches(difference.fastapi, self.fastapi)
        )


def _matches(value: str | None, pattern: str | None) -> bool:
    if pattern is None:
        return value is None
    return value is not None and fnmatchcase(value, pattern)


def render(table: Sequence[Row]) -> list[str]:
    """Return the table as lines of text."""
    lines = [["verdict", "scenario", "span · attribute", "Quart", "FastAPI", "reason"]]
    for row in sorted(table, key=lambda row: [BETTER, SAME, SERVER].index(row.verdict)):
        span_attribute = f"{row.span} · {row.attribute}"
        lines.append([row.verdict, row.scenario, span_attribute, row.quart or "—", row.fastapi or "—", row.reason])
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns[:-1]]  # the last column, the reason, has no fixed width
    text = []
    for *cells, reason in lines:
        aligned = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        text.append("  ".join([*aligned, reason]))
    return text


# Reasons that several rows share.
ERROR_KEPT = "error traces that this process started are kept at every sampling rate"
HANDLED_EXCEPTION = "the span has the exception that an error handler turned into a 5xx"
WEBSOCKET_ROUTE = (
    "a WebSocket's resource is its route; with FastAPI it is the raw path, which has unbounded cardinality"
)
MESSAGE_IS_PARENT = (
    "work for a message is a child of that message's span; with FastAPI each span of work starts a new trace"
)
NO_ROUTE = "a path without a route isn't a resource; with FastAPI it is one, which has unbounded cardinality"
INCOMPLETE = "the span records that the response was cut short"
TASK_SAMPLED_LIKE_REQUEST = (
    "a task is sampled like its request; FastAPI makes a second decision, so a kept request can lack its task"
)

# The fields in order: scenario, span, attribute, Quart's value, FastAPI's value, verdict, reason.
TABLE = [
    # Names.
    Row(
        "*",
        "request*",
        "name",
        "asgi.request",
        "fastapi.request",
        SAME,
        "a request's span is named after the integration",
    ),
    Row("*", "*", "component", "asgi", "fastapi", SAME, "the integration's name"),
    Row("*", "websocket.close*", "_dd.svc_src", "asgi", "fastapi", SAME, "the integration's name"),
    Row("*", "request", "http.route", "/*<*>*", "/*{*}*", SAME, "a route in its framework's own syntax"),
    Row("*", "request", "resource", "* /*<*>*", "* /*{*}*", SAME, "a route in its framework's own syntax"),
    Row("*background*", "background task", "name", "quart.*", "fastapi.*", SAME, "named after the framework"),
    Row(
        "*background*",
        "background task",
        "component",
        "quart",
        None,
        BETTER,
        "the span has the component that created it",
    ),
    Row(
        "*background*",
        "background task",
        "resource",
        "*.<locals>.task",
        "task",
        BETTER,
        "the qualified name tells tasks apart",
    ),
    Row(
        "*background*",
        "starlette.background_task",
        "span",
        None,
        "present",
        BETTER,
        "one span per task; FastAPI has two, and the outer one isn't linked to the work in the inner one",
    ),
    Row(
        "json",
        "fastapi.serialize_response",
        "span",
        None,
        "present",
        SAME,
        "Quart has no such step, because the handler creates its response",
    ),
    # Application security.
    Row(
        "*blocked",
        "request",
        "_dd.appsec.normalized_route",
        None,
        "/orders/{order}",
        SAME,
        "ddtrace sets it only for its own integrations; http.route has the route",
    ),
    Row(
        "not blocked",
        "request",
        "http.response.headers.content-type",
        "text/html*",
        "text/plain*",
        SAME,
        "the framework's default",
    ),
    # Servers and frameworks.
    Row("*", "request", "asgi.spec_version", "2.1", "2.3", SERVER, "the version that the server implements"),
    Row("websocket*", "request*", "asgi.spec_version", "2.3", "2.4", SERVER, "the version that the server implements"),
    Row("redirect of strict slashes", "request", "http.status_code", "308", "307", SAME, "the framework's choice"),
    Row(
        "websocket*",
        "websocket.close*",
        "websocket.close.code",
        "1006.0",
        "*",
        SERVER,
        "Hypercorn reports 1006, even if the client sent a code",
    ),
    Row(
        "websocket closed by the client",
        "websocket.close",
        "websocket.close.reason",
        None,
        "bye",
        SERVER,
        "Hypercorn doesn't report the client's reason",
    ),
    Row(
        "websocket unhandled*",
        "websocket.close",
        "span",
        "present",
        None,
        SAME,
        "Quart closes the WebSocket that its handler left open; with FastAPI, uvicorn closes it",
    ),
    Row(
        "websocket 404",
        "websocket.close",
        "span",
        None,
        "present",
        SAME,
        "Quart responds with 404; Starlette closes, and uvicorn responds with 403",
    ),
    # Requests that no route matched.
    Row("404", "request", "resource", "GET 404", "GET /nowhere/42", BETTER, NO_ROUTE),
    Row("websocket 404", "request", "resource", "websocket 404", "websocket /nowhere/42", BETTER, NO_ROUTE),
    Row("redirect of strict slashes", "request", "resource", "GET 308", "GET /slashed/Ada", BETTER, NO_ROUTE),
    Row(
        "405",
        "request",
        "resource",
        "DELETE 405",
        "DELETE /typed/{number}/{name}",
        BETTER,
        "one resource for all methods that clients try",
    ),
    Row("405", "request", "http.route", None, "/typed/{number}/{name}", BETTER, "no route served the request"),
    Row(
        "unknown method",
        "request",
        "resource",
        "OTHER 405",
        "BREW /plain",
        BETTER,
        "a method that a client invented isn't a resource",
    ),
    Row("unknown method", "request", "http.route", None, "/plain", BETTER, "no route served the request"),
    Row("blocked without*", "request", "resource", "GET 404", "GET /nowhere", BETTER, NO_ROUTE),
    Row("response of middleware", "request", "resource", "GET 401", "GET /middleware", BETTER, NO_ROUTE),
    Row("unknown method", "request", "http.method", "OTHER", "BREW", BETTER, "an invented method isn't a useful tag"),
    # Errors. Priority 2 means that the application kept the trace, and _dd.p.dm -4 that this was a manual decision.
    # With FastAPI the sampler decides: 1 keeps the trace by default (-0), and -1 drops it because of a rule (-3).
    # _dd.p.ksr and _dd.rule_psr are the rate of that rule.
    Row("*", "*", "_sampling_priority_v1", "2.0", "1.0", BETTER, ERROR_KEPT),
    Row("*", "*", "_sampling_priority_v1", "2.0", "-1.0", BETTER, ERROR_KEPT),
    Row("*", "*", "_dd.p.dm", "-4", "-0", BETTER, ERROR_KEPT),
    Row("*", "*", "_dd.p.dm", "-4", "-3", BETTER, ERROR_KEPT),
    Row("sampled out*", "request", "_dd.p.ksr", None, "0", BETTER, ERROR_KEPT),
    Row("sampled out*", "request", "_dd.rule_psr", None, "0.0", BETTER, ERROR_KEPT),
    Row("aborted 503", "request", "error.*", "*Service*", None, BETTER, HANDLED_EXCEPTION),
    Row("handled 503", "request", "error.*", "*", None, BETTER, HANDLED_EXCEPTION),
    Row(
        "*", "request", "error.stack", "*", "__call__ > *", SAME, "the same frames, below those of a FastAPI middleware"
    ),
    Row(
        "unhandled in stream",
        "request",
        "http.status_code",
        "200",
        "500",
        BETTER,
        "the client received 200; the span has that status and the error",
    ),
    Row("unhandled in stream", "request", "http.response_incomplete", "true", None, BETTER, INCOMPLETE),
    # Clients that disconnect.
    Row("disconnected in stream", "request", "http.response_incomplete", "true", None, BETTER, INCOMPLETE),
    Row(
        "disconnected*",
        "request",
        "http.client_disconnected",
        "true",
        None,
        BETTER,
        "the span doesn't look like a success",
    ),
    Row(
        "disconnected early",
        "request",
        "http.status_code",
        None,
        "200",
        BETTER,
        "no response was sent; Quart cancels the handler",
    ),
    # Background tasks.
    Row(
        "*background of a failed request",
        "background task",
        "span",
        "present",
        None,
        SAME,
        "Quart starts the task immediately; Starlette discards it with the response",
    ),
    Row("sampled out, background", "background task", "_dd.*psr", None, "0.0", BETTER, TASK_SAMPLED_LIKE_REQUEST),
    Row("sampled out, background", "background task", "_dd.p.ksr", None, "0", BETTER, TASK_SAMPLED_LIKE_REQUEST),
    # Outbound calls.
    Row(
        "call *",
        "http.request",
        "resource",
        "* 127.0.0.1/*",
        "http.request",
        BETTER,
        "a readable resource; with FastAPI the resource is only the span's name",
    ),
    Row("call *", "http.request", "*peer.service*", "*", None, BETTER, "the span has the peer's name"),
    # WebSockets. *resource also matches _dd.dm.resource, the resource of the handshake's span.
    Row("websocket*", "request*", "http.route", "/ws/<room>*", None, BETTER, WEBSOCKET_ROUTE),
    Row("websocket*", "*", "*resource", "websocket /ws/<room>*", "websocket /ws/lounge*", BETTER, WEBSOCKET_ROUTE),
    Row("websocket*", "request*", "http.status_code", "101", None, BETTER, "the status of the handshake"),
    Row("websocket refused", "request", "http.status_code", "403", None, BETTER, "the status of the handshake"),
    Row("websocket 404", "request", "http.status_code", "404", None, BETTER, "the status of the handshake"),
    Row(
        "websocket unhandled*",
        "quart.websocket",
        "span",
        "present",
        None,
        BETTER,
        "an exception in an open WebSocket has a span that is kept; FastAPI loses the exception",
    ),
    Row(
        "websocket*",
        "websocket.receive of no message*",
        "span",
        None,
        "present",
        BETTER,
        "the opening of a WebSocket isn't a message, so it has no span",
    ),
    Row(
        "websocket*",
        "websocket.close*",
        "links",
        "websocket.receive of no message {*",
        "websocket.receive of no message #2 {*",
        SAME,
        "with FastAPI the opening of the WebSocket has the first span of this kind",
    ),
    Row("websocket busy when closed", "work: *", "parent", "websocket.receive", "none", BETTER, MESSAGE_IS_PARENT),
    Row(
        "websocket busy when closed",
        "work: *",
        "trace",
        "that of websocket.receive",
        "that of work: *",
        BETTER,
        MESSAGE_IS_PARENT,
    ),
    Row("websocket busy when closed", "work: *", "_dd.p.dm", None, "-0", BETTER, MESSAGE_IS_PARENT),
    # Probes.
    Row(
        "probe*",
        "request",
        "span",
        None,
        "present",
        BETTER,
        "a probe creates no span; FastAPI's integration has no setting for probes",
    ),
]
