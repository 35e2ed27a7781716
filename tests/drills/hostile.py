"""A drill with clients that are slow or malicious, or that send malformed requests."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from running import Running, eventually, service, trace_agent

from drills.connections import descriptors, memory_mib
from drills.drill import Size, drill
from drills.hostile_requests import FRAMES, HANDSHAKES, REQUESTS, Attack, frame, get, handshake

T = TypeVar("T")
TIMEOUT_SECONDS = 20.0  # longer than any response takes, even on a busy machine
KEEP_ALIVE_SECONDS = 3.0  # the service's setting, which also limits the time for the head of a request
MAX_GROWTH_MIB = 30
FLOOD_BYTES = 120_000_000
SILENCE_SECONDS = 5.0  # if the service accepts no data for this time, it has stopped reading
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")  # the start of a status line


class RawConnection:
    """A connection that sends and receives raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, url: str, data: bytes = b"") -> RawConnection:
        """Connect, and send `data`."""
        address = urlsplit(url)
        connection = cls(*await asyncio.open_connection(address.hostname, address.port))
        await connection.send(data)
        return connection

    async def send(self, data: bytes) -> None:
        """Send `data`, or as much of it as the service accepts before it closes the connection."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def read_rest(self) -> bytes:
        """Return all bytes until the connection is closed."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:  # the service closed the connection before it read all bytes of this client
                return b""

    async def read_until(self, end: bytes) -> bytes:
        """Return all bytes up to and including `end`, or until the connection is closed."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            try:
                return await self.reader.readuntil(end)
            except asyncio.IncompleteReadError as error:
                return error.partial
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def send_attack(url: str, attack: Attack) -> None:
    """Send one hostile request, and check the response."""
    connection = await RawConnection.open(url, attack.data)
    try:
        response = await (connection.read_rest() if attack.closes else connection.read_until(b"\r\n\r\n"))
    except TimeoutError as error:
        raise AssertionError(f"{attack.name}: no response and no close within {TIMEOUT_SECONDS:g} s") from error
    await connection.close()
    statuses = [int(status) for status in STATUS.findall(response)]
    assert statuses == [attack.status], f"{attack.name}: {statuses or response!r}"


async def open_websocket(url: str, headers: bytes = b"") -> RawConnection:
    """Open a WebSocket with `headers` in its handshake."""
    connection = await RawConnection.open(url, handshake(headers))
    assert b" 101 " in await connection.read_until(b"\r\n\r\n")
    return connection


async def send_frames(url: str, name: str) -> None:
    """Send malformed frames, and check that the service closes the WebSocket."""
    connection = await open_websocket(url)
    # In a task, because the service may send its close frame before it has read a large message.
    sending = asyncio.create_task(connection.send(FRAMES[name]))
    response = await connection.read_rest()
    await sending
    await connection.close()
    assert response[:1] in {b"", b"\x88"}, f"{name}: {response!r}"  # nothing, or a close frame


async def send_handshake(url: str, headers: bytes) -> None:
    """Open a WebSocket with malformed `headers`, and check that it works."""
    connection = await open_websocket(url, headers)
    await connection.send(frame(2, b"") + frame(1, b"Ada"))
    # The frame of bytes gets a hint, which ends in "as text."
    assert b"as text" in await connection.read_until(b".")
    assert b"Hello, Ada" in await connection.read_until(b"!")
    await connection.close()


async def send_slowly(url: str) -> float:
    """Send a request's head, one byte a second, and return the seconds until the service closes the connection."""
    connection = await RawConnection.open(url)
    began = perf_counter()
    until_closed = asyncio.create_task(connection.read_rest())
    # At this pace, the head would take far longer than the service waits.
    for byte in get(headers=b"X: " + b"a" * 1000):
        await connection.send(bytes([byte]))
        done, _ = await asyncio.wait({until_closed}, timeout=1)
        if done:
            break
    await connection.close()
    await until_closed
    return perf_counter() - began


async def flood_websocket(url: str) -> int:
    """Send small and large names to a WebSocket without reading a reply.

    The flood ends after `FLOOD_BYTES`, or when the service has accepted nothing for `SILENCE_SECONDS`. `FLOOD_BYTES`
    is more than the memory may grow, so the drill fails if the service reads without a bound. The replies to the small
    names fill the buffers of the other direction.

    Returns:
        The number of bytes that the service accepted.
    """
    address = urlsplit(url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # smaller than the replies to one chunk
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.hostname, address.port))
        await loop.sock_sendall(client, handshake())
        assert await loop.sock_recv(client, 12) == b"HTTP/1.1 101"
        # 200 characters are the longest name that the service accepts. 60,000 bytes are within its limit for a message.
        chunk = frame(1, b"a" * 200) * 50 + frame(1, b"a" * 60_000)
        accepted_bytes = 0
        with suppress(TimeoutError):
            while accepted_bytes < FLOOD_BYTES:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await loop.sock_sendall(client, chunk)
                accepted_bytes += len(chunk)
        return accepted_bytes


