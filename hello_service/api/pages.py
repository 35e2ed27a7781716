"""GET / and GET /docs: the pages for a browser. Both are generated from the routes, and work offline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

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
        unlinked = [(method, rule.rule, text) for rule, text in _routes() if (method := _method_without_link(rule))]
        return await render_template("index.html", settings=settings, links=links.items(), unlinked=unlinked)
    document: dict[str, Any] = {"service": settings.dd_service, "version": settings.dd_version, "links": links}
    if settings.local_view_url is not None:
        document["traces"] = settings.local_view_url
    return jsonify(document)


@pages.get("/docs")
@hide
async def docs() -> str:
    """Describe the API on a page that needs no network."""
    api = current_app.extensions["QUART_SCHEMA"].openapi_provider.schema()
    websockets = [(rule.rule, text) for rule, text in _routes() if rule.websocket]
    return await render_template("docs.html", api=api, websockets=websockets, sample=_sample, command=_command)


def _method_without_link(rule: Rule) -> str | None:
    """Return the method of a route that a link can't reach, or None if a link can."""
    if rule.websocket:
        return "WebSocket"
    methods = rule.methods or set()
    if "GET" in methods:
        return None
    return min(methods - {"HEAD", "OPTIONS"})  # the first in alphabetical order


def _sample(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """Return an example value for `schema`. A `$ref` in it refers to one of the named `schemas`."""
    if "$ref" in schema:
        return _sample(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if schema.get("type") == "object":
        return {name: _sample(field, schemas) for name, field in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_sample(schema["items"], schemas)]
    number = schema.get("minimum", 1)
    by_type = {"integer": number, "number": number, "string": schema.get("title", "text").lower()}
    fallback = by_type.get(schema.get("type", ""))
    return schema.get("const", schema.get("default", fallback))


def _command(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return a curl command line that calls an operation of the API."""

    def samples(location: str) -> dict[str, Any]:
        parameters = [parameter for parameter in operation["parameters"] if parameter["in"] == location]
        return {parameter["name"]: _sample(parameter["schema"], schemas) for parameter in parameters}

    arguments = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        arguments += ["-H", f"content-type: {media}", "-d", json.dumps(_sample(body["schema"], schemas))]
    url = request.host + path.format(**samples("path"))
    if query := urlencode(samples("query")):
        url += f"?{query}"
    return shlex.join([*arguments, url])


def _links() -> Iterator[tuple[str, str]]:
    """Yield URL and summary of each route that a link can reach. A route with a variable needs an `@example`."""
    for rule, text in _routes():
        values = getattr(current_app.view_functions[rule.endpoint], EXAMPLE, {})
        if "GET" in (rule.methods or ()) and not rule.websocket and rule.arguments <= values.keys():
            yield url_for(rule.endpoint, **values), text


def _routes() -> Iterator[tuple[Rule, str]]:
    """Yield each route and its summary, without the page `/` itself."""
    for rule in current_app.url_map.iter_rules():
        if rule.endpoint != "pages.index":
            yield rule, summary(current_app.view_functions[rule.endpoint])
