"""`hello-service serve` with the endpoints of the tests; everything else is the service's own."""

from __future__ import annotations

import os
import sys
from functools import partial

from routes import ENDPOINTS

from hello_service.observability.environment import tracer_environment
from hello_service.serving import launch, server
from hello_service.settings import Settings, SettingsError

SERVING = "--serving"  # marks the process that `launch` would have started


def serve_endpoints_of_tests() -> None:
    """Make `server` create its app with the endpoints of the tests. As in the service, FAULTS enables those that fail."""
    endpoints = ENDPOINTS if os.environ.get("FAULTS") else ENDPOINTS[:1]
    server.create_app = partial(server.create_app, endpoints=endpoints)  # type: ignore[attr-defined]  # the imported name


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
