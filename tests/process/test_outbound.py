"""Tests of the requests to the upstream: their headers, their errors, and their host, which no caller can choose."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from drills.connections import connected
from fake_upstream import FakeUpstream, fake_upstream
from running import Agent, service

NO_AGENT = "http://127.0.0.1:1"  # nothing listens on this port
TRACE_HEADERS = {
    "traceparent",
    "tracestate",
    "baggage",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
}
# The headers that every outbound request has, without those of the trace context.
OWN_HEADERS = {"host", "accept", "accept-encoding", "connection", "user-agent"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    """The upstream that the operator configured."""
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture
async def other_server() -> AsyncIterator[FakeUpstream]:
    """A server that the operator did not configure as the upstream."""
    async with fake_upstream() as fake:
        yield fake


def parse_headers(head: str) -> dict[str, str]:
    """Return the headers in a request's head, with lower-case names."""
    _request_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    fields = [line.partition(": ") for line in lines]
    return {name.lower(): value for name, _, value in fields}


async def test_only_the_trace_context_of_the_caller_is_forwarded(fake: FakeUpstream) -> None:
    """The context is sent in W3C's and Datadog's headers, and keeps other vendors' entries in `tracestate`."""
    caller_headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=kept",
        "baggage": "user=ada",
        "authorization": "Bearer secret",
        "cookie": "session=secret",
        "x-forwarded-for": "192.0.2.1",
        "x-api-key": "secret",
        "connection": "x-hop, keep-alive",
        "x-hop": "1",
        "te": "trailers",
        "proxy-authorization": "Basic secret",
        "keep-alive": "timeout=5",
        "accept-language": "eo",
    }
    with service(NO_AGENT, {"UPSTREAM_URL": f"{fake.url}/json"}) as running:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{running.url}/api/relay?count=1", headers=caller_headers)
    (head,) = fake.heads
    received = parse_headers(head)

    assert response.status_code == 200
    assert set(received) == TRACE_HEADERS | OWN_HEADERS
    assert "secret" not in head
    assert received["traceparent"].split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    assert received["traceparent"].split("-")[2] != "b7ad6b7169203331"
    assert "vendor=kept" in received["tracestate"].split(",")
    assert received["baggage"] == "user=ada"
    assert received["accept-encoding"] == "identity"


async def test_trace_headers_of_an_untrusted_caller_are_ignored(fake: FakeUpstream, agent: Agent) -> None:
    """The service starts its own trace, without the caller's ids, sampling decision, tags and baggage."""
    untrusted_headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "dd=s:-1;t.usr.id:YWRh,vendor=kept",  # YWRh is "ada" in base64
        "x-datadog-trace-id": "1234",
        "x-datadog-parent-id": "5678",
        "x-datadog-sampling-priority": "-1",
        "x-datadog-origin": "synthetics",
        "x-datadog-tags": "_dd.p.usr.id=YWRh",
        "b3": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "baggage": "user.id=ada,session.id=1",
    }
    extra = {"UPSTREAM_URL": f"{fake.url}/json", "TRUST_TRACE_HEADERS": "false"}
    with service(agent.url, extra) as running:
        async with httpx.AsyncClient() as client:
            await client.get(f"{running.url}/api/relay?count=1", headers=untrusted_headers)
            response_without_headers = await client.get(f"{running.url}/api/relay?count=1")
        spans = agent.wait_for_spans(4)  # each of the two requests has a span and a span of its outbound call
    first, second = (parse_headers(head) for head in fake.heads)
    roots = [span for span in spans if not span["parent_id"]]

    assert response_without_headers.status_code == 200
    assert set(first) == set(second) == (TRACE_HEADERS | OWN_HEADERS) - {"baggage"}
    assert "0af7651916cd43dd8448eb211c80319c" not in str(first)
    assert "vendor" not in first["tracestate"]
    assert [root["metrics"]["_sampling_priority_v1"] for root in roots] == [1, 1]  # the caller sent -1
    assert not [root for root in roots if "user.id" in str(root["meta"]) or "_dd.origin" in root["meta"]]
    assert not [root for root in roots if "_dd.p.usr.id" in root["meta"]]


