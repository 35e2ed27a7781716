"""Tests that one 128-bit trace id is in the response header, the problem document, the log and the span."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from conformance.scenarios import DATADOG, TRACE, W3C
from running import Agent, Running, eventually, service


@pytest.fixture(scope="module")
def running(_agent: Agent) -> Iterator[Running]:
    with service(_agent.url, {"FAULTS": "true"}) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"traceparent": f"{W3C}01"}, TRACE),
        ({**DATADOG, "x-datadog-sampling-priority": "1", "x-datadog-tags": "_dd.p.tid=640cfd8d00000000"}, None),
    ],
)
@pytest.mark.parametrize("path", ["/api/faults/error", "/api/faults/status/503", "/nowhere"])
def test_the_trace_id_is_the_same_everywhere(
    running: Running, agent: Agent, path: str, headers: dict[str, str], expected: str | None
) -> None:
    before = len(running.requests(path))
    response = httpx.get(running.url + path, headers=headers)
    (span,) = agent.wait_for_spans(1)
    line = eventually(lambda: running.requests(path)[before:])[0]
    trace_id = f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}"

    assert len(trace_id) == 32
    assert expected in {None, trace_id}
    assert response.headers["traceresponse"].split("-")[1] == trace_id
    assert response.json()["trace_id"] == trace_id
    assert line["dd.trace_id"] == trace_id
    assert line["dd.span_id"] == str(span["span_id"])
