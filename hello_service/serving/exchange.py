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
    def closing(self) -> bool:
        """Whether a response is this connection's last because the server is stopping."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    async def drain(self) -> None:
        """Wait until the client has read enough to write more."""

    def body_taken(self) -> None:
        """The application has read all body data received so far, and waits for more."""

    def response_complete(self) -> None:
        """The response has been written."""

    def response_broken(self) -> None:
        """The response has ended before it was complete."""

    def respond_with_problem(self, status: int) -> None:
        """Write a problem instead of the response."""


class Exchange:
    """One request and its response.

    Attributes:
        response: serializes the response.
        body_complete: the whole request has been received.
        buffered: number of body bytes that the application has not read.
        over: nothing more is received or sent.
    """

    def __init__(
        self, wire: Wire, scope: dict[str, Any], response: Response, *, has_body: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        self.response = response
        self.body_complete = not has_body
        self.buffered = 0
        self.over = False
        self._wire = wire
        self._body: list[bytes] = []
        self._body_given = False
        self._expects_continue = expects_continue and has_body
        self._changed = asyncio.Event()

    async def run(self, app: Any) -> None:
        """Run `app`. Without a response from it the client gets a 500; after an incomplete one the connection is closed."""
        try:
            await app(self.scope, self.receive, self.send, None, None)
        except Exception:
            logging.getLogger("hello_service.serving").exception("The application failed.")
        finally:
            if not self.over:
                self.over = True
                if self.response.started:
                    self._wire.write(self.response.held())
                    self._wire.response_broken()
                else:
                    self._wire.respond_with_problem(500)

    def feed(self, data: bytes) -> None:
        """Add a received piece of the body."""
        self._expects_continue = False  # the client does not wait
        self._body.append(data)
        self.buffered += len(data)
        self._changed.set()

    def end_body(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self._changed.set()

    def disconnect(self) -> None:
        """The client has disconnected. After a fully sent response the application may finish without being told."""
        if not self.response.whole:
            self.over = True
            self._changed.set()

    async def receive(self) -> Message:
        """Return the next piece of the body, or `http.disconnect` once the client has disconnected or the response is complete."""
        if self._expects_continue:
            # Quart calls `receive` before it looks at the request. A response without the body, such as a 404, is ready
            # before the event loop's next turn.
            asyncio.get_running_loop().call_soon(self._ask_for_body)
        while not self.over:
            if self._body or (self.body_complete and not self._body_given):
                body, self._body, self.buffered = b"".join(self._body), [], 0
                self._body_given = self.body_complete
                self._wire.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self._body_given}
            self._changed.clear()
            await self._changed.wait()
        return {"type": "http.disconnect"}

    def _ask_for_body(self) -> None:
        if self._expects_continue and not self.over and not self.response.started:
            self._wire.write(CONTINUE)
        self._expects_continue = False

    async def send(self, message: Message) -> None:
        """Write the response part in `message`; write nothing once the client has disconnected.

        Raises:
            RuntimeError, ValueError: the message can't be sent.
        """
        if self.over:
            return
        if message["type"] == "http.response.start":
            # The response may start before the request is complete; the rest of the request is read and discarded.
            self.response.keep_alive &= self.body_complete and not self._wire.closing
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
            self.response.keep_alive = False  # a client that does not read gets no further response
            if self.response.complete:
                self._finish()
            raise
        if self.response.complete:
            self._finish()

    def _finish(self) -> None:
        if self.over:  # pragma: no cover - the client can leave while the last bytes are written
            return
        self.over = True
        self._changed.set()
        if self.response.whole:
            self._wire.response_complete()
        else:
            self._wire.response_broken()
