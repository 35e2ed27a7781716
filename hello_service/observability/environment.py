"""The tracer's environment, made before ddtrace starts, and warnings about it.

ddtrace reads its configuration while it is imported, so what it should know must be in the environment by then.
What an operator has set always wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from hello_service.settings import Settings

# Only the environment can make these: variable, value, and what is seen without it.
ENVIRONMENT_ONLY: Mapping[str, tuple[str, str]] = {
    "DD_TRACE_AIOHTTP_ENABLED": ("false", "two more spans below each outbound call"),
    "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": ("false", "no connection is served where gevent is installed"),
    "DD_TRACE_ASYNCIO_ENABLED": ("false", "more CPU a request, for the same spans"),
    "DD_TRACE_OTEL_CTX_ENABLED": ("false", "more CPU a request, for the same spans"),
    "DD_TRACE_STATS_COMPUTATION_ENABLED": ("true", "metrics that are not exact when traces are sampled"),
}


# ddtrace's own variables for what it takes from a caller's headers. The two for styles: the first that is set counts.
BEHAVIOR = "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT"
STYLES = ("DD_TRACE_PROPAGATION_STYLE_EXTRACT", "DD_TRACE_PROPAGATION_STYLE")
NO_TRUST = (STYLES[0], "none")  # ignores ids, sampling priority, tags and baggage


def sampling_rules(rate: float) -> str:
    """Return `rate` (0.0 to 1.0) as the value of DD_TRACE_SAMPLING_RULES."""
    return json.dumps([{"sample_rate": rate}])


def tracer_environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return `environ` with what ddtrace should know besides, nothing of it changed that was set.

    What counts as unset or as a yes for the settings does so for ddtrace, too: an empty variable of its own is left
    out, and every word for true is `true`. `settings` are those read from the same `environ`.
    """
    environ = {name: value for name, value in environ.items() if value or not name.startswith("DD_")}
    if settings.dd_trace_enabled and "DD_TRACE_ENABLED" in environ:
        environ["DD_TRACE_ENABLED"] = "true"
    defaults = {"DD_SERVICE": settings.dd_service}
    defaults |= {name: value for name, (value, _) in ENVIRONMENT_ONLY.items()}
    if settings.dd_trace_sample_rate is not None:
        defaults["DD_TRACE_SAMPLING_RULES"] = sampling_rules(settings.dd_trace_sample_rate)
    if not settings.trust_trace_headers and not any(environ.get(name) for name in (BEHAVIOR, *STYLES)):
        defaults |= [NO_TRUST]
    return {**defaults, **environ}


def remarks(environ: Mapping[str, str], settings: Settings) -> list[str]:
    """Return what an operator should know of the tracer's environment, one sentence each, for the log at start."""
    said: list[str] = []
    if settings.dd_trace_sample_rate is not None:
        rules = sampling_rules(settings.dd_trace_sample_rate)
        rate = f"DD_TRACE_SAMPLE_RATE={environ['DD_TRACE_SAMPLE_RATE']}"
        in_force = environ.get("DD_TRACE_SAMPLING_RULES")
        if not in_force:
            said.append(f"{rate} is ignored by ddtrace 4: set DD_TRACE_SAMPLING_RULES='{rules}'")
        elif in_force == rules:
            said.append(f"{rate} is applied as DD_TRACE_SAMPLING_RULES='{rules}'")
        else:
            said.append(f"{rate} has no effect: DD_TRACE_SAMPLING_RULES is set and wins")
    said += _trust_warnings(environ, settings)
    missing = [f"{name}={value} ({why})" for name, (value, why) in ENVIRONMENT_ONLY.items() if not environ.get(name)]
    if missing:
        said.append("Only the environment can set these, and it does not: " + ", ".join(missing))
    return said


def _trust_warnings(environ: Mapping[str, str], settings: Settings) -> list[str]:
    """Return a sentence if ddtrace takes what TRUST_TRACE_HEADERS=false should keep out."""
    given = {name: environ[name] for name in (BEHAVIOR, *STYLES) if environ.get(name)}
    style = next((given[name] for name in STYLES if name in given), "")
    is_ignored = given.get(BEHAVIOR, "").lower() == "ignore" or style.strip().lower() == "none"
    if settings.trust_trace_headers or not settings.dd_trace_enabled or is_ignored:
        return []
    if given:
        decided = ", ".join(f"{name}={value}" for name, value in given.items())
        return [f"TRUST_TRACE_HEADERS=false has no effect: {decided} is set and wins"]
    return [f"TRUST_TRACE_HEADERS=false is applied by `hello-service serve` only: set {'='.join(NO_TRUST)}"]
