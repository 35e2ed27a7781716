"""A request is served by fewer tasks than Quart's, and ends in the same ways."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from quart import request

from hello_service.application import Application

Message = dict[str, Any]
REQUEST: Message = {"type": "http.request", "body": b"Ada", "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


class Exchange:
    """One request to an application, and what came of it.

    Attributes:
        incoming: what the server has for the application.
        sent: what the application sent.
        received: how often it asked; `asked` is set once it has.
    """

    def __init__(self, handler: Callable[[], Awaitable[Any]]) -> None:
        self.app = Application(__name__)
        self.app.add_url_rule("/", "handler", handler, methods=["POST"])
        self.incoming: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.sent: list[Message] = []
        self.received = 0
        self.asked = asyncio.Event()

    async def receive(self) -> Message:
        self.received += 1
        self.asked.set()
        message = await self.incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"here")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
            "state": {},
        }
        await self.app(scope, self.receive, self.send)  # type: ignore[arg-type]  # Hypercorn's own names for them


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


async def test_a_handler_that_does_not_wait_is_not_watched() -> None:
    """Its client is not asked for; a body that is known is one message."""

    async def handler() -> str:
        return "Hello"

    exchange = Exchange(handler)
    await exchange.run()

    assert [message["type"] for message in exchange.sent] == ["http.response.start", "http.response.body"]
    assert exchange.sent[1] == {"type": "http.response.body", "body": b"Hello", "more_body": False}
    assert exchange.received == (
        sys.version_info < (3, 12)
    )  # before, the time-out of the answer was a task to wait for


async def test_a_handler_reads_the_body() -> None:
    """It waits for it."""

    async def handler() -> str:
        name: str = await request.get_data(as_text=True)  # type: ignore[assignment]  # Quart has no overloads
        return f"Hello, {name}"

    exchange = Exchange(handler)
    exchange.incoming.put_nowait(REQUEST)
    await exchange.run()

    assert exchange.sent[1]["body"] == b"Hello, Ada"
    assert len(asyncio.all_tasks()) <= 2  # this test, and a reader that is just being cancelled


async def test_a_handler_whose_client_goes_is_cancelled() -> None:
    """That is the end of the request, and no error."""
    exchange = Exchange(hang)
    exchange.incoming.put_nowait(REQUEST)
    exchange.incoming.put_nowait(DISCONNECT)
    await exchange.run()

    assert exchange.sent == []
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # there is one


async def test_a_handler_may_answer_although_its_client_has_gone() -> None:
    """It is its own affair; the task that served it can serve on."""

    async def stubborn() -> str:
        try:
            return await hang()
        except asyncio.CancelledError:
            return "Bye"

    exchange = Exchange(stubborn)
    exchange.incoming.put_nowait(DISCONNECT)
    await exchange.run()

    assert exchange.sent[1]["body"] == b"Bye"
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # there is one


@pytest.mark.parametrize("gone", [False, True])
async def test_whoever_cancels_the_request_hears_of_it(gone: bool) -> None:
    """Even where the client has gone, too."""
    exchange = Exchange(hang)
    serving = asyncio.create_task(exchange.run())
    await exchange.asked.wait()
    if gone:
        exchange.incoming.put_nowait(DISCONNECT)
    serving.cancel("too late")

    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_is_cancelled_from_within_is_no_answer(waits: bool) -> None:
    """The server hears of it, and answers 500."""

    async def handler() -> str:
        if not waits:
            raise asyncio.CancelledError
        task = asyncio.create_task(hang())
        task.cancel()
        return await task

    exchange = Exchange(handler)
    with pytest.raises(asyncio.CancelledError):
        await exchange.run()

    assert exchange.sent == []


async def test_what_a_server_can_not_receive_ends_the_request() -> None:
    """With the server's own exception."""
    exchange = Exchange(hang)
    exchange.incoming.put_nowait(OSError("on purpose"))

    with pytest.raises(OSError, match="on purpose"):
        await exchange.run()


async def test_a_function_that_is_not_async_runs_in_a_thread() -> None:
    """As Quart does it."""
    threads = []

    def handler() -> str:
        threads.append(threading.current_thread())
        return "Hello"

    exchange = Exchange(handler)  # type: ignore[arg-type]  # Quart takes both
    await exchange.run()

    assert exchange.sent[1]["body"] == b"Hello"
    assert threads != [threading.main_thread()]


async def test_a_stream_is_sent_as_it_comes() -> None:
    """In as many messages as it has parts, and one for the end."""

    async def handler() -> Any:
        async def parts() -> Any:
            yield b"one"
            yield b"two"

        return parts(), 200

    exchange = Exchange(handler)
    await exchange.run()

    assert [message.get("body") for message in exchange.sent[1:]] == [b"one", b"two", b""]
