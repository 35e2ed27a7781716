"""Exec under ddtrace-run, with the environment that the tracer needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hello_service.observability.environment import tracer_environment
from hello_service.settings import Settings


def command(settings: Settings) -> list[str]:
    """Return the command line of the server: under ddtrace-run, or plain Python when tracing is off."""
    server = [sys.executable, "-m", "hello_service.serving.server"]
    if not settings.dd_trace_enabled:
        return server
    return [str(Path(sys.executable).with_name("ddtrace-run")), *server]


def serve(environ: Mapping[str, str]) -> None:
    """Replace this process by the server. Does not return.

    Raises:
        SettingsError: when a variable of `environ` is not usable.
    """
    settings = Settings.from_environment(environ)
    arguments = command(settings)
    os.execve(arguments[0], arguments, tracer_environment(environ, settings))  # noqa: S606 - no shell is wanted
