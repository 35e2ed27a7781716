"""Tests of the requests in flight, and of how they end when the process stops."""

from __future__ import annotations

import asyncio
import json

import pytest

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send
from hello_service.middleware.in_flight import Lifecycle

TRACE_ID = "1" * 32


class Exchange:
    """One request to a `Lifecycle` around `app`, and the messages of its response."""

    def __init__(self, app: ASGIApp, scope_type: str = "http", http_version: str = "1.1") -> None:
        self.lifecycle = Lifecycle(app, trace_id=lambda: TRACE_ID)
        self.scope: Scope = {"type": scope_type, "http_version": http_version}
        self.messages: list[Message] = []

    async def run(self) -> None:
        async def receive() -> Message:
            return {}

        async def send(message: Message) -> None:
            self.messages.append(message)

        await self.lifecycle(self.scope, receive, send)


async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def hang(_scope: Scope, _receive: Receive, _send: Send) -> None:
    await asyncio.Event().wait()


async def start_and_hang(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await asyncio.Event().wait()


async def cancel_hanging_request(exchange: Exchange) -> str:
    """Let the lifecycle cancel a hanging request, and return the text of the exception that the request raises."""
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0)  # lets the request start
    assert exchange.lifecycle.in_flight == 1
    exchange.lifecycle.cancel("too late")
    with pytest.raises(asyncio.CancelledError) as error:
        await task
    return str(error.value)


async def test_a_response_keeps_the_connection_open_while_the_process_serves() -> None:
    exchange = Exchange(respond)
    await exchange.run()

    assert exchange.messages[0]["headers"] == []
    assert exchange.lifecycle.in_flight == 0


@pytest.mark.parametrize(("version", "headers"), [("1.1", [(b"connection", b"close")]), ("2", [])])
async def test_a_response_of_a_stopping_process_closes_the_connection(
    version: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """RFC 9113, section 8.2.2, forbids this header in HTTP/2, which closes connections in its own way."""
    exchange = Exchange(respond, http_version=version)
    exchange.lifecycle.stopping = True
    await exchange.run()

    assert exchange.messages[0]["headers"] == headers


async def test_an_overdue_request_is_a_503() -> None:
    """The problem document contains the trace id. The exception with the reason propagates to the span."""
    exchange = Exchange(hang)
    reason = await cancel_hanging_request(exchange)
    start, body = exchange.messages

    assert reason == "too late"
    assert start["status"] == 503
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert json.loads(body["body"])["type"] == "urn:hello-service:problem:stopping"
    assert json.loads(body["body"])["trace_id"] == TRACE_ID
    assert exchange.lifecycle.in_flight == 0


async def test_an_overdue_response_is_cut_off() -> None:
    """The response can't become a 503, because its status was already sent."""
    exchange = Exchange(start_and_hang)
    await cancel_hanging_request(exchange)

    assert [message["type"] for message in exchange.messages] == ["http.response.start"]


async def test_an_overdue_websocket_is_closed_with_a_reason() -> None:
    """The close code is 1012, service restart."""
    exchange = Exchange(hang, scope_type="websocket")
    await cancel_hanging_request(exchange)

    assert exchange.messages == [{"type": "websocket.close", "code": 1012, "reason": "the server is stopping"}]


async def test_a_request_that_is_canceled_for_another_reason_gets_no_response() -> None:
    """The client disconnected, so no response can reach it."""
    exchange = Exchange(hang)
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert exchange.messages == []


async def test_the_lifespan_is_not_a_request() -> None:
    """The lifespan lasts as long as the process."""
    exchange = Exchange(hang, scope_type="lifespan")
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0)

    assert exchange.lifecycle.in_flight == 0
    task.cancel()
