"""The checks of the agent: its address, a proxy in between, its response, its clock, whether it accepts a span."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from hello_service.doctor.case import AGENT_SECONDS, HOSTS, PORTS, Case, without_agent
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import NoResponse, Reason, Response

SKEW_SECONDS = 60.0  # above this the Datadog Agent itself warns about the clock
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")  # ddtrace 4.16 was observed to use these
WHERE = (
    "Set DD_TRACE_AGENT_URL=http://host:8126: the host is localhost inside an ECS task, the service's name in Compose"
)

FIXES = {
    Reason.UNRESOLVED: f"Correct the name. {WHERE}",
    Reason.REFUSED: "Start the agent (on a laptop: scripts/dev; on ECS: check the agent container's log). " + WHERE,
    Reason.MISSING: "Mount the directory of the agent's socket into this container, or unset DD_TRACE_AGENT_URL to use TCP",
    Reason.DENIED: "Give this user write permission for the socket (chmod o+rw, or a common group), or use TCP",
    Reason.SILENT: f"Restart the agent, and check for a firewall or a wrong port. {WHERE}",
    Reason.BROKEN: f"Another program listens there, or it expects TLS: correct the address. {WHERE}",
}


def address(case: Case) -> Finding:
    """Report the agent's address and the variables that set it."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    decided = " and ".join(case.address.variables) or "default, because no variable is set"
    if not case.address.usable:
        return failed(f"{decided} gives an address that ddtrace can't use", WHERE)
    return passed(f"{case.address.shown} ({decided})")


def agreement(case: Case) -> Finding:
    """Check that the variables for the agent's address agree."""
    losers = [name for name in (*HOSTS, *PORTS) if case.environ.get(name) and name not in case.address.variables]
    if not losers or not case.address.usable:
        return passed("no variables contradict each other")
    parts = urlsplit(case.address.url)
    in_force = {str(parts.hostname), str(parts.port or 8126)}
    against = [name for name in losers if case.environ[name] not in in_force]
    if not against:
        return passed("the variables agree")
    winner = " and ".join(case.address.variables)
    return warned(
        f"{winner} takes precedence: {' and '.join(against)} has another value and no effect",
        f"unset {' '.join(against)}",
    )


def proxy(case: Case) -> Finding:
    """Check that no proxy receives the traces for the agent; ddtrace's exporter obeys the usual variables."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    parts = urlsplit(case.address.url) if case.address.usable else None
    if parts is None or parts.scheme == "unix":
        return skipped("no address that a proxy could intercept")
    names = [name for name in PROXIES if case.environ.get(name)]
    if parts.scheme == "https":
        names = [name for name in ("HTTPS_PROXY", "https_proxy", *PROXIES[2:]) if case.environ.get(name)]
    host = str(parts.hostname)
    if not names or exempt(host, case.environ):
        return passed(f"no proxy between here and {host}")
    sentence = f"{names[0]} sends ddtrace's traces for {host} through a proxy"
    fix = f"Add {host} to NO_PROXY, exactly as it is written in the agent's address"
    return failed(sentence, fix) if host == "localhost" or _loopback(host) else warned(sentence, fix)


def exempt(host: str, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY excludes `host`, as ddtrace's exporter reads it: addresses match addresses, names match names."""
    entries = [entry.strip() for entry in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",")]
    try:
        address = ip_address(host)
    except ValueError:
        suffixes = [entry.lstrip(".").lower() for entry in entries if entry]
        return any(suffix == "*" or f".{host.lower()}".endswith(f".{suffix}") for suffix in suffixes)
    return any(address in network for entry in entries for network in _networks(entry))


def reachable(case: Case) -> Finding:
    """Check that an agent responds at that address; report its version and the response time."""
    response = _response(case)
    if isinstance(response, Finding):
        return response
    version = response.document().get("version")
    name = f"agent {version}" if version else "an agent of unknown version"
    return passed(f"{name} responds at {case.address.shown} in {response.milliseconds:.0f} ms")


def trace_format(case: Case) -> Finding:
    """Check that the agent accepts traces in the format that ddtrace will use."""
    response = _response(case)
    if isinstance(response, Finding):
        return skipped("no agent responds")
    wanted = case.planned.result(case.remaining).get("format")
    if wanted is None:
        return unknown("ddtrace's trace format could not be determined")
    accepted = [str(endpoint).strip("/") for endpoint in response.document()["endpoints"]]
    if f"{wanted}/traces" in accepted:
        return passed(f"ddtrace will send {wanted}, and the agent accepts it")
    sentence = f"the agent does not accept ddtrace's trace format, {wanted}"
    if "v0.4/traces" in accepted:
        return failed(f"{sentence}, and ddtrace does not fall back", "DD_TRACE_API_VERSION=v0.4")
    return failed(sentence, "Set DD_APM_ENABLED=true for the agent, or update it")


def span(case: Case) -> Finding:
    """Check that a span that ddtrace itself sends is accepted."""
    if without_agent(case.environ) is None and isinstance(_response(case), Finding):
        return skipped("no agent responds")
    planned = case.planned.result(case.remaining)
    if "format" not in planned:
        kind = f" ({planned['unusable']})" if planned else ""
        return failed(
            f"ddtrace can't start with this environment{kind}", "Correct the DD_ variable: ddtrace-run --info"
        )
    if not planned["enabled"]:
        return failed("ddtrace is switched off in this environment", "unset DD_TRACE_ENABLED")
    sent = case.sent.result(case.remaining)
    if sent.get("accepted"):
        return passed("ddtrace sent a test span, and it was accepted")
    return failed(
        f"ddtrace's test span was not accepted: {sent.get('error')}",
        "Fix the failures above. If it still fails, check the agent's log and `agent status`.",
    )


def clock(case: Case) -> Finding:
    """Check that this clock and the agent's agree."""
    response = _response(case)
    if isinstance(response, Finding):
        return skipped("no agent responds")
    try:
        theirs = parsedate_to_datetime(response.headers["Date"])
    except (TypeError, ValueError):
        return skipped("the agent's response has no date")
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    if abs(skew) < SKEW_SECONDS:
        return passed("this clock and the agent's agree")
    side = "ahead of" if skew > 0 else "behind"
    return warned(
        f"this clock is {abs(skew):.0f} s {side} the agent's, so traces show the wrong time",
        "Synchronize both with NTP",
    )


def _response(case: Case) -> Response | Finding:
    """Return the agent's response to `/info`, or a finding if there is none."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    if not case.address.usable:
        return skipped("no usable address")
    shown = case.address.shown
    try:
        response = case.agent.result(case.remaining)
    except NoResponse as error:
        limit = f" (waited {AGENT_SECONDS:g} s)" if error.reason in {Reason.SILENT, Reason.UNRESOLVED} else ""
        return failed(f"{shown}: {error.reason.value}{limit}", FIXES[error.reason])
    if response.status == 200 and isinstance(response.document().get("endpoints"), list):
        return response
    sentence = f"{shown} is not a trace agent (HTTP {response.status} for /info), or one older than 7.24"
    return failed(sentence, f"Correct the address, or update the agent. {WHERE}")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _networks(entry: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(entry, strict=False)]
    except ValueError:
        return []
