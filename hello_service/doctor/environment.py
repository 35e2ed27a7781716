"""The checks of what the operator has set, and of what is installed: they ask nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hello_service.doctor.case import Case
from hello_service.doctor.finding import Finding, failed, passed, skipped, warned
from hello_service.observability.environment import sampling_rules

PACKAGE = Path(__file__).resolve().parent.parent
FLUSHES = (4, 5)  # ddtrace from here on sends its last spans when it is told to stop
TRUE = {"true", "1"}  # what ddtrace takes for true; everything else is false
ONLY_OURS = {"yes", "on", "y", "t"}  # what the settings take for true besides

COMPLAINT = re.compile(r"(\w+)=.*: (must .*)", re.DOTALL)
API_KEY = re.compile(r"[0-9a-fA-F]{32}")
APPLICATION_KEY = re.compile(r"[0-9a-fA-F]{40}")
AUTO = re.compile(r"^\s*(?:import ddtrace\.auto|from ddtrace import .*\bauto\b)", re.MULTILINE)
BOOTSTRAP = re.compile(r"ddtrace[/\\]bootstrap")


def settings(case: Case) -> Finding:
    """Whether the service can start with this environment. Values are not shown: one may be a secret in a wrong place."""
    if not case.complaints:
        return passed("every variable can be used")
    said = [_without_value(complaint, case.environ) for complaint in case.complaints]
    return failed("the service can't start: " + "; ".join(said), "Correct it; docs/settings.md lists every variable")


def _without_value(complaint: str, environ: Mapping[str, str]) -> str:
    match = COMPLAINT.fullmatch(complaint)
    if match is None:
        return "a variable can't be used"
    variable, reason = match.groups()
    for part in environ.get(variable, "").split(","):
        reason = reason.replace(repr(part.strip()), "one")
    return f"{variable} {reason}"


def installed(_: Case) -> Finding:
    """Whether ddtrace is there, at a version that sends its last spans when the process stops."""
    wanted = ".".join(map(str, FLUSHES))
    fix = f"pip install 'ddtrace>={wanted}'"
    try:
        there = version("ddtrace")
    except PackageNotFoundError:
        return failed("ddtrace is not installed", fix)
    numbers = tuple(int(number) for number in re.findall(r"\d+", there)[:2])
    if numbers < FLUSHES:
        return failed(f"ddtrace {there} loses the last spans of a process that is told to stop", fix)
    return passed(f"ddtrace {there} sends its last spans when the process stops")


def switched_on(case: Case) -> Finding:
    """Whether tracing is switched on."""
    environ = case.environ
    value = environ.get("DD_TRACE_ENABLED")
    if value and value.lower() not in TRUE:
        if value.lower() in ONLY_OURS:
            said = "DD_TRACE_ENABLED is a yes that a bare ddtrace-run takes for no (`serve` says it in its words)"
            return warned(said, "DD_TRACE_ENABLED=true")
        return failed("DD_TRACE_ENABLED switches tracing off", "unset DD_TRACE_ENABLED")
    if not value and environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return failed("OTEL_TRACES_EXPORTER=none switches tracing off", "unset OTEL_TRACES_EXPORTER")
    if environ.get("DD_APM_TRACING_ENABLED", "true").lower() not in TRUE:
        return failed("DD_APM_TRACING_ENABLED switches APM off", "unset DD_APM_TRACING_ENABLED")
    return passed("nothing switches tracing off")


def names(case: Case) -> Finding:
    """Whether service, environment and version are set, by which Datadog joins everything."""
    missing = [name for name in ("DD_SERVICE", "DD_ENV", "DD_VERSION") if not case.environ.get(name)]
    if missing:
        fix = " ".join(f"{name}=..." for name in missing)
        return warned(f"{', '.join(missing)} not set: Datadog can't tell environments and releases apart", fix)
    service, env, release = (case.environ[name] for name in ("DD_SERVICE", "DD_ENV", "DD_VERSION"))
    return passed(f"service {service}, environment {env}, version {release}")


def sampling(case: Case) -> Finding:
    """Which share of the traces is kept, and what decided it."""
    environ = case.environ
    text, source = environ.get("DD_TRACE_SAMPLING_RULES"), "DD_TRACE_SAMPLING_RULES"
    if not text and (rate := _rate(environ)) is not None:
        text, source = sampling_rules(rate), "DD_TRACE_SAMPLE_RATE"
    if not text and environ.get("OTEL_TRACES_SAMPLER", "").lower().endswith("always_off"):
        text, source = sampling_rules(0.0), "OTEL_TRACES_SAMPLER"
    if not text:
        return passed("every trace is kept until the agent asks for fewer (no rule is set)")
    rules = _rules(text)
    if rules is None:
        return warned(f"{source} is no list of rules: ddtrace ignores it", f"{source}='{sampling_rules(1.0)}'")
    if environ.get("DD_TRACE_RATE_LIMIT") == "0":
        return failed("DD_TRACE_RATE_LIMIT=0 keeps no trace that a rule matches", "unset DD_TRACE_RATE_LIMIT")
    for_all = [rule["sample_rate"] for rule in rules if set(rule) == {"sample_rate"}]
    if not for_all:
        return passed(f"{source} decides for some traces; the others are kept until the agent asks for fewer")
    if for_all[0] == 0:
        return failed(f"{source} keeps no trace", f"unset {source}")
    return passed(f"{for_all[0] * 100:g} % of the traces are kept ({source})")


def _rate(environ: Mapping[str, str]) -> float | None:
    """Return the sample rate, which counts even where another variable makes the settings unusable."""
    try:
        return float(environ["DD_TRACE_SAMPLE_RATE"])
    except (KeyError, ValueError):
        return None


def _rules(text: str) -> list[dict[str, Any]] | None:
    try:
        rules = json.loads(text)
    except ValueError:
        return None
    fine = isinstance(rules, list) and all(
        isinstance(rule, dict) and isinstance(rule.get("sample_rate"), int | float) for rule in rules
    )
    return rules if fine else None


def api_key(case: Case) -> Finding:
    """Whether the API key, where it can be seen, has the form of one. It is never shown."""
    key = case.environ.get("DD_API_KEY")
    if not key:
        return skipped("DD_API_KEY is not set here; the agent needs it, the service does not")
    if API_KEY.fullmatch(key):
        return passed("DD_API_KEY has the form of an API key")
    if key.lstrip().startswith("{"):
        said, fix = (
            "is a whole JSON object: a key/value secret",
            'In the task definition: "valueFrom": "<arn>:DD_API_KEY::"',
        )
    elif APPLICATION_KEY.fullmatch(key):
        said, fix = (
            "has 40 characters: an application key",
            "Take an API key (32 characters) from Organization Settings",
        )
    elif key != key.strip(" \t\r\n\"'"):
        said, fix = "has spaces or quotes around it", "Store the 32 characters alone, without quotes and line end"
    else:
        said, fix = "is not 32 hexadecimal characters", "Take an API key (32 characters) from Organization Settings"
    return failed(f"DD_API_KEY {said}; Datadog refuses it", fix)


def _on_fargate(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("ECS_CONTAINER_METADATA_URI_V4")) or environ.get("AWS_EXECUTION_ENV") == "AWS_ECS_FARGATE"


def _always(_: Mapping[str, str]) -> bool:
    return True


def _without_rules(environ: Mapping[str, str]) -> bool:
    return not environ.get("DD_TRACE_SAMPLING_RULES")


# variable, when it is a mistake, what is wrong with it, what replaced it
OLD: tuple[tuple[str, Callable[[Mapping[str, str]], bool], str, str], ...] = (
    (
        "DD_TRACE_SAMPLE_RATE",
        _without_rules,
        "is ignored under a bare ddtrace-run (`serve` applies it)",
        """DD_TRACE_SAMPLING_RULES='[{"sample_rate": ...}]'""",
    ),
    ("DD_ECS_FARGATE", _always, "is a misspelling of ECS_FARGATE", "ECS_FARGATE=true, for the agent's container"),
    ("DD_HOSTNAME", _on_fargate, "makes a billed host of every task on Fargate", "unset DD_HOSTNAME"),
    ("DD_SERVICE_NAME", _always, "does nothing", "DD_SERVICE=..."),
    ("DATADOG_SERVICE_NAME", _always, "does nothing", "DD_SERVICE=..."),
    ("DATADOG_ENV", _always, "does nothing", "DD_ENV=..."),
    ("DD_TRACE_AGENT_HOSTNAME", _always, "is old, and still wins over DD_AGENT_HOST", "DD_AGENT_HOST=..."),
    ("DATADOG_TRACE_AGENT_HOSTNAME", _always, "does nothing", "DD_AGENT_HOST=..."),
    ("DD_AGENT_PORT", _always, "is the old name", "DD_TRACE_AGENT_PORT=..."),
)


def old_settings(case: Case) -> Finding:
    """Which settings are of another time, and what replaced them."""
    environ = case.environ
    found = [(name, said, fix) for name, when, said, fix in OLD if environ.get(name) and when(environ)]
    if not found:
        return passed("no setting is out of date")
    return warned("; ".join(f"{name} {said}" for name, said, _ in found), "; ".join(fix for *_, fix in found))


def gevent(case: Case) -> Finding:
    """Whether gevent is beside ddtrace, which then unloads modules when it starts."""
    name = "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE"
    if find_spec("gevent") is None:
        return passed("gevent is not installed")
    value = case.environ.get(name, "").lower()
    if not value:
        return warned(f"gevent is installed: without {name} a bare ddtrace-run serves no connection", f"{name}=false")
    if value == "auto" or value in TRUE:
        return failed(f"gevent is installed and {name} unloads asyncio: no connection is served", f"{name}=false")
    return passed(f"gevent is installed, and {name} keeps it from doing harm")


def started_once(case: Case, sources: Path = PACKAGE) -> Finding:
    """Whether ddtrace is started one way: what the service's own source and PYTHONPATH say; a dependency's is not read."""
    importing = [path.name for path in sorted(sources.rglob("*.py")) if AUTO.search(path.read_text(errors="replace"))]
    if importing:
        said = f"{', '.join(importing)} imports ddtrace.auto, and `serve` starts ddtrace-run: never both"
        return warned(said, f"Remove the import from {', '.join(importing)}")
    if BOOTSTRAP.search(case.environ.get("PYTHONPATH", "")):
        return warned(
            "this environment is under ddtrace-run already, and `serve` starts it, too", "hello-service serve"
        )
    return passed("ddtrace is started in one way only")
