"""Runs the agent and the service, or a command, as child processes: finds ports, reads output and stops processes."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from hello_service.settings import local_url

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0  # how long the service or the agent may take to start
# How long a process may take to stop before it is killed. This is longer than the service's default stop budget.
STOP_SECONDS = 40.0
# How long processes that a command started may outlive it before SIGTERM, and after that before SIGKILL.
LEFTOVER_SECONDS = 2.0
POLL_SECONDS = 0.05
LINE_BYTES = 2**20  # a longer line is cut
# The variables that ddapm-test-agent reads as options. Some of them make it forward the data that it receives.
AGENT_OPTION_VARIABLES = re.compile(
    "(DD|OTEL|OTLP|SNAPSHOT|VCR|LOG)_.*|HOST|PORT|WEB_UI_PORT|ENABLED_CHECKS|MAX_REQUESTS|ORG_PROP_MARKER"
    "|TEST_AGENT_VERSION|DISABLE_LLMOBS_DATA_FORWARDING"
)
# The part of a message in which Hypercorn, Uvicorn, Gunicorn, Flask and others report their address.
SERVER_ADDRESS = re.compile(r"(?:[Rr]unning on|[Ll]istening (?:at:?|on:?)) (https?://[^\s\"]+)")


class StartError(Exception):
    """A part of `dev` could not be started. `str()` is the message to show."""


def bind(host: str, port: int, option: str) -> socket.socket:
    """Return a socket bound to `host` and `port`. `option` is the command-line option that sets the port.

    Raises:
        StartError: the address can't be bound. The message has the reason and the option to change.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        is_host_wrong = error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror)
        advice = "Choose another address with --host." if is_host_wrong else f"Choose another port with {option}."
        raise StartError(f"Can't listen on {host} port {port}: {reason}. {advice}") from error
    return listener


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, for programs that can't bind port 0 and report the chosen port."""
    sockets = [bind(LOOPBACK, 0, option="") for _ in range(count)]
    ports = [free_socket.getsockname()[1] for free_socket in sockets]
    for free_socket in sockets:
        free_socket.close()
    return ports


def url(listener: socket.socket) -> str:
    """Return the URL on which this machine reaches a server that listens at the address of `listener`."""
    host, port = listener.getsockname()[:2]
    return local_url(host, port)


@asynccontextmanager
async def agent(listener: socket.socket, allowed_hosts: Sequence[str] = ()) -> AsyncIterator[tuple[Process, str]]:
    """Run the embedded trace agent, and yield its process and URL. It may not respond yet.

    `listener`, from `bind`, keeps other sockets from choosing the agent's port. It is closed, because the agent
    opens a socket of its own.
    """
    agent_url = url(listener)
    host, port = listener.getsockname()[:2]
    otlp_http, otlp_grpc = free_ports(2)  # because the default ports of OTLP may be in use
    listener.close()
    arguments = [sys.executable, "-m", "hello_service.localview.agent"]
    arguments += ["--host", host, "--port", str(port), "--log-level", "ERROR"]
    arguments += ["--otlp-http-port", str(otlp_http), "--otlp-grpc-port", str(otlp_grpc)]
    for name in allowed_hosts:
        arguments += ["--allow-host", name]
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        env={name: value for name, value in os.environ.items() if not AGENT_OPTION_VARIABLES.fullmatch(name)},
        start_new_session=True,  # Ctrl-C then reaches only `dev`, which stops the service before the agent
    )
    async with _stopped_at_exit(process):
        yield process, agent_url


@asynccontextmanager
async def service(environ: Mapping[str, str], on_line: Callable[[str], None]) -> AsyncIterator[tuple[Process, str]]:
    """Run the service, and yield its process and URL once it listens. `on_line` is called with each line of its output.

    Raises:
        StartError: the service does not start.
    """
    service_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arguments = [sys.executable, "-m", "hello_service", "serve"]
    async with command(arguments, environ, on_line, service_url.set_result, signal.SIGTERM) as process:
        exited = asyncio.create_task(process.wait())
        url_or_exit: set[asyncio.Future[Any]] = {service_url, exited}
        await asyncio.wait(url_or_exit, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        exited.cancel()
        if not service_url.done():
            raise StartError("The service did not start. Its output above shows the reason.")
        yield process, service_url.result()


@asynccontextmanager
async def command(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    on_line: Callable[[str], None],
    on_url: Callable[[str], None],
    stop_signal: signal.Signals = signal.SIGINT,  # as Ctrl-C would send
) -> AsyncIterator[Process]:
    """Run a command and yield its process. At the end of the block, stop it and the rest of its process group.

    `on_line` is called with each line of its output, `on_url` with the first URL that it reports as its own.
    """
    # Asyncio's own pipe can't be used: before Python 3.13, wait() waits for EOF of that pipe, which a child process of
    # the command may hold open.
    read_end, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=DEVNULL, stdout=write_end, stderr=STDOUT, env=dict(environ), start_new_session=True
    )
    os.close(write_end)
    output = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read_end, "rb", buffering=0)
    )

    async def read_lines() -> None:
        address = None
        async for line in lines(output):
            on_line(line)
            if address is None:
                address = SERVER_ADDRESS.search(line)
                if address:
                    on_url(address[1])

    reading = asyncio.create_task(read_lines())
    try:
        async with _stopped_at_exit(process, stop_signal):
            yield process
    finally:
        # As long as the output has not ended, a process that the command started is still running.
        for signum in (signal.SIGTERM, signal.SIGKILL):
            finished, _ = await asyncio.wait({reading}, timeout=LEFTOVER_SECONDS)
            if not finished:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
        with suppress(TimeoutError):  # a process that has left the group may keep the output open
            await asyncio.wait_for(reading, LEFTOVER_SECONDS)
        pipe.close()


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of `stream`, cut to `LINE_BYTES`. Asyncio's own iteration fails on a very long line."""
    line = b""  # the beginning of a line whose end has not arrived
    is_cut = False  # whether the beginning of that line has already been yielded, so that the rest is ignored
    while chunk := await stream.read(2**16):
        *complete_lines, line = (line + chunk).split(b"\n")
        for complete_line in complete_lines:
            if not is_cut:
                yield _decode(complete_line)
            is_cut = False
        if len(line) > LINE_BYTES:
            if not is_cut:
                yield _decode(line)
            line, is_cut = b"", True
    if line and not is_cut:
        yield _decode(line)


def _decode(line: bytes) -> str:
    return line[:LINE_BYTES].decode(errors="replace").rstrip()


async def wait_for_response(session: aiohttp.ClientSession, url: str, process: Process) -> None:
    """Wait until `url` of the agent, which runs as `process`, responds.

    Raises:
        StartError: the process exits, or there is no response in time.
    """
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        try:
            async with session.get(url):
                return
        except (aiohttp.ClientError, TimeoutError) as error:
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    "The embedded trace agent did not start: run `python -m hello_service.localview.agent` to see why, "
                    "or choose another port with --agent-port."
                ) from error
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def _stopped_at_exit(process: Process, stop_signal: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
    """Stop `process` at the end of the block: with `stop_signal`, then with SIGKILL if it has not exited in time."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(stop_signal)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
