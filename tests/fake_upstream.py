"""An upstream whose behavior depends on the requested path. It records the requests that arrive."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


def json_response(body: bytes) -> bytes:
    """Return a response with `body`, declared as JSON."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


JSON = json_response(b'{"message": 1}')
RESPONSES = {
    "/json": JSON,
    # More brackets than the client's limit of 100 levels, but only two levels.
    "/wide": json_response(b"[" + b"[], " * 199 + b"[]]"),
    "/float": json_response(b"1.5"),
    # Twice as deep as the limit.
    "/deep": json_response(b"[" * 200 + b"]" * 200),
    "/deep-objects": json_response(b'{"number": 1, "object": ' * 200 + b"{}" + b"}" * 200),
    # Deeper than Python's parser can go.
    "/deeper": json_response(b"[" * 100_000 + b"]" * 100_000),
    "/nan": json_response(b"[NaN]"),
    "/infinity": json_response(b"1e999"),  # as a Python float
    "/not-json": json_response(b"{]"),
    "/text": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
    "/missing": b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
    "/broken": b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    # Nothing listens on port 1.
    "/redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "/loop": b"HTTP/1.1 302 Found\r\nlocation: /loop\r\ncontent-length: 0\r\n\r\n",
    "/cookie": JSON.replace(b"\r\n", b"\r\nset-cookie: a=1; Path=/\r\n", 1),
    "/once": JSON,  # `FakeUpstream` explains these three
    "/once-reset": JSON,
    "/once-half": JSON,
    "/gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
    "/gzip-second-header": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b"
    ),
    # The reason phrase isn't ASCII.
    "/reason": b"HTTP/1.1 200 \xff\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
    "/garbage": b"\x00\x01\x02 this is not HTTP\r\n\r\n",
    "/cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "/reset": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "/nothing": b"",
}
CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
CLOSING_PATHS = {"/garbage", "/cut", "/reset", "/nothing"}  # after these responses, the connection is closed


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with a reset instead of an orderly close."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # on, with a timeout of 0
    writer.transport.abort()


@dataclass
class FakeUpstream:
    """An upstream, and what it has received and sent.

    After a response to `/once` the connection stays open, and when the next request arrives, it is closed without a
    response. After `/once-reset` it is reset instead. After `/once-half` a part of a response is sent first.

    Attributes:
        url: the URL of the upstream.
        paths: the path of each request that arrived.
        heads: the request line and headers of each request.
        bodies: the body of each request.
        dropped: the paths of the requests that got no complete response because their reused connection was closed.
        open_connections: the number of open connections.
        most_open_connections: the highest number of connections that were open at once.
        sent_bytes: the number of body bytes that `/big` has sent.
        body_bytes: the length of the bodies of `/whole` and `/chunked`.
        delay_seconds: how long `/slow` waits before its response, and `/drip` before each byte.
        behavior: a path that replaces the path of every request; if it is empty, none is replaced.
        location: the URL that `/elsewhere` redirects to.
        server: the listening server; None before it is started.
        writers: the server's side of each open connection.
    """

    url: str = ""
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    open_connections: int = 0
    most_open_connections: int = 0
    sent_bytes: int = 0
    body_bytes: int = 0
    delay_seconds: float = 0.05
    behavior: str = ""
    location: str = ""
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def refuse(self) -> None:
        """Stop listening, and close every open connection."""
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client closes it, or a path requires that the upstream closes it."""
        self.open_connections += 1
        self.writers.add(writer)
        self.most_open_connections = max(self.most_open_connections, self.open_connections)
        previous_path = ""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode().partition("?")[0]
                self.paths.append(path)
                self.heads.append(head.decode())
                length = CONTENT_LENGTH.search(head)
                self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
                path = self.behavior or path
                if previous_path.startswith("/once"):
                    self.dropped.append(path)
                    if previous_path == "/once-half":
                        writer.write(JSON[:20])
                    if previous_path == "/once-reset":
                        reset(writer)
                    return
                await self._respond(path, reader, writer)
                previous_path = path
                if path == "/reset":
                    reset(writer)
                if path in CLOSING_PATHS:
                    return
        # The end of the test cancels a connection that is still open.
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self.writers.discard(writer)
            writer.close()

    async def _respond(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/hang":
            await reader.read()  # until the client disconnects
        elif path == "/drip":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b".")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), self.delay_seconds)  # less, if the client disconnects
        elif path == "/slow":
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), self.delay_seconds)  # less, if the client disconnects
            writer.write(JSON)
        elif path == "/big":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"x" * 65536)
                await writer.drain()
                self.sent_bytes += 65536
        elif path == "/whole":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.body_bytes + b"x" * self.body_bytes)
        elif path == "/chunked":
            chunk = b"%x\r\n" % self.body_bytes + b"x" * self.body_bytes
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk + b"\r\n0\r\n\r\n")
        elif path == "/elsewhere":
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: {self.location}\r\ncontent-length: 0\r\n\r\n".encode())
        else:
            writer.write(RESPONSES.get(path, RESPONSES["/missing"]))
            await writer.drain()


@asynccontextmanager
async def fake_upstream() -> AsyncIterator[FakeUpstream]:
    """Run an upstream on a free loopback port."""
    fake = FakeUpstream()
    fake.server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, backlog=1000)  # for many calls at once
    fake.url = f"http://127.0.0.1:{fake.server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        fake.server.close()
