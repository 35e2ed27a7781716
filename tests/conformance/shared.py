"""The code that both applications share: outbound calls, exceptions, and files as signals between handler and test.

Handler and test run in different processes. The signals are files because requests would create spans.
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
REFUSED = os.environ.get("CONFORMANCE_REFUSED", "")  # no process listens on this URL's port
CALLS = {
    "success": f"{UPSTREAM}/items/42?token=hidden",
    "redirect": f"{UPSTREAM}/redirect",
    "error": f"{UPSTREAM}/error",
    "timeout": f"{UPSTREAM}/slow",
    "canceled": f"{UPSTREAM}/slow",
    "refused": f"{REFUSED}/items/42",
}
SHORT_SECONDS = 0.2  # shorter than the peer's wait at /slow
PIECE = b"x" * 65_536
PIECE_COUNT = 160  # 10 MB in total, which is more than the buffers between server and client hold


class Unhandled(RuntimeError):  # noqa: N818 - named for its role in the tests
    """An exception without an error handler."""


class Handled(Exception):  # noqa: N818 - named for its role in the tests
    """An exception whose error handler responds with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"handled with a {status}")
        self.status = status


async def wait_for_file(name: str) -> None:
    """Wait until the test has created the file `name`."""
    while not (FOLDER / name).exists():  # noqa: ASYNC110 - the test is another process
        await asyncio.sleep(0.01)


def create_file(name: str) -> None:
    """Create the file `name`, which the test waits for."""
    (FOLDER / name).touch()


def create_client(*request_hooks: Any) -> httpx.AsyncClient:
    """Return a client for an application's outbound calls."""
    return httpx.AsyncClient(
        transport=AiohttpTransport(trust_env=False),
        trust_env=False,
        follow_redirects=True,
        event_hooks={"request": list(request_hooks)},
    )


async def call(client: httpx.AsyncClient, kind: str) -> str:
    """Make an outbound call, and return its result or the name of its error. `kind` is `streamed` or a key of CALLS."""
    try:
        if kind == "streamed":
            async with client.stream("POST", f"{UPSTREAM}/stream", content=b"hello") as response:
                parts = [part async for part in response.aiter_bytes()]
                return str(len(b"".join(parts)))
        client_timeout = SHORT_SECONDS if kind == "timeout" else 5
        seconds_until_canceled = SHORT_SECONDS if kind == "canceled" else None
        async with asyncio.timeout(seconds_until_canceled):
            response = await client.get(CALLS[kind], timeout=client_timeout)
            return response.text
    except (httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__
