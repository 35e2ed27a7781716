"""Every undocumented name that this package relies on, as strings; checked at start. A leaf.

The names are resolved by importlib, so that no folder imports a library that is not its own. `broken` reports what a
new release of a library renamed, removed or gave other parameters, before the first request depends on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Name:
    """One undocumented name.

    Attributes:
        path: `module:attribute` or `module:Class.attribute`. Several, separated by ` | `, are alternatives: one must
            be there, as where releases of a library differ.
        parameters: names of the leading parameters, in order, as this package passes them; empty: not checked.
        uses: names that the code of the function must contain, such as the instance attributes that it sets.
    """

    path: str
    parameters: Sequence[str] = ()
    uses: Sequence[str] = ()


# By the part of this package that relies on them.
NAMES: Mapping[str, Sequence[Name]] = {
    "tracing": (
        Name("ddtrace:config.asgi.copy"),
        Name("ddtrace:config._is_user_provided_service"),
        Name("ddtrace:config._http_server.is_error_code", ("status_code",)),
        Name("ddtrace.contrib.internal.trace_utils:_copy_trace_level_tags", ("target_span", "parent")),
        Name("ddtrace.contrib.internal.trace_utils:set_http_meta", ("span", "integration_config")),
        Name("ddtrace.internal.core.event_hub:dispatch"),
        Name("ddtrace.internal.core.event_hub:has_listeners"),
        Name("ddtrace.internal._exceptions:BlockingException"),
        Name("ddtrace.internal._exceptions:find_exception", ("exc", "exception_type")),
        Name("ddtrace.internal.endpoints:endpoint_collection.add_endpoint", ("method", "path")),
        Name("ddtrace.internal.utils:get_blocked"),
        Name("ddtrace.trace:Context._reactivate"),
        Name("ddtrace.trace:tracer._span_aggregator.dd_processors"),
    ),
    "fast_span": (
        Name("ddtrace:config._inferred_proxy_services_enabled"),
        Name("ddtrace:config._client_ip_header"),
        Name("ddtrace:config._http_server.is_error_code", ("status_code",)),
        Name("ddtrace.contrib.asgi:TraceMiddleware.default_ports"),
        Name("ddtrace.contrib.internal.asgi.utils:bytes_to_str", ("str_or_bytes",)),
        Name("ddtrace.contrib.internal.asgi.utils:extract_headers", ("scope",)),
        Name("ddtrace.contrib.internal.trace_utils:activate_distributed_headers", ("tracer", "int_config")),
        Name("ddtrace.contrib.internal.trace_utils:int_service", ("pin", "int_config")),
        Name("ddtrace.contrib.internal.trace_utils:set_http_meta", ("span", "integration_config")),
        Name("ddtrace.contrib.internal.trace_utils:set_service_and_source", ("span", "service", "int_config")),
        Name("ddtrace.internal.core.event_hub:has_listeners"),
        Name("ddtrace.internal.schema:schematize_url_operation"),
        Name("ddtrace.internal.schema.span_attribute_schema:SpanDirection.INBOUND"),
    ),
}

# What is done without a part, and what to do about it.
WITHOUT: Mapping[str, str] = {
    "tracing": "The service may run untraced: install the ddtrace of requirements/run.txt.",
    "fast_span": "ddtrace's own middleware makes the span of a request, for more CPU.",
}


def broken(part: str) -> list[str]:
    """Return one sentence for each name of `part` that is not what this package relies on; empty when all hold."""
    return [sentence for name in NAMES[part] if (sentence := _complaint(name)) is not None]


def check() -> dict[str, list[str]]:
    """Return `broken(part)` for each part that is broken, with the sentence of `WITHOUT` at its end."""
    found = {part: broken(part) for part in NAMES}
    return {part: [*sentences, WITHOUT[part]] for part, sentences in found.items() if sentences}


def _complaint(name: Name) -> str | None:
    complaints = [_alternative(path, name) for path in name.path.split(" | ")]
    return None if None in complaints else complaints[0]


def _alternative(path: str, name: Name) -> str | None:
    module, _, attributes = path.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError:
        return f"Module {module} can't be imported."
    for attribute in filter(None, attributes.split(".")):
        if not hasattr(found, attribute):
            return f"{path} is missing: {attribute} was renamed or removed."
        found = getattr(found, attribute)
    if name.parameters:
        actual = list(inspect.signature(found).parameters)
        if actual[: len(name.parameters)] != list(name.parameters):
            return f"{path} takes ({', '.join(actual)}), expected ({', '.join(name.parameters)})."
    missing = [used for used in name.uses if used not in (*found.__code__.co_names, *found.__code__.co_varnames)]
    return f"{path} no longer uses {', '.join(missing)}." if missing else None
