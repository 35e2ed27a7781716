"""Starts this service, or another one unchanged, with the environment that the tracer needs.

Both run under ddtrace-run; this service runs without it if DD_TRACE_ENABLED is false.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import hello_service.observability
from hello_service.observability.environment import sampling_rules, tracer_environment
from hello_service.settings import Settings

# `trace` puts this folder on PYTHONPATH, because its sitecustomize traces each Quart application.
SITECUSTOMIZE_FOLDER = Path(hello_service.observability.__file__).with_name("unchanged")


class LaunchError(Exception):
    """A command can't be started. `str()` is a sentence for the user."""


def command(settings: Settings) -> list[str]:
    """Return the command line of the server: under ddtrace-run, or plain Python when tracing is off."""
    server = [sys.executable, "-m", "hello_service.serving.server"]
    if not settings.dd_trace_enabled:
        return server
    return [str(Path(sys.executable).with_name("ddtrace-run")), *server]


def serve(environ: Mapping[str, str]) -> None:
    """Replace this process with the server. Does not return.

    Raises:
        SettingsError: a variable of `environ` has an invalid value.
    """
    settings = Settings.from_environment(environ)
    arguments = command(settings)
    os.execve(arguments[0], arguments, tracer_environment(environ, settings))  # noqa: S606 - no shell is needed


def traced_command(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, list[str], dict[str, str]]:
    """Return program, arguments and environment that run the command `arguments` with its Quart applications traced.

    It uses the `ddtrace-run` beside the command, whose virtual environment may differ from that of this process, or
    else the one on PATH.

    Raises:
        LaunchError: the command or its ddtrace-run can't be found.
        SettingsError: DD_TRACE_SAMPLE_RATE has an invalid value.
    """
    path = environ.get("PATH")
    program = shutil.which(arguments[0], path=path)
    if program is None:
        raise LaunchError(f"Command {arguments[0]!r} was not found on PATH.")
    sibling = Path(program).with_name("ddtrace-run")
    runner = str(sibling) if sibling.exists() else shutil.which("ddtrace-run", path=path)
    if runner is None:
        raise LaunchError(
            f"No ddtrace-run found beside {program} or on PATH. Install ddtrace where the service is installed."
        )
    # No other variable is checked, because it may be a setting of the command itself, such as LOG_LEVEL.
    rate_only = {"DD_TRACE_SAMPLE_RATE": environ.get("DD_TRACE_SAMPLE_RATE", "")}
    sample_rate = Settings.from_environment(rate_only).dd_trace_sample_rate
    # Without DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE=false, no connection is served if gevent is installed.
    defaults = {"DD_SERVICE": Path.cwd().name, "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": "false"}
    if sample_rate is not None:
        defaults["DD_TRACE_SAMPLING_RULES"] = sampling_rules(sample_rate)
    python_path = str(SITECUSTOMIZE_FOLDER)
    if environ.get("PYTHONPATH"):
        python_path += os.pathsep + environ["PYTHONPATH"]
    # An empty variable counts as unset, so it does not override a default.
    overrides = {name: value for name, value in environ.items() if value or name not in defaults}
    return runner, [runner, program, *arguments[1:]], {**defaults, **overrides, "PYTHONPATH": python_path}


def trace(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Replace this process with the command `arguments`, traced. Does not return.

    Raises:
        LaunchError, SettingsError: see `traced_command`.
    """
    program, command_line, environment = traced_command(arguments, environ)
    os.execve(program, command_line, environment)  # noqa: S606 - no shell is needed
