"""Serves the endpoints of routes.py and two WebSocket handlers: one never reads, one returns with messages unread."""

from __future__ import annotations

import asyncio
import os

from quart import websocket
from serve_test_endpoints import use_test_endpoints

from hello_service.observability import logs, tracing
from hello_service.serving.server import Server, listen
from hello_service.settings import Settings


async def read_nothing() -> None:
    await websocket.accept()
    await asyncio.Event().wait()


async def leave_messages_unread() -> None:
    """Return once the queue of unread messages is full, which blocks the task that fills it."""
    await websocket.accept()
    queue = message_queue()
    while not queue.full():  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.001)


def message_queue() -> asyncio.Queue[object]:
    """Return the queue of messages for this handler, which Quart 0.22 and 0.23 keep in different places."""
    buffer = getattr(websocket, "buffer", None)
    if buffer is not None:  # Quart 0.23
        queue: asyncio.Queue[object] = buffer._queue
    else:  # Quart 0.22
        queue = vars(websocket)["_receive"].__self__  # `_receive` is a method of the queue
    return queue


async def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    use_test_endpoints()
    listener = listen(settings)
    server = Server(settings, listener, os.environ)
    server.app.websocket("/reads-nothing")(read_nothing)
    server.app.websocket("/leaves-messages-unread")(leave_messages_unread)
    await server.serve()


if __name__ == "__main__":
    environment_settings = Settings.from_environment(os.environ)
    logs.configure(environment_settings, tracing.log_ids)
    asyncio.run(main(environment_settings))
