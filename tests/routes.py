"""Endpoints for the tests of everything but the endpoints, so that these tests don't depend on what the service serves.

They have the paths of the demo and are served in its place.
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
faults = Blueprint("failing", __name__, url_prefix="/api/faults")
ENDPOINTS = (routes, faults)

LENGTH = 200
JSON_OBJECT: Mapping[str, Any] = {"application/json": {"type": "object"}}


class Names(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=LENGTH)] = "World"


class Posted(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=LENGTH, pattern=r"^[^\x00-\x1f]*$")]


class Count(BaseModel):
    count: int = Field(3, ge=1, le=20)


class Seconds(BaseModel):
    seconds: float = Field(1.0, ge=0, le=600)


class Message(BaseModel):
    message: str


@routes.get("/hello")
@example(name="Ada")
@validate_querystring(Names)
@validate_response(Message)
async def queried(query_args: Names) -> Message:
    """Return a message for the `name` of the query."""
    return Message(message=f"Hello, {query_args.name}!")


@routes.post("/hello")
@validate_request(Posted)
@validate_response(Message)
async def posted(data: Posted) -> Message:
    """Return a message for the `name` of the body."""
    return Message(message=f"Hello, {data.name}!")


@routes.get("/hello/<name>")
@example(name="Ada")
@problems(Invalid)
@validate_response(Message)
async def named(name: str) -> Message:
    """Return a message for the name of the path."""
    if not name.isprintable():
        raise Invalid("The name can't be used.", [{"field": "name", "reason": "must be printable"}])
    return Message(message=f"Hello, {name}!")


@routes.get("/hello/stream")
@response({"text/event-stream": {"description": "events whose data is a number"}})
@validate_querystring(Count)
async def stream(query_args: Count) -> Response:
    """Send `count` events, a tenth of a second apart."""

    async def events() -> AsyncIterator[bytes]:
        for number in range(query_args.count):
            yield f"data: {number}\n\n".encode()
            await asyncio.sleep(0.1 if number + 1 < query_args.count else 0)

    streamed = Response(events(), content_type="text/event-stream")
    streamed.timeout = None
    return streamed


@routes.websocket("/hello/ws")
async def echo() -> None:
    """Send a message for each text."""
    await websocket.accept()
    while True:
        message = await websocket.receive()
        usable = isinstance(message, str) and 1 <= len(message) <= LENGTH and message.isprintable()
        await websocket.send(f"Hello, {message!s}!" if usable else f"Send 1 to {LENGTH} printable characters, as text.")


@routes.get("/relay")
@example(count=3)
@response(JSON_OBJECT)
@problems(UpstreamFailed, UpstreamSaturated, UpstreamTimeout)
@validate_querystring(Count)
async def call(query_args: Count) -> dict[str, Any]:
    """Call the upstream, or `/api/hello` here, `count` times at once."""
    settings = services().settings
    host, port = request.scope["server"] or ("", 0)
    own = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    url = settings.upstream_url or f"{own}/api/hello"
    peer = settings.upstream_service or (None if settings.upstream_url else settings.dd_service)
    try:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(services().upstream.get(url, peer)) for _ in range(query_args.count)]
    except* Problem as failed:
        problem = failed.exceptions[0]
    else:
        return {"answers": [call.result().status for call in calls]}
    raise problem


@faults.get("/error")
@problems(Problem)
async def fail() -> str:
    """Raise an exception that nothing handles."""
    raise RuntimeError("this endpoint always fails")


@faults.get("/status/<int:code>")
@problems(Problem)
async def status(code: int) -> str:
    """Respond with an error status."""
    if code not in default_exceptions:
        raise Invalid("No error status.", [{"field": "code", "reason": "must be an error status"}])
    raise default_exceptions[code]


@faults.get("/slow")
@response(JSON_OBJECT)
@validate_querystring(Seconds)
async def wait(query_args: Seconds) -> dict[str, float]:
    """Respond after `seconds`."""
    await asyncio.sleep(query_args.seconds)
    return {"seconds": query_args.seconds}


@faults.get("/stream")
@response({"text/plain": TEXT})
async def break_off() -> Response:
    """Break off in the middle of a response."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"the first part\n"
        raise RuntimeError("this stream always breaks")

    return Response(parts(), content_type="text/plain")


@faults.get("/background")
@response(JSON_OBJECT, 202)
@validate_querystring(Seconds)
async def fail_later(query_args: Seconds) -> tuple[dict[str, str], int]:
    """Respond at once, and fail after `seconds`."""

    async def work() -> None:
        await asyncio.sleep(query_args.seconds)
        raise RuntimeError("this background task always fails")

    current_app.add_background_task(work)
    return {"status": "accepted"}, 202
