"""Tests of `hello-service trace`, which traces other Quart services without a change to their code."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from running import BIN, QUIET, Agent, Running, clean_environment, free_port, started

from hello_service.observability import tracing
from hello_service.serving import launch

TRACE = [str(BIN / "hello-service"), "trace", "--"]
# A request for a user has two spans: its own, and that of an outbound call, which fails.
APP = """
import httpx, quart

def create_app():
    app = quart.Quart(__name__)

    @app.get("/users/<int:number>")
    async def user(number):
        async with httpx.AsyncClient() as client:
            try:
                await client.get("http://127.0.0.1:1/orders/7")
            except httpx.HTTPError:
                return {"number": number}

    @app.get("/health")
    async def health():
        return "ok"

    return app

app = create_app()
"""
HYPERCORN = ["hypercorn", "app:app", "--bind", "127.0.0.1:{port}"]
UVICORN = ["uvicorn", "app:app", "--host", "127.0.0.1", "--port", "{port}"]


@contextmanager
def traced_service(
    folder: Path, agent: Agent, command: list[str], app: str = APP, **environ: str
) -> Iterator[tuple[str, Running]]:
    """Write `app` to app.py in `folder`, and run `hello-service trace -- command` there.

    Yields:
        The URL and the process, once the service responds.
    """
    (folder / "app.py").write_text(app)
    port = free_port()
    arguments = [argument.format(port=port) for argument in command]
    environment = clean_environment({**QUIET, "DD_TRACE_AGENT_URL": agent.url, **environ})
    with started([*TRACE, *arguments], environment, cwd=folder) as running:
        url = f"http://127.0.0.1:{port}"
        running.wait_until_responding(f"{url}/health")
        yield url, running


def request_resources(spans: list[dict[str, Any]]) -> list[str]:
    """Return the resources of all request spans, sorted."""
    return sorted(span["resource"] for span in spans if span["name"] == "asgi.request")


@pytest.mark.parametrize(
    "command",
    [
        HYPERCORN,
        [*HYPERCORN, "--workers", "0"],
        [*HYPERCORN, "--workers", "2"],
        [*HYPERCORN, "--reload"],
        ["hypercorn", "app:create_app()", "--bind", "127.0.0.1:{port}"],
        UVICORN,
        [sys.executable, "-m", *UVICORN],
    ],
    ids=["hypercorn", "one process", "two workers", "reloader", "factory", "uvicorn", "module"],
)
def test_an_application_is_traced_under_every_server(tmp_path: Path, agent: Agent, command: list[str]) -> None:
    """Each request has one span with its route, probes have no span, and outbound calls have readable resources."""
    with traced_service(tmp_path, agent, command, DD_SERVICE="users") as (url, _):
        response = httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert response.json() == {"number": 7}
    assert request_resources(spans) == ["GET /users/<int:number>"]
    assert len(response.headers.get_list("traceresponse")) == 1
    (call,) = [span for span in spans if span["name"] == "http.request"]
    assert (call["resource"], call["meta"]["peer.service"]) == ("GET 127.0.0.1/orders/?", "127.0.0.1")
    assert {span["service"] for span in spans} == {"users"}


def test_an_application_that_calls_trace_is_not_traced_again(tmp_path: Path, agent: Agent) -> None:
    """It uses its own copy of tracing.py and its own probe paths, and each request has one span."""
    shutil.copy(tracing.__file__, tmp_path / "tracing.py")
    app = APP.replace("import httpx, quart", "import httpx, quart, tracing").replace(
        "    return app", '    return tracing.trace(app, probes={"/health", "/users/7"})'
    )
    with traced_service(tmp_path, agent, HYPERCORN, app) as (url, _):
        probe = httpx.get(f"{url}/users/7", timeout=30)
        httpx.get(f"{url}/users/8", timeout=30)
        spans = agent.wait_for_spans(2)

    assert "traceresponse" not in probe.headers
    assert request_resources(spans) == ["GET /users/<int:number>"]


def test_an_application_imports_its_own_module_called_tracing(tmp_path: Path, agent: Agent) -> None:
    (tmp_path / "tracing.py").write_text('OWNER = "application"\n')
    app = APP.replace("import httpx, quart", "import httpx, quart, tracing\nassert tracing.OWNER == 'application'")
    with traced_service(tmp_path, agent, HYPERCORN, app) as (url, _):
        httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert request_resources(spans) == ["GET /users/<int:number>"]


def test_the_next_sitecustomize_on_the_path_is_also_imported(tmp_path: Path, agent: Agent) -> None:
    """`hello-service trace` puts another sitecustomize before it, and Python itself imports only the first."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os\nos.environ['IMPORTED'] = 'yes'\n")
    app = APP.replace('return "ok"', 'import os; return os.environ["IMPORTED"]')
    with traced_service(tmp_path, agent, HYPERCORN, app, PYTHONPATH=str(tmp_path / "site")) as (url, _):
        assert httpx.get(f"{url}/health").text == "yes"
        httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert request_resources(spans) == ["GET /users/<int:number>"]


