"""What stands behind every contestant, in one process: the trace agent's part and the upstream's.

The agent's part decodes what arrives and counts it; the upstream answers each request after 50 ms. Both must cost far
less than a contestant: raw asyncio protocols on uvloop. Standard output names the two ports, as JSON.
`GET /count` of the agent's part says how many traces and spans came since the last `GET /clear`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgpack
import uvloop

UPSTREAM_SECONDS = 0.05
BACKLOG = 2048
END = b"\r\n\r\n"
INFO = {
    "version": "7.99.0",
    "endpoints": ["/v0.3/traces", "/v0.4/traces", "/v0.5/traces", "/v0.6/stats"],
    "client_drop_p0s": True,
}


def answer(document: object) -> bytes:
    """Return a whole HTTP response with `document` as JSON."""
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def length(head: bytes) -> int:
    """Return the length of the body that a request's head announces."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class Connection(asyncio.Protocol):
    """One connection, and what has come of a request that is not whole yet."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(END)) >= 0:
            head, body = self.data[:end], end + len(END)
            whole = body + length(head)
            if len(self.data) < whole:
                return
            self.take(head.split(b" ", 2)[1], self.data[body:whole])
            self.data = self.data[whole:]

    def take(self, path: bytes, body: bytes) -> None:
        """Answer a whole request."""
        raise NotImplementedError


class Sink(Connection):
    """Counts the traces and spans of every payload, v0.4 or v0.5."""

    traces = spans = 0
    accepted = answer({"rate_by_service": {}})
    info = answer(INFO)

    def take(self, path: bytes, body: bytes) -> None:
        said = self.accepted
        if path.endswith(b"/traces"):
            payload = msgpack.unpackb(body, strict_map_key=False)
            traces = payload[1] if path.startswith(b"/v0.5") else payload
            Sink.traces += len(traces)
            Sink.spans += sum(map(len, traces))
        elif path == b"/info":
            said = self.info
        elif path == b"/count":
            said = answer({"traces": Sink.traces, "spans": Sink.spans})
        elif path == b"/clear":
            Sink.traces = Sink.spans = 0
        self.transport.write(said)


class Upstream(Connection):
    """Answers each request after 50 ms."""

    said = answer({"message": "Hello from upstream!"})

    def take(self, path: bytes, body: bytes) -> None:  # noqa: ARG002 - whatever is asked
        asyncio.get_running_loop().call_later(UPSTREAM_SECONDS, self.transport.write, self.said)


async def main() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    servers = {
        name: await loop.create_server(kind, "127.0.0.1", 0, backlog=BACKLOG)
        for name, kind in (("sink", Sink), ("upstream", Upstream))
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
