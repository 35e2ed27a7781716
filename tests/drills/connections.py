"""An HTTP client so small that thousands fit on one machine with the service, and measurements of the service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from fake_upstream import reset as reset_connection
from running import Running

TIMEOUT_SECONDS = 20.0  # longer than any condition of a drill needs on a busy machine


@dataclass(frozen=True)
class Response:
    """A response, and the seconds that it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Connection:
    """One persistent connection, for one request at a time. `get` opens a new one if the server has closed it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_open = False

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.is_open = True

    def send(self, path: str, header_lines: str = "", method: str = "GET") -> None:
        """Send a request without waiting for the response. `header_lines` are more header lines, each with its CRLF."""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n{header_lines}\r\n".encode())

    async def get(self, path: str) -> Response:
        """Send a request and return the whole response."""
        if not self.is_open:
            await self.open()
        began = perf_counter()
        self.send(path)
        status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [line.partition(":") for line in lines]
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":  # as the service requires after 1,000 requests
            self.writer.close()
            self.is_open = False
        status = int(status_line.split()[1])
        return Response(status=status, headers=headers, body=body, seconds=perf_counter() - began)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, with a reset if `reset` is set."""
        if reset:
            reset_connection(self.writer)
        else:
            self.writer.close()


async def connect(running: Running) -> Connection:
    connection = Connection(running.url)
    await connection.open()
    return connection


@asynccontextmanager
async def connected(running: Running) -> AsyncIterator[Connection]:
    """Connect to a service, and close the connection at the end of the block."""
    connection = await connect(running)
    try:
        yield connection
    finally:
        connection.close()


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> float:
    """Wait until `condition` is true, while the event loop keeps running, and return the seconds that it took.

    Raises:
        AssertionError: the condition was not true within 20 s.
    """
    began = perf_counter()
    while True:
        is_met = condition()
        if not isinstance(is_met, bool):
            is_met = await is_met
        if is_met:
            return perf_counter() - began
        assert perf_counter() - began < TIMEOUT_SECONDS, f"not within {TIMEOUT_SECONDS:g} s"
        await asyncio.sleep(0.005)


def percentile(values: list[float], share: float) -> float:
    """Return a value that at least a `share` (0.0 to 1.0) of `values` doesn't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def descriptors(running: Running) -> int:
    """Return the number of file descriptors that a service has open."""
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


def memory_mib(running: Running) -> float:
    """Return the resident memory (RSS) of a service."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024  # the kernel reports KiB


async def in_flight(connection: Connection) -> int:
    """Return the number of requests that a service has in flight."""
    count: int = json.loads((await connection.get("/info")).body)["in_flight"]
    return count - 1  # without the request to /info itself
