"""An open-loop load generator, like many independent clients: its rate does not depend on the responses.

`python -m benchmarks.offer PORT PATH RATE COUNT CONNECTIONS (send|drop)` prints the results as JSON. While all
connections are busy, requests wait. They are sent as soon as a connection is free, so an overloaded server never idles.
Requests that still wait at the end are sent (`send`) or dropped (`drop`). The program waits for the response to each
request that was sent, so the expected number of spans is exact.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from typing import Any

import uvloop

TICK_SECONDS = 0.01  # requests are offered in batches, one in each tick
LAST_RESPONSES_SECONDS = 60.0  # maximum wait for the responses after the last request
HEAD_END = b"\r\n\r\n"
SEND, DROP = "send", "drop"


class Offer:
    """A load of `count` requests for `path`, at `rate` requests a second."""

    def __init__(self, path: str, rate: float, count: int) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        self.rate, self.remaining = rate, count
        self.idle: deque[Client] = deque()
        self.waiting = 0  # requests that were offered while all connections were busy
        self.most_waiting = 0
        self.sent = 0
        self.statuses: Counter[str] = Counter()

    async def run(self, port: int, connections: int, ending: str) -> dict[str, Any]:
        """Send all requests, and return the results. `ending` is SEND or DROP."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Client(self), "127.0.0.1", port)
        start, offered = loop.time(), 0
        while self.remaining:
            scheduled = int((loop.time() - start) * self.rate)
            due = min(scheduled - offered, self.remaining)
            offered += due
            self.remaining -= due
            self.waiting += due
            self.most_waiting = max(self.most_waiting, self.waiting)
            self.send()
            await asyncio.sleep(TICK_SECONDS)
        seconds = loop.time() - start
        while ending == SEND and self.waiting:  # noqa: ASYNC110 - an event would be set for each response
            await asyncio.sleep(TICK_SECONDS)
        self.waiting = 0  # with `drop`, waiting requests are never sent
        async with asyncio.timeout(LAST_RESPONSES_SECONDS):
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
        """Count a response and make its connection idle again."""
        self.statuses[status] += 1
        self.idle.append(client)
        self.send()


class Client(asyncio.Protocol):
    """One connection. It sends the next request only after the response to the last one."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.offer.idle.append(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, head_end, body = self.data.partition(HEAD_END)
        if not head_end:
            return
        content_length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= content_length:
            self.data = b""
            self.offer.complete(self, head[9:12].decode())  # the status in "HTTP/1.1 200 OK"

    def connection_lost(self, _error: Exception | None) -> None:
        # The service closes a connection after 1,000 requests, so COUNT must stay well below that for each connection.
        sys.exit("the service closed a connection")


def main() -> None:
    """Offer the load that the command line describes."""
    port, path, rate, count, connections, ending = sys.argv[1:]
    result = uvloop.run(Offer(path, float(rate), int(count)).run(int(port), int(connections), ending))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
