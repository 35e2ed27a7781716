"""Backpressure on one connection in both directions, and the timeouts for a connection on which nothing moves."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hello_service.serving.connections import Connections
from hello_service.serving.timeout import Timeout


class FlowControl(asyncio.Protocol):
    """Writes to a client no faster than it reads, and reads no faster than the application does."""

    def __init__(self, transport: Any, connections: Connections) -> None:
        self._transport = transport
        self._connections = connections
        self._limits = connections.limits
        self._client: tuple[str, int] | None = None
        self._eof = False  # the client has closed its side
        self._paused = False  # reading from the client is paused
        self._writable = asyncio.Event()
        self._writable.set()
        loop = asyncio.get_running_loop()
        self._stage_timeout = Timeout(loop)  # what it limits depends on the stage of the `Connection`
        self._write_timeout = Timeout(loop)
        self._unsent = 0  # bytes in the transport's write buffer at the last check
        self._written = 0  # bytes passed to the transport in total

    def write(self, data: bytes) -> None:
        """Write to the client; do nothing once the connection is closing."""
        if not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    @property
    def writable(self) -> bool:
        """Whether more can be written, because the client reads fast enough."""
        return self._writable.is_set()

    async def drain(self) -> None:
        """Wait until more can be written, because the client has read enough."""
        if not self._writable.is_set():  # saves a coroutine for each write to a client that reads fast enough
            await self._writable.wait()

    def abort(self) -> None:
        """Close at once. Reset the connection if unsent data is dropped."""
        if self._transport.get_write_buffer_size():
            self.reset()
        else:
            self._transport.abort()

    def reset(self) -> None:
        """Reset the connection. A close would complete a response that ends with the connection, as in HTTP/1.0."""
        # With a linger time of zero, the close resets a TCP connection.
        on_without_delay = struct.pack("ii", 1, 0)
        with suppress(OSError):  # BSD and macOS raise it if the client has just reset the connection
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on_without_delay)
        self._transport.abort()

    def set_paused(self, paused: bool) -> None:
        """Pause reading from the client, or resume it."""
        if paused is not self._paused and not self._eof and not self._transport.is_closing():
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Block the application's writes until the client has read more."""
        self._writable.clear()
        self.watch_writing()

    def resume_writing(self) -> None:
        """Unblock the application's writes."""
        self._writable.set()
        self._write_timeout.stop()

    def connection_lost(self, _: Exception | None) -> None:
        """Stop the timeouts, and unblock the application's writes."""
        self._stage_timeout.close()
        self._write_timeout.close()
        self._writable.set()

    def count_rejection(self, status: int | None, reason: str, detail: str) -> None:
        """Count and log a client's error."""
        self._connections.rejections.add(status, reason, detail, self._client[0] if self._client else None)

    def watch_writing(self) -> None:
        """Abort the connection if the client reads nothing for `write_seconds` although data waits to be sent."""
        self._unsent = self._transport.get_write_buffer_size()
        if self._unsent:
            self._write_timeout.start(self._limits.write_seconds, self._check_writing)

    def _check_writing(self) -> None:
        if self._transport.get_write_buffer_size() < self._unsent:
            self.watch_writing()
            return
        detail = f"The client read nothing for {self._limits.write_seconds:g} s."
        self.count_rejection(status=None, reason="write-timeout", detail=detail)
        self.abort()

    def watch_progress(self, give_up: Callable[[], None]) -> None:
        """Call `give_up` once nothing has been sent for `write_seconds`.

        Use it while nothing is read from the client, because a disconnect is not detected then.
        """
        sent = self._sent

        def check() -> None:
            if self._sent > sent:
                self.watch_progress(give_up)
            else:
                give_up()

        self._stage_timeout.start(self._limits.write_seconds, check)

    @property
    def _sent(self) -> int:
        """Number of bytes that have left the transport's write buffer."""
        return self._written - int(self._transport.get_write_buffer_size())
