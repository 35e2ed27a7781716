"""A response is written at once where its length is known, and otherwise as Hypercorn does it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hypercorn.asyncio
import pytest

from hello_service.serving.gate import Gate

Application = Callable[[Any, Any, Any], Awaitable[None]]
LENGTH = (b"content-length", b"5")
BODY = {"type": "http.response.body", "body": b"hello"}


def head(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    """Return the message that begins a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def sending(*messages: dict[str, Any]) -> Application:
    """Return an application that answers with `messages`."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(dict(message))

    return application


class Client:
    """Asks, and reads what the server writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, method: str = "GET", *lines: str) -> None:
        """Send a request."""
        self.writer.write("\r\n".join([f"{method} / HTTP/1.1", "Host: here", *lines, "", ""]).encode())

    async def read(self, until: bytes) -> bytes:
        """Return what comes up to `until`."""
        return await self.reader.readuntil(until)

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        return await self.reader.read()


@asynccontextmanager
async def served(application: Application, requests: int = 1000) -> AsyncIterator[Client]:
    """Serve `application` as the service is served, and connect to it; a connection is kept for so many `requests`."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    config = Gate(listener)
    config.startup_timeout = 20
    config.errorlog = None
    config.keep_alive_max_requests = requests
    stop = asyncio.Event()

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    server = asyncio.create_task(hypercorn.asyncio.serve(with_lifespan, config, shutdown_trigger=stop.wait))
    reader, writer = await asyncio.open_connection(*address)
    yield Client(reader, writer)
    writer.close()
    stop.set()
    await server


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_known_response_is_one_write(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body leave together, and a HEAD has the head alone."""
    written = []
    write = asyncio.StreamWriter.write

    def watch(self: asyncio.StreamWriter, data: bytes) -> None:
        written.append(bytes(data))
        write(self, data)

    async with served(sending(head(LENGTH), BODY)) as client:
        client.ask(method, "Connection: close")
        monkeypatch.setattr(asyncio.StreamWriter, "write", watch)
        answer = await client.rest()

    assert written == [answer]
    assert answer.startswith(b"HTTP/1.1 200 \r\ncontent-length: 5\r\n")
    assert answer.endswith(b"hello" if method == "GET" else b"close\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        (head(), {**BODY, "more_body": True}, {**BODY, "body": b""}),
        (head(LENGTH), {**BODY, "body": b"hel", "more_body": True}, {**BODY, "body": b"lo"}),
        (head(LENGTH, status=304), BODY),
    ],
    ids=["no length", "in parts", "not modified"],
)
async def test_the_next_request_is_answered_too(messages: tuple[dict[str, Any], ...]) -> None:
    """However a response was made, its connection is kept."""
    async with served(sending(*messages)) as client:
        client.ask()
        client.ask("GET", "Connection: close")
        answers = await client.rest()

    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.lower().count(b"connection: close") == 1


async def test_a_connection_is_kept_for_so_many_requests() -> None:
    """The last response says that it is, as Hypercorn's own does."""
    async with served(sending(head(LENGTH), BODY), requests=2) as client:
        client.ask()
        client.ask()
        answers = await client.rest()

    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.lower().count(b"connection: close") == 1


async def test_a_head_is_not_kept_back_from_who_waits_for_a_stream() -> None:
    """A response without a length is begun when the application begins it."""
    go_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(head())
        await go_on.wait()
        await send(BODY)

    async with served(application) as client:
        client.ask()
        assert (await client.read(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        go_on.set()
        await client.read(b"hello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("messages", "answered"),
    [
        ((head(LENGTH),), b"HTTP/1.1 200 "),
        ((head(LENGTH, (b"bad name", b"")), BODY), b"HTTP/1.1 500 "),
        ((head((b"content-length", b"6")), BODY), b"HTTP/1.1 200 "),
        ((head((b"content-length", b"x")), BODY), b"HTTP/1.1 500 "),
        ((head(LENGTH), head(LENGTH, status=500), BODY), b"HTTP/1.1 200 "),
    ],
    ids=["no body", "bad header", "wrong length", "no length", "two heads"],
)
async def test_a_broken_response_ends_its_connection(messages: tuple[dict[str, Any], ...], answered: bytes) -> None:
    """The client learns that there is no more to come, and has one answer or a part of it."""
    async with served(sending(*messages)) as client:
        client.ask()
        answer = await client.rest()

    assert answer.startswith(answered)
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_headers_may_come_from_an_iterator() -> None:
    """ASGI wants no more of them."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({**head(), "headers": iter([(b"x-first", b"1"), LENGTH])})
        await send(BODY)

    async with served(application) as client:
        client.ask("GET", "Connection: close")
        answer = await client.rest()

    assert b"x-first: 1\r\ncontent-length: 5\r\n" in answer


async def test_who_reads_nothing_gets_no_next_response() -> None:
    """A response that was given up while it waited for the client to read ends the connection."""
    body = b"x" * 8_000_000
    given_up = asyncio.Event()
    asked = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send(head((b"content-length", str(len(body)).encode())))
        try:
            async with asyncio.timeout(0.1):
                await send({**BODY, "body": body})
        except TimeoutError:
            given_up.set()

    async with served(application) as client:
        client.ask()
        client.ask()
        await given_up.wait()
        answer = await client.rest()

    assert len(asked) == 1
    assert answer.count(b"HTTP/1.1 200 ") == 1


async def test_a_response_to_a_client_that_broke_the_rules_is_dropped() -> None:
    """What the client sends after its request is no HTTP: nothing can be answered, and nothing fails."""
    failed: list[Any] = []
    asked = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        try:
            await sending(head(LENGTH), BODY)(scope, receive, send)
        except BaseException as error:
            failed.append(error)
            raise

    async with served(application) as client:
        client.ask("POST", "Transfer-Encoding: chunked")
        await asked.wait()
        client.writer.write(b"no chunk\r\n")
        answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert failed == []
