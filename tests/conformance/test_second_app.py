"""Tests that another Quart service can use a copy of tracing.py as its docstring shows."""

from __future__ import annotations

import ast
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import BIN, QUIET, Agent, Running, clean_environment, started

from hello_service.observability import tracing

SOURCE = Path(tracing.__file__)
# The code in the docstring defines `app`, `client` and `quart`.
ROUTES = """

@app.get("/health")
async def health():
    return "alive"

@app.get("/users/<int:user>")
async def user(user):
    return str(user)

@app.get("/call")
async def call():
    return (await client.get(quart.request.host_url + "users/7")).text
"""


def example() -> str:
    """Return the code in the docstring of tracing.py, which is indented by four spaces."""
    docstring = ast.get_docstring(ast.parse(SOURCE.read_text())) or ""
    code = [line for line in docstring.splitlines() if line.startswith("    ")]
    return textwrap.dedent("\n".join(code))


@pytest.fixture
def running(tmp_path: Path, agent: Agent) -> Iterator[Running]:
    """Run a tiny service that consists of the docstring's code and three routes, next to a copy of tracing.py."""
    shutil.copy(SOURCE, tmp_path / "tracing.py")
    (tmp_path / "tiny.py").write_text(example() + ROUTES)
    # With 0 workers, Hypercorn serves in the process that ddtrace-run starts.
    command = [str(BIN / "ddtrace-run"), str(BIN / "hypercorn"), "tiny:app", "-w", "0", "--bind", "127.0.0.1:0"]
    environment = {**QUIET, "PYTHONPATH": str(tmp_path), "DD_TRACE_AGENT_URL": agent.url, "DD_SERVICE": "tiny"}
    with started(command, clean_environment(environment)) as running:
        running.wait_until_running()
        yield running


def test_another_service_can_use_a_copy(running: Running, agent: Agent) -> None:
    """A request's resource has its route, the client's span has a readable resource, and the probe leaves no span."""
    httpx.get(f"{running.url}/health")
    response = httpx.get(f"{running.url}/call")
    spans = agent.wait_for_spans(3)

    assert sorted((span["name"], span["resource"], span["service"]) for span in spans) == [
        ("asgi.request", "GET /call", "tiny"),
        ("asgi.request", "GET /users/<int:user>", "tiny"),
        ("http.request", "GET 127.0.0.1/users/?", "tiny"),
    ]
    assert len({span["trace_id"] for span in spans}) == 1
    assert response.headers["traceresponse"].startswith("00-")


def test_the_example_has_five_lines() -> None:
    """The example should stay short. Blank lines don't count."""
    assert len([line for line in example().splitlines() if line.strip()]) == 5


def test_tracing_py_needs_nothing_but_ddtrace_and_quart() -> None:
    """Apart from these, it uses only the standard library, so it can be copied as it is."""
    imported = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])

    assert imported - sys.stdlib_module_names == {"ddtrace", "quart", "werkzeug"}  # Quart depends on werkzeug
