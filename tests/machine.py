"""`hello-service serve` with the endpoints of the tests: what runs around them is all the service's own."""

from __future__ import annotations

import os
import sys
from functools import partial

from routes import ENDPOINTS

from hello_service.observability.environment import tracer_environment
from hello_service.serving import launch, server
from hello_service.settings import Settings, SettingsError

SERVING = "--serving"  # this process is the one that `launch` would have started


def serve_endpoints_of_tests() -> None:
    """Let `server` make its app with the endpoints of the tests; those that fail only with FAULTS, as in the service."""
    endpoints = ENDPOINTS if os.environ.get("FAULTS") else ENDPOINTS[:1]
    server.create_app = partial(server.create_app, endpoints=endpoints)  # type: ignore[attr-defined]  # as imported there


def main() -> None:
    if SERVING in sys.argv:
        serve_endpoints_of_tests()
        server.main()
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    *before, _, _ = launch.command(settings)  # ends with: -m MODULE
    arguments = [*before, __file__, SERVING]
    os.execve(arguments[0], arguments, tracer_environment(os.environ, settings))


if __name__ == "__main__":
    main()
