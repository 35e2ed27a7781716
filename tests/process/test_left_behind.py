"""Tests that what a request leaves behind is freed with it, and doesn't wait for the cyclic GC."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fake_http import fake_http
from running import BIN, QUIET, ROOT, clean_environment, free_port

from hello_service.observability.environment import ENVIRONMENT_ONLY

SERVED = str(Path(__file__).with_name("left_behind.py"))
OURS_TO_FREE = (
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
    """Requests succeed, fail or lose their client, with an outbound call and without."""
    with fake_http({"message": "here"}) as upstream:
        environment = {
            **{name: value for name, (value, _) in ENVIRONMENT_ONLY.items()},  # as `serve` sets them
            **QUIET,
            "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
            "UPSTREAM_URL": upstream.url,
            "FAULTS": "true",
            "PYTHONPATH": str(ROOT / "tests"),
        }
        served = subprocess.run(
            [str(BIN / "ddtrace-run"), sys.executable, SERVED],
            env=clean_environment({**environment, "HOST": "127.0.0.1", "PORT": str(free_port())}),
            capture_output=True,
            text=True,
            check=True,
        )
    left = json.loads(served.stdout)

    assert {name: count for name, count in left.items() if name.startswith(OURS_TO_FREE)} == {}
