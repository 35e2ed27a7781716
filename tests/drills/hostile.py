"""A drill with clients that are slow, malformed or malicious."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from running import Agent, Running, eventually, service, trace_agent

from drills.drill import Size, drill
from drills.hostile_requests import FRAMES, HANDSHAKES, REQUESTS, Attack, frame, get, handshake

T = TypeVar("T")
PATIENCE = 20.0  # seconds; longer than anything here may take on a busy machine
KEEP_ALIVE = 3.0
LEAST_MORE_MIB = 30
FLOOD_BYTES = 120_000_000
SILENCE = 5.0
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Wire:
    """One connection to a service, with raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, url: str, sent: bytes = b"") -> Wire:
        """Connect, and send `data`."""
        address = urlsplit(url)
        wire = cls(*await asyncio.open_connection(address.hostname, address.port))
        await wire.send(sent)
        return wire

    async def send(self, data: bytes) -> None:
        """Send as many bytes as the service accepts."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def rest(self) -> bytes:
        """Return all bytes until the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:  # closed with unread bytes from us
                return b""

    async def until(self, end: bytes) -> bytes:
        """Return all bytes up to and including `end`, or until the connection is closed."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.readuntil(end)
            except asyncio.IncompleteReadError as broken:
                return broken.partial
            except ConnectionError:
                return b""

    async def close(self) -> None:
        """Close this side."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def send_form(url: str, form: Attack) -> None:
    """Send one hostile request, and check the response."""
    wire = await Wire.open(url, form.sent)
    try:
        response = await (wire.rest() if form.cut else wire.until(b"\r\n\r\n"))
    except TimeoutError as error:
        raise AssertionError(f"{form.name}: no response and no close within {PATIENCE:g} s") from error
    await wire.close()
    statuses = [int(status) for status in STATUS.findall(response)]
    assert statuses == [form.status], f"{form.name}: {statuses or response!r}"


async def opened(url: str, extra: bytes = b"") -> Wire:
    """Open a WebSocket."""
    wire = await Wire.open(url, handshake(extra))
    assert b" 101 " in await wire.until(b"\r\n\r\n")
    return wire


async def send_frames(url: str, name: str) -> None:
    """Send malformed frames, and check that the WebSocket is closed."""
    wire = await opened(url)
    sending = asyncio.create_task(wire.send(FRAMES[name]))
    response = await wire.rest()
    await sending
    await wire.close()
    assert response[:1] in {b"", b"\x88"}, f"{name}: {response!r}"


async def use_headers(url: str, extra: bytes) -> None:
    """Open a WebSocket with malformed headers, and use it."""
    wire = await opened(url, extra)
    await wire.send(frame(2, b"") + frame(1, b"Ada"))
    assert b"as text" in await wire.until(b".")
    assert b"Hello, Ada" in await wire.until(b"!")
    await wire.close()


async def drip(url: str) -> float:
    """Send an endless head, one byte a second; return after how many seconds the connection was closed."""
    wire = await Wire.open(url)
    began = perf_counter()
    ended = asyncio.create_task(wire.rest())
    for byte in get(headers=b"X: " + b"a" * 1000):
        await wire.send(bytes([byte]))
        if (await asyncio.wait({ended}, timeout=1))[0]:
            break
    await wire.close()
    await ended
    return perf_counter() - began


async def flood_websocket(url: str) -> int:
    """Send names to a WebSocket, small and large, without reading a greeting; return how many bytes the service
    accepted.

    The flood ends after `FLOOD_BYTES`, or when the service has accepted nothing for some seconds. `FLOOD_BYTES` is
    more than the memory may grow, so the drill finds a service that reads ahead without a bound. The replies to the
    small names fill the buffers of the other direction.
    """
    address = urlsplit(url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.hostname, address.port))
        await loop.sock_sendall(client, handshake())
        assert await loop.sock_recv(client, 12) == b"HTTP/1.1 101"
        chunk, taken = frame(1, b"a" * 200) * 50 + frame(1, b"a" * 60_000), 0
        with suppress(TimeoutError):
            while taken < FLOOD_BYTES:
                async with asyncio.timeout(SILENCE):
                    await loop.sock_sendall(client, chunk)
                taken += len(chunk)
        return taken


