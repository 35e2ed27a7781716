"""`hello-service dev`: an embedded trace agent and the service beside it, both ended together."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp
from rich.console import Console
from rich.text import Text

from hello_service.localview import terminal
from hello_service.localview.spans import Assembly

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.2
RUNNING = re.compile(r"Running on (http://\S+)")

# What is right on a person's own machine. The environment wins here, too.
DEFAULTS = {
    "DD_ENV": "dev",
    "DRAIN_SECONDS": "0",
    "GRACEFUL_SECONDS": "5",
    "FAULTS": "true",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "0.2",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CODE_ORIGIN_FOR_SPANS_ENABLED": "false",  # else ddtrace complains of the test agent's version
}


class StartError(Exception):
    """Something could not be started; `str()` is a sentence for a person."""


@dataclass(frozen=True)
class Options:
    """What `dev` was asked for. `agent_port` None: no embedded agent, so no traces to show."""

    host: str
    port: int
    agent_port: int | None


def run(options: Options, environ: Mapping[str, str]) -> int:
    """Run until Ctrl-C; return the exit code."""
    on = terminal.console()
    try:
        return asyncio.run(_develop(options, environ, on))
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1


async def _develop(options: Options, environ: Mapping[str, str], on: Console) -> int:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    _check_port(options.host, options.port, "--port")
    if options.agent_port is None:
        async with _service(options, environ, on) as service:
            return await _wait(service, stop)
    _check_port(LOOPBACK, options.agent_port, "--agent-port")
    async with (
        aiohttp.ClientSession() as session,
        _agent(options.agent_port) as (agent, agent_url),
        _showing(session, agent_url, on),
        _service(options, {**environ, "DD_TRACE_AGENT_URL": agent_url}, on) as service,
    ):
        await _answers(session, f"{agent_url}/info", agent)
        on.print(Text(f"Its traces come here, and those of whoever sends to {agent_url}. Ctrl-C ends it.\n"))
        return await _wait(service, stop)


async def _wait(service: Process, stop: asyncio.Event) -> int:
    """Wait for Ctrl-C, or for the service to end by itself."""
    stopping = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(service.wait())
    await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    ended.cancel()
    return 0 if stop.is_set() else service.returncode or 0


def _check_port(host: str, port: int, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(f"Can't listen on {host} port {port}: {reason}. {option} names another port.") from error


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def _ended(process: Process) -> AsyncIterator[Process]:
    """End `process` with the block: politely, then by force."""
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def _agent(port: int) -> AsyncIterator[tuple[Process, str]]:
    otlp_http, otlp_grpc, free = _free_ports(3)
    port = port or free
    arguments = ["--host", LOOPBACK, "--port", str(port), "--log-level", "ERROR"]
    arguments += ["--otlp-http-port", str(otlp_http), "--otlp-grpc-port", str(otlp_grpc)]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "hello_service.localview.agent", *arguments],
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,  # Ctrl-C is for dev alone: the service ends first, then the agent
    )
    async with _ended(process):
        yield process, f"http://{LOOPBACK}:{port}"


@asynccontextmanager
async def _service(options: Options, environ: Mapping[str, str], on: Console) -> AsyncIterator[Process]:
    env = {**DEFAULTS, **environ, "HOST": options.host, "PORT": str(options.port), "LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "hello_service", "serve"],
        stdin=DEVNULL,
        stderr=PIPE,
        env=env,
        start_new_session=True,
        limit=2**20,  # bytes of one log line
    )
    running: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(_read_log(process, running, on))
    try:
        async with _ended(process):
            either: set[asyncio.Future[Any]] = {running, reading}
            await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise StartError("The service did not start; what it said stands above.")
            on.print(Text(f"The service listens on {running.result()}.", "bold"))
            yield process
    finally:
        await reading


async def _read_log(process: Process, running: asyncio.Future[str], on: Console) -> None:
    """Show what the service says, but for its lines of requests: their traces are shown."""
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    async for raw in process.stderr:
        line = raw.decode(errors="replace").rstrip()
        entry = _entry(line)
        found = RUNNING.search(str(entry.get("event", "")))
        if found and not running.done():
            running.set_result(found[1])
        elif entry.get("level") in {"warning", "error", "critical"}:
            on.print(Text(f"{entry['level']}: {entry['event']}", "yellow"))
        elif not entry:
            on.print(Text(line))


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


async def _answers(session: aiohttp.ClientSession, url: str, process: Process) -> None:
    """Wait until `url` answers."""
    deadline = monotonic() + START_SECONDS
    while True:
        try:
            async with session.get(url):
                return
        except aiohttp.ClientError as error:
            if process.returncode is not None or monotonic() > deadline:
                raise StartError("The embedded trace agent did not start; --agent-port names another port.") from error
            await asyncio.sleep(POLL_SECONDS / 4)


@asynccontextmanager
async def _showing(session: aiohttp.ClientSession, agent_url: str, on: Console) -> AsyncIterator[None]:
    """Draw the traces that the agent receives; at the end also those that came last."""
    assembly = Assembly()

    async def take() -> None:
        try:
            async with session.get(f"{agent_url}/drain") as answer:
                assembly.add(await answer.json(), monotonic())
        except aiohttp.ClientError:
            return  # not up yet, or gone: whoever waits for it says so

    async def follow() -> None:
        while True:
            await take()
            for trace in assembly.settled(monotonic()):
                terminal.draw(trace, on)
            await asyncio.sleep(POLL_SECONDS)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await take()
        for trace in assembly.rest():
            terminal.draw(trace, on)
