"""The checks of the operator's variables and of the installed packages. They send no request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hello_service.doctor.context import CheckContext
from hello_service.doctor.finding import Finding, failed, passed, skipped, warned
from hello_service.observability.environment import sampling_rules

PACKAGE = Path(__file__).resolve().parent.parent
FLUSHES_SINCE = (4, 5)  # the first release of ddtrace that sends its last spans when the process gets SIGTERM
TRUE = {"true", "1"}  # ddtrace reads every other value as false
TRUE_FOR_SETTINGS_ONLY = {"yes", "on", "y", "t"}  # true for pydantic, false for ddtrace

# A line of a SettingsError: variable, value and reason.
SETTINGS_ERROR = re.compile(r"(\w+)=.*: (must .*)")
API_KEY = re.compile(r"[0-9a-fA-F]{32}")
APPLICATION_KEY = re.compile(r"[0-9a-fA-F]{40}")
# An import that starts ddtrace.
AUTO = re.compile(r"^\s*(?:import ddtrace\.auto|from ddtrace import .*\bauto\b)", re.MULTILINE)
# The folder that ddtrace-run adds to PYTHONPATH.
BOOTSTRAP = re.compile(r"ddtrace[/\\]bootstrap")


def settings(context: CheckContext) -> Finding:
    """Check that the service can start with this environment. Show no value, because it may be a misplaced secret."""
    if not context.settings_errors:
        return passed("every variable is valid")
    reasons = [_without_value(error, context.environ) for error in context.settings_errors]
    return failed(
        "the service can't start: " + "; ".join(reasons), "Correct these variables; docs/settings.md lists all"
    )


def _without_value(error: str, environ: Mapping[str, str]) -> str:
    """Return the settings' `error` without the variable's value, and without any part of a list that it quotes."""
    match = SETTINGS_ERROR.fullmatch(error)
    if match is None:
        return "a variable is invalid"
    variable, reason = match.groups()
    for part in environ.get(variable, "").split(","):
        reason = reason.replace(repr(part.strip()), "another value")
    return f"{variable} {reason}"


def installed(_: CheckContext) -> Finding:
    """Check that ddtrace is installed, in a version that sends its last spans when the process stops."""
    required = ".".join(map(str, FLUSHES_SINCE))
    fix = f"pip install 'ddtrace>={required}'"
    try:
        installed_version = version("ddtrace")
    except PackageNotFoundError:
        return failed("ddtrace is not installed", fix)
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed_version)[:2])
    if numbers < FLUSHES_SINCE:
        return failed(f"ddtrace {installed_version} loses the last spans of a process that gets SIGTERM", fix)
    return passed(f"ddtrace {installed_version} sends its last spans when the process stops")


def switched_on(context: CheckContext) -> Finding:
    """Check that no variable disables tracing."""
    environ = context.environ
    value = environ.get("DD_TRACE_ENABLED")
    if value and value.lower() not in TRUE:
        if value.lower() in TRUE_FOR_SETTINGS_ONLY:
            sentence = f"DD_TRACE_ENABLED={value} means true to `serve`, but false to a bare ddtrace-run"
            return warned(sentence, "DD_TRACE_ENABLED=true")
        return failed("DD_TRACE_ENABLED disables tracing", "unset DD_TRACE_ENABLED")
    if not value and environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return failed("OTEL_TRACES_EXPORTER=none disables tracing", "unset OTEL_TRACES_EXPORTER")
    if environ.get("DD_APM_TRACING_ENABLED", "true").lower() not in TRUE:
        return failed("DD_APM_TRACING_ENABLED disables APM", "unset DD_APM_TRACING_ENABLED")
    return passed("no variable disables tracing")


def names(context: CheckContext) -> Finding:
    """Check that service, environment and version are set, because Datadog correlates data by them."""
    missing = [name for name in ("DD_SERVICE", "DD_ENV", "DD_VERSION") if not context.environ.get(name)]
    if missing:
        fix = " ".join(f"{name}=..." for name in missing)
        return warned(f"{', '.join(missing)} not set: Datadog can't tell environments and releases apart", fix)
    service, env, release = (context.environ[name] for name in ("DD_SERVICE", "DD_ENV", "DD_VERSION"))
    return passed(f"service {service}, environment {env}, version {release}")


def sampling(context: CheckContext) -> Finding:
    """Report the fraction of traces that is kept, and the variable that sets it."""
    environ = context.environ
    text, source = environ.get("DD_TRACE_SAMPLING_RULES"), "DD_TRACE_SAMPLING_RULES"
    if not text and (rate := _sample_rate(environ)) is not None:
        text, source = sampling_rules(rate), "DD_TRACE_SAMPLE_RATE"
    # always_off or parentbased_always_off
    if not text and environ.get("OTEL_TRACES_SAMPLER", "").lower().endswith("always_off"):
        text, source = sampling_rules(0.0), "OTEL_TRACES_SAMPLER"
    if not text:
        return passed("every trace is kept unless the agent lowers the rate (no rule is set)")
    rules = _parse_rules(text)
    if rules is None:
        return warned(
            f"{source} is not a valid list of rules, so ddtrace ignores it", f"{source}='{sampling_rules(1.0)}'"
        )
    if environ.get("DD_TRACE_RATE_LIMIT") == "0":
        return failed("DD_TRACE_RATE_LIMIT=0 keeps no trace that a rule matches", "unset DD_TRACE_RATE_LIMIT")
    return _judge_rules(rules, source)


def _judge_rules(rules: list[dict[str, Any]], source: str) -> Finding:
    # A rule without a condition applies to every trace that no earlier rule matches.
    position = next((index for index, rule in enumerate(rules) if set(rule) == {"sample_rate"}), None)
    if position is None:
        return passed(f"{source} applies to some traces; the others are kept unless the agent lowers the rate")
    rates = [rule["sample_rate"] for rule in rules[: position + 1]]
    if not any(rates):
        return failed(f"{source} keeps no trace", f"unset {source}")
    if rates[-1] == 0:
        return passed(f"{source} keeps only traces that an earlier rule matches")
    traces = "traces that no earlier rule matches" if position else "traces"
    return passed(f"{rates[-1] * 100:g}% of the {traces} are kept ({source})")


def _sample_rate(environ: Mapping[str, str]) -> float | None:
    """Return DD_TRACE_SAMPLE_RATE. It is not read from the settings, which another variable may make invalid."""
    try:
        return float(environ["DD_TRACE_SAMPLE_RATE"])
    except (KeyError, ValueError):
        return None


def _parse_rules(text: str) -> list[dict[str, Any]] | None:
    """Return the sampling rules in `text`, None if they are invalid."""
    try:
        rules = json.loads(text)
    except ValueError:
        return None
    valid = isinstance(rules, list) and all(
        isinstance(rule, dict) and isinstance(rule.get("sample_rate"), int | float) for rule in rules
    )
    return rules if valid else None


def api_key(context: CheckContext) -> Finding:
    """Check the form of the API key, if it is visible here. The key is never shown."""
    key = context.environ.get("DD_API_KEY")
    if not key:
        return skipped("DD_API_KEY is not set here; the agent needs it, the service does not")
    if API_KEY.fullmatch(key):
        return passed("DD_API_KEY has the form of an API key")
    if key.lstrip().startswith("{"):
        fault, fix = (
            "is a whole JSON object: a key/value secret",
            'In the task definition: "valueFrom": "<arn>:DD_API_KEY::"',
        )
    elif APPLICATION_KEY.fullmatch(key):
        fault, fix = (
            "has 40 characters: an application key",
            "Use an API key (32 characters) from Organization Settings",
        )
    elif key != key.strip(" \t\r\n\"'"):
        fault, fix = "has spaces or quotes around it", "Store the 32 characters alone, without quotes or a line break"
    else:
        fault, fix = "is not 32 hexadecimal characters", "Use an API key (32 characters) from Organization Settings"
    return failed(f"DD_API_KEY {fault}; Datadog rejects it", fix)


def _is_on_fargate(environ: Mapping[str, str]) -> bool:
    # ECS sets both variables. On EC2, AWS_EXECUTION_ENV is AWS_ECS_EC2.
    return environ.get("AWS_EXECUTION_ENV") == "AWS_ECS_FARGATE" or (
        bool(environ.get("ECS_CONTAINER_METADATA_URI_V4")) and not environ.get("AWS_EXECUTION_ENV")
    )


def _always(_: Mapping[str, str]) -> bool:
    return True


def _has_no_rules(environ: Mapping[str, str]) -> bool:
    return not environ.get("DD_TRACE_SAMPLING_RULES")


# The variable, whether it is a mistake in an environment, what is wrong with it, and the replacement.
OLD_SETTINGS: tuple[tuple[str, Callable[[Mapping[str, str]], bool], str, str], ...] = (
    (
        "DD_TRACE_SAMPLE_RATE",
        _has_no_rules,
        "is ignored under a bare ddtrace-run (`serve` applies it)",
        """DD_TRACE_SAMPLING_RULES='[{"sample_rate": ...}]'""",
    ),
    ("DD_ECS_FARGATE", _always, "is a misspelling of ECS_FARGATE", "ECS_FARGATE=true, for the agent's container"),
    ("DD_HOSTNAME", _is_on_fargate, "turns every task on Fargate into a billed host", "unset DD_HOSTNAME"),
    ("DD_SERVICE_NAME", _always, "has no effect", "DD_SERVICE=..."),
    ("DATADOG_SERVICE_NAME", _always, "has no effect", "DD_SERVICE=..."),
    ("DATADOG_ENV", _always, "has no effect", "DD_ENV=..."),
    ("DD_TRACE_AGENT_HOSTNAME", _always, "is deprecated, and still overrides DD_AGENT_HOST", "DD_AGENT_HOST=..."),
    ("DATADOG_TRACE_AGENT_HOSTNAME", _always, "has no effect", "DD_AGENT_HOST=..."),
    ("DD_AGENT_PORT", _always, "is deprecated", "DD_TRACE_AGENT_PORT=..."),
)


def old_settings(context: CheckContext) -> Finding:
    """Check for outdated settings, and report their replacements."""
    environ = context.environ
    mistakes = [
        (name, fault, fix) for name, is_mistake, fault, fix in OLD_SETTINGS if environ.get(name) and is_mistake(environ)
    ]
    if not mistakes:
        return passed("no setting is outdated")
    return warned("; ".join(f"{name} {fault}" for name, fault, _ in mistakes), "; ".join(fix for *_, fix in mistakes))


def gevent(context: CheckContext) -> Finding:
    """Check for gevent, which makes ddtrace unload modules when it starts."""
    name = "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE"
    if find_spec("gevent") is None:
        return passed("gevent is not installed")
    value = context.environ.get(name, "").lower()
    if not value:
        return warned(f"gevent is installed: without {name} a bare ddtrace-run serves no connection", f"{name}=false")
    if value == "auto" or value in TRUE:
        return failed(f"gevent is installed and {name} unloads asyncio: no connection is served", f"{name}=false")
    return passed(f"gevent is installed, and {name} prevents its side effects")


def started_once(context: CheckContext, sources: Path = PACKAGE) -> Finding:
    """Check that ddtrace is started in one way only, in the service's own source and in PYTHONPATH.

    Dependencies are not searched.
    """
    files = [path.name for path in sorted(sources.rglob("*.py")) if AUTO.search(path.read_text(errors="replace"))]
    if files:
        sentence = f"{', '.join(files)} imports ddtrace.auto, and `serve` starts ddtrace-run: use one only"
        return warned(sentence, f"Remove the import from {', '.join(files)}")
    if BOOTSTRAP.search(context.environ.get("PYTHONPATH", "")):
        return warned("this process already runs under ddtrace-run, and `serve` starts it again", "hello-service serve")
    return passed("ddtrace is started in one way only")