def test_probe_paths_and_the_sample_rate_are_applied(tmp_path: Path, agent: Agent) -> None:
    """An empty DD_SERVICE counts as unset, so the service gets the name of its folder."""
    with traced_service(
        tmp_path, agent, HYPERCORN, PROBE_PATHS="/users/7, /health", DD_TRACE_SAMPLE_RATE="0", DD_SERVICE=""
    ) as (url, running):
        httpx.get(f"{url}/users/7", timeout=30)
        httpx.get(f"{url}/users/8", timeout=30)
        spans = agent.wait_for_spans(2)
        assert running.stop(signal.SIGTERM) in {0, -signal.SIGTERM}  # neither is the exit code of an error

    assert request_resources(spans) == ["GET /users/<int:number>"]
    root = next(span for span in spans if not span["parent_id"])
    assert root["service"] == tmp_path.name
    assert root["metrics"]["_sampling_priority_v1"] == -1  # rejected, because the sample rate is 0


def test_a_program_that_uses_httpx_without_quart_runs_as_before(agent: Agent) -> None:
    """`hello-service trace` doesn't import Quart."""
    code = """
import asyncio, sys, httpx
async def call():
    async with httpx.AsyncClient() as client:
        try:
            await client.get("http://127.0.0.1:1/")
        except httpx.ConnectError:
            print("called", "quart" in sys.modules)
asyncio.run(call())
"""
    environment = clean_environment({**QUIET, "DD_TRACE_AGENT_URL": agent.url})
    result = subprocess.run(
        [*TRACE, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0
    assert result.stdout == "called False\n"


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_clients_of_httpx_and_httpx2_get_the_hook_that_names_spans(tmp_path: Path, client: str) -> None:
    """httpx2 isn't installed in the tests, so a module with the same interface replaces it."""
    (tmp_path / "httpx2.py").write_text(
        "class AsyncClient:\n    def __init__(self):\n        self.event_hooks = {'request': [], 'response': []}\n"
    )
    code = f"import {client} as c; print([hook.__name__ for hook in c.AsyncClient().event_hooks['request']])"
    path = f"{launch.SITECUSTOMIZE_FOLDER}:{tmp_path}"
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment({"PYTHONPATH": path}), check=True, capture_output=True
    )

    assert result.stdout.split() == [b"['name_client_span']"]


def test_only_the_variables_that_tracing_needs_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application may need the features of ddtrace that `serve` switches off."""
    monkeypatch.chdir(tmp_path)
    # A is a variable of the application. It stays, although it is empty.
    program, command, environment = launch.traced_command(["hypercorn", "app:app"], {"PATH": str(BIN), "A": ""})

    assert (program, command) == (str(BIN / "ddtrace-run"), [program, str(BIN / "hypercorn"), "app:app"])
    assert environment == {
        "PATH": str(BIN),
        "A": "",
        "PYTHONPATH": str(launch.SITECUSTOMIZE_FOLDER),
        "DD_SERVICE": tmp_path.name,
        "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": "false",
    }


@pytest.mark.parametrize("is_beside_command", [True, False], ids=["beside the command", "on PATH"])
def test_a_ddtrace_run_beside_the_command_precedes_the_one_on_path(tmp_path: Path, is_beside_command: bool) -> None:
    """The ddtrace-run beside the command belongs to the command's virtual environment.

    The values of PYTHONPATH and DD_SERVICE in the environment are kept.
    """
    first_on_path, command_folder = tmp_path / "first", tmp_path / "second"
    programs = [first_on_path / "ddtrace-run", command_folder / "serve"]
    if is_beside_command:
        programs.append(command_folder / "ddtrace-run")
    for path in programs:
        path.parent.mkdir(exist_ok=True)
        path.touch(0o755)
    variables = {"PATH": f"{first_on_path}:{command_folder}", "PYTHONPATH": "/x", "DD_SERVICE": "mine"}
    program, command, environment = launch.traced_command(["serve"], variables)

    assert program == str((command_folder if is_beside_command else first_on_path) / "ddtrace-run")
    assert command[1:] == [str(command_folder / "serve")]
    assert environment["PYTHONPATH"] == f"{launch.SITECUSTOMIZE_FOLDER}:/x"
    assert environment["DD_SERVICE"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["no-such-server"], {}, "Command 'no-such-server' was not found on PATH."),
        (["serve"], {}, "Install ddtrace where the service is installed."),
        (["serve"], {"DD_TRACE_SAMPLE_RATE": "10%", "PATH": str(BIN)}, "DD_TRACE_SAMPLE_RATE='10%': must be"),
    ],
    ids=["command is missing", "ddtrace is not installed", "sample rate is invalid"],
)
def test_a_command_that_cannot_be_traced_is_rejected_with_the_reason(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    (tmp_path / "serve").touch(0o755)
    path = f"{tmp_path}:{environ['PATH']}" if "PATH" in environ else str(tmp_path)
    result = subprocess.run(
        [*TRACE, *arguments], env={**environ, "PATH": path}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
