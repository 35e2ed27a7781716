"""Tests of the stop, beyond the drills: the deadline, Ctrl-C, the last spans, and clients that could delay it."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from fake_http import fake_http
from running import Agent, service, wait_until_in_flight
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect


def test_a_request_that_never_ends_is_canceled_at_the_deadline(agent: Agent) -> None:
    """The client gets a 503 with the trace id, the span is marked as an error, and the exit code is 0."""
    with (
        service(agent.url, {"FAULTS": "true", "GRACEFUL_SECONDS": "0.5"}) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        pending = pool.submit(httpx.get, f"{running.url}/api/faults/slow?seconds=600", timeout=60)
        wait_until_in_flight(running, 1)
        code = running.stop(timeout=15)
        response = pending.result(10)
    (span,) = [span for span in agent.spans() if span["resource"] == "GET /api/faults/slow"]

    assert code == 0
    assert response.status_code == 503
    assert response.json()["type"] == "urn:hello-service:problem:stopping"
    # The tag has the upper 64 bits of the trace id.
    assert response.json()["trace_id"] == f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}"
    assert span["error"] == 1
    assert span["meta"]["http.status_code"] == "503"
    assert span["meta"]["error.message"] == "still running 0.5 s after the server began to stop"
    assert any(entry["event"] == "deadline" and entry["in_flight"] == 1 for entry in running.log)


def test_a_websocket_is_closed_when_the_server_stops(agent: Agent) -> None:
    """The close code is 1012, service restart."""
    with service(agent.url, {"GRACEFUL_SECONDS": "0.2"}) as running:
        with connect(running.url.replace("http", "ws") + "/api/hello/ws") as client:
            client.send("Ada")
            client.recv()
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosedError) as closed:
                client.recv(timeout=15)
        code = running.wait()

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert code == 0


def test_a_client_that_does_not_read_does_not_delay_the_exit(agent: Agent) -> None:
    """The connection is dropped at the end of the budget, although a part of the 20 MB response is still unsent."""
    with (
        fake_http("x" * 1_000_000) as upstream,
        service(agent.url, {"GRACEFUL_SECONDS": "0.2", "UPSTREAM_URL": upstream.url}) as running,
    ):
        port = int(running.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /api/relay?count=20 HTTP/1.1\r\nhost: x\r\n\r\n")
            received_bytes = len(client.recv(1))
            code = running.stop(timeout=30)
            with suppress(ConnectionResetError):
                while data := client.recv(1_000_000):
                    received_bytes += len(data)

    assert code == 0
    assert 100_000 < received_bytes < 20_000_000  # some of the response was sent, and the rest was dropped


def test_ctrl_c_does_not_drain(agent: Agent) -> None:
    """No load balancer sends traffic to a service that runs in a terminal."""
    with service(agent.url, {"DRAIN_SECONDS": "100"}) as running:
        code = running.stop(signal.SIGINT, timeout=10)

    assert code == 0


def test_the_stop_sends_the_last_spans(agent: Agent) -> None:
    """The tracer sends spans at intervals, so some are unsent when the signal arrives."""
    with service(agent.url, {"DD_TRACE_WRITER_INTERVAL_SECONDS": "60"}) as running:
        httpx.get(f"{running.url}/api/hello")
        spans_before_stop = agent.spans()
        running.stop()

    assert spans_before_stop == []
    assert [span["resource"] for span in agent.spans()] == ["GET /api/hello"]


def test_an_agent_that_hangs_does_not_delay_the_exit() -> None:
    """The agent accepts connections and never responds. The log counts the traces that could not be sent."""
    with socket.create_server(("127.0.0.1", 0)) as hanging_agent:
        url = f"http://127.0.0.1:{hanging_agent.getsockname()[1]}"
        with service(url, {"FLUSH_SECONDS": "1"}) as running:
            httpx.get(f"{running.url}/api/hello")
            code = running.stop(timeout=20)  # ddtrace's own shutdown would take half a minute
            lost = [entry for entry in running.log if entry["event"] == "traces lost"]

    assert code == 0
    assert [entry["reason"] for entry in lost] == ["the agent did not accept them within 1 s of the shutdown"]
