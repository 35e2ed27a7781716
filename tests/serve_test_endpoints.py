"""Runs `hello-service serve` with the endpoints of routes.py. Everything else is the same as in the service."""

from __future__ import annotations

import os
import sys
from functools import partial

from hello_service.observability.environment import tracer_environment
from hello_service.serving import launch
from hello_service.settings import Settings, SettingsError

SERVING = "--serving"  # the argument with which this program starts itself again to serve


def use_test_endpoints() -> None:
    """Make `server` create its app with the endpoints of routes.py.

    The endpoints of `faults` are included if FAULTS has any value.
    """
    from routes import faults, routes  # noqa: PLC0415 - see `main`

    from hello_service.serving import server  # noqa: PLC0415 - see `main`

    endpoints = (routes, faults) if os.environ.get("FAULTS") else (routes,)
    server.create_app = partial(server.create_app, endpoints=endpoints)  # type: ignore[attr-defined]  # not exported


def main() -> None:
    """Start this program again as `hello-service serve` starts the server. With `SERVING`, run the server.

    Only the second start imports the app and the server, because that import takes most of the time of a start.
    """
    if SERVING in sys.argv:
        from hello_service.serving import server  # noqa: PLC0415 - see above

        use_test_endpoints()
        server.main()  # doesn't return
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    *interpreter, _, _ = launch.command(settings)  # this file replaces `-m MODULE` at the end
    arguments = [*interpreter, __file__, SERVING]
    os.execve(arguments[0], arguments, tracer_environment(os.environ, settings))


if __name__ == "__main__":
    main()