class OrdinaryClient:
    """A client that isn't hostile, the statuses of its responses, and the time of its slowest response in seconds."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.slowest = 0.0

    async def send_requests(self, url: str) -> None:
        """Send one request after the other, with a pause of 50 ms, until canceled."""
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            while True:
                began = perf_counter()
                self.statuses.append((await client.get("/api/hello")).status_code)
                self.slowest = max(self.slowest, perf_counter() - began)
                await asyncio.sleep(0.05)


async def run_all(jobs: list[Callable[[], Awaitable[T]]], limit: int) -> list[T]:
    """Run all `jobs`, at most `limit` of them at once."""
    slots = asyncio.Semaphore(limit)

    async def run(job: Callable[[], Awaitable[T]]) -> T:
        async with slots:
            return await job()

    return await asyncio.gather(*map(run, jobs))


@contextmanager
def checked_service() -> Iterator[Running]:
    """Run a service with an agent. Check afterwards that no request and no descriptor remains, that the application
    responded with no 50x, and that the log has no traceback of Hypercorn.
    """
    settings = {"KEEP_ALIVE_SECONDS": str(KEEP_ALIVE_SECONDS)}
    with trace_agent() as agent, service(agent.url, settings) as running:
        with httpx.Client(base_url=running.url) as client:
            client.get("/info").raise_for_status()
        eventually(lambda: len(running.requests("/info")) == 1)
        descriptors_before = descriptors(running)
        yield running
        with httpx.Client(base_url=running.url, timeout=TIMEOUT_SECONDS) as client:
            # The request to /info is itself in flight.
            eventually(lambda: client.get("/info").json()["in_flight"], lambda count: count == 1)
        # One more may be open: the connection to the agent.
        eventually(lambda: descriptors(running), lambda count: count <= descriptors_before + 1)
        assert running.stop(timeout=10) == 0
        # The hostile requests that are rejected with 501 or 505 don't reach the application, so they have no span.
        errors = [
            span["resource"] for span in agent.spans() if span["meta"].get("http.status_code", "").startswith("50")
        ]
        tracebacks = [line for line in running.lines if "hypercorn" in line and "Traceback" in line]
        assert not errors, errors
        assert not tracebacks, tracebacks[0]


@drill(
    "slowloris, huge and many headers, bad chunks, request smuggling, HTTP/2 rapid reset, invalid UTF-8, "
    "WebSocket frames oversized or malformed",
    "Each request is rejected or its connection closed, with no 500 and no crash. No request and no descriptor "
    "remains, and other clients are served meanwhile",
    every_python=True,
)
def hostile_clients(size: Size) -> str:
    """Attacks are sent in rounds, up to eight at once, while heads arrive slowly and an ordinary client is served."""
    slow_count = size.of(50, 500)
    rounds = size.of(1, 20)

    async def attack_service(url: str, ordinary: OrdinaryClient) -> tuple[list[float], int]:
        """Return the seconds until the connection of each slow head was closed, and the number of other attacks."""
        attacks: list[Callable[[], Awaitable[None]]] = [
            *(partial(send_attack, url, attack) for attack in REQUESTS),
            *(partial(send_frames, url, name) for name in FRAMES),
            *(partial(send_handshake, url, headers) for headers in HANDSHAKES),
        ]
        ordinary_requests = asyncio.create_task(ordinary.send_requests(url))
        slow_heads = asyncio.gather(*(send_slowly(url) for _ in range(slow_count)))
        await run_all(attacks * rounds, limit=8)
        accepted_bytes = await asyncio.gather(*(flood_websocket(url) for _ in range(size.of(1, 3))))
        assert max(accepted_bytes) < FLOOD_BYTES, "a client that floods a WebSocket did not have to wait"
        slow_seconds = await slow_heads
        ordinary_requests.cancel()
        return slow_seconds, len(attacks) * rounds

    ordinary = OrdinaryClient()
    with checked_service() as running:
        memory_before = memory_mib(running)
        slow_seconds, count = asyncio.run(attack_service(running.url, ordinary))
        growth = memory_mib(running) - memory_before
    slowest = max(slow_seconds)
    assert set(ordinary.statuses) == {200}, set(ordinary.statuses)
    assert slowest < KEEP_ALIVE_SECONDS + TIMEOUT_SECONDS, f"a slow head was closed after {slowest:.0f} s"
    assert growth < MAX_GROWTH_MIB, f"{growth:.0f} MiB more"
    return (
        f"{count} hostile requests and WebSockets rejected or closed, {slow_count} slow heads closed after "
        f"{slowest:.1f} s at most (KEEP_ALIVE_SECONDS={KEEP_ALIVE_SECONDS:g}), no 500, {growth:.0f} MiB more; "
        f"meanwhile {len(ordinary.statuses)} other requests got 200, in {ordinary.slowest * 1000:.0f} ms at most"
    )
