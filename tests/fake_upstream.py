"""An upstream that behaves as its path says, and can be asked what arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

JSON = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"message": 1}'
ANSWERS = {
    "/json": JSON,
    "/text": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi",
    "/missing": b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
    "/broken": b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    "/redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "/not-json": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{]",
    "/gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b",
    "/garbage": b"\x00\x01\x02 this is no HTTP\r\n\r\n",
    "/cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "/nothing": b"",
}


@dataclass
class FakeUpstream:
    """Where it listens, the path of each request that arrived, and how many connections are open."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it closes or its path says otherwise."""
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode()
                self.paths.append(path)
                self.heads.append(head.decode())
                await self._answer(path, reader, writer)
                if path in {"/garbage", "/cut", "/nothing"}:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/hang":
            await reader.read()  # until the client gives up
        elif path == "/drip":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b".")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.05)
        elif path == "/big":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"x" * 65536)
                await writer.drain()
        else:
            writer.write(ANSWERS[path])
            await writer.drain()


@asynccontextmanager
async def fake_upstream() -> AsyncIterator[FakeUpstream]:
    """Serve on a free port of the loopback."""
    fake = FakeUpstream()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
