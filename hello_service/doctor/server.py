"""The check that matters most: whether a server is traced, asked of the server itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Any

from hello_service.doctor.case import Case
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import Answer, NoAnswer, Reason, get, in_background
from hello_service.observability.environment import sampling_rules
from hello_service.settings import Settings, mask_credentials

SERVER_SECONDS = 2.0
KEPT_SECONDS = 0.5  # to say so when there is no answer
RUNNING = re.compile(r"Running on (http://[^\s\"]+)")
SEVERAL = "Start it with `hello-service serve`, or under ddtrace-run"

# A server that is there for one question: on no port that anyone else wants, and gone at once.
BRIEFLY = {
    "HOST": "127.0.0.1",
    "PORT": "0",
    "DRAIN_SECONDS": "0",
    "GRACEFUL_SECONDS": "0",
    "FLUSH_SECONDS": "0",
    "LOG_LEVEL": "INFO",
}


def active(case: Case) -> Finding:
    """Whether ddtrace is active in the server: the running one, or else one that is started for the question."""
    url = case.url or (local_url(case.settings) if case.settings is not None else None)
    if url is None:
        return skipped("a server does not start with this environment; --url names one that runs")
    shown = mask_credentials(url)
    try:
        return judge(f"the server at {shown}", get(url, "/info", SERVER_SECONDS), case)
    except NoAnswer as none:
        if case.url is None and none.reason is Reason.REFUSED and case.settings is not None:
            return started(case)
        fix = "--url names the server"
        if none.reason in {Reason.REFUSED, Reason.UNRESOLVED}:
            return failed(f"no server at {shown}: {none.reason.value}", fix)
        return unknown(f"the server at {shown} can't be asked: {none.reason.value}", fix)


def local_url(settings: Settings) -> str:
    """Return where a server with these settings is reached from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - what it listens on
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def judge(who: str, answer: Answer, case: Case) -> Finding:
    """Return what `/info` says of tracing in a server."""
    said = answer.document().get("tracing")
    if answer.status != 200 or not isinstance(said, dict) or "active" not in said:
        return unknown(f"what answers for {who} is not this service", "--url names it")
    if not said["active"]:
        return failed(f"{who} is not traced: {said.get('reason')}", SEVERAL)
    if differs := _differences(said, case):
        fix = "Ask with the environment that the server was started with"
        return warned(f"{who} is traced, with another {differs} than this environment says", fix)
    return passed(f"{who} is traced" + (f" by ddtrace {said['ddtrace']}" if "ddtrace" in said else ""))


def _differences(said: Mapping[str, Any], case: Case) -> str:
    """Return what of tracing differs in a server; nothing where `/info` shows no details."""
    if "agent" not in said:
        return ""
    differing = []
    if case.settings is not None and said["agent"] != case.settings.agent_url:
        differing.append("agent address")
    rules = case.environ.get("DD_TRACE_SAMPLING_RULES")
    if not rules and case.settings is not None and case.settings.dd_trace_sample_rate is not None:
        rules = sampling_rules(case.settings.dd_trace_sample_rate)
    if rules and said.get("sampling_rules") != rules:
        differing.append("sampling")
    return " and ".join(differing)


def started(case: Case) -> Finding:
    """Start a server as `serve` would, ask it, end it."""
    server = case.start("hello_service", "serve", extra=BRIEFLY)
    try:
        address = in_background(lambda: _listening(server)).result(max(0.1, case.remaining - KEPT_SECONDS))
        if address is None:
            fix = "hello-service serve, and read what it says"
            return failed("no server runs, and one started as `serve` would ended at once", fix)
        answer = get(address, "/info", max(0.1, case.remaining - KEPT_SECONDS))
        return judge("a server started as `serve` would", answer, case)
    except (TimeoutError, NoAnswer):
        return unknown(
            "no server runs, and one started as `serve` would did not answer in time", "--url names one that runs"
        )
    finally:
        server.terminate()


def _listening(server: subprocess.Popen[str]) -> str | None:
    """Return the address in the server's log, None when it ended without one."""
    assert server.stdout is not None  # noqa: S101 - a pipe was asked for
    for line in server.stdout:
        if match := RUNNING.search(line):
            # What it says from here on nobody reads, and a full pipe would stop it.
            in_background(server.stdout.read)
            return match[1]
    return None
