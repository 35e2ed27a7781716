"""HTTP/1.1 for one connection that Hypercorn has accepted (RFC 9112).

For each accepted connection, `hypercorn.asyncio.run` creates a `TCPServer` and awaits it. `server.py` replaces that
class with `Connection`, which takes over the transport of Hypercorn's reader and writer. A connection is in one of
these stages:

    HEAD        waiting for a request, or receiving its head
    BODY        receiving the body, while the application runs; skipped if the request has no body
    RESPONDING  the request is complete, and the application has not finished its response
    UPGRADED    `websocket.py` has taken over, because the request was a WebSocket handshake
    LINGERING   the server has closed its side after its last byte, and discards what the client still sends
    LOST        the connection is closed

Each request except a WebSocket handshake goes through the first three stages. If the connection can be reused, it then
waits for the next request:

    HEAD ──► BODY ──► RESPONDING ──► HEAD

A pipelined request is not parsed until the response before it is complete and the client has read enough of it. If a
response starts before the body is complete, the connection is not reused.

In any stage the server can end the connection, in one of three ways:

    linger      the usual way: enter LINGERING, which ends when the client closes its side, or a limit is reached
    close       the client has closed its side, or LINGERING is over; data that is already written is still sent
    abort       nothing was sent for write_seconds, the deadline of the shutdown has passed, or the application failed
                during an HTTP/1.0 response that ends with the connection; unsent data is dropped, and the client gets a
                reset if some was dropped, or if it would mistake a close for the end of the response

Each stage has its own timeout. The values in lower case are fields of `Limits`:

    HEAD        keep_alive_seconds until the head is complete; it does not apply while the client still reads the
                previous response
    BODY        body_seconds without data; it does not apply while reading is paused, because then the application is
                slower than the client
    RESPONDING  none, except in two cases:
                  - the client has closed its side: half_close_seconds until the response starts, then write_seconds
                    without a byte sent
                  - reading is paused because too much is pipelined: write_seconds without a byte sent
    UPGRADED    see `websocket.py`
    LINGERING   LINGER_SECONDS without data, and LINGER_TOTAL_SECONDS in total

`flow.py` also aborts a connection whose client reads nothing for write_seconds: in any stage while more data waits than
fits into the transport's buffer, and from LINGERING on while any data waits.

`reader.py` parses requests, `exchange.py` connects one request and its response to the application, and `flow.py`
applies backpressure. This module controls the order of the stages, their timeouts, and how a connection ends.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator
from contextlib import suppress
from enum import Enum, auto
from typing import Any, cast

from hello_service.serving.connections import Connections
from hello_service.serving.exchange import Exchange
from hello_service.serving.flow import FlowControl
from hello_service.serving.reader import RequestReader
from hello_service.serving.request import Head, Rejected
from hello_service.serving.response import Response, problem
from hello_service.serving.websocket import WebSocket

# Reading is paused while more than this of a body, or of pipelined requests, is buffered. asyncio's limit for the other
# direction is the same.
BUFFER_BYTES = 65_536
# A client may send a large body before it reads the response that rejects it. The limits allow this, but not forever.
LINGER_BYTES = 64 * 1_048_576  # discarded in total
LINGER_SECONDS = 2.0  # without a byte
LINGER_TOTAL_SECONDS = 30.0
# Headers of the response to `OPTIONS *`. Allow lists the methods of request.py.
OPTIONS_HEADERS = ((b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH"), (b"content-length", b"0"))


class Stage(Enum):
    """The stages of a connection; the module's docstring explains them."""

    HEAD = auto()
    BODY = auto()
    RESPONDING = auto()
    UPGRADED = auto()
    LINGERING = auto()
    LOST = auto()


