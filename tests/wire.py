"""Serves one connection with `http1.Connection`, for tests: over sockets to a client, or over a transport in memory."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

from hello_service.serving.connections import Connections, Limits
from hello_service.serving.http1 import Connection

Application = Callable[[Any, Any, Any], Awaitable[None]]
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")  # the start of a status line
TIMEOUT_SECONDS = 20.0  # for each wait in a test; only a test that hangs waits that long
BODY = {"type": "http.response.body", "body": b"hello"}
LENGTH = (b"content-length", b"5")  # of `BODY`


def get(target: str = "/", *lines: str, method: str = "GET", version: str = "1.1", host: str | None = "here") -> bytes:
    """Return a request without a body. `lines` are its header lines after `Host`.

    With `host=None`, it has no `Host`. Each character becomes one byte, so a test can send any byte.
    """
    header_lines = lines if host is None else (f"Host: {host}", *lines)
    return "\r\n".join([f"{method} {target} HTTP/{version}", *header_lines, "", ""]).encode("latin-1")


def post(body: bytes, *lines: str, target: str = "/", length: int | None = None) -> bytes:
    """Return a request with a body. Its Content-Length is `length` if that is given, even if it is wrong."""
    content_length = len(body) if length is None else length
    return get(target, f"Content-Length: {content_length}", *lines, method="POST") + body


def chunked(body: bytes, *lines: str) -> bytes:
    """Return a chunked request with the raw body `body`, which includes the chunk framing."""
    return get("/", "Transfer-Encoding: chunked", *lines, method="POST") + body


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the responses in `received`."""
    return [int(status) for status in STATUS.findall(received)]


def head(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    """Return the ASGI message that starts a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def responding_with(*messages: dict[str, Any]) -> Application:
    """Return an application that sends `messages`."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return application


async def read_body(receive: Any) -> bytes | None:
    """Return the body of a request, or None if the client disconnects before its end."""
    body = b""
    more_body = True
    while more_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        more_body = message["more_body"]
    return body


async def read_until_disconnect(receive: Any) -> None:
    """Return when the client has disconnected or the response is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 - a condition sets no event
            await asyncio.sleep(0.001)


class Echo:
    """An application that responds with method, path and body of the request.

    Attributes:
        requests: method, path, query and body of each request that was complete.
        scopes: the scope of each request.
        outcomes: how each request ended: "complete" or "disconnected".
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes, bytes]] = []
        self.scopes: list[Any] = []
        self.outcomes: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body = await read_body(receive)
        if body is None:
            self.outcomes.append("disconnected")
            return
        self.requests.append((scope["method"], scope["path"], scope["query_string"], body))
        response = f"{scope['method']} {scope['path']} ".encode() + body
        await send(head((b"content-length", b"%d" % len(response))))
        await send({"type": "http.response.body", "body": response})
        self.outcomes.append("complete")


class Client:
    """The client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send `data`, and wait while too much of it is unsent."""
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Return the bytes up to and including `end`."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Return everything up to the point where the server closes its side."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self.reader.read()

    async def exchange(self, data: bytes) -> bytes:
        """Send `data` and return everything up to the point where the server closes its side."""
        await self.send(data)
        return await self.rest()

    def half_close(self) -> None:
        """Close the client's side, so that the server can still respond."""
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # on, with a timeout of 0
        self.writer.transport.abort()


class MemoryTransport(asyncio.Transport):
    """A transport that keeps the written bytes in memory.

    Attributes:
        written: everything that the server has written.
        unwritten: the size of the write buffer, which a test sets.
        protocol: the receiver of the connection's events, whose methods a test calls as the event loop would.
        closing: whether either side has closed the connection.
        paused: whether the server has paused reading.
        eof_written: whether the server has closed its side.
    """

    def __init__(self) -> None:
        # Before a reset, the server sets an option of the socket.
        super().__init__({"socket": SimpleNamespace(setsockopt=lambda *_: None)})
        self.written = b""
        # In place of asyncio's own protocol, until `Connection` sets itself as the protocol.
        self.protocol: Any = SimpleNamespace(connection_lost=lambda _: None)
        self.closing = self.eof_written = self.paused = False
        self.unwritten = 0

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unwritten

    def close(self) -> None:
        """Close the connection once everything is written, which it never is if a test has set `unwritten`."""
        if not self.closing:
            self.closing = True
            if not self.unwritten:
                self._lose_connection()

    def abort(self) -> None:
        if not self.closing or self.unwritten:
            self.closing, self.unwritten = True, 0
            self._lose_connection()

    def _lose_connection(self) -> None:
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def settle() -> None:
    """Run every ready task, and the tasks that become ready meanwhile, for eight turns of the event loop.

    No step of a test needs more turns.
    """
    for _ in range(8):
        await asyncio.sleep(0)


async def pass_time(seconds: float) -> None:
    """Move the event loop's clock forward, and run everything that is due."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]  # timers are compared with this clock
    await settle()


def wrapped(application: Application) -> Any:
    """Return `application` as Hypercorn calls it: with two additional arguments, which are ignored."""

    async def wrapper(scope: Any, receive: Any, send: Any, *_: Any) -> None:
        await application(scope, receive, send)

    return wrapper


def serve_in_memory(
    application: Application,
    transport: MemoryTransport,
    connections: Connections | None = None,
    reader: asyncio.StreamReader | None = None,
) -> asyncio.Task[None]:
    """Serve `application` on `transport`, and return the task that does so.

    `reader` may contain data that was received earlier.
    """

    async def serve() -> None:
        # `Connection` uses only the writer's transport.
        writer = cast("asyncio.StreamWriter", SimpleNamespace(transport=transport))
        await Connection(
            connections or Connections(),
            app=wrapped(application),
            state={},
            reader=reader or asyncio.StreamReader(),
            writer=writer,
        )

    return asyncio.create_task(serve())


@asynccontextmanager
async def connected(
    application: Application, connections: Connections | None = None, **limits: Any
) -> AsyncIterator[Client]:
    """Serve `application` on one connection, and check afterwards that the connection is closed.

    `limits` are fields of `Limits`; they have no effect if `connections` is given, which has its own.
    """
    connections = connections or Connections(Limits(**limits))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client_socket = socket.create_connection(listener.getsockname())
        server_socket, _ = listener.accept()
    reader, writer = await asyncio.open_connection(sock=server_socket)

    async def serve() -> None:
        await Connection(connections, app=wrapped(application), state={}, reader=reader, writer=writer)

    serving = asyncio.create_task(serve())
    client = Client(*await asyncio.open_connection(sock=client_socket))
    try:
        yield client
    finally:
        client.writer.transport.abort()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await serving
        assert not connections.open
