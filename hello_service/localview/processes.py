"""The agent and the service as child processes: their ports, their start, their words, their end."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 40.0
ASK_SECONDS = 0.05
LINE_BYTES = 2**20  # the rest of a longer line of the log is left out
# The variables that ddapm-test-agent reads for its options; some of them send what it receives elsewhere.
AGENT_VARIABLES = re.compile(
    "(DD|OTEL|OTLP|SNAPSHOT|VCR|LOG)_.*|HOST|PORT|WEB_UI_PORT|ENABLED_CHECKS|MAX_REQUESTS|ORG_PROP_MARKER|TEST_AGENT_VERSION"
    "|DISABLE_LLMOBS_DATA_FORWARDING"
)
RUNNING = re.compile(r"Running on (http://[^\s\"]+)")


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
    """Run the service; yields its process and URL once it listens. `say` gets each line of its standard error.

    Raises:
        StartError: when it does not start.
    """
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "hello_service", "serve"],
        stdin=DEVNULL,
        stderr=PIPE,
        env=dict(environ),
        start_new_session=True,
    )
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    running: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen_to(stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            if not running.done() and (found := RUNNING.search(line)):
                running.set_result(found[1])
            say(line)

    reading = asyncio.create_task(listen_to(process.stderr))
    try:
        async with _ended(process):
            either: set[asyncio.Future[Any]] = {running, reading}
            await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise StartError("The service did not start; what it said stands above.")
            yield process, running.result()
    finally:
        await reading


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
async def _ended(process: Process) -> AsyncIterator[None]:
    """End `process` with the block: politely, then by force."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
