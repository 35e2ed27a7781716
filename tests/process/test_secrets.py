"""Tests that no secret leaves the process: each input contains marked secrets, and each output is searched for them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping

import httpx
import pytest
from fake_http import fake_http
from running import SERVE, Agent, clean_environment, eventually, service
from websockets.sync.client import connect

MARK = "s3cr3t"  # a part of each secret
ENVIRONMENT = {
    "DD_API_KEY": f"{MARK}0123456789abcdef0123456789abcdef",
    "DD_APP_KEY": f"{MARK}-app-key",
    "DATABASE_SECRET": f"{MARK}-of-a-database",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}-of-aws",
}
HEADERS = {
    "Authorization": f"Bearer {MARK}-bearer",
    "Proxy-Authorization": f"Basic {MARK}-proxy",
    "Cookie": f"session={MARK}-cookie",
    "X-Api-Key": f"{MARK}-api-key",
    "X-Forwarded-For": f"{MARK}-address",
}
QUERY = f"token={MARK}-token&password={MARK}-password&api_key={MARK}-key&secret={MARK}-secret"


def send_secrets(url: str) -> Iterator[httpx.Response]:
    """Send secrets in headers, queries and bodies, in requests that succeed and requests that fail."""
    with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client:
        for path in ("/", "/api/hello", "/api/relay", "/api/faults/error", "/nope", "/info", "/docs", "/openapi.json"):
            yield client.get(f"{path}?{QUERY}")
        yield client.get(f"/api/hello?name=&{QUERY}")
        yield client.delete(f"/api/hello?{QUERY}")
        yield client.post(f"/api/hello?{QUERY}", json={"password": f"{MARK}-body"})
        yield client.post("/api/hello", json={"name": {"password": f"{MARK}-body"}})
        yield client.post(
            "/api/hello", content=f'{{"password": "{MARK}-body"', headers={"Content-Type": "application/json"}
        )
        yield client.post("/api/hello", content=f"password={MARK}-body")
        yield client.get("/api/hello", headers={"Host": f"ada:{MARK}-host@localhost"})


@pytest.mark.parametrize("upstream_status", [200, 500, 302])
def test_no_secret_leaves_the_process(agent: Agent, upstream_status: int) -> None:
    """No secret is in spans, stats, the log, responses or `/info`."""
    with fake_http({"ok": True}, status=upstream_status, headers={"Location": f"/{MARK}?x=1"}) as upstream:
        upstream_url = upstream.url.replace("//", f"//ada:{MARK}-url@") + f"/x?token={MARK}-of-the-url"
        with service(agent.url, {**ENVIRONMENT, "UPSTREAM_URL": upstream_url, "FAULTS": "true"}) as running:
            responses = [
                f"{response.status_code} {response.headers} {response.text}" for response in send_secrets(running.url)
            ]
            with connect(
                f"{running.url.replace('http', 'ws')}/api/hello/ws?{QUERY}", additional_headers=HEADERS
            ) as socket:
                socket.send(f"{MARK}\0")  # an invalid name, which the response must not repeat
                responses.append(str(socket.recv()))
            # The request with the invalid Host is rejected before it is logged and traced.
            expected_count = len(responses) - 1
            eventually(lambda: len(running.requests()), lambda count: count >= expected_count)
            running.stop()
    outputs = {
        "spans": json.dumps(agent.wait_for_spans(expected_count)),
        "stats": json.dumps(eventually(agent.stats), default=str),
        "log": "\n".join(running.lines),
        "responses": "\n".join(responses),
    }

    assert "GET /api/relay" in outputs["spans"]
    assert leaks(outputs) == {}


def leaks(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the text around the first secret of each output that has one."""
    excerpts = {}
    for name, text in outputs.items():
        if MARK in text:
            position = text.index(MARK)
            excerpts[name] = text[max(0, position - 200) : position + 100]
    return excerpts


def test_a_failed_start_shows_no_secret() -> None:
    """The error message has the variable's name, but not the credentials in its value."""
    invalid = {"UPSTREAM_URL": f"ftp://ada:{MARK}-url@host/?token={MARK}", "DD_TRACE_AGENT_URL": f"ada:{MARK}@host"}
    environment = clean_environment({**ENVIRONMENT, **invalid})
    result = subprocess.run(SERVE, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 1
    assert "UPSTREAM_URL" in result.stderr
    assert MARK not in result.stdout + result.stderr


def test_client_addresses_are_not_recorded(agent: Agent) -> None:
    """No address is logged or put on spans, so no header can forge one. An operator can make ddtrace record addresses
    with one of its own settings.
    """
    headers = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP"), "203.0.113.7")
    with service(agent.url) as running:
        httpx.get(f"{running.url}/api/hello", headers=headers)
        spans = agent.wait_for_spans(1)
        (line,) = eventually(lambda: running.requests("/api/hello"))

    assert "203.0.113.7" not in json.dumps([spans, line])
