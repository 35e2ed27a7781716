"""The most important check: whether the server itself reports that it is traced."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Any

from hello_service.doctor.case import Case
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import NoResponse, Reason, Response, get, in_background
from hello_service.observability.environment import sampling_rules
from hello_service.settings import Settings, mask_credentials

SERVER_SECONDS = 2.0
RESERVED_SECONDS = 0.5  # for the report if there is no response
RUNNING = re.compile(r"Running on (http://[^\s\"]+)")
START_TRACED = "Start it with `hello-service serve`, or under ddtrace-run"

# For a server that is started for one request: on a free port, and without a drain.
BRIEFLY = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "DRAIN_SECONDS": "0",
    "GRACEFUL_SECONDS": "0",
    "FLUSH_SECONDS": "0",
    "LOG_LEVEL": "INFO",
}


def active(case: Case) -> Finding:
    """Check that ddtrace is active in the server: the running one, or else one that is started for the check."""
    url = case.url or (local_url(case.settings) if case.settings is not None else None)
    if url is None:
        return skipped("no server can start with this environment; set --url to check a running one")
    shown = mask_credentials(url)
    try:
        return judge(f"the server at {shown}", get(url, "/info", SERVER_SECONDS), case)
    except NoResponse as error:
        if case.url is None and error.reason is Reason.REFUSED and case.settings is not None:
            return started(case)
        fix = "Set --url to the address of the server"
        if error.reason in {Reason.REFUSED, Reason.UNRESOLVED}:
            return failed(f"no server at {shown}: {error.reason.value}", fix)
        return unknown(f"the server at {shown} can't be checked: {error.reason.value}", fix)


def local_url(settings: Settings) -> str:
    """Return the URL of a server with these settings, as seen from its own host."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - what it listens on
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def judge(server: str, response: Response, case: Case) -> Finding:
    """Return the finding for `server` from its `response` of `/info`."""
    tracing = response.document().get("tracing")
    if response.status != 200 or not isinstance(tracing, dict) or "active" not in tracing:
        return unknown(f"{server} is not this service", "Set --url to the address of the server")
    if not tracing["active"]:
        return failed(f"{server} is not traced: {tracing.get('reason')}", START_TRACED)
    if differences := _differences(tracing, case):
        fix = "Run the doctor with the environment that the server was started with"
        return warned(f"{server} is traced, but with another {differences} than in this environment", fix)
    return passed(f"{server} is traced" + (f" by ddtrace {tracing['ddtrace']}" if "ddtrace" in tracing else ""))


def _differences(tracing: Mapping[str, Any], case: Case) -> str:
    """Return the tracing settings that differ in a server, "" if `/info` shows no details."""
    if "agent" not in tracing:
        return ""
    differing = []
    if case.settings is not None and tracing["agent"] != case.settings.agent_url:
        differing.append("agent address")
    rules = case.environ.get("DD_TRACE_SAMPLING_RULES")
    if not rules and case.settings is not None and case.settings.dd_trace_sample_rate is not None:
        rules = sampling_rules(case.settings.dd_trace_sample_rate)
    if rules and tracing.get("sampling_rules") != rules:
        differing.append("sampling")
    return " and ".join(differing)


def started(case: Case) -> Finding:
    """Start a server as `serve` would, check it, and stop it."""
    server = case.start("hello_service", "serve", extra=BRIEFLY)
    try:
        address = in_background(lambda: _listening(server)).result(max(0.1, case.remaining - RESERVED_SECONDS))
        if address is None:
            fix = "Run hello-service serve, and read its output"
            return failed("no server is running, and a server started like `serve` exited at once", fix)
        response = get(address, "/info", max(0.1, case.remaining - RESERVED_SECONDS))
        return judge("a server started like `serve`", response, case)
    except (TimeoutError, NoResponse):
        return unknown(
            "no server is running, and a server started like `serve` did not respond in time",
            "Set --url to the address of a running server",
        )
    finally:
        server.terminate()


def _listening(server: subprocess.Popen[str]) -> str | None:
    """Return the address in the server's log, None if the server exits before it logs one."""
    assert server.stdout is not None  # noqa: S101 - `start` requests a pipe
    for line in server.stdout:
        if match := RUNNING.search(line):
            # Keep reading, because a full pipe would block the server.
            in_background(server.stdout.read)
            return match[1]
    return None
