"""Tests of HTTP in a real process: each HTTP implementation, the stop, rejected requests and WebSocket handshakes."""

from __future__ import annotations

import signal
import socket
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from running import PLAIN_HYPERCORN, SERVE_TEST_ENDPOINTS, Agent, eventually, service
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

NO_AGENT = "http://127.0.0.1:1"  # nothing listens on this port
CLIENTS = 12  # several, so that requests are in flight when the stop begins


def connect_and_send(url: str, data: bytes) -> socket.socket:
    """Connect to the service, send `data` and return the open connection."""
    address = urlsplit(url)
    client = socket.create_connection((address.hostname, address.port), timeout=30)
    client.sendall(data)
    return client


@pytest.mark.parametrize("implementation", ["httptools", "hypercorn", "plain hypercorn"])
def test_the_api_is_served_by_each_implementation(implementation: str) -> None:
    """One warning is logged if the implementation doesn't enforce every limit."""
    is_plain = implementation == "plain hypercorn"
    settings = {} if is_plain else {"HTTP_IMPLEMENTATION": implementation}
    with (
        service(NO_AGENT, settings, PLAIN_HYPERCORN if is_plain else SERVE_TEST_ENDPOINTS) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        hello = client.get("/api/hello?name=Ada")
        posted = client.post("/api/hello", json={"name": "Ada"})
        stream = client.get("/api/hello/stream?count=2")
        not_found = client.get("/nope")
        with connect(running.url.replace("http", "ws") + "/api/hello/ws") as websocket:
            websocket.send("Ada")
            greeting = websocket.recv()
        code = running.stop()
        # Parts of the warnings WITHOUT_SERVE_WARNING in app.py and HYPERCORN_CLASSES_WARNING in serving/server.py.
        warnings = [line for line in running.log if "no timeout" in line["event"] or "no effect" in line["event"]]

    assert [hello.json(), posted.json()] == [{"message": "Hello, Ada!"}] * 2
    assert len(warnings) == (0 if implementation == "httptools" else 1)
    assert stream.text.count("data: ") == 2
    assert not_found.headers["content-type"] == "application/problem+json"
    assert greeting == "Hello, Ada!"
    assert code == 0


@pytest.mark.parametrize("repetition", range(2))  # the order of events differs from run to run
def test_every_executed_request_gets_its_response_when_the_server_stops(repetition: int) -> None:
    """The clients open a new connection for each request."""
    responses = 0
    lock = threading.Lock()

    def send_requests(url: str) -> None:
        nonlocal responses
        while True:
            try:
                httpx.get(f"{url}/api/hello", timeout=10)
            except httpx.ConnectError:
                return  # the listener is closed
            except httpx.TransportError:
                continue  # no response, so the request must not have been executed
            with lock:
                responses += 1

    with service(NO_AGENT, {"DRAIN_SECONDS": "0.3"}) as running:
        threads = [threading.Thread(target=send_requests, args=[running.url]) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        eventually(lambda: responses, lambda count: count > 5 * CLIENTS)  # on average, five of each client
        code = running.stop()
        for thread in threads:
            thread.join()
        executed = len(running.requests("/api/hello"))

    assert code == 0
    assert executed == responses


def test_disconnected_clients_do_not_delay_the_stop() -> None:
    """This holds whatever the clients sent after their requests."""
    with service(NO_AGENT, {"GRACEFUL_SECONDS": "60", "FAULTS": "true"}) as running:
        for more_data in (b"", b"x", b"GET / HTTP/1.1\r\n"):
            for path in (b"/api/hello/stream?count=20", b"/api/faults/slow?seconds=600"):
                connect_and_send(running.url, b"GET " + path + b" HTTP/1.1\r\nHost: here\r\n\r\n" + more_data).close()
        # The request to /info is itself in flight.
        eventually(lambda: httpx.get(f"{running.url}/info").json()["in_flight"], lambda count: count == 1)
        code = running.stop(timeout=30)
        events = {line["event"] for line in running.log}

    assert code == 0
    assert "deadline" not in events


def test_an_idle_websocket_does_not_delay_the_stop() -> None:
    """The close code is 1012. A WebSocket that only responds to pings counts as idle."""
    with service(NO_AGENT, {"GRACEFUL_SECONDS": "60", "WEBSOCKET_PING_SECONDS": "1"}) as running:
        with connect(running.url.replace("http", "ws") + "/api/hello/ws") as websocket:
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(timeout=20)
        code = running.wait(timeout=30)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert code == 0


def test_rejected_requests_are_logged_and_counted() -> None:
    with service(NO_AGENT) as running:
        for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"):
            with connect_and_send(running.url, data) as client:
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        counts = httpx.get(f"{running.url}/info").json()["rejected_requests"]
        lines = [line for line in running.log if line["event"] == "request rejected"]

    assert counts == {"malformed": 1, "host": 2}
    assert [line["reason"] for line in lines] == ["malformed", "host", "host"]
    assert all(line["client"] == "127.0.0.1" for line in lines)


def test_the_response_to_a_websocket_handshake_has_the_id_of_its_span(agent: Agent) -> None:
    """This holds for accepted and rejected handshakes."""
    with service(agent.url) as running:
        url = running.url.replace("http", "ws")
        with connect(f"{url}/api/hello/ws") as websocket:
            assert websocket.response is not None
            accepted_headers = websocket.response.headers
        with pytest.raises(InvalidStatus) as rejection:
            connect(f"{url}/nope")
        rejection_headers = rejection.value.response.headers
        spans = agent.wait_for_spans(2)

    span_ids = {headers["traceresponse"].split("-")[2] for headers in (accepted_headers, rejection_headers)}
    assert rejection_headers["content-type"] == "application/problem+json"
    assert span_ids <= {f"{span['span_id']:016x}" for span in spans}