class Others:
    """A client that isn't hostile, with the statuses and the slowest response that it has seen."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.slowest = 0.0

    async def request(self, url: str) -> None:
        """Send 20 requests a second until cancelled."""
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                began = perf_counter()
                self.statuses.append((await client.get("/api/hello")).status_code)
                self.slowest = max(self.slowest, perf_counter() - began)
                await asyncio.sleep(0.05)


async def at_once(limit: int, jobs: list[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run all `jobs`, at most `limit` at once."""
    slots = asyncio.Semaphore(limit)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await job()

    return await asyncio.gather(*(one(job) for job in jobs))


def descriptors(running: Running) -> int:
    """Return how many file descriptors the service has open."""
    return sum(1 for _ in Path(f"/proc/{running.process.pid}/fd").iterdir())


def memory_mib(running: Running) -> float:
    """Return the service's resident memory."""
    pages = Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1_048_576


@contextmanager
def watched(settings: dict[str, str]) -> Iterator[tuple[Running, Agent]]:
    """Run a service with an agent, and check afterwards that the hostile requests left nothing behind."""
    with trace_agent() as agent, service(agent.url, {"KEEP_ALIVE_SECONDS": str(KEEP_ALIVE), **settings}) as running:
        with httpx.Client(base_url=running.url) as client:
            client.get("/info").raise_for_status()
        eventually(lambda: len(running.requests("/info")) == 1)
        before = eventually(lambda: descriptors(running))
        yield running, agent
        with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
            eventually(lambda: client.get("/info").json()["in_flight"], lambda count: count == 1)
        eventually(lambda: descriptors(running), lambda count: count <= before + 1)  # the connection to the agent
        assert running.stop(timeout=10) == 0
        errors = [span["resource"] for span in agent.spans() if span["meta"].get("http.status_code", "")[:2] == "50"]
        noise = [line for line in running.lines if "hypercorn" in line and "Traceback" in line]
        assert not errors, errors
        assert not noise, noise[0]


@drill(
    "slowloris, huge and many headers, bad chunks, request smuggling, HTTP/2 rapid reset, invalid UTF-8, "
    "WebSocket frames oversized or malformed",
    "Each request is rejected or its connection closed, with no 500 and no crash. Nothing is held afterwards, and"
    " other clients are served meanwhile",
    every_python=True,
)
def hostile_clients(size: Size) -> str:
    """Each hostile form is sent many times, some of them at once."""
    slow, rounds = size.of(50, 500), size.of(1, 20)

    async def attack(url: str, others: Others) -> tuple[list[float], int]:
        jobs: list[Callable[[], Awaitable[None]]] = []
        jobs += [lambda form=form: send_form(url, form) for form in REQUESTS]  # type: ignore[misc]
        jobs += [lambda name=name: send_frames(url, name) for name in FRAMES]  # type: ignore[misc]
        jobs += [lambda extra=extra: use_headers(url, extra) for extra in HANDSHAKES]  # type: ignore[misc]
        asking = asyncio.create_task(others.request(url))
        drips = asyncio.gather(*(drip(url) for _ in range(slow)))
        await at_once(8, jobs * rounds)
        taken = await asyncio.gather(*(flood_websocket(url) for _ in range(size.of(1, 3))))
        assert max(taken) < FLOOD_BYTES, "a client that floods a WebSocket did not have to wait"
        cut = await drips
        asking.cancel()
        return cut, len(jobs) * rounds

    others = Others()
    with watched({"FAULTS": "true"}) as (running, _):
        before = memory_mib(running)
        cut, count = asyncio.run(attack(running.url, others))
        more = memory_mib(running) - before
    assert set(others.statuses) == {200}, set(others.statuses)
    assert max(cut) < KEEP_ALIVE + PATIENCE, f"a slow head was closed after {max(cut):.0f} s"
    assert more < LEAST_MORE_MIB, f"{more:.0f} MiB more"
    return (
        f"{count} hostile requests and WebSockets rejected or closed, {slow} slow heads closed after {max(cut):.1f} s at most "
        f"(KEEP_ALIVE_SECONDS={KEEP_ALIVE:g}), no 500, {more:.0f} MiB more; meanwhile {len(others.statuses)} other requests "
        f"got 200, in {others.slowest * 1000:.0f} ms at most"
    )
