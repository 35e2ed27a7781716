"""Endpoints that replace the demo's, at the same paths.

Tests use them so that they don't depend on the demo. The exceptions are the tests of the demo's own endpoints and some
in tests/peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field
from quart import Blueprint, Response, current_app, request, websocket
from quart_schema import validate_querystring, validate_request, validate_response
from werkzeug.exceptions import default_exceptions

from hello_service.api.openapi import TEXT, example, problems, response
from hello_service.api.services import services
from hello_service.problems import Invalid, Problem, UpstreamFailed, UpstreamSaturated, UpstreamTimeout

routes = Blueprint("routes", __name__, url_prefix="/api")
faults = Blueprint("faults", __name__, url_prefix="/api/faults")
ENDPOINTS = (routes, faults)

# The endpoints have different rules for a name, so that tests can provoke each kind of rejection: by the schema of the
# query (length) or of the body (length and pattern), by the handler (path), and by a message (WebSocket).
MAX_NAME_LENGTH = 200
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f]*$"
JSON_OBJECT: Mapping[str, Any] = {"application/json": {"type": "object"}}


class NameQuery(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)] = "World"


class NameRequest(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=NO_CONTROL_CHARACTERS)]


class CountQuery(BaseModel):
    count: int = Field(3, ge=1, le=20)


class SecondsQuery(BaseModel):
    seconds: float = Field(1.0, ge=0, le=600)


class Message(BaseModel):
    message: str


@routes.get("/hello")
@example(name="Ada")
@validate_querystring(NameQuery)
@validate_response(Message)
async def query_message(query_args: NameQuery) -> Message:
    """Return a message for the `name` in the query."""
    return Message(message=f"Hello, {query_args.name}!")


@routes.post("/hello")
@validate_request(NameRequest)
@validate_response(Message)
async def body_message(data: NameRequest) -> Message:
    """Return a message for the `name` in the body."""
    return Message(message=f"Hello, {data.name}!")


@routes.get("/hello/<name>")
@example(name="Ada")
@problems(Invalid)
@validate_response(Message)
async def path_message(name: str) -> Message:
    """Return a message for the name in the path."""
    if not name.isprintable():
        raise Invalid("The name can't be used.", [{"field": "name", "reason": "must be printable"}])
    return Message(message=f"Hello, {name}!")


@routes.get("/hello/stream")
@response({"text/event-stream": {"description": "events whose data is a number"}})
@validate_querystring(CountQuery)
async def stream(query_args: CountQuery) -> Response:
    """Send `count` events, a tenth of a second apart."""

    async def events() -> AsyncIterator[bytes]:
        for number in range(query_args.count):
            if number > 0:
                await asyncio.sleep(0.1)
            yield f"data: {number}\n\n".encode()

    streaming = Response(events(), content_type="text/event-stream")
    streaming.timeout = None  # otherwise Quart ends the stream after RESPONSE_TIMEOUT
    return streaming


@routes.websocket("/hello/ws")
async def echo() -> None:
    """Send a message for each received name, or a hint if the received message can't be a name."""
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if isinstance(message, str) and 1 <= len(message) <= MAX_NAME_LENGTH and message.isprintable():
            await websocket.send(f"Hello, {message}!")
        else:
            await websocket.send(f"Send 1 to {MAX_NAME_LENGTH} printable characters, as text.")


@routes.get("/relay")
@example(count=3)
@response(JSON_OBJECT)
@problems(UpstreamFailed, UpstreamSaturated, UpstreamTimeout)
@validate_querystring(CountQuery)
async def call(query_args: CountQuery) -> dict[str, Any]:
    """Call the upstream, or this service's own `/api/hello`, `count` times concurrently."""
    settings = services().settings
    if settings.upstream_url:
        url, peer_service = settings.upstream_url, settings.upstream_service
    else:
        host, port = request.scope["server"] or ("", 0)  # None on a Unix socket, on which no test serves
        own_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        url, peer_service = f"{own_url}/api/hello", settings.upstream_service or settings.dd_service
    try:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(services().upstream.get(url, peer_service)) for _ in range(query_args.count)]
    except* Problem as failed:
        problem = failed.exceptions[0]
    else:
        return {"answers": [task.result().body for task in calls]}
    raise problem  # not within `except*`, which would put it into an exception group


@faults.get("/error")
@problems(Problem)  # any error status
async def fail() -> str:
    """Raise an exception that nothing handles."""
    raise RuntimeError("this endpoint always fails")


@faults.get("/status/<int:code>")
@problems(Problem)  # any error status
async def status(code: int) -> str:
    """Respond with an error status."""
    if code not in default_exceptions:
        raise Invalid("The code is not an error status.", [{"field": "code", "reason": "must be an error status"}])
    raise default_exceptions[code]


@faults.get("/slow")
@response(JSON_OBJECT)
@validate_querystring(SecondsQuery)
async def wait(query_args: SecondsQuery) -> dict[str, float]:
    """Respond after `seconds`."""
    await asyncio.sleep(query_args.seconds)
    return {"seconds": query_args.seconds}


@faults.get("/stream")
@response({"text/plain": TEXT})
async def break_off() -> Response:
    """Send the first part of a response, and then fail."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"the first part\n"
        raise RuntimeError("this stream always breaks")

    return Response(parts(), content_type="text/plain")


@faults.get("/background")
@response(JSON_OBJECT, 202)
@validate_querystring(SecondsQuery)
async def fail_later(query_args: SecondsQuery) -> tuple[dict[str, str], int]:
    """Respond at once, and fail after `seconds`."""

    async def work() -> None:
        await asyncio.sleep(query_args.seconds)
        raise RuntimeError("this background task always fails")

    current_app.add_background_task(work)
    return {"status": "accepted"}, 202
