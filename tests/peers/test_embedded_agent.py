"""Tests of the embedded trace agent as a real process: which requests it accepts, and which it rejects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from running import clean_environment, free_ports, started

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
    port, otlp_http, otlp_grpc = free_ports(3)  # the agent does not report a port that it has chosen itself
    command = [*AGENT, "--port", str(port)]
    command += ["--otlp-http-port", str(otlp_http), "--otlp-grpc-port", str(otlp_grpc)]
    command += ["--log-level", "ERROR", "--allow-host", "Agent.Example"]
    with started(command, clean_environment()) as running:
        agent_url = f"http://127.0.0.1:{port}"
        running.wait_until_responding(f"{agent_url}/info")
        yield agent_url


def drain(url: str) -> Any:
    """Remove and return the traces that the agent has received since the last call."""
    return httpx.get(f"{url}/drain").json()


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("path", ["/v0.3/traces", "/v0.4/traces"])
def test_spans_in_json_are_accepted(url: str, method: str, path: str) -> None:
    """Datadog's "Tracing API" documents PUT /v0.3/traces with a list of traces, each of them a list of spans."""
    response = httpx.request(method, f"{url}{path}", json=[[SPAN]])

    assert response.status_code == 200
    assert [[span["name"] for span in trace] for trace in drain(url)] == [["job"]]


@pytest.mark.parametrize("path", ["/drain", "/test/session/traces", "/info", "/v0.4/traces"])
@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Host": "a..b"}, {"Origin": "http://evil.example"}])
def test_requests_from_other_sites_are_rejected(url: str, path: str, header: dict[str, str]) -> None:
    """With DNS rebinding, the domain name of a web page resolves to this machine. `a..b` is not a valid name."""
    method = "PUT" if path == "/v0.4/traces" else "GET"
    response = httpx.request(method, f"{url}{path}", headers=header)

    assert response.status_code == 403
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("host", ["localhost:8126", "datadog-agent:8126", "host.docker.internal", "agent.example"])
def test_local_and_allowed_host_names_are_accepted(url: str, host: str) -> None:
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
    """ddapm-test-agent, the base of the embedded agent, has paths and headers that forward requests or configure it to."""
    response = httpx.post(f"{url}{path}", headers=header, json=[[SPAN]])

    assert response.status_code == 403
    assert "forwards nothing" in response.json()["error"]
    assert drain(url) == []
