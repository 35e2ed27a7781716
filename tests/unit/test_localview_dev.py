"""Tests of `dev`: the polling of the embedded agent, and warnings about the environment."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer as _TestServer  # pytest would collect a class named TestServer
from rich.console import Console
from tracing_data import span, wire_format

from hello_service.localview import processes
from hello_service.localview.dev import Development, Options


class SlowAgent:
    """An agent with one trace. `/drain` removes the trace at once, and returns it when `release` is set."""

    def __init__(self) -> None:
        self.traces = [[wire_format(span(trace=7))]]
        self.requested, self.release = asyncio.Event(), asyncio.Event()

    async def drain(self, _: web.Request) -> web.Response:
        """Return each trace only once, like the embedded agent."""
        traces, self.traces = self.traces, []
        self.requested.set()
        await self.release.wait()
        return web.json_response(traces)


async def test_a_drain_request_in_flight_is_completed_when_dev_stops() -> None:
    """The agent has already forgotten the traces in its response, so canceling the request would lose them."""
    agent = SlowAgent()
    app = web.Application()
    app.router.add_get("/drain", agent.drain)
    options = Options(host="127.0.0.1", port=None, agent_port=0)  # without a service
    development = Development(options, environ={}, console=Console(file=io.StringIO()))
    async with (
        _TestServer(app) as server,
        aiohttp.ClientSession() as session,
        development._polling(session, str(server.make_url("")).rstrip("/")),
    ):
        await agent.requested.wait()
        asyncio.get_running_loop().call_soon(agent.release.set)  # runs while the end of the block waits for the request

    assert development.view.store.find("7") is not None


def test_a_line_of_nested_json_is_printed_as_text() -> None:
    """Python's parser gives up at some depth. Reading the output continues."""
    output = io.StringIO()
    options = Options(host="127.0.0.1", port=0, agent_port=0)
    development = Development(options, environ={}, console=Console(file=output, width=200))
    line = "[" * 100_000
    development._on_service_line(line)

    assert line in output.getvalue().replace("\n", "")


async def test_a_process_that_keeps_the_output_open_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has left the process group of the command, so it is not stopped."""
    monkeypatch.setattr(processes, "LEFTOVER_SECONDS", 0.1)
    code = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)"
    lines: asyncio.Queue[str] = asyncio.Queue()  # the process id, and perhaps the traceback of a KeyboardInterrupt
    async with asyncio.timeout(60):  # far shorter than the 600 seconds of the process
        async with processes.command([sys.executable, "-c", code], environ={}, on_line=lines.put_nowait, on_url=print):
            pid = int(await lines.get())
    os.kill(pid, signal.SIGKILL)  # it is still running


@pytest.mark.parametrize(
    ("value", "is_reported"), [("false", True), ("0", True), ("off", True), ("true", False), ("", False)]
)
def test_a_service_that_is_not_traced_is_reported(value: str, is_reported: bool) -> None:
    output = io.StringIO()
    options = Options(host="127.0.0.1", port=0, agent_port=0)
    development = Development(options, environ={"DD_TRACE_ENABLED": value}, console=Console(file=output, width=200))
    development._warn_about_environment()

    assert (f"DD_TRACE_ENABLED={value}, so the service sends no traces" in output.getvalue()) == is_reported
