"""The one table of what is not the same in Quart and in FastAPI, each line with its reason.

Whatever differs and is not here fails the test of its scenario; a line that nothing needs any more fails, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from conformance.comparison import Difference

SAME = "same meaning"
BETTER = "better here"
SERVER = "the server's"


@dataclass(frozen=True)
class Line:
    """Differences that are right. All are patterns as in a shell; None: a side does not have the attribute.

    `verdict` is SAME (other words for one thing), BETTER (tracing.py says more, or what is true, where ddtrace's FastAPI
    integration does not) or SERVER (Hypercorn and uvicorn tell their applications different things).
    """

    scenario: str
    span: str
    attribute: str
    quart: str | None
    fastapi: str | None
    verdict: str
    reason: str

    def covers(self, scenario: str, found: Difference) -> bool:
        """Whether this line explains `found` in `scenario`."""
        return (
            fnmatchcase(scenario, self.scenario)
            and fnmatchcase(found.span, self.span)
            and fnmatchcase(found.attribute, self.attribute)
            and _matches(found.quart, self.quart)
            and _matches(found.fastapi, self.fastapi)
        )


def _matches(value: str | None, pattern: str | None) -> bool:
    return value is None if pattern is None else value is not None and fnmatchcase(value, pattern)


def render(lines: Sequence[Line]) -> list[str]:
    """Return the table as lines of text."""
    rows = [
        ["verdict", "scenario", "span · attribute", "Quart", "FastAPI", "reason"],
        *(
            [
                line.verdict,
                line.scenario,
                f"{line.span} · {line.attribute}",
                line.quart or "—",
                line.fastapi or "—",
                line.reason,
            ]
            for line in sorted(lines, key=lambda line: [BETTER, SAME, SERVER].index(line.verdict))
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows]


KEPT = "an error trace that this process started is kept, whatever the rate"
TYPED = "the exception that an error handler answered with a 5xx is on the span"
WHERE = "a WebSocket is named by its route; FastAPI's is named by its raw path: unbounded cardinality"
MESSAGE = "what a handler does for a message belongs to that message; FastAPI's is a trace of its own each time"
NO_ROUTE = "a path that nothing serves is no resource: FastAPI's is the raw path, unbounded cardinality"

CUT = "a response that broke off says so"
FOLLOWS = "kept or not as its request is: FastAPI's decides again, so a kept request can miss its task"

TABLE = [
    # Names.
    Line(
        "*", "request*", "name", "asgi.request", "fastapi.request", SAME, "the span of a request, after the integration"
    ),
    Line("*", "*", "component", "asgi", "fastapi", SAME, "the integration's name"),
    Line("*", "websocket.close*", "_dd.svc_src", "asgi", "fastapi", SAME, "the integration's name"),
    Line("*", "request", "http.route", "/*<*>*", "/*{*}*", SAME, "a route in its framework's own syntax"),
    Line("*", "request", "resource", "* /*<*>*", "* /*{*}*", SAME, "a route in its framework's own syntax"),
    Line("*background*", "background task", "name", "quart.*", "fastapi.*", SAME, "after the framework"),
    Line("*background*", "background task", "component", "quart", None, BETTER, "the span says what made it"),
    Line(
        "*background*",
        "background task",
        "resource",
        "*.<locals>.task",
        "task",
        BETTER,
        "the qualified name tells tasks apart",
    ),
    Line(
        "*background*",
        "starlette.background_task",
        "span",
        None,
        "present",
        BETTER,
        "one span for one task; FastAPI has two, the outer unlinked from what the inner does",
    ),
    Line(
        "json",
        "fastapi.serialize_response",
        "span",
        None,
        "present",
        SAME,
        "Quart has no such step: a handler makes its response",
    ),
    # Application security.
    Line(
        "*blocked",
        "request",
        "_dd.appsec.normalized_route",
        None,
        "/orders/{order}",
        SAME,
        "ddtrace writes it for its own integrations; http.route is there",
    ),
    Line(
        "not blocked",
        "request",
        "http.response.headers.content-type",
        "text/html*",
        "text/plain*",
        SAME,
        "the framework's default",
    ),
    # Servers.
    Line("*", "request", "asgi.spec_version", "2.1", "2.3", SERVER, "what the server implements"),
    Line("websocket*", "request*", "asgi.spec_version", "2.3", "2.4", SERVER, "what the server implements"),
    Line("redirect of strict slashes", "request", "http.status_code", "308", "307", SAME, "the framework's choice"),
    Line(
        "websocket*",
        "websocket.close*",
        "websocket.close.code",
        "1006.0",
        "*",
        SERVER,
        "Hypercorn reports 1006 whatever the client sent",
    ),
    Line(
        "websocket closed by the client",
        "websocket.close",
        "websocket.close.reason",
        None,
        "bye",
        SERVER,
        "Hypercorn does not report it",
    ),
    Line(
        "websocket unhandled*",
        "websocket.close",
        "span",
        "present",
        None,
        SAME,
        "Quart closes what its handler left open; uvicorn does, unasked",
    ),
    Line(
        "websocket 404",
        "websocket.close",
        "span",
        None,
        "present",
        SAME,
        "Quart answers 404; Starlette closes, and uvicorn answers 403",
    ),
    # What no route matched.
    Line("404", "request", "resource", "GET 404", "GET /nowhere/42", BETTER, NO_ROUTE),
    Line("websocket 404", "request", "resource", "websocket 404", "websocket /nowhere/42", BETTER, NO_ROUTE),
    Line("redirect of strict slashes", "request", "resource", "GET 308", "GET /slashed/Ada", BETTER, NO_ROUTE),
    Line(
        "405",
        "request",
        "resource",
        "DELETE 405",
        "DELETE /typed/{number}/{name}",
        BETTER,
        "one resource for what clients try",
    ),
    Line("405", "request", "http.route", None, "/typed/{number}/{name}", BETTER, "no route has served it"),
    Line(
        "method unknown",
        "request",
        "resource",
        "OTHER 405",
        "BREW /plain",
        BETTER,
        "a method that a client made up is no resource",
    ),
    Line("method unknown", "request", "http.route", None, "/plain", BETTER, "no route has served it"),
    Line("blocked where*", "request", "resource", "GET 404", "GET /nowhere", BETTER, NO_ROUTE),
    Line("layer", "request", "resource", "GET 401", "GET /layer", BETTER, NO_ROUTE),
    Line("method unknown", "request", "http.method", "OTHER", "BREW", BETTER, "it is no tag to group by, either"),
    # Errors.
    Line("*", "*", "_sampling_priority_v1", "2.0", "1.0", BETTER, KEPT),
    Line("*", "*", "_sampling_priority_v1", "2.0", "-1.0", BETTER, KEPT),
    Line("*", "*", "_dd.p.dm", "-4", "-0", BETTER, KEPT),
    Line("*", "*", "_dd.p.dm", "-4", "-3", BETTER, KEPT),
    Line("sampled out*", "request", "_dd.p.ksr", None, "0", BETTER, KEPT),
    Line("sampled out*", "request", "_dd.rule_psr", None, "0.0", BETTER, KEPT),
    Line("aborted 503", "request", "error.*", "*Service*", None, BETTER, TYPED),
    Line("handled 503", "request", "error.*", "*", None, BETTER, TYPED),
    Line(
        "*", "request", "error.stack", "*", "__call__ > *", SAME, "the same frames, below those of a FastAPI middleware"
    ),
    Line(
        "unhandled in stream",
        "request",
        "http.status_code",
        "200",
        "500",
        BETTER,
        "200 is what the client was told; the error is on the span all the same",
    ),
    Line("unhandled in stream", "request", "http.response_incomplete", "true", None, BETTER, CUT),
    # Clients that go away.
    Line("disconnected in stream", "request", "http.response_incomplete", "true", None, BETTER, CUT),
    Line(
        "disconnected*",
        "request",
        "http.client_disconnected",
        "true",
        None,
        BETTER,
        "what looks like a success is none",
    ),
    Line(
        "disconnected early",
        "request",
        "http.status_code",
        None,
        "200",
        BETTER,
        "no response was sent; Quart cancels the handler",
    ),
    # Background tasks.
    Line(
        "*background of a failed request",
        "background task",
        "span",
        "present",
        None,
        SAME,
        "Quart starts a task when asked; Starlette forgets it with the response",
    ),
    Line("sampled out, background", "background task", "_dd.*psr", None, "0.0", BETTER, FOLLOWS),
    Line("sampled out, background", "background task", "_dd.p.ksr", None, "0", BETTER, FOLLOWS),
    # Outbound calls.
    Line(
        "call *",
        "http.request",
        "resource",
        "* 127.0.0.1/*",
        "http.request",
        BETTER,
        "a resource that a person can read; FastAPI's is literally http.request",
    ),
    Line("call *", "http.request", "*peer.service*", "*", None, BETTER, "the peer is named"),
    # WebSockets.
    Line("websocket*", "request*", "http.route", "/ws/<room>*", None, BETTER, WHERE),
    Line("websocket*", "*", "*resource", "websocket /ws/<room>*", "websocket /ws/lounge*", BETTER, WHERE),
    Line("websocket*", "request*", "http.status_code", "101", None, BETTER, "the handshake's answer"),
    Line("websocket refused", "request", "http.status_code", "403", None, BETTER, "the handshake's answer"),
    Line("websocket 404", "request", "http.status_code", "404", None, BETTER, "the handshake's answer"),
    Line(
        "websocket unhandled*",
        "quart.websocket",
        "span",
        "present",
        None,
        BETTER,
        "an exception in an open socket has a span, and is kept; FastAPI loses it",
    ),
    Line(
        "websocket*",
        "websocket.receive of no message*",
        "span",
        None,
        "present",
        BETTER,
        "no span for the opening of the socket, which receives nothing",
    ),
    Line(
        "websocket*",
        "websocket.close*",
        "links",
        "websocket.receive of no message {*",
        "websocket.receive of no message #2 {*",
        SAME,
        "the first of FastAPI's is of the opening",
    ),
    Line("websocket busy when closed", "work: *", "parent", "websocket.receive", "none", BETTER, MESSAGE),
    Line(
        "websocket busy when closed",
        "work: *",
        "trace",
        "that of websocket.receive",
        "that of work: *",
        BETTER,
        MESSAGE,
    ),
    Line("websocket busy when closed", "work: *", "_dd.p.dm", None, "-0", BETTER, MESSAGE),
    # Probes.
    Line(
        "probe*",
        "request",
        "span",
        None,
        "present",
        BETTER,
        "a probe leaves nothing; FastAPI's integration has no such setting",
    ),
]
