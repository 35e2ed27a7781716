"""GET and POST /api/hello, its stream and its WebSocket."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from quart import Blueprint, Response, stream_with_context, websocket
from quart_schema import validate_querystring, validate_request, validate_response

from hello_service.api.openapi import example, problems, response
from hello_service.problems import Invalid

greeting = Blueprint("greeting", __name__, url_prefix="/api/hello")

STREAM_INTERVAL_SECONDS = 0.1
MAX_NAME_LENGTH = 200


def check_name(name: str) -> str:
    """Return `name` if it is valid: 1 to 200 characters, none of them a control character or a lone surrogate.

    Raises:
        ValueError: the name is invalid; the message has the reason.
    """
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"must have 1 to {MAX_NAME_LENGTH} characters, got {len(name)}")
    # Cc: control characters. Cs: lone surrogates, which UTF-8 can't encode.
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise ValueError("must not contain control characters")
    return name


def check_text(message: object) -> str:
    """Return the WebSocket `message` if it is text and a valid name.

    Raises:
        ValueError: as in `check_name`.
    """
    if not isinstance(message, str):
        raise ValueError("must be sent as text")  # noqa: TRY004 - handled like the ValueError of `check_name`
    return check_name(message)


# `check_name` checks the length; `Field` only adds it to the OpenAPI document.
Name = Annotated[
    str, AfterValidator(check_name), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_NAME_LENGTH})
]


class GreetingQuery(BaseModel):
    name: Name = "World"


class GreetingRequest(BaseModel):
    name: Name


class CountQuery(BaseModel):
    count: int = Field(3, ge=1, le=20)


class Greeting(BaseModel):
    message: str


def greet(name: str) -> Greeting:
    return Greeting(message=f"Hello, {name}!")


@greeting.get("")
@example(name="Ada")
@validate_querystring(GreetingQuery)
@validate_response(Greeting)
async def hello(query_args: GreetingQuery) -> Greeting:
    """Greet the name in the query, or the World."""
    return greet(query_args.name)


@greeting.post("")
@validate_request(GreetingRequest)
@validate_response(Greeting)
async def hello_posted(data: GreetingRequest) -> Greeting:
    """Greet the name in the body."""
    return greet(data.name)


@greeting.get("/<name>")
@example(name="Ada")
@problems(Invalid)
@validate_response(Greeting)
async def hello_named(name: str) -> Greeting:
    """Greet the name in the path."""
    try:
        return greet(check_name(name))
    except ValueError as error:
        raise Invalid("The name is not valid.", [{"field": "name", "reason": str(error)}]) from error


@greeting.get("/stream")
@example(count=3)
@response({"text/event-stream": {"description": "events whose data is a greeting"}})
@validate_querystring(CountQuery)
async def hello_stream(query_args: CountQuery) -> Response:
    """Send `count` greetings as server-sent events, a tenth of a second apart."""

    @stream_with_context
    async def events() -> AsyncIterator[bytes]:
        for number in range(1, query_args.count + 1):
            if number > 1:
                await asyncio.sleep(STREAM_INTERVAL_SECONDS)
            yield f"data: {greet(f'World {number}').model_dump_json()}\n\n".encode()

    return Response(events(), content_type="text/event-stream")


@greeting.websocket("/ws")
async def hello_websocket() -> None:
    """Respond to each text message with a greeting, or with the reason why the name is invalid."""
    await websocket.accept()
    while True:
        message = await websocket.receive()
        try:
            await websocket.send(greet(check_text(message)).message)
        except ValueError as error:
            await websocket.send(f"The name {error}.")
