"""The checks of the agent: its address, proxies, response, trace format and clock, and whether it accepts a span."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from hello_service.doctor.context import AGENT_SECONDS, HOST_VARIABLES, PORT_VARIABLES, CheckContext, no_agent_reason
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import NoResponse, Reason, Response

SKEW_SECONDS = 60.0  # above this the Datadog Agent itself warns about the clock
# The variables that ddtrace 4.16 was observed to use, by the scheme of the agent's address.
ALL_PROXY = ("ALL_PROXY", "all_proxy")
PROXY_VARIABLES = {
    "http": ("HTTP_PROXY", "http_proxy", *ALL_PROXY),
    "https": ("HTTPS_PROXY", "https_proxy", *ALL_PROXY),
}
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


def address(context: CheckContext) -> Finding:
    """Report the agent's address and the variables that set it."""
    if reason := no_agent_reason(context.environ):
        return skipped(reason)
    source = " and ".join(context.address.variables) or "default, because no variable is set"
    if not context.address.usable:
        return failed(f"{source} gives an address that ddtrace can't use", SET_URL)
    return passed(f"{context.address.masked_url} ({source})")


def agreement(context: CheckContext) -> Finding:
    """Check that the variables for the agent's address agree."""
    present = [name for name in (*HOST_VARIABLES, *PORT_VARIABLES) if context.environ.get(name)]
    unused = [name for name in present if name not in context.address.variables]
    if not unused or not context.address.usable:
        return passed("no variables contradict each other")
    parts = urlsplit(context.address.url)
    used_values = {str(parts.hostname), str(parts.port or 8126)}
    conflicting = [name for name in unused if context.environ[name] not in used_values]
    if not conflicting:
        return passed("the variables agree")
    used = " and ".join(context.address.variables)
    return warned(
        f"ddtrace uses {used} and ignores the different value of {' and '.join(conflicting)}",
        f"unset {' '.join(conflicting)}",
    )


def proxy(context: CheckContext) -> Finding:
    """Check that ddtrace sends no traces through a proxy. Its exporter uses the usual proxy variables."""
    if reason := no_agent_reason(context.environ):
        return skipped(reason)
    parts = urlsplit(context.address.url) if context.address.usable else None
    if parts is None or parts.scheme == "unix":
        return skipped("no address that ddtrace could reach through a proxy")
    names = [name for name in PROXY_VARIABLES[parts.scheme] if context.environ.get(name)]
    host = str(parts.hostname)
    if not names or is_exempt(host, context.environ):
        return passed(f"no proxy between here and {host}")
    sentence = f"{names[0]} sends ddtrace's traces for {host} through a proxy"
    fix = f"Add {host} to NO_PROXY, exactly as it is written in the agent's address"
    # A proxy on another host can't reach this loopback interface, but it may forward to other hosts.
    return failed(sentence, fix) if host == "localhost" or _is_loopback(host) else warned(sentence, fix)


def is_exempt(host: str, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY excludes `host`, as ddtrace's exporter reads it.

    Only an address or a network in NO_PROXY matches an address, and only a name or `*` matches a name.
    """
    entries = [entry.strip() for entry in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",")]
    try:
        address = ip_address(host)
    except ValueError:
        suffixes = [entry.lstrip(".").lower() for entry in entries if entry]
        return any(suffix == "*" or f".{host.lower()}".endswith(f".{suffix}") for suffix in suffixes)
    return any(address in network for entry in entries for network in _networks(entry))


def reachable(context: CheckContext) -> Finding:
    """Check that an agent responds at the address; report its version and the response time."""
    response = _response(context)
    if isinstance(response, Finding):
        return response
    version = response.document().get("version")
    name = f"agent {version}" if version else "an agent of unknown version"
    return passed(f"{name} responds at {context.address.masked_url} in {response.milliseconds:.0f} ms")


def trace_format(context: CheckContext) -> Finding:
    """Check that the agent accepts traces in the format that ddtrace will use."""
    response = _response(context)
    if isinstance(response, Finding):
        return skipped("no agent responds")
    version = context.configuration.result(context.remaining).get("format")
    if version is None:
        return unknown("ddtrace's trace format could not be determined")
    endpoints = [str(endpoint).strip("/") for endpoint in response.document()["endpoints"]]
    if f"{version}/traces" in endpoints:
        return passed(f"ddtrace will send {version}, and the agent accepts it")
    sentence = f"the agent does not accept ddtrace's trace format, {version}"
    if "v0.4/traces" in endpoints:
        return failed(f"{sentence}, and ddtrace does not fall back", "DD_TRACE_API_VERSION=v0.4")
    return failed(sentence, "Set DD_APM_ENABLED=true for the agent, or update it")


def span(context: CheckContext) -> Finding:
    """Check that the agent accepts a test span that ddtrace itself sends."""
    if no_agent_reason(context.environ) is None and isinstance(_response(context), Finding):
        return skipped("no agent responds")
    configuration = context.configuration.result(context.remaining)
    if "format" not in configuration:
        exception = f" ({configuration['unusable']})" if configuration else ""
        return failed(
            f"ddtrace can't start with this environment{exception}",
            "Correct the DD_ variable that ddtrace can't read (see `ddtrace-run --info`)",
        )
    if not configuration["enabled"]:
        return failed("ddtrace is switched off in this environment", "unset DD_TRACE_ENABLED")
    result = context.test_span.result(context.remaining)
    if result.get("accepted"):
        return passed("ddtrace sent a test span, and it was accepted")
    return failed(
        f"ddtrace's test span was not accepted: {result.get('error')}",
        "Fix the failures above. If it still fails, check the agent's log and `agent status`.",
    )


def clock(context: CheckContext) -> Finding:
    """Check that this clock and the agent's agree."""
    response = _response(context)
    if isinstance(response, Finding):
        return skipped("no agent responds")
    try:
        agent_time = parsedate_to_datetime(response.headers["Date"])
    except (TypeError, ValueError):
        return skipped("the agent's response has no date")
    skew = (datetime.now(UTC) - agent_time.astimezone(UTC)).total_seconds()
    if abs(skew) < SKEW_SECONDS:
        return passed("this clock and the agent's agree")
    relation = "ahead of" if skew > 0 else "behind"
    return warned(
        f"this clock is {abs(skew):.0f} s {relation} the agent's, so traces show the wrong time",
        "Synchronize both with NTP",
    )


def _response(context: CheckContext) -> Response | Finding:
    """Return the agent's response to `/info`, or a finding if no response came or it isn't an agent's."""
    if reason := no_agent_reason(context.environ):
        return skipped(reason)
    if not context.address.usable:
        return skipped("no usable address")
    url = context.address.masked_url
    try:
        response = context.agent.result(context.remaining)
    except NoResponse as error:
        limit = f" (waited {AGENT_SECONDS:g} s)" if error.reason in {Reason.SILENT, Reason.UNRESOLVED} else ""
        return failed(f"{url}: {error.reason.value}{limit}", FIXES[error.reason])
    if response.status == 200 and isinstance(response.document().get("endpoints"), list):
        return response
    sentence = f"{url} is not a trace agent (HTTP {response.status} for /info), or is too old to have this path"
    return failed(sentence, f"Correct the address, or update the agent. {SET_URL}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _networks(entry: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(entry, strict=False)]
    except ValueError:
        return []
