"""The tracer's environment, prepared before ddtrace starts, and warnings about it.

ddtrace reads its configuration from the environment while it is imported, so the environment must be complete by then.
A variable that an operator has set always wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from hello_service.settings import Settings

# Variables that ddtrace reads only when it starts: name, value, and the effect of leaving the variable unset.
ENVIRONMENT_ONLY: Mapping[str, tuple[str, str]] = {
    "DD_TRACE_AIOHTTP_ENABLED": ("false", "two more spans for each outbound call"),
    "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": ("false", "no connection is served if gevent is installed"),
    "DD_TRACE_ASYNCIO_ENABLED": ("false", "more CPU per request, for the same spans"),
    "DD_TRACE_OTEL_CTX_ENABLED": ("false", "more CPU per request, for the same spans"),
    "DD_TRACE_STATS_COMPUTATION_ENABLED": ("true", "inexact metrics when traces are sampled"),
}

# ddtrace's own variables for trace propagation from request headers. If both STYLES are set, the first applies.
BEHAVIOR = "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT"
STYLES = ("DD_TRACE_PROPAGATION_STYLE_EXTRACT", "DD_TRACE_PROPAGATION_STYLE")
NO_TRUST = (STYLES[0], "none")  # makes ddtrace ignore ids, sampling priority, tags and baggage


def sampling_rules(rate: float) -> str:
    """Return `rate` (0.0 to 1.0) as the value of DD_TRACE_SAMPLING_RULES."""
    return json.dumps([{"sample_rate": rate}])


def tracer_environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return `environ` with defaults for the ddtrace variables that are unset. `settings` must come from `environ`.

    ddtrace must read a value as the settings do, so an empty DD_ variable is removed, and DD_TRACE_ENABLED becomes
    `true` if the settings read it as true.
    """
    environ = {name: value for name, value in environ.items() if value or not name.startswith("DD_")}
    if settings.dd_trace_enabled and "DD_TRACE_ENABLED" in environ:
        environ["DD_TRACE_ENABLED"] = "true"
    defaults = {"DD_SERVICE": settings.dd_service}
    defaults |= {name: value for name, (value, _) in ENVIRONMENT_ONLY.items()}
    if settings.dd_trace_sample_rate is not None:
        defaults["DD_TRACE_SAMPLING_RULES"] = sampling_rules(settings.dd_trace_sample_rate)
    if not settings.trust_trace_headers and not any(environ.get(name) for name in (BEHAVIOR, *STYLES)):
        variable, value = NO_TRUST
        defaults[variable] = value
    return {**defaults, **environ}


def configuration_warnings(environ: Mapping[str, str], settings: Settings) -> list[str]:
    """Return warnings about the tracer's environment, one sentence each, for the log at start."""
    warnings: list[str] = []
    if settings.dd_trace_sample_rate is not None:
        rules = sampling_rules(settings.dd_trace_sample_rate)
        rate = f"DD_TRACE_SAMPLE_RATE={environ['DD_TRACE_SAMPLE_RATE']}"
        in_force = environ.get("DD_TRACE_SAMPLING_RULES")
        if not in_force:
            warnings.append(f"{rate} is ignored by ddtrace 4: set DD_TRACE_SAMPLING_RULES='{rules}'")
        elif in_force == rules:
            warnings.append(f"{rate} is applied as DD_TRACE_SAMPLING_RULES='{rules}'")
        else:
            warnings.append(f"{rate} has no effect: DD_TRACE_SAMPLING_RULES is set and wins")
    warnings += _trust_warnings(environ, settings)
    missing = [
        f"{name}={value} ({effect})" for name, (value, effect) in ENVIRONMENT_ONLY.items() if not environ.get(name)
    ]
    if missing:
        warnings.append("These variables are unset, and ddtrace reads them only when it starts: " + ", ".join(missing))
    return warnings


def _trust_warnings(environ: Mapping[str, str], settings: Settings) -> list[str]:
    """Return a warning if ddtrace would trust trace headers although TRUST_TRACE_HEADERS is false."""
    variables = {name: environ[name] for name in (BEHAVIOR, *STYLES) if environ.get(name)}
    style = next((variables[name] for name in STYLES if name in variables), "")
    ignores_headers = variables.get(BEHAVIOR, "").lower() == "ignore" or style.strip().lower() == "none"
    if settings.trust_trace_headers or not settings.dd_trace_enabled or ignores_headers:
        return []
    if variables:
        assignments = ", ".join(f"{name}={value}" for name, value in variables.items())
        return [f"TRUST_TRACE_HEADERS=false has no effect: {assignments} is set and wins"]
    return [f"TRUST_TRACE_HEADERS=false is applied by `hello-service serve` only: set {'='.join(NO_TRUST)}"]
