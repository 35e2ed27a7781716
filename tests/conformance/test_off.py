"""Tests that a request runs no ddtrace code when tracing is off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BIN, QUIET, ROOT, clean_environment, service

from hello_service.serving import launch
from hello_service.settings import Settings

SERVED = str(Path(__file__).with_name("served.py"))
TESTS = str(ROOT / "tests")
RUN = str(BIN / "ddtrace-run")


def serve(command: list[str], environment: dict[str, str]) -> Any:
    done = subprocess.run(
        command,
        env=clean_environment({**QUIET, "PYTHONPATH": TESTS, **environment}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ([sys.executable, SERVED], {"DD_TRACE_ENABLED": "false"}),
        ([sys.executable, SERVED], {}),
    ],
    ids=["off", "not under ddtrace-run"],
)
def test_no_function_of_ddtrace_is_called(command: list[str], environment: dict[str, str]) -> None:
    """This holds for a plain response, an outbound call and an error."""
    served = serve(command, environment)

    assert served["calls"] == {}
    assert "hello_service.observability.tracing" not in served["layers"]


def test_no_span_is_made_where_only_the_variable_says_so() -> None:
    """ddtrace-run still applies ddtrace's own patches, but tracing.py adds nothing."""
    served = serve([RUN, sys.executable, SERVED], {"DD_TRACE_ENABLED": "false"})

    assert "hello_service.observability.tracing" not in served["layers"]
    assert not any("asgi" in name or "quart" in name for name in served["calls"])


def test_the_count_sees_ddtrace_at_work() -> None:
    """With tracing on, the same count finds calls and the middleware."""
    served = serve([RUN, sys.executable, SERVED], {"DD_TRACE_AGENT_URL": "http://127.0.0.1:9"})

    assert "hello_service.observability.tracing" in served["layers"]
    assert any("_trace/tracer.py" in name for name in served["calls"])


def test_serve_starts_no_tracer_when_tracing_is_off() -> None:
    """`hello-service serve` doesn't use ddtrace-run."""
    off = launch.command(Settings.from_environment({"DD_TRACE_ENABLED": "false"}))
    on = launch.command(Settings.from_environment({}))

    assert "ddtrace-run" not in " ".join(off)
    assert on == [RUN, *off]


def test_nothing_is_said_of_traces_when_tracing_is_off() -> None:
    """There is no trace id, so neither header, problem nor log line shows one."""
    with service("http://127.0.0.1:9", {"DD_TRACE_ENABLED": "false"}) as running:
        answer = httpx.get(f"{running.url}/nowhere")

    assert answer.status_code == 404
    assert "traceresponse" not in answer.headers
    assert "trace_id" not in answer.json()
    assert not any(name.startswith("dd.") for line in running.requests() for name in line)
