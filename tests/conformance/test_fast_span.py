"""Tests that fast_span.py creates exactly the request span that ddtrace's own middleware creates."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conformance.comparison import compare
from conformance.scenarios import PARENT_ID, SCENARIOS, TRACE_ID, Scenario, Send, get
from conformance.services import Service, running_services

# This setting makes fast_span.py pass requests on to ddtrace's middleware. Its other effects need a proxy's headers.
USE_MIDDLEWARE = {"DD_TRACE_INFERRED_PROXY_SERVICES_ENABLED": "true"}
SETTINGS = {
    "defaults": {},
    "everything on": {
        "DD_TRACE_HEADER_TAGS": "user-agent:agent,x-tenant,content-type:kind,x-twice",
        "DD_TRACE_CLIENT_IP_ENABLED": "true",
        "DD_SERVICE_MAPPING": "conformance:mapped",
        "DD_TRACE_HTTP_SERVER_ERROR_STATUSES": "404,500-599",
        "DD_TRACE_SPAN_ATTRIBUTE_SCHEMA": "v1",
        "DD_HTTP_SERVER_TAG_QUERY_STRING": "true",
    },
    "client address from a header": {
        "DD_TRACE_CLIENT_IP_ENABLED": "true",
        "DD_TRACE_CLIENT_IP_HEADER": "X-Real-IP",
    },
    "other propagation styles": {"DD_TRACE_PROPAGATION_STYLE_EXTRACT": "b3,b3multi,datadog,tracecontext"},
    "everything off": {
        "DD_TRACE_HTTP_CLIENT_TAG_QUERY_STRING": "false",
        "DD_HTTP_SERVER_TAG_QUERY_STRING": "false",
        "DD_TRACE_OBFUSCATION_QUERY_STRING_REGEXP": "",
    },
}

TESTED_ON_EVERY_PYTHON = {"defaults", "everything on"}  # the other settings behave the same on every Python


def raw_request(*lines: bytes) -> Send:
    """Return a function that sends lines that httpx would reject, and reads until the connection is closed."""

    def send(service: Service) -> None:
        address = urlsplit(service.url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", b""]))
            while connection.recv(65_536):
                pass

    return send


HTTP_SCENARIOS = [
    scenario for scenario in SCENARIOS if not scenario.environment and not scenario.name.startswith("websocket")
]
# Settings other than the defaults change only tags and propagation, so they need only these scenarios.
TAG_SCENARIOS = {"query with secrets", "404", "handled 503", "unhandled", "traceparent", "baggage", "body"}
# Header names in the form of WSGI variables. ddtrace also reads some of these.
UNDERSCORE_REQUEST = (
    b"GET /plain HTTP/1.1",
    b"Host: here",
    b"HTTP_X_DATADOG_TRACE_ID: 7",
    b"HTTP_X_DATADOG_PARENT_ID: 8",
    b"HTTP_USER_AGENT: A Browser",
    b"X_Datadog_Security_Test: 1",
    b"Connection: close",
)
MORE_SCENARIOS = [
    Scenario("b3", get("/plain", b3=f"{TRACE_ID}-{PARENT_ID}-1")),
    # B3 also allows trace ids of 64 bits.
    Scenario("b3 multi", get("/plain", x_b3_traceid=TRACE_ID[:16], x_b3_spanid=PARENT_ID, x_b3_sampled="1")),
    Scenario("underscores in header names", raw_request(*UNDERSCORE_REQUEST)),
    Scenario("a query in the path", get("/nowhere%3Ftoken=hidden;a@b")),
    Scenario(
        "a user in the host",
        raw_request(b"GET /plain;a=b HTTP/1.1", b"Host: me:secret@here", b"Connection: close"),
    ),
    Scenario("empty host", raw_request(b"GET /plain HTTP/1.1", b"Host:", b"Connection: close")),
    Scenario("no host", raw_request(b"GET /plain?a=b HTTP/1.0")),
    Scenario(
        "repeated header",
        raw_request(b"GET /plain HTTP/1.1", b"Host: here", b"X-Twice: 1", b"X-Twice: 2", b"Connection: close"),
    ),
    Scenario(
        "header that isn't UTF-8",
        raw_request(b"GET /plain HTTP/1.1", b"Host: here", b"X-Tenant: \xff", b"Connection: close"),
    ),
    Scenario(
        "headers",
        get(
            "/plain?token=hidden&a=b",
            user_agent="A Browser",
            referer="https://elsewhere.example/path?secret=1",
            x_tenant="Ada",
            x_forwarded_for="203.0.113.7",
            x_real_ip="203.0.113.9",
        ),
    ),
]


@pytest.mark.timeout(180)  # scenarios run one after another
@pytest.mark.parametrize(
    "settings",
    [pytest.param(name, marks=[] if name in TESTED_ON_EVERY_PYTHON else [pytest.mark.once]) for name in SETTINGS],
)
def test_fast_span_equals_the_span_of_ddtraces_middleware(settings: str, tmp_path: Path) -> None:
    """This holds for all HTTP scenarios with ddtrace's defaults, and for scenarios about tags with other settings."""
    environment = SETTINGS[settings]
    environments = {"quart": environment, "quart by ddtrace": {**environment, **USE_MIDDLEWARE}}
    scenarios = [scenario for scenario in HTTP_SCENARIOS if settings == "defaults" or scenario.name in TAG_SCENARIOS]
    differences = {}
    with running_services(tmp_path, environments) as services:
        for scenario in scenarios + MORE_SCENARIOS:
            expected_count, _ = scenario.span_counts
            spans = []
            for service in services.values():
                service.clear()
                scenario.send(service)
                spans.append(service.collect(expected_count))
            # `quart` and `fastapi` of a Difference are then the values from fast_span.py and from the middleware.
            fast_spans, middleware_spans = spans
            if expected_count:
                assert fast_spans  # comparing no spans would prove nothing
            if scenario_differences := compare(fast_spans, middleware_spans):
                differences[scenario.name] = [str(difference) for difference in scenario_differences]

    assert differences == {}


def test_the_middleware_is_used_with_application_security(tmp_path: Path) -> None:
    """Only the middleware passes requests to the attack detection."""
    with running_services(tmp_path, {"quart": {"DD_APPSEC_ENABLED": "true"}}) as services:
        quart = services["quart"]
        quart.client.get(f"{quart.url}/plain", headers={"user-agent": "Arachni/v1"})  # a security scanner
        (span,) = quart.collect(1)

    assert span["metrics"]["_dd.appsec.enabled"] == 1
    assert span["meta"]["appsec.event"] == "true"