async def test_each_request_without_a_trace_context_starts_a_new_trace(fake: FakeUpstream) -> None:
    """The upstream receives that trace and no baggage."""
    with service(NO_AGENT, {"UPSTREAM_URL": f"{fake.url}/json"}) as running:
        async with httpx.AsyncClient() as client:
            responses = [await client.get(f"{running.url}/api/relay?count=1") for _ in range(2)]
    calls = [parse_headers(head) for head in fake.heads]

    assert [set(call) for call in calls] == [(TRACE_HEADERS | OWN_HEADERS) - {"baggage"}] * 2
    trace_ids = [call["traceparent"].split("-")[1] for call in calls]
    assert trace_ids == [response.headers["traceresponse"].split("-")[1] for response in responses]
    assert len(set(trace_ids)) == 2


@pytest.mark.parametrize("has_upstream_url", [True, False], ids=["UPSTREAM_URL is set", "the service calls itself"])
async def test_no_caller_decides_which_host_is_called(
    fake: FakeUpstream, other_server: FakeUpstream, has_upstream_url: bool
) -> None:
    """Headers, the query and the request target can't change the host, and neither can a proxy in the environment."""
    other_address = other_server.url.removeprefix("http://")
    extra = {"UPSTREAM_URL": f"{fake.url}/json"} if has_upstream_url else {}
    forged_header_sets = [
        {"host": other_address},
        {"x-forwarded-host": other_address},
        {"x-forwarded-server": other_address},
        {"x-original-url": f"{other_server.url}/json"},
        {"x-rewrite-url": f"{other_server.url}/json"},
        {"forwarded": f"host={other_address};proto=http"},
        {"referer": f"{other_server.url}/json", "origin": other_server.url},
    ]
    url = other_server.url
    query = f"count=1&url={url}&upstream_url={url}&UPSTREAM_URL={url}&host={other_address}"
    proxy = {"HTTP_PROXY": other_server.url, "http_proxy": other_server.url}
    with service(NO_AGENT, {**extra, **proxy, "DD_TRACE_ENABLED": "false"}) as running:
        async with httpx.AsyncClient(trust_env=False) as client:
            responses = [
                await client.get(f"{running.url}/api/relay?count=1", headers=forged_headers)
                for forged_headers in forged_header_sets
            ]
            responses.append(await client.get(f"{running.url}/api/relay?{query}"))
        async with connected(running) as connection:
            response_to_absolute_target = await connection.get(f"{other_server.url}/api/relay?count=1")

    assert {response.status_code for response in responses} == {200}
    assert response_to_absolute_target.status in {200, 400, 404}  # served here or rejected, but not forwarded
    # Only ddtrace may use the proxy, to connect to its agent.
    assert {head.split()[0] for head in other_server.heads} <= {"CONNECT"}
    assert {head.split()[1] for head in other_server.heads} <= {NO_AGENT.removeprefix("http://")}
    if has_upstream_url:
        assert len(fake.paths) >= len(responses)  # one more if the absolute target was served
    else:
        assert fake.paths == []  # the service calls itself


async def test_a_redirect_to_another_host_is_not_followed(fake: FakeUpstream, other_server: FakeUpstream) -> None:
    """The redirect counts as a failure of the upstream."""
    fake.location = f"{other_server.url}/json"
    with service(NO_AGENT, {"UPSTREAM_URL": f"{fake.url}/elsewhere"}) as running:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{running.url}/api/relay?count=1")

    assert response.status_code == 502
    assert response.json()["detail"] == "The upstream responded with status 302."
    assert fake.paths == ["/elsewhere"]
    assert other_server.most_open_connections == 0


@pytest.mark.parametrize(
    ("count", "status", "error", "message"),
    [
        (1, 504, "UpstreamTimeout", "The upstream did not respond in time."),
        (2, 503, "UpstreamSaturated", "too many calls wait for one."),
    ],
    ids=["timeout", "second call is refused"],
)
async def test_the_span_of_a_frequent_error_has_a_short_stack(
    agent: Agent, count: int, status: int, error: str, message: str
) -> None:
    """The span has the exception's type and message, and only one frame: where it was raised."""
    settings = {"UPSTREAM_CONNECTIONS": "1", "UPSTREAM_WAITING": "0", "UPSTREAM_TIMEOUT_SECONDS": "0.5"}
    async with fake_upstream() as fake:
        with service(agent.url, {**settings, "UPSTREAM_URL": f"{fake.url}/hang"}) as running:
            async with httpx.AsyncClient() as client:
                response = await client.get(f"{running.url}/api/relay?count={count}")
    (span,) = [span for span in agent.spans() if span["name"] == "asgi.request"]

    assert response.status_code == status
    assert span["meta"]["error.type"] == f"hello_service.problems.{error}"
    assert span["meta"]["error.message"].endswith(message)
    assert span["meta"]["error.stack"].count("  File ") == 1
