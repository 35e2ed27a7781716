"""GET /health (alive), GET /ready (may take traffic)."""

from __future__ import annotations

from quart import Blueprint, current_app

probes = Blueprint("probes", __name__)


@probes.get("/health")
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "ok"}


@probes.get("/ready")
async def ready() -> tuple[dict[str, str], int]:
    """Say whether this process may take traffic: 503 as soon as it is stopping."""
    if current_app.extensions["lifecycle"].stopping:
        return {"status": "stopping"}, 503
    return {"status": "ready"}, 200