class Connection(FlowControl):
    """Handles one connection, in place of Hypercorn's `TCPServer`. `connections` tracks all open connections.

    Among others, `FlowControl` provides `_eof` (the client has closed its side), `_paused` (reading from the client is paused),
    `_writable` (an event that is set while the client reads fast enough), `_stage_timeout` (the timeout of the current
    stage), `watch_progress` (calls a function once nothing has been sent for write_seconds), `watch_writing` (aborts
    the connection if the client reads nothing for write_seconds while data waits for it), `set_paused`, `write` and `count_rejection`.

    When the server stops, `Connections` calls `stop`, then `end_grace` after a grace period for requests that are still
    on the network, and `abort` if the connection is open at the deadline.
    """

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
        self._context = contextvars.copy_context()  # tasks run in copies, so no request inherits another's variables
        self._lost = loop.create_future()  # done once the connection is closed
        self._tasks: set[asyncio.Task[None]] = set()  # the running calls of the application

        self._stage = Stage.HEAD
        self._request_reader = RequestReader()
        self._exchange: Exchange | None = None  # the current request and its response
        self._websocket: WebSocket | None = None
        self._request_count = 0
        self._processing = False  # `_process_received` is running
        self._discarded = 0  # bytes, while lingering
        self._linger_until = 0.0

    # The life of the connection

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        """Serve the connection until it is closed and every application task has ended."""
        self._stream_protocol = self._transport.get_protocol()  # asyncio's protocol, which fed the reader until now
        self._transport.set_protocol(self)
        self._stream_reader.feed_eof()  # so that `read` returns at once with what the reader has received
        early_data = await self._stream_reader.read()  # usually nothing: this runs before the transport reads
        if self._transport.is_closing():
            return
        peer = self._transport.get_extra_info("peername")
        local = self._transport.get_extra_info("sockname")
        # Host and port only: an IPv6 address has two more items, and a Unix socket has neither.
        self._client = peer[:2] if isinstance(peer, tuple) else None
        self._addresses = {"client": self._client, "server": local[:2] if isinstance(local, tuple) else None}
        self._connections.open.add(self)
        self._wait_for_request()
        if not self._connections.accepting:  # the server stopped accepting requests before this connection was set up
            self.end_grace()
        if early_data:
            self.data_received(early_data)
        try:
            await self._lost
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            self._connections.open.discard(self)
            self._transport.abort()  # it is still open if this coroutine was canceled
            for task in self._tasks:
                task.cancel()

    def data_received(self, data: bytes) -> None:
        """Process data from the client."""
        if self._stage is Stage.LINGERING:
            self._discard(len(data))
        elif self._websocket is not None:
            self._websocket.data_received(data)
        else:
            self._request_reader.received += data
            self._process_received()

    def eof_received(self) -> bool:
        """The client has closed its side or disconnected; both look the same. Return whether our side stays open."""
        self._eof = True
        if self._stage is Stage.RESPONDING and self._exchange is not None:
            self._start_response_timeout()
            return True  # the client may have sent its last request, and still read the response
        if self._requests_wait:
            return True  # these requests are served once the client has read the earlier responses
        if self._stage is Stage.BODY:
            self._disconnect_exchange()
        if self._websocket is not None:
            return self._websocket.eof_received()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        """The connection is closed, by either side."""
        self._stage = Stage.LOST
        self._disconnect_exchange()
        if self._websocket is not None:
            self._websocket.connection_lost()
        super().connection_lost(None)
        self._request_reader.close()
        self._stream_protocol.connection_lost(None)  # otherwise reader, writer and task form a reference cycle
        if not self._lost.done():
            self._lost.set_result(None)

    def stop(self) -> None:
        """Close an idle WebSocket. An HTTP connection ends with its next response, because the server is stopping."""
        if self._websocket is not None:
            self._websocket.stop()

    def end_grace(self) -> None:
        """Accept no more requests."""
        if self._stage is Stage.HEAD:
            self.linger()

    def abort(self) -> None:
        """Drop unsent data and close. Reset if some was dropped, or if a close would look like the end of the response."""
        if self._exchange is not None and self._exchange.response.would_seem_complete:
            self.reset()
        else:
            super().abort()

    # Reading a request

    def _wait_for_request(self) -> None:
        self._stage = Stage.HEAD
        self._request_reader.begin()
        self._start_head_timeout()

    def _process_received(self) -> None:
        """Go through the stages of a request as far as the received data allows."""
        if self._processing:
            return  # called by the loop below, after it has served `OPTIONS *`; the loop continues anyway
        self._processing = True
        try:
            while self._request_reader.received and not self._requests_wait:
                if self._stage is Stage.HEAD:
                    head = self._request_reader.read_head()
                    if head is None:
                        break
                    self._serve_request(head)
                elif self._stage is Stage.BODY:
                    self._receive_body(self._request_reader.read_body())
                    if not self._request_reader.complete:
                        break
                else:
                    break
        except Rejected as rejected:
            self.reject(rejected)
        finally:
            self._processing = False
        self._control_reading()
        if self._eof and self._stage in {Stage.HEAD, Stage.BODY} and not self._requests_wait:
            self._disconnect_exchange()  # the remaining data, if any, is not a whole request
            self._transport.close()

    @property
    def _requests_wait(self) -> bool:
        """Whether received data waits to be processed until the client has read the earlier responses."""
        return self._stage is Stage.HEAD and bool(self._request_reader.received) and not self._writable.is_set()

    # Serving a request

    def _serve_request(self, head: Head) -> None:
        """Serve the request whose head is complete."""
        self._stage_timeout.stop()
        if head.opens_websocket:
            self._serve_websocket(head)
            return
        self._request_count += 1
        # The server closes every HTTP/1.0 connection, as RFC 9112, section 9.3, allows.
        keep_alive = head.keep_alive and head.version == "1.1" and self._request_count < self._limits.requests
        response = Response(head.method, head.version, keep_alive=keep_alive)
        self._stage = Stage.BODY if head.has_body else Stage.RESPONDING
        if head.target == b"*":  # `OPTIONS *`, which concerns the server itself; request.py rejects other methods
            if head.has_body or self.stopping:  # after a body that is not read, no further request can be read
                response.keep_alive = False
            self.write(response.start(200, OPTIONS_HEADERS) + response.body(b"", more=False))
            self._continue_or_linger(keep_alive=response.keep_alive)
            return
        scope = head.scope(
            "http",
            {
                **self._addresses,
                "method": head.method.decode(),
                "scheme": "http",
                "state": self._state.copy(),
                "extensions": {},
            },
        )
        # A client whose body is too large gets a 413 from the application, and never a 100 (Continue).
        expects_continue = head.expects_continue and (head.content_length or 0) <= self._limits.body_bytes
        self._exchange = Exchange(self, scope, response, has_body=head.has_body, expects_continue=expects_continue)
        if head.has_body:
            self._start_body_timeout()
        elif self._eof:  # the request was pipelined, and the client has closed its side since
            self._start_response_timeout()
        self._run_task(self._exchange.run(self._app))

    def _serve_websocket(self, head: Head) -> None:
        """Pass the connection to a `WebSocket`, which runs the application.

        Raises:
            Rejected: the handshake is invalid.
        """
        scope = head.scope("websocket", {**self._addresses, "scheme": "ws", "state": self._state.copy()})
        if head.has_body or self._request_reader.received:
            raise Rejected(
                400, "handshake", "The handshake has a body, or data was received before the WebSocket was accepted."
            )
        if self._eof:  # the client has closed its side since it pipelined this handshake, so it can send no message
            self.linger()
            return
        self._websocket = WebSocket(self, self._limits, self._connections, self._loop, scope)
        self._stage = Stage.UPGRADED
        self._run_task(self._websocket.run(self._app))

    def _run_task(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _receive_body(self, data: bytes) -> None:
        exchange = cast("Exchange", self._exchange)  # it exists while its body is read
        if data:
            exchange.feed(data)
        if self._request_reader.complete:
            self._stage = Stage.RESPONDING
            self._stage_timeout.stop()
            exchange.end_body()
            if self._eof:
                self._start_response_timeout()

    # Called by an exchange (see `exchange.Wire`)

    @property
    def stopping(self) -> bool:
        """Whether the server is stopping, so that each response is its connection's last."""
        return self._connections.stopping

    def body_taken(self) -> None:
        """The application has read all body data received so far."""
        self._control_reading()

    def response_complete(self) -> None:
        """Go on to the next request, or end the connection."""
        exchange = cast("Exchange", self._exchange)
        self._exchange = None
        self._continue_or_linger(keep_alive=exchange.response.keep_alive)

    def response_broken(self) -> None:
        """Close the connection, so that the client does not mistake a partial response for a complete one."""
        exchange = cast("Exchange", self._exchange)
        self._exchange = None
        self._break_off(exchange.response)

    def respond_with_problem(self, status: int) -> None:
        """Respond with a problem document (RFC 9457), because the application has not responded."""
        self._exchange = None
        self.write(problem(status, self._method))
        self.linger()

    def _continue_or_linger(self, *, keep_alive: bool) -> None:
        """Go on to the next request if the connection can be reused; otherwise end the connection."""
        # In stage BODY, the rest of the body would be parsed as the next request.
        if self._stage is not Stage.RESPONDING or not keep_alive or self.stopping:
            self.linger()
            return
        self._wait_for_request()
        self._process_received()

    # The timeouts of the stages

    def _start_head_timeout(self) -> None:
        self._stage_timeout.start(self._limits.keep_alive_seconds, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        if not self._writable.is_set():  # the client is still reading the previous response
            self._start_head_timeout()
        elif self._request_reader.received:
            detail = f"The head was not complete within {self._limits.keep_alive_seconds:g} s."
            self.reject(Rejected(408, "head-timeout", detail))
        else:
            self.linger()

    def _start_body_timeout(self) -> None:
        """Start the timeout for more of the body, or stop it while reading is paused."""
        if self._paused:
            self._stage_timeout.stop()
        else:
            self._stage_timeout.start(self._limits.body_seconds, self._on_body_timeout)

    def _on_body_timeout(self) -> None:
        self.reject(Rejected(408, "body-timeout", f"No body data was received for {self._limits.body_seconds:g} s."))

    def _start_response_timeout(self) -> None:
        """Limit the wait for the response, because a client that has closed its side may have disconnected."""
        self._stage_timeout.start(self._limits.half_close_seconds, self._on_response_timeout)

    def _on_response_timeout(self) -> None:
        if self._exchange is not None and self._exchange.response.head_written:
            self.watch_progress(self.abort)
        else:
            self._disconnect_exchange()
            self._transport.close()

    def _on_pipelining_timeout(self) -> None:
        seconds = self._limits.write_seconds
        detail = f"Too much was pipelined behind a response that sent nothing for {seconds:g} s."
        self.count_rejection(status=None, reason="pipelining", detail=detail)
        self.abort()

    # How a connection ends

    def reject(self, rejected: Rejected) -> None:
        """Respond with a problem document, unless the head of a response has been written, and end the connection."""
        self.count_rejection(rejected.status, rejected.reason, rejected.detail)
        responder = self._exchange or self._websocket
        self._disconnect_exchange()
        if responder is not None and responder.response.head_written:
            self._break_off(responder.response)
            return
        self.write(problem(rejected.status, self._method, rejected.headers))
        self.linger()

    def _break_off(self, response: Response) -> None:
        """End the connection after only a part of `response` was written."""
        if response.would_seem_complete:
            self.reset()
        else:
            self.linger()

    @property
    def _method(self) -> bytes:
        """The request's method, even if the request line is malformed. A response to HEAD must have no body."""
        head = self._request_reader.head
        if head is not None:
            return head.method
        # The first bytes are enough to detect HEAD; any other result counts as a method whose response has a body.
        return bytes(self._request_reader.received[: len(b"HEAD ")]).strip()

    def _disconnect_exchange(self) -> None:
        """Report a disconnect to the application, unless its response has been fully written."""
        exchange = self._exchange
        if exchange is not None:
            exchange.disconnect()
            if exchange.ended:  # otherwise the response is already fully written, and the application may still return
                self._exchange = None

    def linger(self) -> None:
        """Close our side, and keep reading for a while, because unread data would turn the close into a reset.

        The reset could destroy the response before the client has read it.
        """
        if self._stage in {Stage.LINGERING, Stage.LOST}:
            return
        self._stage = Stage.LINGERING
        self._request_reader.received.clear()
        self.watch_writing()  # so far, only data beyond the transport's buffer has had a timeout
        if self._eof:
            self._transport.close()
            return
        with suppress(OSError):  # the client has just reset the connection
            self._transport.write_eof()
        self._linger_until = self._loop.time() + LINGER_TOTAL_SECONDS
        self._control_reading()
        self._discard(0)  # starts the timeout

    def _discard(self, count: int) -> None:
        """Discard `count` bytes from the client. Close the connection at the limits of lingering."""
        self._discarded += count
        seconds_left = self._linger_until - self._loop.time()
        if self._discarded > LINGER_BYTES or seconds_left <= 0:
            self._transport.close()
        else:
            self._stage_timeout.start(min(LINGER_SECONDS, seconds_left), self._transport.close)

    # Backpressure, in addition to `FlowControl`

    def _control_reading(self) -> None:
        """Read only as far ahead of the application as fits into the buffers."""
        unread = 0  # a complete body does not count: reading goes on, so that a disconnect is detected
        if self._stage is Stage.BODY and self._exchange is not None:
            unread = self._exchange.buffered
        self.set_paused(len(self._request_reader.received) > BUFFER_BYTES or unread > BUFFER_BYTES)
        if self._stage is Stage.BODY:
            self._start_body_timeout()
        elif self._stage is Stage.RESPONDING and self._paused:
            self.watch_progress(self._on_pipelining_timeout)

    def resume_writing(self) -> None:
        """Resume the application's writes. In stage HEAD, also serve the requests that are already received."""
        super().resume_writing()
        if self._websocket is not None:
            self._websocket.resume_writing()
        if self._stage is Stage.HEAD:
            self._process_received()
