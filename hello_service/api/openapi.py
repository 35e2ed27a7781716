"""Decorators for what quart-schema can't declare: a handler's problems, its responses without a model, and examples.

The declarations appear in /openapi.json, on `/` and on `/docs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from quart import current_app
from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import Rule

from hello_service.problems import MEDIA_TYPE, Problem

Handler = TypeVar("Handler", bound=Callable[..., Any])
Schema = Mapping[str, Any]

# The attributes of a handler that hold its declarations.
PROBLEMS, RESPONSES, EXAMPLE = "_problems", "_responses", "_example"

TEXT: Schema = {"type": "string"}
ERRORS_OF_ANY_REQUEST = (400, 414, 431, 500, 503)  # a malformed or too large head, an internal error, shutdown
ERRORS_OF_A_BODY = (408, 413, 415)  # a body that arrives too slowly, is too large, or has the wrong media type

MEANINGS = {
    "200": "The request succeeded.",
    "202": "The request was accepted and is still being worked on.",
    "400": "The request is malformed.",
    "404": "No resource has this path.",
    "408": "The body took too long to arrive.",
    "413": "The body is too large.",
    "414": "The path and query are too long.",
    "415": "The content type of the body is not supported.",
    "422": "A parameter or the body is not valid; `errors` lists the invalid fields and the reasons.",
    "431": "The request's headers are too large.",
    "500": "Internal error. Quote the trace id when reporting it.",
    "502": "The upstream service failed.",
    "503": "The service is stopping or overloaded. Retry after a moment.",
    "504": "The upstream service took too long.",
    "default": "Any error.",
}

PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string", "pattern": "^urn:hello-service:problem:[a-z-]+$"},
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "pattern": "[.]$"},
        "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": TEXT, "reason": TEXT},
                "required": ["field", "reason"],
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


def problems(*kinds: type[Problem]) -> Callable[[Handler], Handler]:
    """Declare the problems that a handler raises. `Problem` itself means any error status.

    Problems that any request can cause need no declaration, nor do those of a query, a path variable or a body.
    """
    return _declare(PROBLEMS, kinds)


def response(content: Mapping[str, Schema], status: int = 200) -> Callable[[Handler], Handler]:
    """Declare a response without a model: the JSON schema of each of its media types.

    A response with a model is declared by quart-schema's `validate_response` or `document_response`.
    """
    return _declare(RESPONSES, {status: content})


def example(**values: object) -> Callable[[Handler], Handler]:
    """Declare example values of path variables and query parameters for the handler's link on `/`."""
    return _declare(EXAMPLE, values)


def _declare(attribute: str, value: object) -> Callable[[Handler], Handler]:
    def decorate(handler: Handler) -> Handler:
        setattr(handler, attribute, value)
        return handler

    return decorate


def summary(handler: Callable[..., Any]) -> str:
    """Return the first line of the handler's docstring."""
    docstring = inspect.getdoc(handler) or "Return the OpenAPI document."  # quart-schema's own handler has none
    return docstring.partition("\n")[0]


class ProblemOpenAPIProvider(OpenAPIProvider):
    """Adds problems, and responses without a model, to quart-schema's description of each route."""

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        paths, components = super().build_paths(rule)
        components["Problem"] = PROBLEM
        handler = current_app.view_functions[rule.endpoint]
        operations = [operation for path in paths.values() for operation in path.values()]
        for operation in operations:
            # quart-schema's keys are integers.
            responses = {str(status): details for status, details in operation["responses"].items()}
            operation["responses"] = responses
            for declared_status, content in getattr(handler, RESPONSES, {}).items():
                responses[str(declared_status)] = _describe_response(str(declared_status), content)
            for status in _error_statuses(rule, operation, getattr(handler, PROBLEMS, ())):
                error = responses.setdefault(status, _describe_response(status, {}))
                error["content"][MEDIA_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
            for status, details in responses.items():
                details["description"] = details["description"] or _meaning(status)
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True  # OpenAPI's default is false
        return paths, components


def _describe_response(status: str, content: Mapping[str, Schema]) -> dict[str, Any]:
    return {
        "description": _meaning(status),
        "content": {media: {"schema": schema} for media, schema in content.items()},
    }


def _meaning(status: str) -> str:
    return MEANINGS.get(status) or f"{HTTPStatus(int(status)).phrase}."


def _error_statuses(rule: Rule, operation: Mapping[str, Any], declared: tuple[type[Problem], ...]) -> Iterator[str]:
    """Yield the error statuses of an operation: first `default`, if the handler may respond with any error status."""
    statuses = {*ERRORS_OF_ANY_REQUEST, *(kind.status for kind in declared if kind is not Problem)}
    if operation["parameters"] or "requestBody" in operation:
        statuses.add(422)
    if "requestBody" in operation:
        statuses.update(ERRORS_OF_A_BODY)
    if rule.arguments:
        statuses.add(404)
    if Problem in declared:
        yield "default"
    yield from map(str, sorted(statuses))
