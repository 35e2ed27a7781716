"""Tracks requests in flight, and cancels them when the process stops. `server.py` controls it; `/ready` reads it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send
from hello_service.problems import MEDIA_TYPE, TraceId, document

SERVICE_RESTART = 1012  # IANA, WebSocket close codes


class Lifecycle:
    """ASGI middleware around `app` that tracks requests in flight and can cancel them.

    Attributes:
        stopping: this process should get no new traffic; every response has `Connection: close`.
    """

    def __init__(self, app: ASGIApp, trace_id: TraceId) -> None:
        self.stopping = False
        self._overdue = False  # `cancel` was called
        self._tasks: set[asyncio.Task[Any]] = set()  # one for each request and WebSocket
        self._trace_id = trace_id
        self._app = app

    @property
    def in_flight(self) -> int:
        """The number of requests and WebSockets in flight."""
        return len(self._tasks)

    def cancel(self, reason: str) -> None:
        """Cancel every request in flight: it gets a 503 if no response has started, otherwise its connection is closed.

        A WebSocket is closed with `SERVICE_RESTART`. `reason` becomes the error message of the span.
        """
        self._overdue = True
        for task in self._tasks:
            task.cancel(reason)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] == "lifespan" or task is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def watch_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self.stopping and scope["http_version"] < "2":  # HTTP/2 has no Connection header
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        if scope.get("path", "").startswith("//"):
            scope = {**scope, "path": f"/.{scope['path']}"}  # Werkzeug would drop a slash, and match another route
        self._tasks.add(task)
        try:
            await self._app(scope, receive, watch_send)
        except asyncio.CancelledError:
            if self._overdue and scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "the server is stopping"})
            elif self._overdue and not started:
                await self._send_503(watch_send)
            raise
        finally:
            self._tasks.discard(task)

    async def _send_503(self, send: Send) -> None:
        detail = "The server is stopping, and this request did not finish in time."
        body = json.dumps(document(503, "stopping", detail, trace_id=self._trace_id())).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", b"1"),  # the load balancer sends the retry to another process
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
