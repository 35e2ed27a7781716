"""A trace agent that keeps only the ids of the spans that it receives, so that it can receive millions of them.

It can also die, hang, reject payloads or respond with garbage. Drills that check fewer spans use ddapm-test-agent,
which keeps every payload.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgpack

# The response to a GET of /info: the version and the features of a Datadog Agent.
INFO = {
    "version": "7.80.0",
    "endpoints": ["/v0.4/traces", "/v0.5/traces", "/v0.6/stats", "/telemetry/proxy/"],
    "client_drop_p0s": True,
    "peer_tags": [],
}
# The values of `Sink.behavior`. Each of the last two is also the status of the responses.
OK, GARBAGE, HANG = "ok", "garbage", "hang"
SERVER_ERROR, TOO_MANY_REQUESTS = "500 Internal Server Error", "429 Too Many Requests"


class Sink:
    """The agent, which runs in a thread of its own.

    Attributes:
        behavior: how the agent responds from now on: as usual (OK), with an error status (SERVER_ERROR,
            TOO_MANY_REQUESTS), with bytes that are not HTTP (GARBAGE), or never (HANG).
        span_ids: the ids of all accepted spans.
        traces: the number of accepted traces.
        connections: the number of connections that were opened, including closed ones.
    """

    def __init__(self) -> None:
        self.behavior = OK
        self.span_ids: set[int] = set()
        self.traces = 0
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open_connections: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The agent's URL, even while the agent doesn't listen."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Listen on a free port, or again on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def die(self) -> None:
        """Close the listener and abort every connection, as if the agent's process had died."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result(10)

    def drop_connections(self) -> None:
        """Abort every connection, and keep listening."""
        asyncio.run_coroutine_threadsafe(self._drop_connections(), self._loop).result(10)

    def close(self) -> None:
        """Close the listener and every connection, and end the thread."""
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
        await self._drop_connections()

    async def _drop_connections(self) -> None:
        tasks = [task for task in self._open_connections.values() if task is not None]
        for writer in self._open_connections:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open_connections[writer] = asyncio.current_task()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._respond(reader, writer):
                pass
        del self._open_connections[writer]
        writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Respond to one request as `behavior` requires, and return whether the connection stays open for another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.behavior == HANG:
            await reader.read()  # until the client closes the connection
            return False
        if self.behavior == GARBAGE:
            writer.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
            return False
        document: dict[str, Any] = {}
        if self.behavior == OK:
            status = "200 OK"
            document = INFO if path == "/info" else {"rate_by_service": {}}
            if path.endswith("/traces"):
                self._record(path, body)
        else:
            status = self.behavior
        text = json.dumps(document).encode()
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return True

    def _record(self, path: str, body: bytes) -> None:
        document: Any = msgpack.unpackb(body, strict_map_key=False)
        traces = document
        span_id_key: str | int = "span_id"
        if path == "/v0.5/traces":
            # The payload is a list of two: a table of strings, and the traces. Each span is a list whose item 4 is its
            # id (pkg/trace/api/version.go of DataDog/datadog-agent).
            traces = document[1]
            span_id_key = 4
        for spans in traces:
            self.traces += 1
            self.span_ids.update(span[span_id_key] for span in spans)


@contextmanager
def sink(*, listening: bool = True) -> Iterator[Sink]:
    """Run an agent. With `listening=False` it has a port, but doesn't listen on it until `listen` is called."""
    agent = Sink()
    try:
        agent.listen()  # also with `listening=False`, to get a port
        if not listening:
            agent.die()
        yield agent
    finally:
        agent.close()
