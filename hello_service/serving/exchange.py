"""One request and its response, as ASGI's `receive` and `send` (ASGI, HTTP connection scope)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from hello_service.asgi import Message
from hello_service.serving.response import Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire(Protocol):
    """The connection of an exchange."""

    @property
    def stopping(self) -> bool:
        """Whether the server is stopping, so that each response is its connection's last."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    async def drain(self) -> None:
        """Wait until more can be written, because the client has read enough."""

    def body_taken(self) -> None:
        """The application has read all body data received so far."""

    def response_complete(self) -> None:
        """The response has been written."""

    def response_broken(self) -> None:
        """The application has ended, or sent its last message, before its response was complete."""

    def respond_with_problem(self, status: int) -> None:
        """Write a problem instead of the response."""


class Exchange:
    """One request and its response.

    Attributes:
        response: serializes the response.
        body_complete: the whole request has been received.
        buffered: number of body bytes that the application has not read.
        ended: the application can neither receive nor send anything more.
    """

    def __init__(
        self, wire: Wire, scope: dict[str, Any], response: Response, *, has_body: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        self.response = response
        self.body_complete = not has_body
        self.buffered = 0
        self.ended = False
        self._wire = wire
        self._body: list[bytes] = []
        self._body_returned = False  # `receive` has returned the whole body
        self._expects_continue = expects_continue and has_body
        self._changed = asyncio.Event()

    async def run(self, app: Any) -> None:
        """Run `app`, unless the exchange has already ended: a body that came with the head was rejected or incomplete.

        If `app` sends no response, the client gets a 500. If its response is incomplete, the connection is closed.
        """
        if self.ended:
            return
        try:
            # Hypercorn's wrapper around the application takes two more arguments, which only its WSGI wrapper uses.
            await app(self.scope, self.receive, self.send, None, None)
        except Exception:
            logging.getLogger("hello_service.serving").exception("The application failed.")
        finally:
            if not self.ended:
                self.ended = True
                if self.response.started:
                    self._wire.write(self.response.release_head())  # it may have waited for the body's first piece
                    self._wire.response_broken()
                else:
                    self._wire.respond_with_problem(500)

    def feed(self, data: bytes) -> None:
        """Add a received piece of the body."""
        self._expects_continue = False  # the client has not waited for the 100
        self._body.append(data)
        self.buffered += len(data)
        self._changed.set()

    def end_body(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self._changed.set()

    def disconnect(self) -> None:
        """The client has disconnected. If the response is fully written, the application may finish normally."""
        if not self.response.fully_written:
            self.ended = True
            self._changed.set()

    async def receive(self) -> Message:
        """Return the next piece of the body, or `http.disconnect` after a disconnect or a complete response."""
        if self._expects_continue:
            # Quart calls `receive` before it handles the request. A response that does not need the body, such as a
            # 404, starts before the event loop's next iteration, so no 100 is sent.
            asyncio.get_running_loop().call_soon(self._send_continue)
        while not self.ended:
            if self._body or (self.body_complete and not self._body_returned):
                body, self._body, self.buffered = b"".join(self._body), [], 0
                self._body_returned = self.body_complete
                self._wire.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self._body_returned}
            self._changed.clear()
            await self._changed.wait()
        return {"type": "http.disconnect"}

    def _send_continue(self) -> None:
        if self._expects_continue and not self.ended and not self.response.started:
            self._wire.write(CONTINUE)
        self._expects_continue = False

    async def send(self, message: Message) -> None:
        """Write the response part in `message`; write nothing once the client has disconnected.

        Raises:
            RuntimeError, ValueError: the message can't be sent.
        """
        if self.ended:
            return
        if message["type"] == "http.response.start":
            # The response may start before the request is complete; the rest of the request is read and discarded.
            if not self.body_complete or self._wire.stopping:
                self.response.keep_alive = False
            data = self.response.start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            data = self.response.body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is not a message of an HTTP response.")
        if data:
            self._wire.write(data)
        try:
            await self._wire.drain()
        except BaseException:
            # The task was canceled while the client did not read, so this response is the connection's last.
            self.response.keep_alive = False
            if self.response.ended:
                self._finish()
            raise
        if self.response.ended:
            self._finish()

    def _finish(self) -> None:
        """End the exchange after the application's last message."""
        if self.ended:  # pragma: no cover - the client can disconnect while the last bytes are written
            return
        self.ended = True
        self._changed.set()
        if self.response.fully_written:
            self._wire.response_complete()
        else:
            self._wire.response_broken()
