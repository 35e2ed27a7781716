"""Quart with a bound for WebSockets. A leaf: nothing here knows tracing or this service."""

from __future__ import annotations

import asyncio
from typing import Any

from quart import Quart
from quart.asgi import ASGIWebsocketConnection

MESSAGES_AHEAD = 16


class WebSocketConnection(ASGIWebsocketConnection):
    """Quart's, which reads as far ahead of its handler as the client sends; here the client has to wait."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.queue = asyncio.Queue(MESSAGES_AHEAD)


class Application(Quart):
    """Quart, which serves WebSockets by the class above."""

    asgi_websocket_class = WebSocketConnection
