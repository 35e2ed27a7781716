"""Quart, quicker where each request goes through it, and with a bound for WebSockets. A leaf: nothing here knows tracing or
this service.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, cast

from quart import Quart
from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from quart.utils import encode_headers
from quart.wrappers.response import DataBody

MESSAGES_AHEAD = 16

# Quart 0.23 has the reader cancel the handler's task, which it takes as a third argument.
READER_ARGUMENTS = len(inspect.signature(ASGIHTTPConnection.handle_messages).parameters) - 1


class HTTPConnection(ASGIHTTPConnection):
    """Quart's, which makes two tasks for each request beside the server's and waits for them.

    Here the handler runs in the server's own, and one that reads the body and looks whether the client has gone is made
    when the handler waits for the first time; many never do. A body that is known is one message and not two.
    """

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve the request; one whose client goes away is cancelled, and this returns then, as Quart's does."""
        request = self._create_request_from_scope(send)
        loop, handler = asyncio.get_running_loop(), cast("asyncio.Task[None]", asyncio.current_task())
        handle_messages: Any = self.handle_messages
        reader: asyncio.Task[None] | None = None
        gone = False

        def read() -> None:
            nonlocal reader
            arguments = (request, receive, loop.create_future())
            reader = loop.create_task(handle_messages(*arguments[:READER_ARGUMENTS]))
            reader.add_done_callback(leave)

        def leave(_: object) -> None:
            nonlocal gone
            gone = True
            handler.cancel("the client has gone")

        first_wait = loop.call_soon(read)
        try:
            await self.handle_request(request, send)
        except asyncio.CancelledError:
            if not gone or handler.cancelling() > 1:
                raise
        finally:
            first_wait.cancel()
            if reader is not None:
                reader.remove_done_callback(leave)
                reader.cancel()
            if gone:
                handler.uncancel()
        if reader is not None and reader.done():
            reader.result()

    async def _send_response(self, send: Any, response: Any) -> None:
        body = response.response
        if not isinstance(body, DataBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body.data[body.begin : body.end], "more_body": False})


class WebSocketConnection(ASGIWebsocketConnection):
    """Quart's, which reads as far ahead of its handler as the client sends; here the client has to wait."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queue = asyncio.Queue(MESSAGES_AHEAD)


class Application(Quart):
    """Quart, which serves by the classes above."""

    asgi_http_class = HTTPConnection
    asgi_websocket_class = WebSocketConnection

    def ensure_async(self, func: Any) -> Any:
        """Return `func` itself if it is async: Quart finds that out the long way, four times a request."""
        if getattr(getattr(func, "__code__", None), "co_flags", 0) & inspect.CO_COROUTINE:
            return func
        return super().ensure_async(func)
