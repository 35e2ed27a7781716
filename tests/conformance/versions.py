"""Checks tracing.py with old and new releases of ddtrace and Quart. docs/tracing.md shows the results."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import websockets
from running import QUIET, ROOT, Agent, clean_environment, eventually, free_port, started, trace_agent

PAGE = ROOT / "docs" / "tracing.md"
BEGIN, END = "<!-- scripts/test-versions --write -->\n", "<!-- end of scripts/test-versions --write -->"
ENVIRONMENTS = ROOT / ".venv-versions"
# The oldest release that tracing.py supports, the newest for Python 3.11 and 3.12, and 0.23, which needs Python 3.13.
QUART_RELEASES = ["0.19.9", "0.22.0", *(["0.23.*"] if sys.version_info >= (3, 13) else [])]
# The requested version of each release. "" requests the newest.
DDTRACE_RELEASES = {"oldest": "4.5.*", "locked": version("ddtrace"), "newest": ""}
SERVERS = {
    "hypercorn": ["hypercorn", "versions_app:app", "--bind", "127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "versions_app:app", "--host", "127.0.0.1", "--port", "{port}"],
}


def install(ddtrace: str, quart: str) -> Path:
    """Create a virtual environment with these releases if there isn't one yet, and return its `bin` folder."""
    name = f"ddtrace-{ddtrace or 'newest'}-quart-{quart}-py{sys.version_info.minor}".replace("*", "")
    folder = ENVIRONMENTS / name
    # `complete` marks a finished installation. The newest release of ddtrace is always installed again.
    if ddtrace == "" or not (folder / "complete").exists():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        packages = [f"ddtrace=={ddtrace}" if ddtrace else "ddtrace", f"quart=={quart}"]
        packages += [f"{package}=={version(package)}" for package in ("hypercorn", "httpx", "uvicorn", "websockets")]
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *packages], check=True
        )
        (folder / "complete").touch()
    return folder / "bin"


def installed_release(programs: Path, package: str) -> str:
    """Return the installed release of `package`."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [str(programs / "python"), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


@contextmanager
def serve(programs: Path, server: str, agent: Agent) -> Iterator[tuple[str, list[str]]]:
    """Serve tests/conformance/versions_app.py with the programs of an environment, and yield its URL and its log."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tests" / "conformance" / "versions_app.py", folder)
        shutil.copy(ROOT / "hello_service" / "observability" / "tracing.py", folder)
        port = free_port()
        program, *arguments = [part.format(port=port) for part in SERVERS[server]]
        command = [str(programs / "ddtrace-run"), str(programs / program), *arguments]
        environment = {**QUIET, "PYTHONPATH": folder, "DD_TRACE_AGENT_URL": agent.url, "DD_SERVICE": "versions"}
        with started(command, clean_environment(environment)) as running:
            url = f"http://127.0.0.1:{port}"
            running.wait_until_responding(f"{url}/health")
            yield url, running.lines


