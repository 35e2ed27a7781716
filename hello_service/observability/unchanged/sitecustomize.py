"""Traces every Quart application of this process without a change to its code. `hello-service trace` puts this folder
on PYTHONPATH.

This file needs tracing.py, one folder above, and nothing else from this package. ddtrace's own sitecustomize imports
this one, and this one imports the next sitecustomize on the path.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from wrapt import when_imported  # a dependency of ddtrace

HERE = Path(__file__).resolve().parent
PROBES = frozenset(path.strip() for path in os.environ.get("PROBE_PATHS", "/health,/ready").split(",") if path.strip())


@cache
def load_tracing() -> Any:
    """Return tracing.py as a module, under a name that doesn't collide with an application's module."""
    spec = spec_from_file_location("hello_service_tracing", HERE.parent / "tracing.py")
    assert spec is not None  # noqa: S101 - always true of a name that ends with .py
    assert spec.loader is not None  # noqa: S101 - the same
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@when_imported("quart.app")
def trace_every_app(module: Any) -> None:
    """Trace each application on its first call, unless it or an application around it is already traced."""
    untraced_call = module.Quart.__call__

    async def traced_call(app: Any, scope: Any, receive: Any, send: Any) -> None:
        if "datadog" not in scope:  # the middleware of an application around this one adds the key
            load_tracing().trace(app, PROBES)
        await untraced_call(app, scope, receive, send)

    module.Quart.__call__ = traced_call


@when_imported("httpx")
@when_imported("httpx2")  # a fork with the same interface, which OpenAI's client uses
def name_every_call(module: Any) -> None:
    """Add the event hook that names a call's span to each client that doesn't have it yet."""
    init_without_hook = module.AsyncClient.__init__

    async def name_client_span(request: Any) -> None:
        if "quart" in sys.modules:  # tracing.py would import Quart, which other programs don't need
            await load_tracing().name_client_span(request)

    def init_with_hook(client: Any, *args: Any, **kwargs: Any) -> None:
        init_without_hook(client, *args, **kwargs)
        hooks = client.event_hooks
        # Compare names, because the hook of an application's own copy of tracing.py is another function.
        if not any(getattr(hook, "__name__", "") == "name_client_span" for hook in hooks["request"]):
            client.event_hooks = {**hooks, "request": [*hooks["request"], name_client_span]}

    module.AsyncClient.__init__ = init_with_hook


def import_next_sitecustomize() -> None:
    """Remove this folder from the path, as the application doesn't need it, and import the next sitecustomize on it."""
    # An empty entry means the current folder.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
    this_module = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401, PLC0415 - another module after the pop
    except ModuleNotFoundError:
        if this_module is not None:
            sys.modules["sitecustomize"] = this_module


import_next_sitecustomize()
