"""One request and its response, as ASGI's `receive` and `send` (ASGI, HTTP connection scope)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from hello_service.asgi import Message
from hello_service.serving.response import Response

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire(Protocol):
    """The connection that an exchange belongs to."""

    @property
    def closing(self) -> bool:
        """Whether a response is this connection's last, because the server stops."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    async def drain(self) -> None:
        """Wait until the client has read enough to write more."""

    def body_taken(self) -> None:
        """The application has taken what there was of the body, and waits for more of it."""

    def response_complete(self) -> None:
        """The response has been written."""

    def response_broken(self) -> None:
        """There will be no more of the response, and it is not complete."""

    def respond_with_problem(self, status: int) -> None:
        """Write a problem in place of the response."""


class Exchange:
    """One request and its response.

    Attributes:
        response: what makes the bytes of it.
        body_complete: the whole request has arrived.
        buffered: bytes of the body that the application has not taken.
        over: nothing is received or sent any longer.
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
        """Let `app` respond. A response that it leaves out is a 500; one that it leaves unfinished ends the connection."""
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
        """Take a piece of the body from the client."""
        self._expects_continue = False  # the client does not wait
        self._body.append(data)
        self.buffered += len(data)
        self._changed.set()

    def end_body(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self._changed.set()

    def disconnect(self) -> None:
        """The client is gone. Where it has every byte of the response, the application may finish undisturbed."""
        if not self.response.whole:
            self.over = True
            self._changed.set()

    async def receive(self) -> Message:
        """Return the next piece of the body; `http.disconnect` when the client is gone or the response is complete."""
        if self._expects_continue and not self.over:
            self._expects_continue = False
            if not self.response.started:
                self._wire.write(CONTINUE)
        while not self.over:
            if self._body or (self.body_complete and not self._body_given):
                body, self._body, self.buffered = b"".join(self._body), [], 0
                self._body_given = self.body_complete
                self._wire.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self._body_given}
            self._changed.clear()
            await self._changed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write what `message` has of the response. Nothing is written once the client is gone.

        Raises:
            RuntimeError, ValueError: the message can't be sent.
        """
        if self.over:
            return
        if message["type"] == "http.response.start":
            # A request that is answered early may still be on its way: its rest is read and thrown away.
            self.response.keep_alive &= self.body_complete and not self._wire.closing
            data = self.response.start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            data = self.response.body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is no message of an HTTP response.")
        if data:
            self._wire.write(data)
        try:
            await self._wire.drain()
        except BaseException:
            self.response.keep_alive = False  # a client that reads nothing gets no next response
            if self.response.complete:
                self._finish()
            raise
        if self.response.complete:
            self._finish()

    def _finish(self) -> None:
        if self.over:
            return
        self.over = True
        self._changed.set()
        if self.response.whole:
            self._wire.response_complete()
        else:
            self._wire.response_broken()
