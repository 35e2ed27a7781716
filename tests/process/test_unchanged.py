"""Tests of `hello-service trace`, which traces Quart services without a change to their code."""

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
def unchanged(
    folder: Path, agent: Agent, command: list[str], app: str = APP, **environ: str
) -> Iterator[tuple[str, Running]]:
    """Run `command` in `folder`, where app.py holds `app`; yield the URL once it serves."""
    (folder / "app.py").write_text(app)
    port = free_port()
    arguments = [argument.format(port=port) for argument in command]
    environment = clean_environment(
        {**QUIET, "DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_HTTPX_ENABLED": "true", **environ}
    )
    # The shell changes the folder, so that the service starts where its files are.
    shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *TRACE, *arguments]
    with started(shell, environment) as running:
        url = f"http://127.0.0.1:{port}"
        running.wait_until_responding(f"{url}/health")
        yield url, running


def requests_of(spans: list[dict[str, Any]]) -> list[str]:
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
def test_every_application_is_traced_whatever_serves_it(tmp_path: Path, agent: Agent, command: list[str]) -> None:
    """Each request has one span with its route, probes have none, and calls have readable resources."""
    with unchanged(tmp_path, agent, command, DD_SERVICE="theirs") as (url, _):
        response = httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert response.json() == {"number": 7}
    assert requests_of(spans) == ["GET /users/<int:number>"]
    assert len(response.headers.get_list("traceresponse")) == 1
    (call,) = [span for span in spans if span["name"] == "http.request"]
    assert (call["resource"], call["meta"]["peer.service"]) == ("GET 127.0.0.1/orders/?", "127.0.0.1")
    assert {span["service"] for span in spans} == {"theirs"}


def test_an_application_that_calls_trace_is_left_alone(tmp_path: Path, agent: Agent) -> None:
    """The application uses its own copy of tracing.py and its own probes, and each request has one span."""
    shutil.copy(tracing.__file__, tmp_path / "tracing.py")
    own = APP.replace("import httpx, quart", "import httpx, quart, tracing").replace(
        "    return app", '    return tracing.trace(app, probes={"/health", "/users/7"})'
    )
    with unchanged(tmp_path, agent, HYPERCORN, own) as (url, _):
        quiet = httpx.get(f"{url}/users/7", timeout=30)
        httpx.get(f"{url}/users/8", timeout=30)
        spans = agent.wait_for_spans(2)

    assert "traceresponse" not in quiet.headers
    assert requests_of(spans) == ["GET /users/<int:number>"]


def test_a_module_of_theirs_called_tracing_stays_theirs(tmp_path: Path, agent: Agent) -> None:
    (tmp_path / "tracing.py").write_text('WHOSE = "theirs"\n')
    own = APP.replace("import httpx, quart", "import httpx, quart, tracing\nassert tracing.WHOSE == 'theirs'")
    with unchanged(tmp_path, agent, HYPERCORN, own) as (url, _):
        httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert requests_of(spans) == ["GET /users/<int:number>"]


def test_another_sitecustomize_is_imported_too(tmp_path: Path, agent: Agent) -> None:
    """The other sitecustomize is the one that Python would import without the command."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os\nos.environ['SEEN'] = 'yes'\n")
    own = APP.replace('return "ok"', 'import os; return os.environ["SEEN"]')
    with unchanged(tmp_path, agent, HYPERCORN, own, PYTHONPATH=str(tmp_path / "site")) as (url, _):
        assert httpx.get(f"{url}/health").text == "yes"
        httpx.get(f"{url}/users/7", timeout=30)
        spans = agent.wait_for_spans(2)

    assert requests_of(spans) == ["GET /users/<int:number>"]


def test_probe_paths_and_the_sample_rate_are_applied(tmp_path: Path, agent: Agent) -> None:
    with unchanged(
        tmp_path, agent, HYPERCORN, PROBE_PATHS="/users/7, /health", DD_TRACE_SAMPLE_RATE="0", DD_SERVICE=""
    ) as (url, running):
        httpx.get(f"{url}/users/7", timeout=30)
        httpx.get(f"{url}/users/8", timeout=30)
        spans = agent.wait_for_spans(2)
        assert running.stop(signal.SIGTERM) in {0, -signal.SIGTERM}

    assert requests_of(spans) == ["GET /users/<int:number>"]
    root = next(span for span in spans if not span["parent_id"])
    assert (root["service"], root["metrics"]["_sampling_priority_v1"]) == (tmp_path.name, -1)


def test_a_program_without_quart_runs_as_before(agent: Agent) -> None:
    """Its httpx calls work as well."""
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
    done = subprocess.run(
        [*TRACE, sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "called False\n")


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_the_clients_of_either_httpx_are_named(tmp_path: Path, client: str) -> None:
    """httpx2 is not installed here: a module with its interface takes its place."""
    (tmp_path / "httpx2.py").write_text(
        "class AsyncClient:\n    def __init__(self):\n        self.event_hooks = {'request': [], 'response': []}\n"
    )
    code = f"import {client} as c; print([hook.__name__ for hook in c.AsyncClient().event_hooks['request']])"
    path = f"{Path(tracing.__file__).parent / 'unchanged'}:{tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment({"PYTHONPATH": path}), check=True, capture_output=True
    )

    assert done.stdout.split() == [b"['name_client_span']"]


def test_nothing_else_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another application may need what `serve` switches off."""
    monkeypatch.chdir(tmp_path)
    program, command, environment = launch.traced(["hypercorn", "app:app"], {"PATH": str(BIN), "A": ""})

    assert (program, command) == (str(BIN / "ddtrace-run"), [program, str(BIN / "hypercorn"), "app:app"])
    assert environment == {
        "PATH": str(BIN),
        "A": "",
        "PYTHONPATH": str(launch.UNCHANGED),
        "DD_SERVICE": tmp_path.name,
        "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": "false",
    }


@pytest.mark.parametrize("beside", [True, False], ids=["its own", "of the path"])
def test_the_ddtrace_run_is_that_of_the_command(tmp_path: Path, beside: bool) -> None:
    """It belongs to the environment that the command is installed in."""
    for folder, names in (("theirs", ["serve", *["ddtrace-run"] * beside]), ("ours", ["ddtrace-run"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch(0o755)
    path = f"{tmp_path / 'ours'}:{tmp_path / 'theirs'}"
    program, command, environment = launch.traced(["serve"], {"PATH": path, "PYTHONPATH": "/x", "DD_SERVICE": "mine"})

    assert program == str(tmp_path / ("theirs" if beside else "ours") / "ddtrace-run")
    assert command[1:] == [str(tmp_path / "theirs" / "serve")]
    assert (environment["PYTHONPATH"], environment["DD_SERVICE"]) == (f"{launch.UNCHANGED}:/x", "mine")


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["no-such-server"], {}, "Command 'no-such-server' was not found on PATH."),
        (["serve"], {}, "Install ddtrace where the service is installed."),
        (["serve"], {"DD_TRACE_SAMPLE_RATE": "10%", "PATH": str(BIN)}, "DD_TRACE_SAMPLE_RATE='10%': must be"),
    ],
    ids=["no command", "no ddtrace", "bad rate"],
)
def test_a_command_that_can_not_run_is_explained_in_a_sentence(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    (tmp_path / "serve").touch(0o755)
    path = f"{tmp_path}:{environ['PATH']}" if "PATH" in environ else str(tmp_path)
    done = subprocess.run(
        [*TRACE, *arguments], env={**environ, "PATH": path}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
