"""The backend of every candidate, in one process: a trace sink in place of the agent, and the upstream.

The sink decodes and counts traces; the upstream responds to each request after 50 ms. Both must cost far less than a
candidate, so they are raw asyncio protocols on uvloop. The process prints the two ports as JSON to standard output.
`GET /count` of the sink returns the number of traces and spans since the last `GET /clear`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgpack
import uvloop

UPSTREAM_SECONDS = 0.05
BACKLOG = 2048  # more than the clients that connect at once
HEAD_END = b"\r\n\r\n"
# What a Datadog Agent reports about itself at /info. The version is made up.
INFO = {
    "version": "7.99.0",
    "endpoints": ["/v0.3/traces", "/v0.4/traces", "/v0.5/traces", "/v0.6/stats"],
    "client_drop_p0s": True,
}


def response(document: object) -> bytes:
    """Return a whole HTTP response with `document` as JSON."""
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def content_length(head: bytes) -> int:
    """Return the Content-Length in a request's head, or 0 if the head has no such header."""
    _, name, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if name else 0


class Connection(asyncio.Protocol):
    """One connection. `data` has the received part of an incomplete request."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (head_end := self.data.find(HEAD_END)) >= 0:
            head, body_start = self.data[:head_end], head_end + len(HEAD_END)
            body_end = body_start + content_length(head)
            if len(self.data) < body_end:
                return
            self.respond(head.split(b" ", 2)[1], self.data[body_start:body_end])
            self.data = self.data[body_end:]

    def respond(self, path: bytes, body: bytes) -> None:
        """Respond to a complete request."""
        raise NotImplementedError


class Sink(Connection):
    """Counts the traces and spans of every payload, v0.4 or v0.5."""

    traces = spans = 0  # totals over all connections, so they are counted on the class, not on an instance
    accepted = response({"rate_by_service": {}})  # as an agent that sets no sampling rates
    info = response(INFO)

    def respond(self, path: bytes, body: bytes) -> None:
        result = self.accepted
        if path.endswith(b"/traces"):
            payload = msgpack.unpackb(body, strict_map_key=False)  # v0.5 has integer keys
            traces = payload[1] if path.startswith(b"/v0.5") else payload  # v0.5: [strings, traces]
            Sink.traces += len(traces)
            Sink.spans += sum(map(len, traces))
        elif path == b"/info":
            result = self.info
        elif path == b"/count":
            result = response({"traces": Sink.traces, "spans": Sink.spans})
        elif path == b"/clear":
            Sink.traces = Sink.spans = 0
        self.transport.write(result)


class Upstream(Connection):
    """Responds to each request after 50 ms."""

    greeting = response({"message": "Hello from upstream!"})

    def respond(self, path: bytes, body: bytes) -> None:  # noqa: ARG002 - the same response to every request
        asyncio.get_running_loop().call_later(UPSTREAM_SECONDS, self.transport.write, self.greeting)


async def main() -> None:
    """Serve until the process is stopped."""
    loop = asyncio.get_running_loop()
    servers = {
        name: await loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG)
        for name, protocol in (("sink", Sink), ("upstream", Upstream))
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
