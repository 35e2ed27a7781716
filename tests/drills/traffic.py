"""A load generator: sends many requests over few connections with little CPU, and keeps each response's span id."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from math import ceil
from time import perf_counter
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """A request, and the status that its response must have."""

    path: str
    method: str = "GET"
    body: bytes = b""
    expected_status: int = 200

    def encode(self) -> bytes:
        """Return the request as HTTP/1.1."""
        body_headers = f"content-type: application/json\r\ncontent-length: {len(self.body)}\r\n" if self.body else ""
        return f"{self.method} {self.path} HTTP/1.1\r\nhost: drill\r\n{body_headers}\r\n".encode() + self.body


HELLO = Request("/api/hello")


@dataclass
class Results:
    """The results of the requests.

    Attributes:
        seconds: the duration of each request that got a response.
        span_ids: the span id of each response, from its `traceresponse`.
        failures: each request that got no response or an unexpected status, with the error or the status.
    """

    seconds: list[float] = field(default_factory=list)
    span_ids: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def p99(self) -> float:
        """Return the 99th percentile of the durations in milliseconds."""
        return sorted(self.seconds)[ceil(len(self.seconds) * 0.99) - 1] * 1000


class Client:
    """One connection at a time to `url`, opened when it is needed and closed if a response has `Connection: close`."""

    def __init__(self, url: str, results: Results) -> None:
        self.host = urlsplit(url).hostname
        self.port = urlsplit(url).port
        self.results = results
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, request: Request) -> None:
        """Send one request without a retry, and add the outcome to the results."""
        began = perf_counter()
        try:
            status, fields = await asyncio.wait_for(self._exchange(request), 60)
        except (OSError, EOFError, TimeoutError) as error:
            self.results.failures.append(f"{request.method} {request.path}: {error!r}")
            self.close()
            return
        self.results.seconds.append(perf_counter() - began)
        if status != request.expected_status:
            self.results.failures.append(f"{request.method} {request.path}: {status}")
        if "traceresponse" in fields:
            self.results.span_ids.append(
                int(fields["traceresponse"].split("-")[2], 16)
            )  # version-trace_id-span_id-flags
        if fields.get("connection") == "close":
            self.close()

    async def _exchange(self, request: Request) -> tuple[int, dict[str, str]]:
        if self._streams is None or self._streams[0].at_eof():  # not open, or closed by the service while idle
            self.close()
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if "content-length" in fields:
            await reader.readexactly(int(fields["content-length"]))
        else:  # chunks, each followed by a line end; the last has size 0
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        return int(head[0].split(" ")[1]), fields

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class LoadGenerator:
    """Clients of one service, which reuse their connections, and their results."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.results = Results()
        self._idle: deque[Client] = deque()
        self._all: list[Client] = []

    async def request(self, request: Request) -> None:
        """Send one request with an idle client, or with a new client if none is idle."""
        if self._idle:
            client = self._idle.popleft()  # the client that was idle longest, so that each is used from time to time
        else:
            client = Client(self.url, self.results)
            self._all.append(client)
        await client.request(request)
        self._idle.append(client)

    async def closed_loop(
        self, requests: list[Request], clients: int, *, seconds: float = 1e9, count: int = 10**9
    ) -> float:
        """Let `clients` clients send `requests` in turn, each as soon as its last response is complete.

        They stop when `seconds` have passed or `count` requests are sent.

        Returns:
            Responses per second.
        """
        began, before, mix = perf_counter(), len(self.results.seconds), cycle(requests)

        async def send_requests() -> None:
            nonlocal count
            while count > 0 and perf_counter() - began < seconds:
                count -= 1
                await self.request(next(mix))

        await asyncio.gather(*(send_requests() for _ in range(clients)))
        return (len(self.results.seconds) - before) / (perf_counter() - began)

    async def open_loop(self, requests: list[Request], rate: float, over: asyncio.Event) -> None:
        """Send `rate` requests a second until `over` is set, however slow the responses are.

        Returns when no request is in flight.
        """
        began, mix = perf_counter(), cycle(requests)
        sent = 0
        in_flight: set[asyncio.Task[None]] = set()
        while not over.is_set():
            due = int((perf_counter() - began) * rate)
            for _ in range(sent, due):
                task = asyncio.create_task(self.request(next(mix)))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
            sent = max(sent, due)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.005)
        await asyncio.gather(*in_flight)

    def close(self) -> None:
        """Close each connection."""
        for client in self._all:
            client.close()


@contextmanager
def load_generator(url: str) -> Iterator[LoadGenerator]:
    """Yield a load generator for the service at `url`, and close its connections afterwards."""
    generator = LoadGenerator(url)
    try:
        yield generator
    finally:
        generator.close()
