"""Runs `hello-service serve` with the endpoints of routes.py; everything else is as in the service."""

from __future__ import annotations

import os
import sys
from functools import partial

from routes import ENDPOINTS

from hello_service.observability.environment import tracer_environment
from hello_service.serving import launch, server
from hello_service.settings import Settings, SettingsError

SERVING = "--serving"  # marks the start under ddtrace-run, in place of the server that `launch` would start


def use_test_endpoints() -> None:
    """Make `server` create its app with the endpoints of routes.py. FAULTS enables failing ones, as in the service."""
    # ENDPOINTS is the usual ones, then the failing ones.
    endpoints = ENDPOINTS if os.environ.get("FAULTS") else ENDPOINTS[:1]
    server.create_app = partial(server.create_app, endpoints=endpoints)  # type: ignore[attr-defined]  # the imported name


def main() -> None:
    """Start this program again under ddtrace-run, with the tracer's environment; with `SERVING`, run the server."""
    if SERVING in sys.argv:
        use_test_endpoints()
        server.main()  # doesn't return
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    *interpreter, _, _ = launch.command(settings)  # `-m MODULE` at the end is replaced by this file
    arguments = [*interpreter, __file__, SERVING]
    os.execve(arguments[0], arguments, tracer_environment(os.environ, settings))


if __name__ == "__main__":
    main()
