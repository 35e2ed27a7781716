"""A separate process in which ddtrace itself sends a test span: `python -m hello_service.doctor.span`.

It is started with the environment that the server would have, and writes two JSON lines: ddtrace's configuration from
that environment, then whether the agent accepted the span. The doctor's own process does not import ddtrace.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NAME = "hello_service.doctor"
ERROR_CHARACTERS = 120  # of an exception; the report has one sentence for each check


def write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Write ddtrace's configuration, send a test span, write the result."""
    from ddtrace.trace import tracer  # noqa: PLC0415 - an environment that ddtrace can't read must not cause a traceback

    writer: Any = tracer._span_aggregator.writer  # noqa: SLF001 - no public API reports whether a span was accepted
    write({"url": tracer.agent_trace_url, "enabled": tracer.enabled, "format": writer._api_version})  # noqa: SLF001 - no public API
    error = send(tracer, writer)
    write({"accepted": error is None, "error": error})


def send(tracer: Any, writer: Any) -> str | None:
    """Send one span. Return None, or the reason why it was not accepted."""
    with tracer.trace(NAME, resource="hello-service doctor") as span:
        span.set_tag("manual.keep")
    try:
        writer.flush_queue(raise_exc=True)
    except Exception as error:  # noqa: BLE001 - ddtrace documents no exceptions
        return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
    return None


if __name__ == "__main__":
    try:
        main()
    except Exception as failure:  # noqa: BLE001 - only the type is shown: the message may contain a secret value
        write({"unusable": type(failure).__name__})
    os._exit(0)  # ddtrace's own exit handler would send again and wait
