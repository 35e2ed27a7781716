"""The most important check: whether the server itself reports that it is traced."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Any

from hello_service.doctor.context import CheckContext
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import NoResponse, Reason, Response, get, in_background
from hello_service.observability.environment import sampling_rules
from hello_service.settings import local_url, mask_credentials

SERVER_SECONDS = 2.0  # for the response of a server that is already running
RESERVED_SECONDS = 0.5  # before the deadline, so that a server without a response is reported in time
RUNNING = re.compile(r"Running on (http://[^\s\"]+)")  # in the log of a server once it listens
START_TRACED = "Start it with `hello-service serve`, or under ddtrace-run"

# Variables of a server that is started for one request: a free port, a stop without waiting, and a log that contains
# the address.
ONE_REQUEST_ENVIRONMENT = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "DRAIN_SECONDS": "0",
    "GRACEFUL_SECONDS": "0",
    "FLUSH_SECONDS": "0",
    "LOG_LEVEL": "INFO",
}


def active(context: CheckContext) -> Finding:
    """Check that ddtrace is active in the running server. If none runs, start one for the check."""
    settings = context.settings
    url = context.url or (local_url(settings.host, settings.port) if settings is not None else None)
    if url is None:
        return skipped("no server can start with this environment; set --url to check a running one")
    masked_url = mask_credentials(url)
    try:
        return judge(f"the server at {masked_url}", get(url, "/info", SERVER_SECONDS), context)
    except NoResponse as error:
        if context.url is None and error.reason is Reason.REFUSED and context.settings is not None:
            return start_and_check(context)
        fix = "Set --url to the address of the server"
        if error.reason in {Reason.REFUSED, Reason.UNRESOLVED}:
            return failed(f"no server at {masked_url}: {error.reason.value}", fix)
        return unknown(f"the server at {masked_url} can't be checked: {error.reason.value}", fix)


def judge(server: str, response: Response, context: CheckContext) -> Finding:
    """Return the finding for `server` from its response to `/info`."""
    tracing = response.document().get("tracing")
    if response.status != 200 or not isinstance(tracing, dict) or "active" not in tracing:
        return unknown(f"{server} is not this service", "Set --url to the address of the server")
    if not tracing["active"]:
        return failed(f"{server} is not traced: {tracing.get('reason')}", START_TRACED)
    if differences := _differences(tracing, context):
        fix = "Run the doctor with the environment that the server was started with"
        return warned(f"{server} is traced, but with a different {differences} than in this environment", fix)
    return passed(f"{server} is traced" + (f" by ddtrace {tracing['ddtrace']}" if "ddtrace" in tracing else ""))


def _normalize_loopback(url: str | None) -> str | None:
    """Return `url` with 127.0.0.1 in place of localhost or ::1, so that equal addresses compare equal."""
    return url and re.sub(r"//(?:localhost|\[::1\])(?=[:/]|$)", "//127.0.0.1", url)


def _differences(tracing: Mapping[str, Any], context: CheckContext) -> str:
    """Return which tracing settings of the server differ from `context`, or "" if none do or `/info` has no details."""
    if "agent" not in tracing:
        return ""
    differing = []
    settings = context.settings
    if settings is not None and _normalize_loopback(tracing["agent"]) != _normalize_loopback(settings.agent_url):
        differing.append("agent address")
    rules = context.environ.get("DD_TRACE_SAMPLING_RULES")
    if not rules and settings is not None and settings.dd_trace_sample_rate is not None:
        rules = sampling_rules(settings.dd_trace_sample_rate)
    if rules and tracing.get("sampling_rules") != rules:
        differing.append("sampling")
    return " and ".join(differing)


def start_and_check(context: CheckContext) -> Finding:
    """Start a server as `serve` would, check it, and stop it."""
    server = context.start("hello_service", "serve", extra=ONE_REQUEST_ENVIRONMENT)
    try:
        address = in_background(lambda: _logged_address(server)).result(_step_seconds(context))
        if address is None:
            fix = "Run hello-service serve, and read its output"
            return failed("no server is running, and a server started like `serve` exited at once", fix)
        response = get(address, "/info", _step_seconds(context))
        return judge("a server started like `serve`", response, context)
    except (TimeoutError, NoResponse):
        return unknown(
            "no server is running, and a server started like `serve` did not respond in time",
            "Set --url to the address of a running server",
        )
    finally:
        server.terminate()


def _step_seconds(context: CheckContext) -> float:
    """Return the time limit of the next step. It is never 0, because a socket with that timeout doesn't wait at all."""
    return max(0.1, context.remaining - RESERVED_SECONDS)


def _logged_address(server: subprocess.Popen[str]) -> str | None:
    """Return the address in the server's log, or None if the server exits before it logs one."""
    assert server.stdout is not None  # noqa: S101 - `start` requests a pipe
    for line in server.stdout:
        if match := RUNNING.search(line):
            # Keep reading, because a full pipe would block the server.
            in_background(server.stdout.read)
            return match[1]
    return None
