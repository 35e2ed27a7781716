"""The checks of the agent: address, proxy, response, trace format and clock, and whether it accepts a span."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from hello_service.doctor.case import AGENT_SECONDS, HOSTS, PORTS, Case, no_agent_reason
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import NoResponse, Reason, Response

SKEW_SECONDS = 60.0  # above this the Datadog Agent itself warns about the clock
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")  # ddtrace 4.16 was observed to use these
SET_URL = (
    "Set DD_TRACE_AGENT_URL=http://host:8126, where host is localhost in an ECS task and the service's name in Compose"
)

FIXES = {
    Reason.UNRESOLVED: f"Correct the name. {SET_URL}",
    Reason.REFUSED: "Start the agent (on a laptop: scripts/dev; on ECS: check the agent container's log). " + SET_URL,
    Reason.MISSING: "Mount the directory of the agent's socket into this container, or unset DD_TRACE_AGENT_URL to use TCP",
    Reason.DENIED: "Give this user write permission for the socket (chmod o+rw, or a common group), or use TCP",
    Reason.SILENT: f"Restart the agent, and check for a firewall or a wrong port. {SET_URL}",
    Reason.BROKEN: f"Another program listens there, or the server there expects TLS: correct the address. {SET_URL}",
}


def address(case: Case) -> Finding:
    """Report the agent's address and the variables that set it."""
    if reason := no_agent_reason(case.environ):
        return skipped(reason)
    source = " and ".join(case.address.variables) or "default, because no variable is set"
    if not case.address.usable:
        return failed(f"{source} gives an address that ddtrace can't use", SET_URL)
    return passed(f"{case.address.shown} ({source})")


def agreement(case: Case) -> Finding:
    """Check that the variables for the agent's address agree."""
    unused = [name for name in (*HOSTS, *PORTS) if case.environ.get(name) and name not in case.address.variables]
    if not unused or not case.address.usable:
        return passed("no variables contradict each other")
    parts = urlsplit(case.address.url)
    used_values = {str(parts.hostname), str(parts.port or 8126)}
    conflicting = [name for name in unused if case.environ[name] not in used_values]
    if not conflicting:
        return passed("the variables agree")
    used = " and ".join(case.address.variables)
    return warned(
        f"ddtrace uses {used} and ignores the different value of {' and '.join(conflicting)}",
        f"unset {' '.join(conflicting)}",
    )


def proxy(case: Case) -> Finding:
    """Check that no proxy receives the traces for the agent; ddtrace's exporter uses the usual proxy variables."""
    if reason := no_agent_reason(case.environ):
        return skipped(reason)
    parts = urlsplit(case.address.url) if case.address.usable else None
    if parts is None or parts.scheme == "unix":
        return skipped("no address that ddtrace could reach through a proxy")
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
    """Check that an agent responds at the address; report its version and the response time."""
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
    wanted = case.configuration.result(case.remaining).get("format")
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
    if no_agent_reason(case.environ) is None and isinstance(_response(case), Finding):
        return skipped("no agent responds")
    configuration = case.configuration.result(case.remaining)
    if "format" not in configuration:
        kind = f" ({configuration['unusable']})" if configuration else ""
        return failed(
            f"ddtrace can't start with this environment{kind}",
            "Correct the DD_ variable that ddtrace can't read (see `ddtrace-run --info`)",
        )
    if not configuration["enabled"]:
        return failed("ddtrace is switched off in this environment", "unset DD_TRACE_ENABLED")
    sent = case.test_span.result(case.remaining)
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
        agent_time = parsedate_to_datetime(response.headers["Date"])
    except (TypeError, ValueError):
        return skipped("the agent's response has no date")
    skew = (datetime.now(UTC) - agent_time.astimezone(UTC)).total_seconds()
    if abs(skew) < SKEW_SECONDS:
        return passed("this clock and the agent's agree")
    side = "ahead of" if skew > 0 else "behind"
    return warned(
        f"this clock is {abs(skew):.0f} s {side} the agent's, so traces show the wrong time",
        "Synchronize both with NTP",
    )


def _response(case: Case) -> Response | Finding:
    """Return the agent's response to `/info`, or a finding if there is none."""
    if reason := no_agent_reason(case.environ):
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
    return failed(sentence, f"Correct the address, or update the agent. {SET_URL}")


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
