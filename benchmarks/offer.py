"""Sends requests at a fixed rate that does not depend on the responses, like many independent clients.

`python -m benchmarks.offer PORT PATH RATE COUNT CONNECTIONS (ask|drop)` prints the results as JSON. A request that finds all connections
busy is sent as soon as one is free, so an overloaded server never idles. Requests that still wait after the last one was offered are sent
(`ask`) or dropped (`drop`). The program waits for the response to each request that was sent, so the expected number of spans is exact.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from typing import Any

import uvloop

TICK_SECONDS = 0.01
WAIT_SECONDS = 60.0
END = b"\r\n\r\n"
ASK, DROP = "ask", "drop"


class Offer:
    """`count` requests for `path`, `rate` a second."""

    def __init__(self, path: str, rate: float, count: int) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        self.rate, self.left = rate, count
        self.idle: deque[Client] = deque()
        self.waiting = 0  # offered, while all connections were busy
        self.most_waiting = 0
        self.sent = 0
        self.statuses: Counter[str] = Counter()

    async def run(self, port: int, connections: int, ending: str) -> dict[str, Any]:
        """Send all requests, and return the results."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Client(self), "127.0.0.1", port)
        began, offered = loop.time(), 0
        while self.left:
            now = min(int((loop.time() - began) * self.rate) - offered, self.left)
            offered, self.left, self.waiting = offered + now, self.left - now, self.waiting + now
            self.most_waiting = max(self.most_waiting, self.waiting)
            self.send()
            await asyncio.sleep(TICK_SECONDS)
        seconds = loop.time() - began
        while ending == ASK and self.waiting:  # noqa: ASYNC110 - the same as below
            await asyncio.sleep(TICK_SECONDS)
        self.waiting = 0  # the rest is dropped
        async with asyncio.timeout(WAIT_SECONDS):
            while self.statuses.total() < self.sent:  # noqa: ASYNC110 - an event would be set for each response
                await asyncio.sleep(TICK_SECONDS)
        return {
            "offered": offered,
            "seconds": seconds,
            "sent": self.sent,
            "failures": self.sent - self.statuses["200"],
            "most_waiting": self.most_waiting,
        }

    def send(self) -> None:
        """Send waiting requests on the idle connections."""
        while self.waiting and self.idle:
            self.idle.popleft().transport.write(self.request)
            self.waiting -= 1
            self.sent += 1

    def complete(self, client: Client, status: str) -> None:
        """Count a response; its connection is idle now."""
        self.statuses[status] += 1
        self.idle.append(client)
        self.send()


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.offer.idle.append(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(END)
        if found and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self.data = b""
            self.offer.complete(self, head[9:12].decode())

    def connection_lost(self, _error: Exception | None) -> None:
        sys.exit("the service closed a connection")


def main() -> None:
    """Offer the requests of the command line."""
    port, path, rate, count, connections, ending = sys.argv[1:]
    result = uvloop.run(Offer(path, float(rate), int(count)).run(int(port), int(connections), ending))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
