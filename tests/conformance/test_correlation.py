"""Tests that one 128-bit trace id is in the response header, the problem document, the log and the span."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from conformance.scenarios import DATADOG_HEADERS, SAMPLED_TRACEPARENT, TRACE_ID
from running import Agent, Running, eventually, service

UPPER_HALF = "640cfd8d00000000"  # of a 128-bit trace id, whose lower half is in DATADOG_HEADERS


@pytest.fixture(scope="module")
def running(_agent: Agent) -> Iterator[Running]:
    with service(_agent.url, {"FAULTS": "true"}) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),  # any generated id
        ({"traceparent": SAMPLED_TRACEPARENT}, TRACE_ID),
        (
            {**DATADOG_HEADERS, "x-datadog-sampling-priority": "1", "x-datadog-tags": f"_dd.p.tid={UPPER_HALF}"},
            UPPER_HALF + TRACE_ID[16:],
        ),
    ],
    ids=["no headers", "traceparent", "datadog headers"],
)
@pytest.mark.parametrize("path", ["/api/faults/error", "/api/faults/status/503", "/nowhere"])
def test_the_trace_id_is_the_same_everywhere(
    running: Running, agent: Agent, path: str, headers: dict[str, str], expected: str | None
) -> None:
    earlier_count = len(running.requests(path))
    response = httpx.get(running.url + path, headers=headers)
    (span,) = agent.wait_for_spans(1)
    (line,) = eventually(lambda: running.requests(path)[earlier_count:])
    trace_id = f"{span['meta']['_dd.p.tid']}{span['trace_id']:016x}"

    assert len(trace_id) == 32
    if expected is not None:
        assert trace_id == expected
    assert response.headers["traceresponse"].split("-")[1] == trace_id
    assert response.json()["trace_id"] == trace_id
    assert line["dd.trace_id"] == trace_id
    assert line["dd.span_id"] == str(span["span_id"])
