"""What of HTTP and WebSocket gets as far as the application, where Hypercorn 0.18 takes more than it should.

HTTP/1.1 alone is spoken: behind a load balancer nobody needs HTTP/2 in clear text, and what is not spoken can't be
abused. What two readers of one connection could understand differently is refused (RFC 9112, sections 3.2 and 6.3),
and no client holds a connection, a handler or memory by breaking off or by sending what is not waited for.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import h11
import hypercorn.protocol
import structlog
from hypercorn.config import Config, Sockets
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import EndBody, Request, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ASGISendEvent, HTTPResponseStartEvent
from hypercorn.utils import build_and_validate_headers, suppress_body

from hello_service.middleware.security_headers import SECURITY_HEADERS
from hello_service.problems import HTTP_ERRORS, MEDIA_TYPE, document

VERSIONS = {b"1.0", b"1.1"}
ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[([0-9A-Fa-f:.]+)\])(?::\d*)?")
BLANK_LINE = re.compile(rb"\n\r?\n")
LENGTH = re.compile(rb"\n(?:content-length|transfer-encoding):([^\n]*)", re.IGNORECASE)
LENGTHS = {b"content-length", b"transfer-encoding"}
HANDSHAKE = {b"sec-websocket-protocol", b"sec-websocket-extensions"}


class Gate(Config):
    """Hypercorn's configuration for `listener` alone, spoken to as this module says."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__()
        self._second, self._headers = 0, list[tuple[bytes, bytes]]()
        self._listener = Listener(fileno=listener.detach())
        self._listener.setblocking(False)
        hypercorn.protocol.H11Protocol = _Protocol  # type: ignore[assignment,attr-defined]  # no setting names it

    def create_sockets(self) -> Sockets:
        """Return the one socket, in clear text."""
        return Sockets([], [self._listener], [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return those that Hypercorn adds to each response; the date is written once a second."""
        second = int(time())
        if second != self._second:
            self._second, self._headers = second, super().response_headers(protocol)
        return self._headers


class Listener(socket.socket):
    """A listening socket that outlives a process without free file descriptors: it turns away whom it can't serve.

    asyncio alone would then schedule itself again for each place in the backlog, and never recover. A spare descriptor
    is given up for a moment to take a connection and to close it.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._full = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept, as a socket does; where no descriptor is free, close the connection and say that there was none."""
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._turn_away()
            raise BlockingIOError from error
        self._full = False
        return accepted

    def _turn_away(self) -> None:
        if not self._full:
            self._full = True
            reason = "no file descriptor is free; RLIMIT_NOFILE (ulimit -n) sets how many there are"
            structlog.stdlib.get_logger("hello_service.serving.gate").error("connections turned away", reason=reason)
        os.close(self._spare)
        try:
            super().accept()[0].close()
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY)


class _Connection(h11.Connection):
    """h11's, which refuses what two readers of a head could understand differently.

    Attributes:
        method: of the request that is read or answered; empty before.
    """

    method = b""

    def next_event(self) -> Any:
        head = b""
        if self.their_state is h11.IDLE:
            self.method, head = b"", self.trailing_data[0]
        event: Any = super().next_event()
        if type(event) is not h11.Request:
            return event
        self.method = event.method
        return _checked(event, head)


def _checked(request: h11.Request, head: bytes) -> h11.Request:
    """Return `request`, an absolute target as RFC 9112, section 3.2.2, wants it read.

    Raises:
        h11.RemoteProtocolError: with the status of the answer.
    """
    if request.http_version not in VERSIONS:
        raise h11.RemoteProtocolError("HTTP/1.1 is spoken here", error_status_hint=505)
    names = dict(request.headers)
    target, host = request.target, names.get(b"host", b"")
    absolute = ABSOLUTE.fullmatch(target)
    if absolute:
        host, rest = absolute.groups()
        target = rest if rest.startswith(b"/") else b"/" + rest
    if not target.startswith(b"/") or not _is_host(host):
        raise h11.RemoteProtocolError("no path, or no host")
    if not LENGTHS.isdisjoint(names):
        said = LENGTH.findall(head, 0, BLANK_LINE.search(head).end())  # type: ignore[union-attr]  # the head is complete
        if len(said) != 1 or b"," in said[0]:
            raise h11.RemoteProtocolError("the body's length is said twice")
    if absolute is None and HANDSHAKE.isdisjoint(names):
        return request
    # No compression: it is not worth a message that unpacks to a thousand times its size. No subprotocol is served.
    headers = [(name, value) for name, value in request.headers if name not in HANDSHAKE and name != b"host"]
    headers.append((b"host", host))
    return h11.Request(method=request.method, target=target, headers=headers, http_version=request.http_version)


def _is_host(value: bytes) -> bool:
    found = HOST.fullmatch(value)
    if found is None or found[1] is None:
        return found is not None
    try:
        return bool(ipaddress.IPv6Address(found[1].decode()).packed)
    except ValueError:
        return False


class _Stream(HTTPStream):
    """Hypercorn's, which writes head, body and end each for itself; here a response whose body is known is one write.

    A head that says how long the body is waits for it, as ASGI wants it (HTTP, Response Start); others leave at once.
    """

    head: HTTPResponseStartEvent | None = None  # that waits

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if self.head is not None:
            head, self.head = self.head, None
            if message is not None and message["type"] == "http.response.body" and not message.get("more_body"):
                await self._respond(head, message.get("body", b""))
                return
            await super().app_send(head)
        elif message is not None and message["type"] == "http.response.start" and self.state is ASGIHTTPState.REQUEST:
            headers = message["headers"] = list(message.get("headers", ()))
            if any(name == b"content-length" for name, _ in headers):
                self.head = message
                return
        await super().app_send(message)

    async def _respond(self, head: HTTPResponseStartEvent, body: bytes) -> None:
        protocol: Any = self.send.__self__  # type: ignore[attr-defined]  # a stream is given a method of it
        if suppress_body(self.scope["method"], head["status"]):
            body = b""
        events = protocol.events_of(head["status"], build_and_validate_headers(head["headers"]), body)
        self.state = ASGIHTTPState.CLOSED  # no other response can follow
        await protocol.write(events)
        await self.send(StreamClosed(STREAM_ID))


class _Protocol(H11Protocol):
    """Hypercorn's, without ways to hold a connection, a handler or memory for nothing.

    Hypercorn starts and ends a task for each time that a connection is idle; here one task watches all the while.
    """

    connection: Any
    watcher: asyncio.Task[None] | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection = _Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def initiate(self) -> None:
        self.idle_since = asyncio.get_running_loop().time()
        self.watcher = asyncio.create_task(self._watch())
        server: Any = self.to_server
        server.__self__.protocol.send = _drop  # no HTTP/2 will ask for it, and a server would hold itself

    @property
    def send(self) -> Callable[[Event], Awaitable[None]]:
        return self._send  # not kept: this object would hold itself, until garbage is looked for

    @send.setter
    def send(self, to_server: Callable[[Event], Awaitable[None]]) -> None:
        self.to_server = to_server

    async def _send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self.idle_since = asyncio.get_running_loop().time()
            if self.keep_alive_requests:
                return  # Hypercorn's own task for it ended with the first request
        await self.to_server(event)

    async def _watch(self) -> None:
        """Close the connection when it has been idle for long enough, or is idle when the server stops."""
        loop, terminated = asyncio.get_running_loop(), self.context.terminated
        while not terminated.is_set():
            since = self.idle_since if self.stream is None else loop.time()
            if loop.time() >= since + self.config.keep_alive_timeout:
                break
            try:
                async with asyncio.timeout_at(since + self.config.keep_alive_timeout):
                    await terminated.wait()
            except TimeoutError:
                continue
            except asyncio.CancelledError:
                return  # it is closed; a task that ends by this holds it, and itself, until a collection
        if self.stream is None:  # else its end is the connection's
            self.task_group.spawn(self.to_server, Closed())

    def events_of(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> list[Any]:
        """Return the events of a whole response.

        Raises:
            h11.LocalProtocolError: a header is none.
        """
        headers += self.config.response_headers("h11")
        if self.keep_alive_requests >= self.config.keep_alive_max_requests:
            headers.append((b"connection", b"close"))
        return [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]

    async def write(self, events: list[Any]) -> None:
        """Write `events` at once; where one of them may not be, those before it, and the connection will not be kept."""
        made = []
        try:
            for event in events:
                made.append(self.connection.send(event))  # noqa: PERF401 - those that were made are written
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
        finally:
            if made:
                await self._write(b"".join(made))

    async def _write(self, data: bytes) -> None:
        try:
            await self.to_server(RawData(data))
        except BaseException:
            self.connection.send_failed()  # a client that reads nothing does not get a next response
            raise

    async def _create_stream(self, request: h11.Request) -> None:
        if any(name == b"upgrade" for name, _ in request.headers):
            await super()._create_stream(request)
            return
        self.stream = _Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        method, version = request.method.decode().upper(), request.http_version.decode()
        headers = list(request.headers)
        await self.stream.handle(Request(STREAM_ID, headers, version, method, request.target, self.connection_state))
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):  # else a client that is gone is waited for as long as one that is idle
            await self.send(Updated(idle=False))
            if self.watcher is not None:
                self.watcher.cancel()
                self.watcher = None
            self.to_server = _drop
        stream = self.stream
        if isinstance(stream, WSStream) and stream.buffer.length > stream.buffer.max_length:
            await self._break_off()  # Hypercorn has said 1009, and would read on for ever

    async def stream_send(self, event: StreamEvent) -> None:
        await super().stream_send(event)
        stream = self.stream
        if type(event) is not EndBody or not isinstance(stream, WSStream):
            return
        if stream.state is ASGIWebsocketState.HANDSHAKE:
            await self._break_off()  # Hypercorn has refused the handshake, and told neither handler nor connection
        else:
            self.task_group.spawn(self.send, Closed())  # the application has: Quart 0.23 leaves it open

    async def _break_off(self) -> None:
        await self._close_stream()
        await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Speak no HTTP/2, whatever the client would like."""

    async def _close_stream(self) -> None:
        """Let neither the end of a stream nor who reads on wait in a full queue from which nobody may take any more."""
        stream: Any = self.stream
        put = getattr(stream, "app_put", None)
        if put is not None and put.__self__.full():
            while not put.__self__.empty():
                put.__self__.get_nowait()
        await super()._close_stream()
        if put is not None:
            stream.app_put = _drop

    async def _send_error_response(self, status_code: int) -> None:
        code, detail = HTTP_ERRORS[status_code]
        body = json.dumps(document(status_code, code, detail)).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *SECURITY_HEADERS,
            *self.config.response_headers("h11"),
        ]
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=b"" if self.connection.method == b"HEAD" else body))
        await self._send_h11_event(h11.EndOfMessage())


async def _drop(_: Any) -> None:
    """Take what was meant for an application that has ended, or for a connection that is closed."""
