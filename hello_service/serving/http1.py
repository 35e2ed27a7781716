"""HTTP/1.1 for one connection of Hypercorn's (RFC 9112), parsed by llhttp.

`hypercorn.asyncio.run` makes a `TCPServer` for each connection and awaits it. `Connection` is one. It takes the
transport from Hypercorn's reader and writer, and goes through these stages:

    HEAD ──► BODY ──► RESPONDING ──► HEAD        the next request of a connection that is kept
      │                   │
      │                   └────────► LINGERING   the last response is written, and our side closed; what the client
      │                                          still sends is thrown away, so that it can read the response
      ├──────────────────► LINGERING             a request that is rejected, and a connection that was idle too long
      └──────────────────► UPGRADED              `websocket.py` has it

A request's bytes reach the parser in pieces that end where a message can end: at an empty line, or where its
Content-Length says. So the parser never sees two requests at once, and the next one waits, unparsed, for its turn.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator
from enum import Enum, auto
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from hello_service.serving.connections import Connections
from hello_service.serving.exchange import Exchange
from hello_service.serving.request import HEAD_BYTES, Head, Rejected, read_request_line
from hello_service.serving.response import Response, problem
from hello_service.serving.timeout import Timeout
from hello_service.serving.websocket import WebSocket

EMPTY_LINE = b"\r\n\r\n"
BUFFER_BYTES = 65_536  # of a body, or of what follows a request, before the client has to wait
CHUNK_OVERHEAD_BYTES = 65_536  # chunk extensions or trailers in a row
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


class Connection(asyncio.Protocol):
    """One connection, in the place of Hypercorn's `TCPServer`; `connections` knows all of them."""

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
        self._connections = connections
        self._limits = connections.limits
        self._app = app
        self._loop = loop
        self._reader = reader
        self._transport: Any = writer.transport
        self._state = state
        self._context = contextvars.copy_context()  # of no request
        self._lost = loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading, self._writing = Timeout(loop), Timeout(loop)
        self._unwritten = 0  # bytes in the transport when the client's reading was last looked at

        self._stage = Stage.HEAD
        self._received = bytearray()  # not parsed yet, behind up to `_parsed` bytes that are
        self._parsed = 0
        self._parser: Any = None
        self._head: Head | None = None
        self._head_complete = self._message_complete = self._keep_alive = self._upgrade = False
        self._body_left: int | None = None
        self._overhead = 0
        self._exchange: Exchange | None = None
        self._websocket: WebSocket | None = None
        self._requests = 0
        self._eof = self._paused = self._parsing = False
        self._lingered = 0
        self._linger_until = 0.0

    # The life of the connection

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        """Serve the connection until it is closed and every application task has ended."""
        self._streams = self._transport.get_protocol()  # what fed reader and writer
        self._transport.set_protocol(self)
        self._reader.feed_eof()
        early = await self._reader.read()  # usually nothing: this runs before the transport reads
        if self._transport.is_closing():
            return
        peer, own = (self._transport.get_extra_info(name) for name in ("peername", "sockname"))
        self._client = peer[:2] if isinstance(peer, tuple) else None
        self._rest = {"client": self._client, "server": own[:2] if isinstance(own, tuple) else None}
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
        """Take what the client sent."""
        if self._stage is Stage.LINGERING:
            self._discard(len(data))
        elif self._websocket is not None:
            self._websocket.data_received(data)
        else:
            self._received += data
            self._parse()

    def eof_received(self) -> bool:
        """Take that the client has closed its side, or is gone: both look alike. Return whether ours stays open."""
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
        """Take that the connection is closed, from whichever side."""
        self._stage = Stage.LOST
        self._disconnect()
        if self._websocket is not None:
            self._websocket.connection_lost()
        self._reading.close()
        self._writing.close()
        self._writable.set()
        self._parser = None
        self._streams.connection_lost(None)  # else reader, writer and task hold one another
        if not self._lost.done():
            self._lost.set_result(None)

    def stop(self) -> None:
        """Take one more request at most; close a WebSocket that is idle."""
        if self._websocket is not None:
            self._websocket.stop()

    def end_grace(self) -> None:
        """Take no more requests."""
        if self._stage is Stage.HEAD:
            self.linger()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # Reading a request

    def _wait_for_request(self) -> None:
        self._stage = Stage.HEAD
        self._head, self._head_complete, self._message_complete = None, False, False
        self._parsed = self._overhead = 0
        self._reading.start(self._limits.keep_alive_seconds, self._end_idle)

    def _parse(self) -> None:
        """Go through the stages of a request as far as what was received allows."""
        if self._parsing:
            return  # a response within it was complete at once: it goes on
        self._parsing = True
        more = True
        try:
            while more and self._received:
                if self._stage is Stage.HEAD:
                    more = self._writable.is_set() and self._read_head()
                elif self._stage is Stage.BODY:
                    more = self._read_chunked() if self._body_left is None else self._read_counted()
                else:
                    more = False
        except Rejected as rejected:
            self.reject(rejected)
        finally:
            self._parsing = False
        self._control_reading()
        if self._eof and self._stage is Stage.HEAD:
            self._transport.close()  # what is left is no whole request

    def _read_head(self) -> bool:
        """Read of a head what is there. Return whether it is complete."""
        received = self._received
        if self._head is None:
            while received.startswith(b"\r\n"):
                del received[:2]  # RFC 9112, section 2.2
            if not received or received == b"\r":
                return False
            self._head = read_request_line(received)
            if self._head is None:
                return False
            self._parser = HttpRequestParser(self)
        end = self._next_empty_line()
        within = min(end, HEAD_BYTES)
        try:
            self._feed(within)
        finally:
            if self._head_complete:  # first: it says best why a head is rejected
                self._head.check()
        if not self._head_complete:
            if within == HEAD_BYTES:
                raise Rejected(431, "head-size", f"The head is longer than {HEAD_BYTES} bytes.")
            return False
        del received[:within]
        self._parsed = 0
        self._begin(self._head)
        return True

    def _read_counted(self) -> bool:
        """Read of a body with a Content-Length what is there. Return whether it is complete."""
        assert self._body_left is not None  # noqa: S101 - for mypy
        piece = bytes(self._received[: self._body_left])
        del self._received[: len(piece)]
        self._body_left -= len(piece)
        self.on_body(piece)
        if self._body_left == 0:
            self._end_body()
        return self._body_left == 0

    def _read_chunked(self) -> bool:
        """Read of a body in chunks what is there up to the next empty line. Return whether there may be more."""
        end, begun = self._next_empty_line(), self._parsed
        self._overhead += end - begun
        self._feed(end)
        if self._overhead > CHUNK_OVERHEAD_BYTES:
            raise Rejected(
                400, "malformed", f"Chunk extensions or trailers are longer than {CHUNK_OVERHEAD_BYTES} bytes."
            )
        kept = 0 if self._message_complete else min(3, end)  # an empty line may have begun in them
        del self._received[: end - kept]
        self._parsed = kept
        if self._message_complete:
            self._parsed = 0
            self._end_body()
        return len(self._received) > self._parsed

    def _next_empty_line(self) -> int:
        """Return the offset behind the next empty line that is not parsed, or of the end of what was received."""
        found = self._received.find(EMPTY_LINE, max(self._parsed - 3, 0))
        return len(self._received) if found < 0 else found + 4

    def _feed(self, end: int) -> None:
        piece = bytes(self._received[self._parsed : end])
        self._parsed = end
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass  # it stops at each upgrade, and so at the end of a piece
        except HttpParserError as error:
            raise Rejected(400, "malformed", f"{error}.") from None

    # What the parser finds

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers are dropped
            self._head.add(name, value)  # type: ignore[union-attr]  # the parser is fed behind a request line

    def on_headers_complete(self) -> None:
        self._head_complete = True
        # Behind the end of a message the parser does not know it any longer.
        self._keep_alive, self._upgrade = self._parser.should_keep_alive(), self._parser.should_upgrade()

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        if self._exchange is not None:
            self._exchange.feed(data)
            self._wait_for_body()

    def on_message_complete(self) -> None:
        self._message_complete = True

    # Serving a request

    def _begin(self, head: Head) -> None:
        """Serve the request whose head is complete."""
        if self._connections.closed:
            self.linger()
            return
        has_body = head.chunked or bool(head.content_length)
        if self._upgrade and head.method == b"GET" and head.has(b"upgrade", b"websocket") and head.version == "1.1":
            self._begin_websocket(head, has_body=has_body)
            return
        self._requests += 1
        keep_alive = self._keep_alive and head.version == "1.1" and self._requests < self._limits.requests
        if self._upgrade and head.chunked:  # llhttp would not read the body
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        response = Response(head.method, head.version, keep_alive=keep_alive)
        self._body_left = head.content_length
        self._message_complete = False
        self._stage = Stage.BODY if has_body else Stage.RESPONDING
        self._reading.stop()
        if head.target == b"*":
            self._exchange = None
            self._stage = Stage.RESPONDING
            response.keep_alive &= not has_body and not self.closing
            self._write_whole(response)
            return
        expects = head.version == "1.1" and head.has(b"expect", b"100-continue")
        expects &= (head.content_length or 0) <= self._limits.body_bytes  # a body that is too large need not be sent
        rest = {**self._rest, "method": head.method.decode(), "scheme": "http", "state": self._state.copy()}
        scope = head.scope("http", {**rest, "extensions": {}})
        self._exchange = Exchange(self, scope, response, has_body=has_body, expects_continue=expects)
        if has_body:
            self._wait_for_body()
        elif self._eof:
            self._limit_silence()
        self._run_task(self._exchange.run(self._app))

    def _begin_websocket(self, head: Head, *, has_body: bool) -> None:
        scope = head.scope("websocket", {**self._rest, "scheme": "ws", "state": self._state.copy()})
        if has_body or self._received:
            raise Rejected(400, "handshake", "A WebSocket's handshake is followed by data before it is accepted.")
        websocket = WebSocket(self, self._limits, self._connections, self._loop, scope)  # raises Rejected
        self._reading.stop()
        self._stage, self._websocket = Stage.UPGRADED, websocket
        self._run_task(websocket.run(self._app))

    def _run_task(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write_whole(self, response: Response) -> None:
        self.write(response.start(200, ALLOWED) + response.body(b"", more=False))
        self._next(keep_alive=response.keep_alive)

    def _end_body(self) -> None:
        self._stage = Stage.RESPONDING
        self._reading.stop()
        if self._eof:
            self._limit_silence()
        if self._exchange is not None:
            self._exchange.end_body()

    def _wait_for_body(self) -> None:
        """Give the client time to send more of the body, unless it has to wait itself."""
        if self._paused:
            self._reading.stop()
        else:
            self._reading.start(self._limits.body_seconds, self._end_stalled)

    # What an exchange asks for

    @property
    def closing(self) -> bool:
        """Whether a response is this connection's last, because the server stops."""
        return self._connections.closing

    def write(self, data: bytes) -> None:
        """Write to the client; nothing once it is gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough to write more."""
        if not self._writable.is_set():
            await self._writable.wait()

    def body_taken(self) -> None:
        """The application has taken what there was of the body."""
        self._control_reading()

    def response_complete(self) -> None:
        """Go on to the next request, or end the connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._next(keep_alive=exchange.response.keep_alive and exchange.body_complete)

    def response_broken(self) -> None:
        """End the connection, so that the client does not take a part for the whole."""
        self._exchange = None
        self.linger()

    def respond_with_problem(self, status: int) -> None:
        """Respond in place of an application that did not."""
        self._exchange = None
        if self._stage is not Stage.LOST:
            self.write(problem(status, self._head.method if self._head else b""))
            self.linger()

    def _next(self, *, keep_alive: bool) -> None:
        if self._stage is not Stage.RESPONDING or not keep_alive or self.closing:
            self.linger()
            return
        self._wait_for_request()
        self._parse()

    # Ends

    def reject(self, rejected: Rejected) -> None:
        """Respond with the reason, and end the connection."""
        self.count_rejection(rejected.status, rejected.reason, rejected.detail)
        begun = self._exchange is not None and self._exchange.response.begun
        self._disconnect()
        if not begun:
            method = self._head.method if self._head else bytes(self._received[:4]).strip()
            self.write(problem(rejected.status, method, rejected.headers))
        self.linger()

    def count_rejection(self, status: int | None, reason: str, detail: str) -> None:
        """Count and log what the client did."""
        self._connections.rejections.add(status, reason, detail, self._client[0] if self._client else None)

    def _end_idle(self) -> None:
        if self._received or self._head is not None:
            self.reject(Rejected(408, "head-timeout", f"No whole head came in {self._limits.keep_alive_seconds:g} s."))
        else:
            self.linger()

    def _end_stalled(self) -> None:
        self.reject(Rejected(408, "body-timeout", f"Nothing of the body came for {self._limits.body_seconds:g} s."))

    def _limit_silence(self) -> None:
        """Wait for a response to start, but not for long: a client that has closed its side may be gone."""
        if self._exchange is not None and not self._exchange.response.begun:
            self._reading.start(self._limits.half_close_seconds, self._give_up)

    def _give_up(self) -> None:
        """The client closed its side, and no response has started since."""
        if self._exchange is not None and not self._exchange.response.begun:
            self._disconnect()
            self._transport.close()

    def _disconnect(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.disconnect()
            if exchange.over:
                self._exchange = None

    def linger(self) -> None:
        """Close our side; go on reading for a while, since unread data would make a reset of the end."""
        if self._stage in {Stage.LINGERING, Stage.LOST}:
            return
        self._stage = Stage.LINGERING
        self._received.clear()
        self._watch_writing()
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

    # Backpressure

    def _control_reading(self) -> None:
        """Read only as far ahead of the application as fits into the buffers."""
        exchange = self._exchange
        self.pause(len(self._received) > BUFFER_BYTES or (exchange is not None and exchange.buffered > BUFFER_BYTES))
        if self._stage is Stage.BODY:
            self._wait_for_body()

    def pause(self, pause: bool) -> None:
        """Stop reading from the client, or go on."""
        if pause is not self._paused and not self._eof and not self._transport.is_closing():
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def pause_writing(self) -> None:
        """Let the application wait: the client does not read as fast as it writes."""
        self._writable.clear()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Let the application write on."""
        self._writable.set()
        self._writing.stop()
        if self._stage is Stage.HEAD:
            self._parse()

    def _watch_writing(self) -> None:
        self._unwritten = self._transport.get_write_buffer_size()
        if self._unwritten:
            self._writing.start(self._limits.write_seconds, self._check_writing)

    def _check_writing(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left and left >= self._unwritten:
            self.count_rejection(
                None, "write-timeout", f"The client read nothing for {self._limits.write_seconds:g} s."
            )
            self._transport.abort()
        else:
            self._watch_writing()
