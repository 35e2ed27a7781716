"""Endpoints that fail or respond slowly on purpose, to show how this is traced. Served only if FAULTS=true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from pydantic import BaseModel, Field
from quart import Blueprint, Response, current_app
from quart_schema import document_response, validate_querystring
from werkzeug.exceptions import default_exceptions

from hello_service.api.openapi import TEXT, example, problems, response
from hello_service.problems import Invalid, Problem

faults = Blueprint("faults", __name__, url_prefix="/api/faults")


class Fault(RuntimeError):  # noqa: N818 - the name appears on the span
    """The exception that these endpoints raise."""


class SecondsQuery(BaseModel):
    seconds: float = Field(1.0, ge=0, le=600)


class DelayedResponse(BaseModel):
    seconds: float


class AcceptedResponse(BaseModel):
    status: Literal["accepted"]


@faults.get("/error")
@problems(Problem)
async def fail() -> str:
    """Raise an unhandled exception, so the response is a 500."""
    raise Fault("this endpoint always fails")


@faults.get("/status/<int:code>")
@example(code=503)
@problems(Problem)
async def fail_with_status(code: int) -> str:
    """Respond with an error status: 400, 404, 503 and so on."""
    if code not in default_exceptions:
        raise Invalid("No such error status.", [{"field": "code", "reason": "must be an HTTP error status"}])
    raise default_exceptions[code]


@faults.get("/slow")
@example(seconds=1)
@document_response(DelayedResponse)
@validate_querystring(SecondsQuery)
async def wait(query_args: SecondsQuery) -> dict[str, float]:
    """Respond after `seconds`."""
    await asyncio.sleep(query_args.seconds)
    return {"seconds": query_args.seconds}


@faults.get("/stream")
@response({"text/plain": TEXT})
async def break_stream() -> Response:
    """Raise an exception in the middle of the response."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"the first part\n"
        raise Fault("this stream always breaks")

    return Response(parts(), content_type="text/plain")


@faults.get("/background")
@example(seconds=1)
@document_response(AcceptedResponse, 202)
@validate_querystring(SecondsQuery)
async def fail_later(query_args: SecondsQuery) -> tuple[dict[str, str], int]:
    """Respond with 202 at once, then fail in a background task after `seconds`."""

    async def work() -> None:
        await asyncio.sleep(query_args.seconds)
        raise Fault("this background task always fails")

    current_app.add_background_task(work)
    return {"status": "accepted"}, 202
