"""Tests that the objects of a request are freed when it ends, and don't wait for the cyclic GC."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fake_http import fake_http
from running import BIN, QUIET, ROOT, clean_environment, free_port

from hello_service.observability.environment import ENVIRONMENT_ONLY

PROGRAM = str(Path(__file__).with_name("reference_cycles.py"))
# No cycle may contain an object of a type whose full name begins with one of these.
CHECKED_MODULES = (
    "hello_service.",
    "ddtrace.",
    "hypercorn.",
    "httpx",
    "quart.",
    "h11.",
    "asyncio.streams",
    "asyncio.queues",
)


def test_no_request_and_no_connection_leaves_a_reference_cycle() -> None:
    """This holds for requests that succeed, fail or are canceled by a disconnect, with an outbound call and without."""
    with fake_http({"message": "here"}) as upstream:
        environment = {
            **{name: value for name, (value, _) in ENVIRONMENT_ONLY.items()},  # `serve` would set these
            **QUIET,
            "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",  # there is no agent
            "UPSTREAM_URL": upstream.url,
            "FAULTS": "true",
            "PYTHONPATH": str(ROOT / "tests"),
        }
        result = subprocess.run(
            [str(BIN / "ddtrace-run"), sys.executable, PROGRAM],
            env=clean_environment({**environment, "HOST": "127.0.0.1", "PORT": str(free_port())}),
            capture_output=True,
            text=True,
            check=True,
        )
    counts = json.loads(result.stdout)

    assert {name: count for name, count in counts.items() if name.startswith(CHECKED_MODULES)} == {}
