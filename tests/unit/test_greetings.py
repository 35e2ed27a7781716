"""Tests of the demo endpoints under /api/hello."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from in_process import problem, serving
from quart.typing import TestClientProtocol as Client  # pytest would collect a class whose name starts with "Test"

from hello_service.settings import Settings


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(Settings()) as client:
        client.app.testing = False  # errors become responses, as in production
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/api/hello?name=",
        "/api/hello?name=" + "x" * 201,  # the limit is 200 characters
        "/api/hello?name=a%00b",
        "/api/hello/" + "x" * 201,
        "/api/hello/a%07",
        "/api/hello/stream?count=abc",
        "/api/hello/stream?count=21",  # the limit is 20
    ],
)
async def test_an_unusable_name_or_count_is_422(client: Client, path: str) -> None:
    """The problem document also contains the field and the reason."""
    response = await client.get(path)
    document = await response.get_json(force=True)

    assert problem(response, document) == (422, "invalid")
    (error,) = document["errors"]
    assert error["field"] in {"name", "count"}
    assert error["reason"]


@pytest.mark.parametrize("name", [1, "", "\0", "\ud800", "x" * 201])
async def test_an_unusable_posted_name_is_422(client: Client, name: object) -> None:
    response = await client.post("/api/hello", json={"name": name})

    assert problem(response, await response.get_json(force=True)) == (422, "invalid")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/hello", "Hello, World!"),
        ("/api/hello?name=Ada", "Hello, Ada!"),
        ("/api/hello/Ada", "Hello, Ada!"),
        ("/api/hello?name=%C3%85sa", "Hello, Åsa!"),
        ("/api/hello?name=" + "x" * 200, f"Hello, {'x' * 200}!"),
    ],
)
async def test_a_greeting_has_the_requested_name(client: Client, path: str, message: str) -> None:
    """The name is in the query or in the path, and defaults to World."""
    response = await client.get(path)

    assert (response.status_code, await response.get_json()) == (200, {"message": message})


async def test_a_greeting_has_the_posted_name(client: Client) -> None:
    response = await client.post("/api/hello", json={"name": "Ada"})

    assert (response.status_code, await response.get_json()) == (200, {"message": "Hello, Ada!"})


async def test_a_stream_sends_one_event_for_each_greeting(client: Client) -> None:
    response = await client.get("/api/hello/stream?count=2")

    assert response.content_type == "text/event-stream"
    assert await response.get_data(as_text=True) == (
        'data: {"message":"Hello, World 1!"}\n\ndata: {"message":"Hello, World 2!"}\n\n'
    )


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ("Ada", "Hello, Ada!"),
        ("", "The name must have 1 to 200 characters, got 0."),
        (b"Ada", "The name must be sent as text."),
    ],
)
async def test_a_websocket_responds_to_each_message(client: Client, message: str | bytes, reply: str) -> None:
    """The reply is a greeting or an error message. The WebSocket stays open."""
    async with client.websocket("/api/hello/ws") as socket:
        for _ in range(2):
            await socket.send(message)
            assert await socket.receive() == reply