async def send_requests(url: str) -> None:
    """Request each route once, with two messages over the WebSocket."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for path in ("/users/7", "/nope", "/error", "/stream", "/call", "/background"):
            response = await client.get(path)
            assert len(response.headers.get_list("traceresponse")) == 1, f"no traceresponse for {path}"
    async with websockets.connect(f"{url.replace('http', 'ws', 1)}/echo/ada") as socket:
        for text in ("one", "two"):
            await socket.send(text)
            assert await socket.recv() == f"ada: {text}"


def check(spans: list[dict[str, Any]], log: list[str]) -> None:
    """Check that the spans are those of `send_requests` with tracing.py, and that the log has no unexpected exception.

    Raises:
        AssertionError: a check failed; the message has the actual value.
    """
    requests = Counter(span["resource"] for span in spans if span["name"] == "asgi.request")
    assert requests == Counter(
        {
            "GET /users/<int:number>": 2,  # requested by `send_requests` and by /call
            "GET 404": 1,
            "GET /error": 1,
            "GET /stream": 1,
            "GET /call": 1,
            "GET /background": 1,
            "websocket /echo/<name>": 1,
        }
    ), requests
    (error_span,) = [span for span in spans if span["resource"] == "GET /error"]
    assert error_span["meta"]["error.message"] == "on purpose", error_span["meta"]
    (task,) = [span for span in spans if span["name"] == "quart.background_task"]
    assert "later" in task["resource"], task["resource"]
    calls = {span["resource"] for span in spans if span["name"] == "http.request"}
    assert calls == {"GET 127.0.0.1/users/?", "GET 127.0.0.1/"}, calls
    messages = Counter(span["name"] for span in spans if span["name"].startswith("websocket."))
    # ddtrace creates a span for each of the two messages received and also for the disconnect.
    assert messages == {"websocket.receive": 3, "websocket.send": 2, "websocket.close": 1}, messages
    # An incompatible release would raise one of these. The routes themselves raise other exceptions.
    exceptions = [line for line in log if line.startswith(("TypeError", "AttributeError", "KeyError", "RuntimeError"))]
    assert not exceptions, exceptions


def check_releases(ddtrace: str, quart: str, agent: Agent) -> tuple[str, bool]:
    """Check these releases on each server. Return their row of the table, and whether every check passed."""
    programs = install(ddtrace, quart)
    results, passed = [], True
    for server in SERVERS:
        agent.clear()
        try:
            with serve(programs, server, agent) as (url, log):
                asyncio.run(send_requests(url))
                # 8 requests, 2 outbound calls, 1 background task, and 6 spans of the WebSocket, which arrive last.
                eventually(agent.spans, lambda spans: len(spans) >= 8 + 2 + 1 + 6)
            check(agent.spans(), log)
        except (AssertionError, httpx.HTTPError, OSError) as error:
            passed = False
            print(f"ddtrace {ddtrace}, Quart {quart}, {server}: {error!r}", file=sys.stderr)
            results.append("**no**")
        else:
            results.append("yes")
    releases = (installed_release(programs, package) for package in ("ddtrace", "quart"))
    return f"| {' | '.join([*releases, *results])} |", passed


def _ddtrace_release(name: str) -> str:
    if name not in DDTRACE_RELEASES:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(DDTRACE_RELEASES)}")
    return name


def main() -> int:
    """Run all checks, or those of some ddtrace releases, and return the exit code."""
    description = "Check the spans of a small Quart service with several releases of ddtrace and Quart. Print a table."
    parser = argparse.ArgumentParser(prog="scripts/test-versions", description=description)
    parser.add_argument(
        "releases",
        nargs="*",
        type=_ddtrace_release,  # `choices` would reject the empty list of no arguments
        metavar="release",
        help=f"a release of ddtrace ({', '.join(DDTRACE_RELEASES)}); default: all",
    )
    parser.add_argument("--write", action="store_true", help="save the table in docs/tracing.md")
    arguments = parser.parse_args()
    with trace_agent() as agent:
        results = [
            check_releases(DDTRACE_RELEASES[name], quart, agent)
            for name in arguments.releases or DDTRACE_RELEASES
            for quart in QUART_RELEASES
        ]
    # Without duplicates, because the newest release may be the locked one.
    rows = list(dict.fromkeys(row for row, _ in results))
    table = "\n".join(
        [f"| ddtrace | Quart | {' | '.join(SERVERS)} |", "| --- | --- |" + " --- |" * len(SERVERS), *rows]
    )
    print(table)
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        source = f"Printed by `scripts/test-versions` on {python}."
        PAGE.write_text(f"{before}{BEGIN}{table}\n\n{source}\n{END}{rest.partition(END)[2]}")
    return 0 if all(passed for _, passed in results) else 1


if __name__ == "__main__":
    sys.exit(main())
