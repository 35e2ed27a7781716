"""The pages for a browser, GET / and GET /docs. Both are generated from the routes, and work offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quart import Blueprint, Response, current_app, jsonify, render_template, request, url_for
from quart_schema import hide
from werkzeug.routing import Rule

from hello_service.api.openapi import EXAMPLE, TEXT, response, summary
from hello_service.api.services import services

pages = Blueprint("pages", __name__, template_folder="templates")


@pages.get("/")
@response({"application/json": {"type": "object"}, "text/html": TEXT})
async def index() -> Response | str:
    """Link to every endpoint: a page for a browser, JSON for any other client."""
    settings, links = services().settings, dict(_links())
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return await render_template("index.html", settings=settings, links=links.items())
    shown: dict[str, Any] = {"service": settings.dd_service, "version": settings.dd_version, "links": links}
    if settings.local_view_url is not None:
        shown["traces"] = settings.local_view_url
    return jsonify(shown)


@pages.get("/docs")
@hide
async def docs() -> str:
    """Describe the API on a page that needs no network."""
    api = current_app.extensions["QUART_SCHEMA"].openapi_provider.schema()
    websockets = [(rule.rule, what) for rule, what in _routes() if rule.websocket]
    return await render_template("docs.html", api=api, websockets=websockets)


def _links() -> Iterator[tuple[str, str]]:
    """Yield URL and description of each route that a GET reaches; one with a variable needs an `@example`."""
    for rule, what in _routes():
        values = getattr(current_app.view_functions[rule.endpoint], EXAMPLE, {})
        if "GET" in (rule.methods or ()) and not rule.websocket and rule.arguments <= values.keys():
            yield url_for(rule.endpoint, **values), what


def _routes() -> Iterator[tuple[Rule, str]]:
    for rule in current_app.url_map.iter_rules():
        if rule.endpoint != "pages.index":
            yield rule, summary(current_app.view_functions[rule.endpoint])
