"""GET /health (the process is alive), GET /ready (it accepts traffic)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from quart import Blueprint
from quart_schema import document_response

from hello_service.api.services import services

probes = Blueprint("probes", __name__)


class Alive(BaseModel):
    status: Literal["ok"]


class Ready(BaseModel):
    status: Literal["ready"]


class Stopping(BaseModel):
    status: Literal["stopping"]


@probes.get("/health")
@document_response(Alive)
async def health() -> dict[str, str]:
    """Report that the process is alive."""
    return {"status": "ok"}


@probes.get("/ready")
@document_response(Ready)
@document_response(Stopping, 503)
async def ready() -> tuple[dict[str, str], int]:
    """Report whether this process accepts traffic: 503 once it is stopping."""
    if services().lifecycle.stopping:
        return {"status": "stopping"}, 503
    return {"status": "ready"}, 200
