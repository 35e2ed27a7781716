"""What a browser sees: GET / and GET /docs. Both work offline."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, Response, current_app, jsonify, render_template, request
from quart_schema import hide

pages = Blueprint("pages", __name__, template_folder="templates")

LINKS = (
    ("/api/hello?name=Ada", "a greeting"),
    ("/api/hello/Ada", "the same, on a route with a variable"),
    ("/api/hello/stream?count=3", "greetings as server-sent events"),
    ("/api/relay?count=3", "three outbound calls at once, one trace"),
    ("/health", "alive?"),
    ("/ready", "may take traffic?"),
    ("/info", "versions, environment, tracing"),
    ("/docs", "the API, described"),
    ("/openapi.json", "the same for machines"),
)
FAULT_LINKS = (
    ("/api/faults/error", "an unhandled exception"),
    ("/api/faults/status/503", "an error status"),
    ("/api/faults/slow?seconds=1", "a slow answer"),
    ("/api/faults/stream", "a response that breaks off"),
    ("/api/faults/background?seconds=1", "work after the response that fails"),
)


@pages.get("/")
async def index() -> Response | str:
    """Link to everything here: a page for a browser, JSON for anything else."""
    settings = current_app.extensions["settings"]
    links = LINKS + (FAULT_LINKS if settings.faults else ())
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return await render_template("index.html", settings=settings, links=links)
    shown: dict[str, Any] = {
        "service": settings.dd_service,
        "version": settings.dd_version,
        "links": dict(links),
    }
    if settings.local_view_url is not None:
        shown["traces"] = settings.local_view_url
    return jsonify(shown)


@pages.get("/docs")
@hide
async def docs() -> str:
    """Describe the API on a page that needs no network."""
    api = current_app.extensions["QUART_SCHEMA"].openapi_provider.schema()
    return await render_template("docs.html", api=api)
