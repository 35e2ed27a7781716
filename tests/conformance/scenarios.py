"""The scenarios: their names, the requests that they send, and the number of spans to wait for from each service."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from conformance.services import Service
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

Send = Callable[[Service], None]

# The ids of the examples in W3C Trace Context.
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED_TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
UNSAMPLED_TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-00"
# The same ids in Datadog's headers: in decimal, and only the lower half of the trace id.
DATADOG_HEADERS = {"x-datadog-trace-id": "9532127138774266268", "x-datadog-parent-id": "13235353014750950193"}
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True)
class Scenario:
    """A name, and a function that sends the scenario's requests to a service.

    `span_counts` has the numbers of spans to wait for, from Quart and from FastAPI. A service may send more, and all of
    them are compared. `environment` has additional variables for both services.
    """

    name: str
    send: Send
    span_counts: tuple[int, int] = (1, 1)
    environment: Mapping[str, str] = field(default_factory=dict)


def get(path: str, **headers: str) -> Send:
    """Return a function that sends a GET. Underscores in the names of headers become dashes."""
    dashed = {name.replace("_", "-"): value for name, value in headers.items()}

    def send(service: Service) -> None:
        service.client.get(service.url + path, headers=dashed)

    return send


def request(method: str, path: str, content: bytes | None = None) -> Send:
    """Return a function that sends a request with `method`."""

    def send(service: Service) -> None:
        service.client.request(method, service.url + path, content=content)

    return send


def get_incomplete(path: str) -> Send:
    """Return a function that sends a GET whose response breaks off."""

    def send(service: Service) -> None:
        with suppress(httpx.RemoteProtocolError):
            service.client.get(service.url + path)

    return send


def get_and_release(path: str, name: str) -> Send:
    """Return a function that sends a GET and, after the response, creates the file that a background task waits for."""

    def send(service: Service) -> None:
        service.client.get(service.url + path)
        service.release(name)

    return send


def open_request(service: Service, path: str) -> socket.socket:
    """Send a request for `path`, and return its connection without reading the response."""
    address = urlsplit(service.url)
    connection = socket.socket()
    # The buffer is small, so that the server must wait for a client that doesn't read.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.connect((address.hostname, address.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return connection


def read_until(connection: socket.socket, end: bytes) -> None:
    """Read until `end` is received or the connection is closed."""
    tail = b""
    while end not in tail and (part := connection.recv(65_536)):
        tail = tail[-len(end) :] + part


def read_waiting_stream(service: Service) -> None:
    with open_request(service, "/stream/waiting") as connection:
        read_until(connection, b"first")
        service.release("stream")
        read_until(connection, LAST_CHUNK)


def disconnect_in_stream(service: Service) -> None:
    with open_request(service, "/stream/endless") as connection:
        read_until(connection, b"more")
    service.wait_for_file("ended")


def disconnect_early(service: Service) -> None:
    """Disconnect while the handler runs, before it has returned a response."""
    with open_request(service, "/waiting"):
        service.wait_for_file("started")
    if service.name == "fastapi":
        service.release("handler")  # FastAPI doesn't cancel the handler
    service.wait_for_file("ended")


def read_large_response(service: Service) -> None:
    """Read the start of a response that is larger than all buffers, and then the rest."""
    with open_request(service, "/stream/large") as connection:
        read_until(connection, b"xxx")  # the body consists of this letter
        read_until(connection, LAST_CHUNK)


def websocket(path: str, *messages: str | bytes, **headers: str) -> Send:
    """Return a function that opens a WebSocket, sends each message and reads its reply, and closes with 1000."""
    dashed = {name.replace("_", "-"): value for name, value in headers.items()}

    def send(service: Service) -> None:
        # In some scenarios the handler closes the WebSocket, or refuses to open it.
        with suppress(ConnectionClosed, InvalidStatus), connect_websocket(service, path, dashed) as connection:
            for message in messages:
                connection.send(message)
                connection.recv(timeout=10)

    return send


def close_websocket(service: Service) -> None:
    with connect_websocket(service, "/ws/lounge", {}) as connection:
        connection.send("hello")
        connection.recv(timeout=10)
        connection.close(4002, "bye")


def close_busy_websocket(service: Service) -> None:
    """Close a WebSocket while its handler is running."""
    with connect_websocket(service, "/ws/lounge/works", {}) as connection:
        connection.send("hello")
        connection.recv(timeout=10)
        connection.recv(timeout=10)
    service.wait_for_file("ended")


def open_two_websockets(service: Service) -> None:
    """Open two WebSockets in turn. In Quart, the second handler also sends to the first WebSocket, which is closed."""
    websocket("/ws/lounge/broadcasts", "one")(service)
    websocket("/ws/lounge/broadcasts", "two")(service)


def connect_websocket(service: Service, path: str, headers: Mapping[str, str]) -> ClientConnection:
    return connect(service.url.replace("http", "ws") + path, additional_headers=headers, compression=None, proxy=None)


# With stats computation, ddtrace sends a dropped trace only if it has an error.
SEND_DROPPED_TRACES = {"DD_TRACE_STATS_COMPUTATION_ENABLED": "false"}
RATE_0 = {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]', **SEND_DROPPED_TRACES}

# Application security with two rules: one on a variable of a route, one on a header.
BLOCKING = {"DD_APPSEC_ENABLED": "true", "DD_APPSEC_RULES": str(Path(__file__).with_name("blocking.json"))}

# The pair of numbers in a scenario is `span_counts`. Without one, each service sends at least one span.
SCENARIOS = [
    Scenario("plain", get("/plain")),
    Scenario("json", get("/json"), (1, 2)),
    Scenario("typed variables", get("/typed/42/Ada")),
    Scenario("nested", get("/outer/inner/leaf/Ada")),
    Scenario("query with secrets", get("/plain?page=2&token=hidden&password=hidden&api_key=hidden")),
    Scenario("body", request("POST", "/body", b"x" * 100_000)),
    Scenario("head", request("HEAD", "/plain")),
    Scenario("options", request("OPTIONS", "/plain")),
    Scenario("404", get("/nowhere/42")),
    Scenario("405", request("DELETE", "/typed/42/Ada")),
    Scenario("unknown method", request("BREW", "/plain")),
    Scenario("redirect", get("/redirect")),
    Scenario("redirect of strict slashes", get("/slashed/Ada")),
    Scenario("aborted 403", get("/abort/403")),
    Scenario("aborted 503", get("/abort/503")),
    Scenario("handled 400", get("/handled/400")),
    Scenario("handled 503", get("/handled/503")),
    Scenario("returned 500", get("/returned/500")),
    Scenario("unhandled", get("/unhandled")),
    Scenario("unhandled exception group", get("/grouped")),
    Scenario("unhandled in before-request hook", get("/hook/before")),
    Scenario("unhandled in after-request hook", get("/hook/after")),
    Scenario("unhandled in stream", get_incomplete("/stream/broken")),
    Scenario("file", get("/file")),
    Scenario("response of middleware", get("/middleware")),
    Scenario("mounted", get("/mounted/users/7")),
    Scenario("behind a proxy", get("/plain", x_forwarded_for="203.0.113.7")),
    Scenario("background partial", get("/background/partial"), (3, 3)),
    Scenario("blocked", request("POST", "/orders/2"), (1, 1), BLOCKING),
    Scenario("not blocked", request("POST", "/orders/1"), (1, 1), BLOCKING),
    Scenario("blocked without a route", get("/nowhere", user_agent="Blocked/1"), (1, 1), BLOCKING),
    Scenario("stream", read_waiting_stream),
    Scenario("slow client", read_large_response),
    Scenario("disconnected in stream", disconnect_in_stream),
    Scenario("disconnected early", disconnect_early),
    Scenario("traceparent", get("/plain", traceparent=SAMPLED_TRACEPARENT)),
    Scenario("traceparent of a dropped trace", get("/plain", traceparent=UNSAMPLED_TRACEPARENT), (0, 0)),
    # In the tracestate, dd is Datadog's part: sampling priority 2 (kept) and the origin. ot is OpenTelemetry's.
    Scenario(
        "traceparent of a kept trace", get("/plain", traceparent=SAMPLED_TRACEPARENT, tracestate="dd=s:2;o:rum,ot=th:8")
    ),
    Scenario("datadog headers", get("/plain", **DATADOG_HEADERS, x_datadog_sampling_priority="1")),
    Scenario(
        "datadog headers of a dropped trace", get("/plain", **DATADOG_HEADERS, x_datadog_sampling_priority="-1"), (0, 0)
    ),
    Scenario("datadog headers of a kept trace", get("/plain", **DATADOG_HEADERS, x_datadog_sampling_priority="2")),
    Scenario("datadog headers without a decision", get("/plain", **DATADOG_HEADERS)),
    Scenario(
        "unhandled, dropped by its caller", get("/unhandled", **DATADOG_HEADERS, x_datadog_sampling_priority="-1")
    ),
    Scenario("unhandled, without a decision", get("/unhandled", **DATADOG_HEADERS)),
    Scenario(
        "both headers",
        get("/plain", traceparent=SAMPLED_TRACEPARENT, **DATADOG_HEADERS, x_datadog_sampling_priority="1"),
    ),
    Scenario(
        "both headers disagree",
        get("/plain", traceparent=SAMPLED_TRACEPARENT, x_datadog_trace_id="7", x_datadog_parent_id="8"),
    ),
    Scenario(
        "malformed headers",
        get("/plain", traceparent="garbage", x_datadog_trace_id="garbage", tracestate=",=,", baggage="%"),
    ),
    Scenario("baggage", get("/plain", baggage="user.id=ada,account.id=7,other=1")),
    Scenario("sync handler", get("/sync"), (2, 2)),
    Scenario("unhandled in a sync handler", get("/sync/unhandled")),
    Scenario("tasks gather", get("/tasks/gather"), (4, 4)),
    Scenario("tasks group", get("/tasks/group"), (4, 4)),
    Scenario("tasks thread", get("/tasks/thread"), (2, 2)),
    Scenario("tasks executor", get("/tasks/executor"), (2, 2)),
    Scenario("background before the response", get("/background/before"), (3, 3)),
    Scenario("background after the response", get_and_release("/background/after", "background"), (3, 3)),
    Scenario("background thread", get("/background/thread"), (3, 3)),
    Scenario("background unhandled", get("/background/unhandled"), (2, 2)),
    Scenario("background of a failed request", get_and_release("/background/failed", "background"), (2, 1)),
    Scenario("call success", get("/call/success"), (2, 2)),
    Scenario("call redirect", get("/call/redirect"), (2, 2)),
    Scenario("call error", get("/call/error"), (2, 2)),
    Scenario("call refused", get("/call/refused"), (2, 2)),
    Scenario("call timeout", get("/call/timeout"), (2, 2)),
    Scenario("call canceled", get("/call/canceled"), (2, 2)),
    Scenario("call streamed", get("/call/streamed"), (2, 2)),
    # A WebSocket has a span for its handshake, for each message received or sent, and for its close. These counts leave
    # out the span of a disconnect.
    Scenario("websocket", websocket("/ws/lounge", "hello", b"hello"), (6, 6)),
    Scenario(
        "websocket with trace headers",
        websocket("/ws/lounge", "hello", traceparent=SAMPLED_TRACEPARENT, baggage="user.id=ada"),
        (4, 4),
    ),
    Scenario("websocket closed by the handler", websocket("/ws/lounge", "hello", "close"), (5, 5)),
    Scenario("websocket closed by the client", close_websocket, (4, 4)),
    Scenario("websocket with wait_for", websocket("/ws/lounge/waits", "one", "two"), (6, 6)),
    Scenario("websocket broadcasts", open_two_websockets, (8, 8)),
    Scenario("websocket unhandled", websocket("/ws/lounge", "fail"), (2, 2)),
    Scenario("websocket unhandled after accept", websocket("/ws/lounge/accepts", "hello"), (2, 1)),
    Scenario("websocket busy when closed", close_busy_websocket, (7, 7)),
    Scenario("websocket unhandled before accept", websocket("/ws/lounge/fails"), (1, 1)),
    Scenario("websocket refused", websocket("/ws/lounge/refuses"), (1, 1)),
    Scenario("websocket 404", websocket("/nowhere/42"), (1, 1)),
    Scenario("probe", get("/health"), (0, 1)),
    Scenario("probe with trace headers", get("/health", traceparent=SAMPLED_TRACEPARENT), (0, 1)),
    Scenario("sampled out by its caller", get("/plain", traceparent=UNSAMPLED_TRACEPARENT), (1, 1), RATE_0),
    Scenario(
        "sampled out by a datadog caller",
        get("/plain", **DATADOG_HEADERS, x_datadog_sampling_priority="-1"),
        (1, 1),
        RATE_0,
    ),
    Scenario("kept by its caller", get("/plain", traceparent=SAMPLED_TRACEPARENT), (1, 1), RATE_0),
    Scenario(
        "kept by a datadog caller", get("/plain", **DATADOG_HEADERS, x_datadog_sampling_priority="2"), (1, 1), RATE_0
    ),
    Scenario("sampled out", get("/plain"), (1, 1), RATE_0),
    Scenario("sampled out, unhandled", get("/unhandled"), (1, 1), RATE_0),
    Scenario("sampled out, background", get("/background/before"), (3, 3), RATE_0),
    Scenario(
        "sampled out, background of a failed request",
        get_and_release("/background/failed", "background"),
        (2, 1),
        RATE_0,
    ),
]
