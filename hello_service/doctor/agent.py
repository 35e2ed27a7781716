"""The checks of the way to the agent: its address, a proxy on the way, its answer, its clock, a span that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from hello_service.doctor.case import AGENT_SECONDS, HOSTS, PORTS, Case, without_agent
from hello_service.doctor.finding import Finding, failed, passed, skipped, unknown, warned
from hello_service.doctor.wire import Answer, NoAnswer, Reason

SKEW_SECONDS = 60.0  # from here on the Datadog Agent itself complains of the clock
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")  # those that ddtrace 4.16 was seen to use
WHERE = (
    "DD_TRACE_AGENT_URL=http://host:8126 names the agent: localhost inside an ECS task, the service's name in Compose"
)

FIXES = {
    Reason.UNRESOLVED: f"Correct the name. {WHERE}",
    Reason.REFUSED: "Start the agent (on a laptop: scripts/dev; on ECS: look at the agent container's log). " + WHERE,
    Reason.MISSING: "Mount the directory of the agent's socket into this container, or unset DD_TRACE_AGENT_URL to use TCP",
    Reason.DENIED: "Let this user write to the socket (chmod o+rw, or a common group), or use TCP",
    Reason.SILENT: f"Restart the agent, and look for a firewall or a wrong port. {WHERE}",
    Reason.BROKEN: f"Something else listens there, or speaks TLS: correct the address. {WHERE}",
}


def address(case: Case) -> Finding:
    """Which agent address is in force, and what decided it."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    decided = " and ".join(case.address.variables) or "no variable is set: the default"
    if not case.address.usable:
        return failed(f"{decided} gives an address that ddtrace can't use", WHERE)
    return passed(f"{case.address.shown} ({decided})")


def agreement(case: Case) -> Finding:
    """Whether the variables that name the agent say the same."""
    losers = [name for name in (*HOSTS, *PORTS) if case.environ.get(name) and name not in case.address.variables]
    if not losers or not case.address.usable:
        return passed("no variable contradicts another")
    parts = urlsplit(case.address.url)
    in_force = {str(parts.hostname), str(parts.port or 8126)}
    against = [name for name in losers if case.environ[name] not in in_force]
    if not against:
        return passed("the variables say the same")
    winner = " and ".join(case.address.variables)
    return warned(
        f"{winner} wins: {' and '.join(against)} has no effect and says otherwise", f"unset {' '.join(against)}"
    )


def proxy(case: Case) -> Finding:
    """Whether a proxy gets what is meant for the agent: ddtrace's exporter obeys the usual variables."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    parts = urlsplit(case.address.url) if case.address.usable else None
    if parts is None or parts.scheme == "unix":
        return skipped("no address that a proxy could capture")
    names = [name for name in PROXIES if case.environ.get(name)]
    if parts.scheme == "https":
        names = [name for name in ("HTTPS_PROXY", "https_proxy", *PROXIES[2:]) if case.environ.get(name)]
    host = str(parts.hostname)
    if not names or exempt(host, case.environ):
        return passed(f"no proxy between here and {host}")
    said = f"{names[0]} captures what ddtrace sends to {host}"
    fix = f"NO_PROXY={host} (as it is written in the agent's address), beside what NO_PROXY says already"
    return failed(said, fix) if host == "localhost" or _loopback(host) else warned(said, fix)


def exempt(host: str, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY takes `host` out, as ddtrace's exporter reads it: addresses by address, names by name."""
    entries = [entry.strip() for entry in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",")]
    try:
        address = ip_address(host)
    except ValueError:
        suffixes = [entry.lstrip(".").lower() for entry in entries if entry]
        return any(suffix == "*" or f".{host.lower()}".endswith(f".{suffix}") for suffix in suffixes)
    return any(address in network for entry in entries for network in _networks(entry))


def answers(case: Case) -> Finding:
    """Whether an agent answers at that address, how fast, and what it says that it is."""
    answer = _answer(case)
    if isinstance(answer, Finding):
        return answer
    version = answer.document().get("version")
    called = f"agent {version}" if version else "an agent that does not say its version"
    return passed(f"{called} answers at {case.address.shown} in {answer.milliseconds:.0f} ms")


def trace_format(case: Case) -> Finding:
    """Whether the agent takes traces in the format that ddtrace will use."""
    answer = _answer(case)
    if isinstance(answer, Finding):
        return skipped("no agent answers")
    wanted = case.planned.result(case.remaining).get("format")
    if wanted is None:
        return unknown("ddtrace could not be asked for its format")
    taken = [str(endpoint).strip("/") for endpoint in answer.document()["endpoints"]]
    if f"{wanted}/traces" in taken:
        return passed(f"ddtrace will send {wanted}, and the agent takes it")
    said = f"the agent takes no traces in ddtrace's format, {wanted}"
    if "v0.4/traces" in taken:
        return failed(f"{said}, and ddtrace does not fall back", "DD_TRACE_API_VERSION=v0.4")
    return failed(said, "Set DD_APM_ENABLED=true for the agent, or update it")


def span(case: Case) -> Finding:
    """Whether a span that ddtrace itself sends is accepted."""
    if without_agent(case.environ) is None and isinstance(_answer(case), Finding):
        return skipped("no agent answers")
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
    """Whether this clock and the agent's say the same time."""
    answer = _answer(case)
    if isinstance(answer, Finding):
        return skipped("no agent answers")
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (TypeError, ValueError):
        return skipped("the agent's answer has no date")
    skew = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    if abs(skew) < SKEW_SECONDS:
        return passed("this clock and the agent's agree")
    side = "ahead of" if skew > 0 else "behind"
    return warned(
        f"this clock is {abs(skew):.0f} s {side} the agent's: traces show up at another time", "Set both by NTP"
    )


def _answer(case: Case) -> Answer | Finding:
    """Return the agent's answer to `/info`, or what to say when there is none."""
    if reason := without_agent(case.environ):
        return skipped(reason)
    if not case.address.usable:
        return skipped("no usable address")
    shown = case.address.shown
    try:
        answer = case.agent.result(case.remaining)
    except NoAnswer as none:
        limit = f" (waited {AGENT_SECONDS:g} s)" if none.reason in {Reason.SILENT, Reason.UNRESOLVED} else ""
        return failed(f"{shown}: {none.reason.value}{limit}", FIXES[none.reason])
    if answer.status == 200 and isinstance(answer.document().get("endpoints"), list):
        return answer
    said = f"what answers at {shown} is no trace agent (HTTP {answer.status} to /info), or one older than 7.24"
    return failed(said, f"Correct the address, or update the agent. {WHERE}")


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
