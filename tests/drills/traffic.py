"""A load generator. It sends many requests over few connections with little CPU, and keeps each response's span id."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from math import ceil, inf
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
            status, headers = await asyncio.wait_for(self._exchange(request), timeout=60)
        except (OSError, EOFError, TimeoutError) as error:
            self.results.failures.append(f"{request.method} {request.path}: {error!r}")
            self.close()
            return
        self.results.seconds.append(perf_counter() - began)
        if status != request.expected_status:
            self.results.failures.append(f"{request.method} {request.path}: {status}")
        if "traceresponse" in headers:
            _version, _trace_id, span_id, _flags = headers["traceresponse"].split("-")
            self.results.span_ids.append(int(span_id, 16))
        if headers.get("connection") == "close":
            self.close()

    async def _exchange(self, request: Request) -> tuple[int, dict[str, str]]:
        if self._streams is None or self._streams[0].at_eof():  # not open, or closed by the service while idle
            self.close()
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        writer.write(request.encode())
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        if "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
        else:  # chunks, each followed by CRLF. The last chunk has the size 0
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        return int(status_line.split(" ")[1]), headers

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class LoadGenerator:
    """Clients that send requests to one service over reused connections, and their results."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.results = Results()
        self._idle: deque[Client] = deque()
        self._all: list[Client] = []

    async def request(self, request: Request) -> None:
        """Send one request with an idle client, or with a new client if none is idle."""
        if self._idle:
            client = self._idle.popleft()  # the client that was idle longest, so that none stays idle for long
        else:
            client = Client(self.url, self.results)
            self._all.append(client)
        await client.request(request)
        self._idle.append(client)

    async def closed_loop(
        self, requests: list[Request], clients: int, *, seconds: float = inf, count: float = inf
    ) -> float:
        """Send `requests` in turn from `clients` clients, each as soon as its last response is complete.

        The clients stop when `seconds` have passed or `count` requests have been sent.

        Returns:
            Responses per second.
        """
        began = perf_counter()
        responses_before = len(self.results.seconds)
        mix = cycle(requests)
        remaining = count

        async def send_requests() -> None:
            nonlocal remaining
            while remaining > 0 and perf_counter() - began < seconds:
                remaining -= 1
                await self.request(next(mix))

        await asyncio.gather(*(send_requests() for _ in range(clients)))
        return (len(self.results.seconds) - responses_before) / (perf_counter() - began)

    async def open_loop(self, requests: list[Request], rate: float, stop: asyncio.Event) -> None:
        """Send `rate` requests a second until `stop` is set, however slow the responses are.

        Returns when no request is in flight.
        """
        began = perf_counter()
        mix = cycle(requests)
        sent = 0
        in_flight: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            due = int((perf_counter() - began) * rate)  # how many requests should have been sent by now
            for _ in range(sent, due):
                task = asyncio.create_task(self.request(next(mix)))
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
            sent = due
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.005)  # requests are sent in bursts, 5 ms apart
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
