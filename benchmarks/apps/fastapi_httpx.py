"""FastAPI on uvicorn, and httpx with its defaults. ddtrace has an integration for FastAPI."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel


class Greeting(BaseModel):
    message: str


class UpstreamResponse(BaseModel):
    status: int
    body: Any


class RelayResponse(BaseModel):
    answers: list[UpstreamResponse]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient() as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/api/hello")
async def hello(name: str = "World") -> Greeting:
    return Greeting(message=f"Hello, {name}!")


@app.get("/api/relay")
async def relay(request: Request, count: Annotated[int, Query(ge=1, le=20)] = 1) -> RelayResponse:
    client: httpx.AsyncClient = request.app.state.client
    responses = await asyncio.gather(*(client.get(os.environ["UPSTREAM_URL"]) for _ in range(count)))
    answers = [UpstreamResponse(status=response.status_code, body=response.json()) for response in responses]
    return RelayResponse(answers=answers)
