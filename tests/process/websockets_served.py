"""Serve the endpoints of the tests with two more WebSockets: one never reads, and one returns while messages wait."""

from __future__ import annotations

import asyncio
import os

from machine import serve_endpoints_of_tests
from quart import websocket

from hello_service.observability import logs, tracing
from hello_service.serving import server
from hello_service.settings import Settings


async def reads_nothing() -> None:
    await websocket.accept()
    await asyncio.Event().wait()


async def ends() -> None:
    """Return when the message queue is full, while the task that fills it is blocked."""
    await websocket.accept()
    waiting = websocket_queue()
    while not waiting.full():  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.001)


def websocket_queue() -> asyncio.Queue[object]:
    """Return the queue of messages for this handler: Quart 0.23's buffer, or the queue that Quart 0.22 receives from."""
    buffer = getattr(websocket, "buffer", None)
    queue: asyncio.Queue[object] = buffer._queue if buffer is not None else vars(websocket)["_receive"].__self__
    return queue


async def main(settings: Settings) -> None:
    serve_endpoints_of_tests()
    listener = server.listen(settings)
    serving = server.Server(settings, listener, os.environ)
    serving.app.websocket("/reads-nothing")(reads_nothing)
    serving.app.websocket("/ends")(ends)
    await serving.serve()


if __name__ == "__main__":
    from_environment = Settings.from_environment(os.environ)
    logs.configure(from_environment, tracing.log_ids)
    asyncio.run(main(from_environment))
