"""WebSocket for one connection (RFC 6455), after `http1.py` has read the head of the handshake request.

The sans-I/O protocol of `websockets` handles frames, close codes and limits. This module connects it to ASGI, and
decides when a WebSocket ends: when the application closes it, the client breaks the protocol or sends no pong, or the
server stops. It negotiates no extension: with compression, a message could unpack to a thousand times its size.

A WebSocket has these timeouts:

    handshake   none; the application may take any time to accept or reject it
    open        ping_seconds until the client's pong; while the client reads too slowly, no ping is sent, and the
                write timeout of `flow.py` applies
    stopping    IDLE_SECONDS without a message; then the server sends its Close frame
    closing     CLOSING_SECONDS until the client's Close frame; then the connection enters the stage LINGERING
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import re
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from hello_service.asgi import Message
from hello_service.serving.connections import Connections, Limits
from hello_service.serving.request import TOKEN_CHARACTER, Rejected
from hello_service.serving.response import Response, problem, switching_protocols
from hello_service.serving.timeout import Timeout

HANDSHAKE_HEADERS = {b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version"}
# Headers of the 426 response that rejects any other version.
VERSION_13_HEADERS = ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"))
# A value of Sec-WebSocket-Protocol: tokens, separated by commas (section 4.3).
TOKENS = re.compile(TOKEN_CHARACTER + rb"+(?:[ \t]*,[ \t]*" + TOKEN_CHARACTER + rb"+)*")
# Reading from the client is paused while this many messages, or more than this many bytes, wait for the application.
# 16 is also the default of `websockets`.
MESSAGES_AHEAD = 16
BYTES_AHEAD = 65_536
# A length of 126 or 127 in a frame's second byte means that an extended length follows (section 5.2). These are the
# size of the extended length in bytes, and the smallest value that it may have.
EXTENDED_LENGTH_BYTES = {126: 2, 127: 8}
SMALLEST_EXTENDED_LENGTH = {126: 126, 127: 65_536}
CLOSING_SECONDS = 2.0  # for the client's Close frame; `settings.CLOSING_SECONDS` is another limit
IDLE_SECONDS = 1.0  # without a message; then a stopping server closes the WebSocket


class Wire(Protocol):
    """The connection of a WebSocket."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    @property
    def writable(self) -> bool:
        """Whether more can be written, because the client reads fast enough."""

    async def drain(self) -> None:
        """Wait until more can be written, because the client has read enough."""

    def set_paused(self, paused: bool) -> None:
        """Pause reading from the client, or resume it."""

    def reject(self, rejected: Rejected) -> None:
        """Respond with a problem, unless the head of a response has been written, and end the connection."""

    def count_rejection(self, status: int, reason: str, detail: str) -> None:
        """Count and log a client's error."""

    def linger(self) -> None:
        """Close our side, and close the connection once the client has closed its side."""


