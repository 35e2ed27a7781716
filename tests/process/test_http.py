"""Tests of HTTP in the real process: the implementation in use, the stop, and the traces of rejected requests."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from urllib.parse import urlsplit

import httpx
import pytest
from running import BARE, MACHINE, Agent, eventually, service
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

NO_AGENT = "http://127.0.0.1:1"
CLIENTS = 12


def raw(url: str, sent: bytes) -> socket.socket:
    """Connect and send `sent`."""
    address = urlsplit(url)
    client = socket.create_connection((address.hostname, address.port), timeout=30)
    client.sendall(sent)
    return client


@pytest.mark.parametrize("implementation", ["httptools", "hypercorn", "bare"])
def test_the_api_is_served_by_each_implementation(implementation: str) -> None:
    bare = implementation == "bare"
    settings = {} if bare else {"HTTP_IMPLEMENTATION": implementation}
    with (
        service(NO_AGENT, settings, BARE if bare else MACHINE) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        hello = client.get("/api/hello?name=Ada")
        posted = client.post("/api/hello", json={"name": "Ada"})
        stream = client.get("/api/hello/stream?count=2")
        missing = client.get("/nope")
        with connect(running.url.replace("http", "ws") + "/api/hello/ws") as websocket:
            websocket.send("Ada")
            greeting = websocket.recv()
        code = running.stop()
        unlimited = [line for line in running.log if "no timeout" in line["event"] or "no effect" in line["event"]]

    assert [hello.json(), posted.json()] == [{"message": "Hello, Ada!"}] * 2
    assert len(unlimited) == (implementation != "httptools")
    assert stream.text.count("data: ") == 2
    assert missing.headers["content-type"] == "application/problem+json"
    assert (greeting, code) == ("Hello, Ada!", 0)


@pytest.mark.parametrize("round_", range(2))
def test_every_executed_request_gets_its_response_when_the_server_stops(round_: int) -> None:
    """The clients open a connection for each request."""
    responses: Counter[str] = Counter()
    lock = threading.Lock()

    def send_requests(url: str, number: int) -> None:
        for count in range(100_000):
            name = f"{number}-{count}"
            try:
                httpx.get(f"{url}/api/hello", params={"name": name}, timeout=10)
            except httpx.ConnectError:
                return  # the listener is closed
            except httpx.TransportError:
                continue
            with lock:
                responses["200"] += 1

    with service(NO_AGENT, {"DRAIN_SECONDS": "0.3"}) as running:
        threads = [threading.Thread(target=send_requests, args=(running.url, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        eventually(lambda: responses["200"], lambda count: count > 5 * CLIENTS)
        code = running.stop()
        for thread in threads:
            thread.join()
        executed = len(running.requests("/api/hello"))

    assert code == 0
    assert executed == responses["200"]


def test_disconnected_clients_do_not_delay_the_stop() -> None:
    """This holds whatever they sent after their requests."""
    with service(NO_AGENT, {"GRACEFUL_SECONDS": "60", "FAULTS": "true"}) as running:
        for more in (b"", b"x", b"GET / HTTP/1.1\r\n"):
            for path in (b"/api/hello/stream?count=20", b"/api/faults/slow?seconds=600"):
                raw(running.url, b"GET " + path + b" HTTP/1.1\r\nHost: here\r\n\r\n" + more).close()
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
    assert (closed.value.rcvd.code, code) == (1012, 0)


def test_rejected_requests_are_logged_and_counted() -> None:
    with service(NO_AGENT) as running:
        for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n"):
            with raw(running.url, sent) as client:
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        counts = httpx.get(f"{running.url}/info").json()["rejected_requests"]
        lines = [line for line in running.log if line["event"] == "request rejected"]

    assert counts == {"malformed": 1, "host": 2}
    assert [line["reason"] for line in lines] == ["malformed", "host", "host"]
    assert all(line["client"] == "127.0.0.1" for line in lines)


def test_a_websocket_handshake_has_the_trace_id(agent: Agent) -> None:
    """The trace id is in the response to the handshake, accepted or not."""
    with service(agent.url) as running:
        url = running.url.replace("http", "ws")
        with connect(f"{url}/api/hello/ws") as websocket:
            assert websocket.response is not None
            accepted = websocket.response.headers["traceresponse"]
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{url}/nope")
        spans = agent.wait_for_spans(2)

    ids = {accepted, refused.value.response.headers["traceresponse"]}
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert {value.split("-")[2] for value in ids} <= {f"{span['span_id']:016x}" for span in spans}
