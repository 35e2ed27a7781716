"""Tests of `hello-service dev -- COMMAND`, which runs another service with the embedded agent and the page."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from developing import FREE_VIEW_PORTS, developing, launched
from local_view import trace_id
from running import BIN, eventually, free_port

from hello_service.__main__ import main

pytestmark = pytest.mark.once

APP = """
import quart

app = quart.Quart(__name__)

@app.get("/users/<int:number>")
async def user(number):
    print("standard output", number)
    return {"number": number}

@app.get("/fail")
async def fail():
    raise ValueError("it fails")
"""
PORT = "{port}"  # a placeholder in the commands below, which `dev_command` replaces
HYPERCORN = ["hypercorn", "app:app", "--bind", f"127.0.0.1:{PORT}"]
UVICORN = ["uvicorn", "app:app", "--port", PORT]
# A server that does not print its URL, and starts a child process that ignores signals.
SERVER_WITHOUT_URL = """
import subprocess, sys
from werkzeug.serving import make_server

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]

subprocess.Popen(["/bin/sh", "-c", "trap '' INT TERM; while :; do sleep 1; done"])
make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""
ENVIRONMENT = {"PATH": f"{BIN}:/usr/bin:/bin"}  # so that `dev` finds hypercorn and uvicorn


def dev_command(folder: Path, server: Sequence[str], port: int) -> list[str]:
    """Write app.py to `folder`, and return the command line of `dev` that runs `server` there on `port`."""
    (folder / "app.py").write_text(APP)
    # In the shell command, $0 is the folder and $@ is the command line that follows.
    enter_folder = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
    dev = [str(BIN / "hello-service"), "dev", *FREE_VIEW_PORTS]
    return [*enter_folder, *dev, *(argument.replace(PORT, str(port)) for argument in server)]


@pytest.mark.parametrize(
    "server",
    [["--", *HYPERCORN], [*HYPERCORN, "--workers", "2"], ["--", *UVICORN]],
    ids=["hypercorn", "hypercorn with 2 workers, without --", "uvicorn"],
)
def test_traces_and_output_of_another_service_are_shown(tmp_path: Path, server: list[str]) -> None:
    """`dev` finds the URL in the service's output. After Ctrl-C, it still shows the last trace, and stops all processes."""
    port = free_port()
    with developing(environment=ENVIRONMENT, command=dev_command(tmp_path, server, port)) as dev:
        dev.wait_for(f"Service: http://127.0.0.1:{port}")
        response = httpx.get(f"{dev.url}/users/7")
        dev.wait_for(trace_id(response))
        dev.wait_for("standard output 7")
        failed_response = httpx.get(f"{dev.url}/fail")
        logs = httpx.get(f"{dev.page_url}/logs").text
        exit_code = dev.running.stop(signal.SIGINT)

        assert "GET /users/<int:number>  200  " in dev.output
        server_command = " ".join(server).removeprefix("-- ").replace(PORT, str(port))
        assert f"Command: {server_command}" in dev.output
        assert trace_id(failed_response) in dev.output
        assert re.search(r"ValueError: it fails \(app\.py:\d+\)", dev.output)
        assert "standard output 7" in logs
        assert exit_code == 0
        assert dev.processes() == {}


def test_a_server_that_prints_no_url_works_and_its_children_are_stopped(tmp_path: Path) -> None:
    (tmp_path / "without_url.py").write_text(SERVER_WITHOUT_URL)
    server = ["--", sys.executable, "without_url.py", PORT]
    port = free_port()
    with developing(environment=ENVIRONMENT, command=dev_command(tmp_path, server, port)) as dev:
        eventually(lambda: _responds(port), timeout=60)
        children = [command for command in dev.processes().values() if "trap" in command]
        exit_code = dev.running.stop(signal.SIGINT)

        assert len(children) == 1
        assert "Service: " not in dev.output
        assert exit_code == 0
        assert dev.processes() == {}


def _responds(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").text == "served"
    except httpx.TransportError:
        return False


def test_an_error_line_waits_for_its_trace(tmp_path: Path) -> None:
    """If the trace does not arrive, the terminal shows the line unchanged, and the page shows its message.

    A line without a valid level is shown immediately.
    """
    (tmp_path / "printing.py").write_text("""
import time
print('{"level": "ERROR", "message": "delayed", "dd.trace_id": "77"}')
print('{"level": [], "message": "immediate"}')
time.sleep(600)
""")
    server = ["--", sys.executable, "printing.py"]
    with developing(environment=ENVIRONMENT, command=dev_command(tmp_path, server, 0)) as dev:
        early_output = dev.wait_for('"immediate"')
        dev.wait_for('{"level": "ERROR", "message": "delayed", "dd.trace_id": "77"}')
        logs = httpx.get(f"{dev.page_url}/logs").text
        dev.running.stop(signal.SIGINT)

    assert '"delayed"' not in early_output
    assert ">delayed<" in logs


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (["--", "no-such-server"], "'no-such-server' was not found on PATH."),
        (["--", "sh", "-c", "exit 3"], "exited with code 3."),
    ],
)
def test_a_command_that_fails_is_reported(tmp_path: Path, server: list[str], sentence: str) -> None:
    with launched(environment=ENVIRONMENT, command=dev_command(tmp_path, server, 0)) as dev:
        assert dev.running.wait() == 1
        assert dev.output.splitlines()[-1].endswith(sentence)
        assert dev.processes() == {}


@pytest.mark.parametrize("option", ["--host", "--port"])
def test_options_for_the_address_of_this_service_are_rejected(option: str) -> None:
    result = CliRunner().invoke(main, ["dev", option, "1", "--", "hypercorn", "app:app"])

    assert result.exit_code == 2
    assert f"{option} does not apply to another service." in result.output
