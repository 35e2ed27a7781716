"""HTTP/1.1 for one connection that Hypercorn has accepted (RFC 9112).

`hypercorn.asyncio.run` creates a `TCPServer` for each connection and awaits it. `Connection` replaces it. It takes the
transport from Hypercorn's reader and writer, and goes through these stages:

    HEAD ──► BODY ──► RESPONDING ──► HEAD        the next request on a kept-alive connection
      │                   │
      │                   └────────► LINGERING   the last response is written and our side is closed; further data from
      │                                          the client is discarded, so that it can read the response
      ├──────────────────► LINGERING             a request was rejected, or the connection was idle too long
      └──────────────────► UPGRADED              `websocket.py` takes over

From each stage a connection can become LOST: it is closed, by either side. One timeout runs at a time (see `Limits`):

    HEAD        keep_alive_seconds until the head of the next request is complete
    BODY        body_seconds without data, unless the application is slower than the client
    RESPONDING  once the client has closed its side, half_close_seconds until the response starts, then write_seconds
                without a written byte; the latter also while too much is pipelined behind the response
    LINGERING   LINGER_SECONDS without data

`reader.py` parses requests, `exchange.py` is one request and its response for the application, and `flow.py` waits for a
client that reads slowly. This module has the order of the stages, the timeouts, and how a connection ends.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator
from enum import Enum, auto
from typing import Any, cast

from hello_service.serving.connections import Connections
from hello_service.serving.exchange import Exchange
from hello_service.serving.flow import FlowControl
from hello_service.serving.reader import RequestReader
from hello_service.serving.request import Head, Rejected
from hello_service.serving.response import Response, problem
from hello_service.serving.websocket import WebSocket

BUFFER_BYTES = 65_536  # of a body, or of pipelined requests; then reading from the client is paused
LINGER_BYTES = 64 * 1_048_576
LINGER_SECONDS = 2.0  # without a byte
LINGER_TOTAL_SECONDS = 30.0
ALLOWED = ((b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH"), (b"content-length", b"0"))


class Stage(Enum):
    HEAD = auto()
    BODY = auto()
    RESPONDING = auto()
    LINGERING = auto()
    UPGRADED = auto()
    LOST = auto()


class Connection(FlowControl):
    """One connection, in place of Hypercorn's `TCPServer`; `connections` tracks all of them."""

    def __init__(
        self,
        connections: Connections,
        *,
        app: Any,
        state: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(writer.transport, connections)
        self._app = app
        self._loop = loop
        self._stream_reader = reader
        self._state = state
        self._context = contextvars.copy_context()  # without any request's context variables
        self._lost = loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()

        self._stage = Stage.HEAD
        self._reader = RequestReader()
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None
        self._requests = 0
        self._busy = False
        self._lingered = 0
        self._linger_until = 0.0

    # The life of the connection

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        """Serve the connection until it is closed and every application task has ended."""
        self._streams = self._transport.get_protocol()  # the protocol that fed reader and writer
        self._transport.set_protocol(self)
        self._stream_reader.feed_eof()
        early = await self._stream_reader.read()  # usually nothing: this runs before the transport reads
        if self._transport.is_closing():
            return
        peer, own = (self._transport.get_extra_info(name) for name in ("peername", "sockname"))
        self._client = peer[:2] if isinstance(peer, tuple) else None
        self._addresses = {"client": self._client, "server": own[:2] if isinstance(own, tuple) else None}
        self._connections.open.add(self)
        self._wait_for_request()
        if self._connections.closed:
            self.end_grace()
        if early:
            self.data_received(early)
        try:
            await self._lost
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            self._connections.open.discard(self)
            self._transport.abort()
            for task in self._tasks:
                task.cancel()

    def data_received(self, data: bytes) -> None:
        """Process data from the client."""
        if self._stage is Stage.LINGERING:
            self._discard(len(data))
        elif self._websocket is not None:
            self._websocket.data_received(data)
        else:
            self._reader.received += data
            self._read()

    def eof_received(self) -> bool:
        """The client has closed its side or has disconnected; both look alike. Return whether our side stays open."""
        self._eof = True
        if self._stage is Stage.RESPONDING and self._exchange is not None:
            self._limit_silence()
            return True
        if self._stage is Stage.BODY:
            self._disconnect()
        if self._websocket is not None:
            return self._websocket.eof_received()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is closed, by either side."""
        self._stage = Stage.LOST
        self._disconnect()
        if self._websocket is not None:
            self._websocket.connection_lost()
        super().connection_lost(None)
        self._reader.close()
        self._streams.connection_lost(None)  # otherwise reader, writer and task form a reference cycle
        if not self._lost.done():
            self._lost.set_result(None)

    def stop(self) -> None:
        """Accept at most one more request; close an idle WebSocket."""
        if self._websocket is not None:
            self._websocket.stop()

    def end_grace(self) -> None:
        """Accept no more requests."""
        if self._stage is Stage.HEAD:
            self.linger()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # Reading a request

    def _wait_for_request(self) -> None:
        self._stage = Stage.HEAD
        self._reader.begin()
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        self._reading.start(self._limits.keep_alive_seconds, self._end_idle)

    def _read(self) -> None:
        """Go through the stages of a request as far as the received data allows."""
        if self._busy:
            return  # called from inside the loop below, by a response that completed at once
        self._busy = more = True
        try:
            while more and self._reader.received:
                if self._stage is Stage.HEAD:
                    head = self._reader.read_head() if self._writable.is_set() else None
                    more = head is not None
                    if head is not None:
                        self._begin(head)
                elif self._stage is Stage.BODY:
                    self._take_body(self._reader.read_body())
                    more = self._reader.complete
                else:
                    more = False
        except Rejected as rejected:
            self.reject(rejected)
        finally:
            self._busy = False
        self._control_reading()
        if self._eof and self._stage in {Stage.HEAD, Stage.BODY}:  # the remaining data is not a whole request
            self._disconnect()
            self._transport.close()

    # Serving a request

    def _begin(self, head: Head) -> None:
        """Serve the request whose head is complete."""
        self._reading.stop()
        if head.opens_websocket:
            self._begin_websocket(head)
            return
        self._requests += 1
        keep_alive = head.keep_alive and head.version == "1.1" and self._requests < self._limits.requests
        response = Response(head.method, head.version, keep_alive=keep_alive)
        self._stage = Stage.BODY if head.has_body else Stage.RESPONDING
        if head.target == b"*":  # `OPTIONS *` concerns the server itself
            response.keep_alive &= not head.has_body and not self.closing
            self.write(response.start(200, ALLOWED) + response.body(b"", more=False))
            self._next(keep_alive=response.keep_alive)
            return
        rest = {**self._addresses, "method": head.method.decode(), "scheme": "http", "state": self._state.copy()}
        scope = head.scope("http", {**rest, "extensions": {}})
        # A request that will get a 413 need not send its body.
        expects = head.expects_continue and (head.content_length or 0) <= self._limits.body_bytes
        self._exchange = Exchange(self, scope, response, has_body=head.has_body, expects_continue=expects)
        if head.has_body:
            self._wait_for_body()
        elif self._eof:
            self._limit_silence()
        self._run_task(self._exchange.run(self._app))

    def _begin_websocket(self, head: Head) -> None:
        scope = head.scope("websocket", {**self._addresses, "scheme": "ws", "state": self._state.copy()})
        if head.has_body or self._reader.received:
            raise Rejected(400, "handshake", "A WebSocket's handshake is followed by data before it is accepted.")
        websocket = WebSocket(self, self._limits, self._connections, self._loop, scope)  # raises Rejected
        self._stage, self._websocket = Stage.UPGRADED, websocket
        self._run_task(websocket.run(self._app))

    def _run_task(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_body(self, data: bytes) -> None:
        exchange = cast("Exchange", self._exchange)  # it exists while its body is read
        if data:
            exchange.feed(data)
        if self._reader.complete:
            self._stage = Stage.RESPONDING
            self._reading.stop()
            exchange.end_body()
            if self._eof:
                self._limit_silence()

    def _wait_for_body(self) -> None:
        """Start the timeout for more of the body, unless reading is paused."""
        if self._paused:
            self._reading.stop()
        else:
            self._reading.start(self._limits.body_seconds, self._end_stalled)

    # Called by an exchange

    @property
    def closing(self) -> bool:
        """Whether a response is this connection's last because the server is stopping."""
        return self._connections.closing

    def body_taken(self) -> None:
        """The application has read all body data received so far."""
        self._control_reading()

    def response_complete(self) -> None:
        """Go on to the next request, or end the connection."""
        exchange, self._exchange = cast("Exchange", self._exchange), None
        self._next(keep_alive=exchange.response.keep_alive and exchange.body_complete)

    def response_broken(self) -> None:
        """Close the connection, so that the client does not mistake a partial response for a complete one."""
        self._exchange = None
        self.linger()

    def respond_with_problem(self, status: int) -> None:
        """Respond with a problem, because the application has not responded."""
        self._exchange = None
        self.write(problem(status, self._method))
        self.linger()

    def _next(self, *, keep_alive: bool) -> None:
        if self._stage is not Stage.RESPONDING or not keep_alive or self.closing:
            self.linger()
            return
        self._wait_for_request()
        self._read()

    # Ends

    def reject(self, rejected: Rejected) -> None:
        """Respond with the reason, and close the connection."""
        self.count_rejection(rejected.status, rejected.reason, rejected.detail)
        begun = self._exchange is not None and self._exchange.response.begun
        self._disconnect()
        if not begun:
            self.write(problem(rejected.status, self._method, rejected.headers))
        self.linger()

    @property
    def _method(self) -> bytes:
        head = self._reader.head
        return head.method if head else bytes(self._reader.received[:5]).strip()

    def _end_idle(self) -> None:
        if not self._writable.is_set():  # the client is still reading the last response
            self._wait_for_head()
        elif self._reader.received:
            self.reject(
                Rejected(
                    408, "head-timeout", f"The head was not complete within {self._limits.keep_alive_seconds:g} s."
                )
            )
        else:
            self.linger()

    def _end_stalled(self) -> None:
        self.reject(Rejected(408, "body-timeout", f"No body data was received for {self._limits.body_seconds:g} s."))

    def _end_pipelining(self) -> None:
        seconds = self._limits.write_seconds
        detail = f"Too much was pipelined behind a response that sent nothing for {seconds:g} s."
        self.count_rejection(None, "pipelining", detail)
        self._transport.abort()

    def _limit_silence(self) -> None:
        """Limit the wait for the response, because a client that has closed its side may be gone."""
        self._reading.start(self._limits.half_close_seconds, self._check_begun)

    def _check_begun(self) -> None:
        if self._exchange is not None and self._exchange.response.begun:
            self.watch_progress(self._transport.abort)
        else:
            self._disconnect()
            self._transport.close()

    def _disconnect(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.disconnect()
            if exchange.over:
                self._exchange = None

    def linger(self) -> None:
        """Close our side, and keep reading for a while: unread data would turn the close into a reset."""
        if self._stage in {Stage.LINGERING, Stage.LOST}:
            return
        self._stage = Stage.LINGERING
        self._reader.received.clear()
        self.watch_writing()
        if self._eof:
            self._transport.close()
            return
        self._transport.write_eof()
        self._linger_until = self._loop.time() + LINGER_TOTAL_SECONDS
        self._control_reading()
        self._discard(0)

    def _discard(self, count: int) -> None:
        self._lingered += count
        left = self._linger_until - self._loop.time()
        if self._lingered > LINGER_BYTES or left <= 0:
            self._transport.close()
        else:
            self._reading.start(min(LINGER_SECONDS, left), self._transport.close)

    # Backpressure, in addition to `FlowControl`

    def _control_reading(self) -> None:
        """Read only as far ahead of the application as fits into the buffers."""
        unread = self._exchange.buffered if self._exchange is not None and self._stage is Stage.BODY else 0
        self.pause(len(self._reader.received) > BUFFER_BYTES or unread > BUFFER_BYTES)
        if self._stage is Stage.BODY:
            self._wait_for_body()
        elif self._stage is Stage.RESPONDING and self._paused:
            self.watch_progress(self._end_pipelining)

    def resume_writing(self) -> None:
        """Resume the application's writes, or go on with the next request."""
        super().resume_writing()
        if self._stage is Stage.HEAD:
            self._read()
