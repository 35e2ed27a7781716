"""Adds security headers for browsers to every response that does not set its own."""

from __future__ import annotations

from collections.abc import Sequence

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send

# A browser must not guess a response's type, cache it, run anything in it or show it in a frame. Inline styles are
# allowed, because the pages of this service have them.
SECURITY_HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class SecurityHeaders:
    """ASGI middleware around `app` that adds `SECURITY_HEADERS`; it keeps a header that the response already has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                headers = [(name, value) for name, value in message.get("headers", ())]
                present = {name.lower() for name, _ in headers}
                message["headers"] = headers + [header for header in SECURITY_HEADERS if header[0] not in present]
            await send(message)

        await self._app(scope, receive, add_headers)
