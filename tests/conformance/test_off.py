"""Tests that a request runs no ddtrace code when tracing is off.

`hello-service serve` doesn't use ddtrace-run then. If an operator does, ddtrace's own patches still run.
"""

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

COUNT_CALLS = [sys.executable, str(Path(__file__).with_name("count_calls.py"))]
TESTS = str(ROOT / "tests")
DDTRACE_RUN = str(BIN / "ddtrace-run")
NO_AGENT = "http://127.0.0.1:9"  # nothing listens on this port


def json_output(command: list[str], environment: dict[str, str]) -> Any:
    """Run `command`, and return the JSON that it prints."""
    process = subprocess.run(
        command,
        env=clean_environment({**QUIET, "PYTHONPATH": TESTS, **environment}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


@pytest.mark.parametrize("environment", [{"DD_TRACE_ENABLED": "false"}, {}], ids=["disabled", "not disabled"])
def test_no_function_of_ddtrace_is_called(environment: dict[str, str]) -> None:
    """This holds for a plain response, an outbound call and an error, if the process doesn't run under ddtrace-run."""
    report = json_output(COUNT_CALLS, environment)

    assert report["calls"] == {}
    assert "hello_service.observability.tracing" not in report["middleware"]


def test_requests_are_not_traced_under_ddtrace_run_if_tracing_is_disabled() -> None:
    """ddtrace-run still applies ddtrace's own patches, but tracing.py adds nothing."""
    report = json_output([DDTRACE_RUN, *COUNT_CALLS], {"DD_TRACE_ENABLED": "false"})

    assert "hello_service.observability.tracing" not in report["middleware"]
    assert not any("asgi" in name or "quart" in name for name in report["calls"])


def test_calls_of_ddtrace_are_counted_when_tracing_is_on() -> None:
    """Otherwise the tests above could not fail."""
    report = json_output([DDTRACE_RUN, *COUNT_CALLS], {"DD_TRACE_AGENT_URL": NO_AGENT})

    assert "hello_service.observability.tracing" in report["middleware"]
    assert any("_trace/tracer.py" in name for name in report["calls"])


def test_serve_does_not_use_ddtrace_run_when_tracing_is_off() -> None:
    off = launch.command(Settings.from_environment({"DD_TRACE_ENABLED": "false"}))
    on = launch.command(Settings.from_environment({}))

    assert "ddtrace-run" not in " ".join(off)
    assert on == [DDTRACE_RUN, *off]


def test_there_is_no_trace_id_when_tracing_is_off() -> None:
    """This covers the response header, the problem document and the log lines."""
    with service(NO_AGENT, {"DD_TRACE_ENABLED": "false"}) as running:
        response = httpx.get(f"{running.url}/nowhere")

    assert response.status_code == 404
    assert "traceresponse" not in response.headers
    assert "trace_id" not in response.json()
    (line,) = running.requests()
    assert not any(name.startswith("dd.") for name in line)
