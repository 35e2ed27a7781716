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
CALLS = {
    "success": f"{UPSTREAM}/items/42?token=hidden",
    "redirect": f"{UPSTREAM}/redirect",
    "error": f"{UPSTREAM}/error",
    "late": f"{UPSTREAM}/late",
    "cancelled": f"{UPSTREAM}/late",
    "refused": f"{REFUSED}/items/42",
}
PIECE = b"x" * 65_536
PIECES = 160  # 10 MB: more than the buffers between server and client hold


class Unhandled(RuntimeError):  # noqa: N818 - named for its part here
    """What no error handler takes."""


class Handled(Exception):  # noqa: N818 - named for its part here
    """What an error handler answers with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"to be answered with {status}")
        self.status = status


async def until(name: str) -> None:
    """Wait until the test has left the file `name`."""
    while not (FOLDER / name).exists():  # noqa: ASYNC110 - nobody inside could set an event
        await asyncio.sleep(0.01)


def tell(name: str) -> None:
    """Leave the file `name` for the test to find."""
    (FOLDER / name).touch()


def client(*on_request: Any) -> httpx.AsyncClient:
    """Return the client that both applications call their peer with."""
    return httpx.AsyncClient(
        transport=AiohttpTransport(trust_env=False),
        trust_env=False,
        follow_redirects=True,
        event_hooks={"request": list(on_request)},
    )


async def call(outgoing: httpx.AsyncClient, kind: str) -> str:
    """Call the peer in the way that `kind` names, and say how it went."""
    try:
        if kind == "streamed":
            async with outgoing.stream("POST", f"{UPSTREAM}/stream", content=b"asked") as response:
                return str(len(b"".join([part async for part in response.aiter_bytes()])))
        patience = 0.2 if kind == "late" else 5
        async with asyncio.timeout(0.2 if kind == "cancelled" else None):
            return (await outgoing.get(CALLS[kind], timeout=patience)).text
    except (httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__
