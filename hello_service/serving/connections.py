"""The open connections of a server: their limits, and how they are closed when the server stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from hello_service.serving.rejections import Rejections

GRACE_SECONDS = 0.5  # for a request that is still on the network when the server stops


@dataclass(frozen=True)
class Limits:
    """The limits of one client connection.

    Attributes:
        requests: maximum number of requests on one connection.
        body_bytes: maximum size of a request body or a WebSocket message.
        keep_alive_seconds: maximum time until the head of the next request is complete.
        body_seconds: maximum time without a byte of a request body, unless the application is slower than the client.
        write_seconds: maximum time without the client reading a byte of a response. Once the client has closed its side
            or pipelined too much, this also limits the time in which the application sends nothing.
        half_close_seconds: maximum time until a response starts, once the client has closed its side.
        ping_seconds: time between WebSocket pings; the client must send its pong within the same time.
    """

    requests: int = 1000  # as in Hypercorn; no setting changes it
    body_bytes: int = 65_536
    keep_alive_seconds: float = 75.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    half_close_seconds: float = 1.0
    ping_seconds: float = 20.0


class Stoppable(Protocol):
    """The methods of a connection that a stopping server calls."""

    def stop(self) -> None:
        """Accept at most one more request; close an idle WebSocket."""

    def end_grace(self) -> None:
        """Accept no more requests."""

    def abort(self) -> None:
        """Close at once."""


@dataclass
class Connections:
    """The open connections of a server.

    Attributes:
        stopping: the server is stopping, so each response is its connection's last.
        accepting: new requests are served. Requests in flight may finish in any case.
    """

    limits: Limits = field(default_factory=Limits)
    rejections: Rejections = field(default_factory=Rejections)
    stopping: bool = False
    accepting: bool = True
    open: set[Stoppable] = field(default_factory=set)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Close connections as they become idle. A client has `grace_seconds` to send one more request."""
        self.stopping = True
        for connection in list(self.open):
            connection.stop()
        asyncio.get_running_loop().call_later(grace_seconds, self._end_grace)

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self.open):
            connection.abort()

    def _end_grace(self) -> None:
        self.accepting = False
        for connection in list(self.open):
            connection.end_grace()
