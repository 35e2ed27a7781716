"""Limits the WebSocket messages that Quart reads ahead of a handler.

Quart itself has no limit: a client that sends faster than its handler reads fills this process's memory.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from quart import Quart
from quart.asgi import ASGIWebsocketConnection
from quart.wrappers import Websocket

MESSAGES_AHEAD = 16  # as in serving/websocket.py, which limits what the server itself reads ahead


def bound_websockets(app: Quart) -> None:
    """Make `app` stop reading from a client while `MESSAGES_AHEAD` of its messages wait for the handler."""
    if sys.version_info >= (3, 13) and hasattr(Websocket, "buffer_class"):  # pragma: no cover - Quart 0.23 only
        app.websocket_class = _bounded_websocket_class()
        app.asgi_websocket_class = _CancelingConnection
    else:  # pragma: no cover - Quart 0.22 only
        app.asgi_websocket_class = _BoundedConnection


if sys.version_info >= (3, 13):  # pragma: no cover - Quart 0.23 requires Python 3.13

    def _bounded_websocket_class() -> type[Websocket]:
        from quart.wrappers.websocket import Buffer  # noqa: PLC0415 - contract.py checks it before it is imported

        class BoundedBuffer(Buffer):
            def __init__(self) -> None:
                self._queue = asyncio.Queue(MESSAGES_AHEAD)

        class BoundedWebsocket(Websocket):
            buffer_class = BoundedBuffer

        return BoundedWebsocket

    class _CancelingConnection(ASGIWebsocketConnection):
        """Cancels the reading task when the handler ends: Quart 0.23 waits for it, forever if the buffer is full."""

        async def handle_messages(self, websocket: Websocket, receive: Any, websocket_task: asyncio.Task[None]) -> None:
            reader: Any = asyncio.current_task()
            websocket_task.add_done_callback(lambda _: reader.cancel())
            await super().handle_messages(websocket, receive, websocket_task)


class _BoundedConnection(ASGIWebsocketConnection):  # pragma: no cover - Quart 0.22 only
    """For Quart 0.22, which itself cancels its reading task when the handler ends."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queue: asyncio.Queue[Any] = asyncio.Queue(MESSAGES_AHEAD)