class WebSocket:
    """One WebSocket, from its handshake to the end of its connection.

    Attributes:
        scope: the ASGI scope.
        response: serializes the response of an application that rejects the handshake.

    Raises:
        Rejected: the handshake is invalid, or not for version 13.
    """

    def __init__(
        self,
        wire: Wire,
        limits: Limits,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        scope: dict[str, Any],
    ) -> None:
        headers = scope["headers"]
        self._accept_value = check_handshake(headers)
        self.scope = {**scope, "subprotocols": subprotocols(headers), "extensions": {"websocket.http.response": {}}}
        self._wire = wire
        self._limits = limits
        self._connections = connections
        self._loop = loop
        self._protocol: ServerProtocol | None = None  # None until the handshake is accepted
        self.response = Response(b"GET", "1.1", keep_alive=False)
        self._connect_returned = False  # `receive` has returned the first message, `websocket.connect`
        self._disconnected: Message | None = None  # the disconnect message, once the WebSocket has ended
        self._unparsed = bytearray()  # received data
        self._payload_left = 0  # bytes left of the current frame's payload
        self._decoder: codecs.IncrementalDecoder | None = None  # of the current message; None if it is binary
        self._parts: list[Any] = []  # the content of the current message's frames
        self._messages: deque[tuple[Message, int]] = deque()  # not yet received by the application; with sizes
        self._bytes_ahead = 0  # total size of `_messages`; characters count as bytes
        self._changed = asyncio.Event()
        self._ping_timeout = Timeout(loop)
        # Runs while a stopping server waits until this WebSocket is idle, then while the client's Close frame is due.
        self._close_timeout = Timeout(loop)
        self._pong_due = False  # a ping has been sent, and its pong has not been received
        self._pong_held = b""  # the latest pong, while the client reads too slowly
        self._paused = False  # reading from the client is paused
        self._last_message = 0.0  # time at which a message was last sent or received

    async def run(self, app: Any) -> None:
        """Run `app`. Then close a WebSocket that is still open, with 1011 if `app` failed, or reject the handshake."""
        code = CloseCode.NORMAL_CLOSURE
        try:
            # Hypercorn's wrapper around the application takes two more arguments, which only its WSGI wrapper uses.
            await app(self.scope, self.receive, self.send, None, None)
        except Exception:
            code = CloseCode.INTERNAL_ERROR
            logging.getLogger("hello_service.serving").exception("The application failed.")
        finally:
            if self._protocol is not None:
                self._close(code)
            elif self._disconnected is None:
                self._reject_handshake(problem(500, b"GET"))

    # ASGI

    async def receive(self) -> Message:
        """Return the next message, or `websocket.disconnect` after the last one."""
        if not self._connect_returned:
            self._connect_returned = True
            return {"type": "websocket.connect"}
        while not self._messages:
            if self._disconnected is not None:
                return self._disconnected
            self._changed.clear()
            await self._changed.wait()
        message, size = self._messages.popleft()
        self._bytes_ahead -= size
        self._parse()
        return message

    async def send(self, message: Message) -> None:
        """Accept, reject, send or close. Do nothing once the WebSocket has ended.

        Raises:
            RuntimeError, ValueError, ProtocolError: the message can't be sent, or not in this state.
        """
        if self._disconnected is not None:
            return
        kind = message["type"]
        if self._protocol is None:
            self._respond(kind, message)
        elif kind == "websocket.send":
            text = message.get("text")
            if text is not None:
                self._protocol.send_text(text.encode())
            else:
                self._protocol.send_binary(message["bytes"])
            self._last_message = self._loop.time()
            self._flush()
        elif kind == "websocket.close":
            self._close(message.get("code") or CloseCode.NORMAL_CLOSURE, message.get("reason") or "")
        else:
            raise RuntimeError(f"{kind} can't be sent on an open WebSocket.")
        await self._wire.drain()

    def _respond(self, kind: str, message: Message) -> None:
        """Respond to the handshake."""
        if kind == "websocket.accept" and not self.response.started:
            headers = [(b"sec-websocket-accept", self._accept_value), *message.get("headers", ())]
            if message.get("subprotocol"):
                headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self._wire.write(switching_protocols(headers))
            log = logging.getLogger("websockets.server")
            self._protocol = ServerProtocol(state=State.OPEN, max_size=self._limits.body_bytes, logger=log)
            self._last_message = self._loop.time()
            self._ping_timeout.start(self._limits.ping_seconds, self._ping)
            if self._connections.stopping:
                self.stop()
        elif kind == "websocket.close":
            self._reject_handshake(problem(403, b"GET"))  # the status that the ASGI specification requires
        elif kind == "websocket.http.response.start":
            self._wire.write(self.response.start(message["status"], message.get("headers", ())))
        elif kind == "websocket.http.response.body":
            self._wire.write(self.response.body(message.get("body", b""), message.get("more_body", False)))
            if self.response.ended:
                self._reject_handshake(b"")
        else:
            raise RuntimeError(f"{kind} can't be sent at this stage of a handshake.")

    def _reject_handshake(self, rejection: bytes) -> None:
        """Write `rejection`, unless the application has started its own response, and end the connection."""
        self._disconnect(CloseCode.ABNORMAL_CLOSURE)
        if not self.response.head_written:
            self._wire.write(rejection)
        self._wire.linger()

    # The client

    def data_received(self, data: bytes) -> None:
        """Process data from the client."""
        self._unparsed += data
        if self._protocol is None:
            self._disconnect(CloseCode.ABNORMAL_CLOSURE)
            self._wire.reject(Rejected(400, "handshake", "Data was received before the WebSocket was accepted."))
        else:
            self._parse()

    def eof_received(self) -> bool:
        """The client has closed its side. Return whether our side stays open."""
        self._disconnect(CloseCode.ABNORMAL_CLOSURE)
        return False

    def resume_writing(self) -> None:
        """The client reads again: send the pong that was held back, and a ping after `ping_seconds`."""
        pong, self._pong_held = self._pong_held, b""
        if pong:
            self._wire.write(pong)
        if self._protocol is not None and self._disconnected is None:
            self._ping_timeout.start(self._limits.ping_seconds, self._ping)

    def connection_lost(self) -> None:
        """The connection is closed."""
        self._disconnect(CloseCode.ABNORMAL_CLOSURE)
        self._ping_timeout.close()
        self._close_timeout.close()

    def _parse(self) -> None:
        """Parse as many messages as fit into the buffer."""
        protocol = self._protocol
        while protocol is not None and not self._full and (piece := self._next_piece(protocol)):
            protocol.receive_data(piece)
            for frame in protocol.events_received():
                if isinstance(frame, Frame) and self._disconnected is None:
                    self._receive_frame(frame, protocol)
            self._flush()
            if self._disconnected is None and protocol.state is not State.OPEN:
                self._receive_end(protocol)
        if self._full is not self._paused:
            self._paused = self._full
            self._wire.set_paused(self._paused)

    def _next_piece(self, protocol: ServerProtocol) -> bytes:
        """Return the received bytes of a single frame, so that its errors are detected before the next frame is parsed.

        A length that is not minimally encoded is an error (section 5.2), which `websockets` does not detect.
        """
        received, header_size = self._unparsed, 0
        if not self._payload_left:  # a new frame begins
            if len(received) < 2:
                return b""
            opcode, masked, short_length = received[0] & 0x0F, received[1] & 0x80, received[1] & 0x7F
            if opcode == Opcode.CLOSE:
                # Otherwise `websockets` rejects a Close frame within a fragmented message, which section 5.4 allows.
                protocol.current_size = None
            header_size = 2 + EXTENDED_LENGTH_BYTES.get(short_length, 0) + (4 if masked else 0)  # 4 for the masking key
            if len(received) < header_size:
                return b""
            length = short_length
            if short_length in EXTENDED_LENGTH_BYTES:
                length = int.from_bytes(received[2 : 2 + EXTENDED_LENGTH_BYTES[short_length]])
            if length < SMALLEST_EXTENDED_LENGTH.get(short_length, 0):
                protocol.fail(CloseCode.PROTOCOL_ERROR, "the length is not minimally encoded")
            self._payload_left = length
        end = min(header_size + self._payload_left, len(received))
        self._payload_left -= end - header_size
        piece = bytes(received[:end])
        del received[:end]
        return piece

    @property
    def _full(self) -> bool:
        """Whether no more messages may be parsed until the application has received some.

        Once the WebSocket has ended, the rest is parsed without a limit, because the client's Close frame may be in it.
        """
        return self._disconnected is None and (len(self._messages) >= MESSAGES_AHEAD or self._bytes_ahead > BYTES_AHEAD)

    def _receive_frame(self, frame: Frame, protocol: ServerProtocol) -> None:
        """Process one frame. The last frame of a message adds the message to those that wait for the application."""
        if frame.opcode is Opcode.PONG:
            self._pong_due = False
        elif frame.opcode is Opcode.PING and not self._wire.writable:
            # Pongs for a client that does not read would pile up. Section 5.5.3 allows sending only the latest one.
            self._pong_held = b"".join(protocol.data_to_send())
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        self._last_message = self._loop.time()
        if frame.opcode is not Opcode.CONT:
            self._decoder = codecs.getincrementaldecoder("utf-8")() if frame.opcode is Opcode.TEXT else None
            self._parts = []
        try:
            data = bytes(frame.data)
            part = data if self._decoder is None else self._decoder.decode(data, frame.fin)
        except UnicodeDecodeError:
            protocol.fail(CloseCode.INVALID_DATA, "not UTF-8")
            return
        if part:  # the size limit counts no frames, so any number of empty ones may arrive
            self._parts.append(part)
        if frame.fin:
            message: Message
            content: bytes | str
            if self._decoder is None:
                content = b"".join(self._parts)
                message = {"type": "websocket.receive", "text": None, "bytes": content}
            else:
                content = "".join(self._parts)
                message = {"type": "websocket.receive", "text": content, "bytes": None}
            self._parts = []
            self._messages.append((message, len(content)))
            self._bytes_ahead += len(content)
            self._changed.set()

    def _receive_end(self, protocol: ServerProtocol) -> None:
        """The client has closed the WebSocket or broken a rule."""
        received, sent = protocol.close_rcvd, protocol.close_sent
        end = received or sent or Close(CloseCode.ABNORMAL_CLOSURE, "")
        self._disconnect(end.code, end.reason)
        if received is None and sent is not None:  # closed from this side, because of the client's error
            self._wire.count_rejection(int(sent.code), f"websocket-{int(sent.code)}", f"{sent.reason or sent}.")

    # The end of the WebSocket

    def stop(self) -> None:
        """Close the WebSocket as soon as it is idle, because the server is stopping."""
        if self._protocol is None or self._disconnected is not None:
            return
        seconds_left = self._last_message + IDLE_SECONDS - self._loop.time()
        if seconds_left > 0:
            self._close_timeout.start(seconds_left, self.stop)
        else:
            self._close(CloseCode.SERVICE_RESTART, "the server is stopping")

    def _close(self, code: int, reason: str = "") -> None:
        """Send a Close frame, and wait up to `CLOSING_SECONDS` for the client's Close frame."""
        protocol = cast("ServerProtocol", self._protocol)
        if self._disconnected is not None:
            return
        protocol.send_close(code, reason)
        self._flush()
        self._disconnect(code, reason)  # although the client has not sent its Close frame yet
        self._close_timeout.start(CLOSING_SECONDS, self._wire.linger)

    def _ping(self) -> None:
        """Send a ping, or close the WebSocket because the client has not responded to the previous ping."""
        if not self._wire.writable:  # a ping would arrive only after the data that waits; the write timeout is running
            return
        protocol = cast("ServerProtocol", self._protocol)
        if self._pong_due and not self._paused:  # while reading is paused, no pong can be received
            protocol.fail(CloseCode.INTERNAL_ERROR, "no pong")  # the code that `websockets` itself uses for this
            self._flush()
            self._disconnect(CloseCode.ABNORMAL_CLOSURE)
            return
        self._pong_due = True
        protocol.send_ping(b"")
        self._flush()
        self._ping_timeout.start(self._limits.ping_seconds, self._ping)

    def _disconnect(self, code: int, reason: str = "") -> None:
        """End the WebSocket for the application: it can receive and send no more messages."""
        if self._disconnected is None:
            self._disconnected = {"type": "websocket.disconnect", "code": int(code), "reason": reason}
            self._ping_timeout.stop()
            self._pong_held = b""
            self._changed.set()

    def _flush(self) -> None:
        """Write the frames that `websockets` has produced."""
        protocol = cast("ServerProtocol", self._protocol)
        for data in protocol.data_to_send():
            if data:
                self._wire.write(data)
            else:  # with empty data, `websockets` requests that the connection be closed
                self._wire.linger()


def check_handshake(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the value of Sec-WebSocket-Accept for a request with these `headers`.

    Raises:
        Rejected: 426 for a version other than 13, otherwise 400.
    """
    fields = Headers()
    for name, value in headers:
        if name in HANDSHAKE_HEADERS:
            fields[name.decode()] = value.decode("latin-1")  # keeps earlier values of the same header
    protocol = ServerProtocol()
    response = protocol.accept(Request(path="/", headers=fields))  # `accept` does not check the path
    if response.status_code == 101:
        return response.headers["Sec-WebSocket-Accept"].encode()
    error = protocol.handshake_exc
    if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
        raise Rejected(426, "handshake", "The only supported WebSocket version is 13.", VERSION_13_HEADERS)
    raise Rejected(400, "handshake", f"The handshake is not valid: {type(error).__name__}.")


def subprotocols(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the subprotocols that the client proposes; an empty list if a header is malformed."""
    values = [value for name, value in headers if name == b"sec-websocket-protocol"]
    if not all(map(TOKENS.fullmatch, values)):
        return []
    return [subprotocol.strip().decode() for value in values for subprotocol in value.split(b",")]
