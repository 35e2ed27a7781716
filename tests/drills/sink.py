"""A trace agent that only keeps the ids of the received spans. It can die, hang, reject payloads or respond with
garbage.

The other drills use the real test agent, which keeps every payload; this one handles millions of spans.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgpack

INFO = {
    "version": "7.80.0",
    "endpoints": ["/v0.4/traces", "/v0.5/traces", "/v0.6/stats", "/telemetry/proxy/"],
    "client_drop_p0s": True,
    "peer_tags": [],
}
OK, GARBAGE, HANG = "ok", "garbage", "hang"
SERVER_ERROR, TOO_MANY = "500 Internal Server Error", "429 Too Many Requests"


class Sink:
    """The received spans, and how the agent responds from now on.

    Attributes:
        behaviour: OK, SERVER_ERROR, TOO_MANY (with that status), GARBAGE (not HTTP), HANG (reads and never responds).
        spans: the ids of all accepted spans.
        traces: how many traces were accepted.
        connections: how many connections were opened.
    """

    def __init__(self) -> None:
        self.behaviour = OK
        self.spans: set[int] = set()
        self.traces = 0
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address, whether the agent listens or not."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def die(self) -> None:
        """Die: close the listener and every connection."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result(10)

    def hang_up(self) -> None:
        """Close each connection, and keep listening."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10)

    def close(self) -> None:
        """End the thread."""
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _die(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._hang_up()

    async def _hang_up(self) -> None:
        serving = [task for task in self._open.values() if task is not None]
        for writer in self._open:
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._respond(reader, writer):
                pass
        del self._open[writer]
        writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Respond to one request; return whether the connection can handle another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if self.behaviour == HANG:
            await reader.read()
            return False
        if self.behaviour == GARBAGE:
            writer.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
            return False
        status, document = self.behaviour, {}
        if self.behaviour == OK:
            status, document = "200 OK", INFO if path == "/info" else {"rate_by_service": {}}
            if path.endswith("/traces"):
                self._take(path, body)
        text = json.dumps(document).encode()
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return True

    def _take(self, path: str, body: bytes) -> None:
        document: Any = msgpack.unpackb(body, strict_map_key=False)
        traces = document[1] if path == "/v0.5/traces" else document
        # v0.5 is a table of strings, then spans as lists: Datadog, trace agent, "v0.5 payload".
        identity = 4 if path == "/v0.5/traces" else "span_id"
        for spans in traces:
            self.traces += 1
            self.spans.update(span[identity] for span in spans)


@contextmanager
def sink(*, there: bool = True) -> Iterator[Sink]:
    """Run an agent. Without `there` it has a port but doesn't listen until `come`."""
    counting = Sink()
    try:
        counting.listen()
        if not there:
            counting.die()
        yield counting
    finally:
        counting.close()
