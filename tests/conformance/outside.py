"""What both applications know of the world outside: files to wait for, files to leave, and the peer that they call.

A file is what a test and a process can wait for without a request, which would leave spans of its own.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport

FOLDER = Path(os.environ.get("CONFORMANCE_FOLDER", "."))
UPSTREAM = os.environ.get("CONFORMANCE_UPSTREAM", "")
REFUSED = os.environ.get("CONFORMANCE_REFUSED", "")
PIECE = b"x" * 65_536
PIECES = 160  # 10 MB: more than the buffers between server and client hold


class Unhandled(RuntimeError):
    """What no error handler takes."""


class Handled(Exception):  # noqa: N818 - named for its part here
    """What an error handler answers with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"to be answered with {status}")
        self.status = status


async def until(name: str) -> None:
    """Wait until the test has left the file `name`."""
    while not (FOLDER / name).exists():  # noqa: ASYNC240 - a stat costs less than a thread
        await asyncio.sleep(0.01)


def tell(name: str) -> None:
    """Leave the file `name` for the test to find."""
    (FOLDER / name).touch()


def client(hooks: dict[str, Any]) -> httpx.AsyncClient:
    """Return the client that both applications call their peer with: one connection pool, no proxies, short patience."""
    transport = AiohttpTransport(trust_env=False)
    return httpx.AsyncClient(
        transport=transport, timeout=5, trust_env=False, follow_redirects=True, event_hooks={"request": hooks["request"]}
    )


async def call(outgoing: httpx.AsyncClient, kind: str) -> str:
    """Call the peer in the way that `kind` names, and say how it went."""
    try:
        if kind == "success":
            return (await outgoing.get(f"{UPSTREAM}/items/42?token=hidden")).text
        if kind == "redirect":
            return (await outgoing.get(f"{UPSTREAM}/redirect")).text
        if kind == "refused":
            return (await outgoing.get(f"{REFUSED}/items/42")).text
        if kind == "late":
            return (await outgoing.get(f"{UPSTREAM}/late", timeout=0.2)).text
        if kind == "cancelled":
            async with asyncio.timeout(0.2):
                return (await outgoing.get(f"{UPSTREAM}/late")).text
        if kind == "error":
            return (await outgoing.get(f"{UPSTREAM}/error")).text
        async with outgoing.stream("POST", f"{UPSTREAM}/stream", content=b"asked") as response:
            return str(len(b"".join([part async for part in response.aiter_bytes()])))
    except (httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__
