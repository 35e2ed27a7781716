"""The open connections of a server: what holds for each of them, and how all of them end when the server stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from hello_service.serving.rejections import Rejections

GRACE_SECONDS = 0.5  # for a request that is on its way when the server stops


@dataclass(frozen=True)
class Limits:
    """What a client may do.

    Attributes:
        requests: on one connection.
        body_bytes: of a request or a WebSocket message.
        keep_alive_seconds: without a request, or until its head is complete.
        body_seconds: without a byte of a body that the application waits for.
        write_seconds: without reading a byte of a response.
        half_close_seconds: until a response starts, once the client has closed its side.
        ping_seconds: between the pings of a WebSocket; after each the client has as long to send its pong.
    """

    requests: int = 1000
    body_bytes: int = 65_536
    keep_alive_seconds: float = 75.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    half_close_seconds: float = 1.0
    ping_seconds: float = 20.0


class Stoppable(Protocol):
    """A connection, to the server that stops."""

    def stop(self) -> None:
        """Take one more request at most; close a WebSocket that is idle."""

    def end_grace(self) -> None:
        """Take no more requests."""

    def abort(self) -> None:
        """Close at once."""


@dataclass
class Connections:
    """The open connections of a server.

    Attributes:
        closing: the server stops; each response is its connection's last.
        closed: no request is served any longer, but those that have begun.
    """

    limits: Limits = field(default_factory=Limits)
    rejections: Rejections = field(default_factory=Rejections)
    closing: bool = False
    closed: bool = False
    open: set[Stoppable] = field(default_factory=set)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Let connections end: those without a request have `grace_seconds` to send one."""
        self.closing = True
        for connection in list(self.open):
            connection.stop()
        asyncio.get_running_loop().call_later(grace_seconds, self._end_grace)

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self.open):
            connection.abort()

    def _end_grace(self) -> None:
        self.closed = True
        for connection in list(self.open):
            connection.end_grace()
