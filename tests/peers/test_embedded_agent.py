"""Tests of the embedded trace agent as a real process: what it accepts, and what it rejects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from running import clean_environment, free_port, started

AGENT = [sys.executable, "-m", "hello_service.localview.agent"]
SPAN = {
    "trace_id": 1,
    "span_id": 2,
    "parent_id": 0,
    "name": "job",
    "resource": "nightly",
    "service": "shell",
    "start": 1_700_000_000_000_000_000,
    "duration": 1_000_000,
    "error": 0,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run an agent that also accepts the Host `agent.example`, and yield its URL."""
    ports = {"--port": free_port(), "--otlp-http-port": free_port(), "--otlp-grpc-port": free_port()}
    arguments = [str(each) for option in ports.items() for each in option]
    command = [*AGENT, *arguments, "--log-level", "ERROR", "--allow-host", "Agent.Example"]
    with started(command, clean_environment()) as running:
        address = f"http://127.0.0.1:{ports['--port']}"
        running.wait_until_responding(f"{address}/info")
        yield address


def drain(url: str) -> Any:
    """Return the traces that the agent has received since the last call."""
    return httpx.get(f"{url}/drain").json()


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("path", ["/v0.3/traces", "/v0.4/traces"])
def test_spans_in_json_are_accepted_as_datadog_documents_them(url: str, method: str, path: str) -> None:
    """Source: Datadog, "Tracing API": PUT /v0.3/traces with a list of lists of spans."""
    response = httpx.request(method, f"{url}{path}", json=[[SPAN]])

    assert response.status_code == 200
    assert [[span["name"] for span in trace] for trace in drain(url)] == [["job"]]


@pytest.mark.parametrize("path", ["/drain", "/test/session/traces", "/info", "/v0.4/traces"])
@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Host": "a..b"}, {"Origin": "http://evil.example"}])
def test_requests_from_other_sites_are_rejected(url: str, path: str, header: dict[str, str]) -> None:
    method = "PUT" if path == "/v0.4/traces" else "GET"
    response = httpx.request(method, f"{url}{path}", headers=header)

    assert response.status_code == 403
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("host", ["localhost:8126", "datadog-agent:8126", "host.docker.internal", "agent.example"])
def test_local_names_are_accepted(url: str, host: str) -> None:
    assert httpx.get(f"{url}/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/vcr/openai/v1/models", {}),
        ("/test/settings", {}),
        ("/v0.4/traces", {"X-Datadog-Proxy-Port": "9999"}),
        ("/v0.4/traces", {"X-Datadog-Agent-Proxy-Disabled": "false"}),
    ],
)
def test_nothing_is_forwarded_to_another_machine(url: str, path: str, header: dict[str, str]) -> None:
    response = httpx.post(f"{url}{path}", headers=header, json=[[SPAN]])

    assert response.status_code == 403
    assert "forwards nothing" in response.json()["error"]
    assert drain(url) == []
