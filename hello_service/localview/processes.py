"""The agent and the service as child processes: their ports, their start, their words, their end."""

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

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 40.0
REST_SECONDS = 2.0  # for the processes that a command leaves behind when it ends
ASK_SECONDS = 0.05
LINE_BYTES = 2**20  # the rest of a longer line of the log is left out
# The variables that ddapm-test-agent reads for its options; some of them send what it receives elsewhere.
AGENT_VARIABLES = re.compile(
    "(DD|OTEL|OTLP|SNAPSHOT|VCR|LOG)_.*|HOST|PORT|WEB_UI_PORT|ENABLED_CHECKS|MAX_REQUESTS|ORG_PROP_MARKER|TEST_AGENT_VERSION"
    "|DISABLE_LLMOBS_DATA_FORWARDING"
)
RUNNING = re.compile(r"(?:[Rr]unning on|[Ll]istening (?:at:?|on:?)) (https?://[^\s\"]+)")


class StartError(Exception):
    """Something could not be started; `str()` is a sentence for a person."""


def listen(host: str, port: int, option: str) -> socket.socket:
    """Return a socket bound to the address.

    Raises:
        StartError: with the address, the reason and the option that chooses another: `option` for the port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        wrong_host = error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror)
        advice = "Choose another address with --host." if wrong_host else f"Choose another port with {option}."
        raise StartError(f"Can't listen on {host} port {port}: {reason}. {advice}") from error
    return listener


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, for programs that can't bind 0 and say what they got."""
    sockets = [listen(LOOPBACK, 0, "") for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@asynccontextmanager
async def agent(host: str, port: int, allowed_hosts: Sequence[str] = ()) -> AsyncIterator[tuple[Process, str]]:
    """Run the embedded trace agent on `host`; yields its process and URL. It may not respond yet."""
    otlp_http, otlp_grpc, free = free_ports(3)
    port = port or free
    arguments = ["--host", host, "--port", str(port), "--log-level", "ERROR"]
    arguments += ["--otlp-http-port", str(otlp_http), "--otlp-grpc-port", str(otlp_grpc)]
    for name in allowed_hosts:
        arguments += ["--allow-host", name]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "hello_service.localview.agent", *arguments],
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=DEVNULL,
        env={name: value for name, value in os.environ.items() if not AGENT_VARIABLES.fullmatch(name)},
        start_new_session=True,  # Ctrl-C is for dev alone: the service ends first, then the agent
    )
    async with _ended(process):
        yield process, f"http://{LOOPBACK}:{port}"


@asynccontextmanager
async def service(environ: Mapping[str, str], say: Callable[[str], None]) -> AsyncIterator[tuple[Process, str]]:
    """Run the service; yields its process and URL once it listens. `say` gets each line of its output.

    Raises:
        StartError: when it does not start.
    """
    running: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    arguments = [sys.executable, "-m", "hello_service", "serve"]
    async with command(arguments, environ, say, running.set_result, signal.SIGTERM) as process:
        ended = asyncio.create_task(process.wait())
        either: set[asyncio.Future[Any]] = {running, ended}
        await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not running.done():
            raise StartError("The service did not start; what it said stands above.")
        yield process, running.result()


@asynccontextmanager
async def command(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    say: Callable[[str], None],
    found: Callable[[str], None],
    end: signal.Signals = signal.SIGINT,
) -> AsyncIterator[Process]:
    """Run a command and yield its process; the signal `end` ends it with the block, and all that it has started.

    `say` gets each line of its output, `found` the first URL that it prints as the one on which it listens.
    """
    # Not asyncio's own pipe: before Python 3.13, wait() waits for its end, which a child of the process may hold open.
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=DEVNULL, stdout=write, stderr=STDOUT, env=dict(environ), start_new_session=True
    )
    os.close(write)
    output = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read, "rb", 0)
    )

    async def read_lines() -> None:
        url = None
        async for line in lines(output):
            say(line)
            if url is None and (url := RUNNING.search(line)):
                found(url[1])

    reading = asyncio.create_task(read_lines())
    try:
        async with _ended(process, end):
            yield process
    finally:
        for signum in (signal.SIGTERM, signal.SIGKILL):  # what holds its output open still runs
            if not (await asyncio.wait({reading}, timeout=REST_SECONDS))[0]:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signum)
        await reading
        pipe.close()


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of `stream`, none longer than `LINE_BYTES`: asyncio's own iteration fails on such a line."""
    line, cut = b"", False
    while chunk := await stream.read(2**16):
        *ended, line = (line + chunk).split(b"\n")
        for each in ended:
            if not cut:
                yield _text(each)
            cut = False
        if len(line) > LINE_BYTES:
            if not cut:
                yield _text(line)
            line, cut = b"", True
    if line and not cut:
        yield _text(line)


def _text(line: bytes) -> str:
    return line[:LINE_BYTES].decode(errors="replace").rstrip()


async def answers(session: aiohttp.ClientSession, url: str, process: Process) -> None:
    """Wait until `url`, which `process` serves, answers.

    Raises:
        StartError: when it ends instead, or does not answer in time.
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
            await asyncio.sleep(ASK_SECONDS)


@asynccontextmanager
async def _ended(process: Process, end: signal.Signals = signal.SIGTERM) -> AsyncIterator[None]:
    """End `process` with the block: by the signal `end`, then by force."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(end)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
