"""What /openapi.json says beside what quart-schema reads off the handlers: errors, and answers that have no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import Rule

from hello_service.problems import MEDIA_TYPE

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
SECONDS: Schema = {"type": "object", "properties": {"seconds": {"type": "number"}}, "required": ["seconds"]}


def state(word: str) -> Schema:
    return {"type": "object", "properties": {"status": {"const": word}}, "required": ["status"]}


ANSWERS: Mapping[str, Mapping[int, Mapping[str, Schema]]] = {
    "/": {200: {"application/json": OBJECT, "text/html": TEXT}},
    "/api/hello/stream": {200: {"text/event-stream": {"description": "events whose data is a greeting"}}},
    "/health": {200: {"application/json": state("ok")}},
    "/ready": {200: {"application/json": state("ready")}, 503: {"application/json": state("stopping")}},
    "/info": {200: {"application/json": OBJECT}},
    "/api/faults/slow": {200: {"application/json": SECONDS}},
    "/api/faults/stream": {200: {"text/plain": TEXT}},
    "/api/faults/background": {202: {"application/json": state("accepted")}},
}
ANYWHERE = (400, 431, 500, 503)  # a bad or too large head, our own mistake, the end of the process
OF_A_BODY = (408, 413, 415)
OF_THE_UPSTREAM = (502, 504)

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


class Described(OpenAPIProvider):
    """quart-schema's, complete."""

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """Build what is said of `rule`."""
        paths, components = super().build_paths(rule)
        components["Problem"] = PROBLEM
        for operation in (operation for path in paths.values() for operation in path.values()):
            operation["responses"] = responses = {str(status): said for status, said in operation["responses"].items()}
            for status, content in ANSWERS.get(rule.rule, {}).items():
                responses[str(status)] = _response(str(status), content)
            for key in _errors(rule, operation):
                said = responses.setdefault(key, _response(key, {}))
                said["content"][MEDIA_TYPE] = {"schema": {"$ref": "#/components/schemas/Problem"}}
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
        return paths, components


def _response(key: str, content: Mapping[str, Schema]) -> dict[str, Any]:
    said = HTTPStatus(int(key)).phrase if key.isdigit() else "Any error"
    return {"description": said, "content": {media: {"schema": schema} for media, schema in content.items()}}


def _errors(rule: Rule, operation: Mapping[str, Any]) -> Iterator[str]:
    statuses = {*ANYWHERE}
    if operation["parameters"] or "requestBody" in operation:
        statuses |= {422}
    if "requestBody" in operation:
        statuses |= {*OF_A_BODY}
    if rule.arguments:
        statuses |= {404}
    if rule.rule == "/api/relay":
        statuses |= {*OF_THE_UPSTREAM}
    if rule.rule == "/api/faults/status/<int:code>":
        yield "default"
    yield from map(str, sorted(statuses))
