"""The state of tracing in this process, for `/info`, and the last flush."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ddtrace
from ddtrace.trace import tracer

from hello_service.observability import tracing


def status(agent_url: str, enabled: bool, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return whether this process is traced, the reason if it isn't, ddtrace's version, agent URL and sampling rules.

    The result consists of JSON values, and contains no secret. `enabled` is the setting DD_TRACE_ENABLED.
    """
    reason = None
    if not enabled:
        reason = "DD_TRACE_ENABLED is false"
    elif not tracing.active():
        reason = tracing.unsupported() or "not started under ddtrace-run"
    return {
        "active": reason is None,
        "reason": reason,
        "ddtrace": ddtrace.__version__,
        "agent": agent_url,
        "sampling_rules": environ.get("DD_TRACE_SAMPLING_RULES"),
    }


def flush(timeout: float) -> None:
    """Send the remaining spans to the agent in at most `timeout` seconds, and shut the tracer down."""
    tracer.shutdown(timeout)
