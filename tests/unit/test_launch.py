"""Tests of the command lines that `serve` and `trace` execute, and of errors before their start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hello_service.serving import launch
from hello_service.settings import Settings, SettingsError


def test_the_server_runs_under_ddtrace_run() -> None:
    """`serve` runs the ddtrace-run of its own virtual environment, regardless of PATH."""
    assert launch.command(Settings()) == [
        str(Path(sys.executable).with_name("ddtrace-run")),
        sys.executable,
        "-m",
        "hello_service.serving.server",
    ]


def test_without_tracing_the_server_runs_without_ddtrace_run() -> None:
    assert launch.command(Settings(dd_trace_enabled=False)) == [sys.executable, "-m", "hello_service.serving.server"]


def test_serve_replaces_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server therefore receives signals itself. It gets the prepared environment."""
    exec_arguments: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *arguments: exec_arguments.extend(arguments))
    launch.serve({"DD_TRACE_ENABLED": "false"})

    assert exec_arguments[:2] == [sys.executable, [sys.executable, "-m", "hello_service.serving.server"]]
    assert exec_arguments[2]["DD_SERVICE"] == "hello-service"


def test_serve_rejects_an_invalid_environment() -> None:
    """`serve` fails before it starts a process."""
    with pytest.raises(SettingsError, match="PORT='x'"):
        launch.serve({"PORT": "x"})


def test_a_command_is_not_started_without_ddtrace_run(tmp_path: Path) -> None:
    """There is no ddtrace-run beside the command or on PATH."""
    (tmp_path / "hypercorn").touch(0o755)

    with pytest.raises(launch.LaunchError, match="Install ddtrace where the service is installed"):
        launch.traced_command(["hypercorn"], {"PATH": str(tmp_path)})
