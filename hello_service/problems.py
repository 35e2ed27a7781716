"""The error tree and its responses: application/problem+json (RFC 9457). A leaf: it imports nothing of this package.

    Problem
    ├── Invalid                     422  a value has the wrong type, length or range
    ├── UpstreamFailed              502  one of these kinds:
    │   ├── UpstreamConnectError         no connection was made, so nothing was sent
    │   ├── UpstreamReadError            the connection broke before the response was complete
    │   ├── UpstreamProtocolError        the response is not valid HTTP or JSON, or is compressed
    │   ├── UpstreamTooLarge             the response is larger than the limit
    │   └── UpstreamBadStatus            a redirect or a 5xx
    ├── UpstreamSaturated           503  no connection became free, or too many calls wait for one; nothing was sent
    └── UpstreamTimeout             504  the response was not complete in time

Clients get a stable code and a sentence; exception chaining brings the cause to the log and the span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit, urlunsplit

from pydantic import ValidationError
from quart import Quart, Request, Response, request
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.routing import RequestRedirect

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - RFC 9457's own word for it
    """An error that is reported to the client.

    Args:
        detail: one sentence for the client; never the text of a foreign exception.
        fields: for Invalid, the `field` and the `reason` of each invalid field.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    headers: Mapping[str, str] = {}
    stack: ClassVar[bool] = True  # the span gets the whole traceback

    def __init__(self, detail: str, fields: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields


class Invalid(Problem):
    status = 422
    code = "invalid"


class UpstreamFailed(Problem):
    """A call to an upstream failed. Callers of `Upstream` can tell the subclasses apart; clients get one code for all."""

    status = 502
    code = "upstream-failed"


class UpstreamConnectError(UpstreamFailed): ...


class UpstreamReadError(UpstreamFailed): ...


class UpstreamProtocolError(UpstreamFailed): ...


class UpstreamTooLarge(UpstreamFailed): ...


class UpstreamBadStatus(UpstreamFailed):
    """The upstream responded with `upstream_status`, an HTTP status."""

    def __init__(self, upstream_status: int) -> None:
        super().__init__(f"The upstream responded with status {upstream_status}.")
        self.upstream_status = upstream_status


class UpstreamSaturated(Problem):
    status = 503
    code = "upstream-saturated"
    stack = False  # the traceback is always the same, and would be a fifth of the cost of a rejection

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class UpstreamTimeout(Problem):
    status = 504
    code = "upstream-late"
    stack = False  # the traceback is always the same, and a slow upstream causes many of these errors


# Code and sentence of the errors that Quart or the server responds with, by status.
HTTP_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("bad-request", "The request could not be understood."),
    403: ("forbidden", "This WebSocket is not served to this client."),
    404: ("not-found", "No resource has this path."),
    405: ("method-not-allowed", "This path does not support this method. See the Allow header."),
    408: ("request-timeout", "The request did not arrive in time."),
    413: ("too-large", "The request body is larger than this service accepts."),
    414: ("target-too-long", "The request's target is longer than this service accepts."),
    415: ("unsupported-media-type", "Send the body as application/json."),
    426: ("upgrade-required", "This service supports WebSocket version 13 only."),
    431: ("headers-too-large", "The request's headers are larger than this service accepts."),
    500: ("internal-error", "Internal error. Quote the trace id when reporting it."),
    501: ("not-implemented", "This service does not support the request's method or transfer coding."),
    505: ("version-not-supported", "This service supports HTTP/1.0 and HTTP/1.1 only."),
}

TraceId = Callable[[], str | None]


def document(
    status: int, code: str, detail: str, *, trace_id: str | None = None, fields: Sequence[Mapping[str, str]] = ()
) -> dict[str, object]:
    """Return the body of a problem, with the members of RFC 9457, section 3.

    `type` is a stable URN made of `code`. Extensions: `trace_id` (32 hexadecimal characters), and `fields` as `errors`.
    """
    problem: dict[str, object] = {
        "type": f"urn:hello-service:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if trace_id is not None:
        problem["trace_id"] = trace_id
    if fields:
        problem["errors"] = list(fields)
    return problem


class _Request(Request):
    """Quart's request. Its redirects ignore the Host header, and a body that can't be parsed as JSON causes a 400."""

    _routing_exception: Exception | None = None

    @property
    def routing_exception(self) -> Exception | None:
        """The reason why no route matched. A redirect has no host, because the client may have forged the Host header."""
        return self._routing_exception

    @routing_exception.setter
    def routing_exception(self, error: Exception | None) -> None:
        if isinstance(error, RequestRedirect):
            url = urlsplit(error.new_url)
            # A path such as //example.com would redirect to another host, so only one slash is kept.
            error.new_url = urlunsplit(("", "", f"/{url.path.lstrip('/')}", url.query, ""))
        self._routing_exception = error

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Read the body as JSON. Invalid UTF-8 (RFC 8259, section 8.1) or excessive nesting is a 400, not a 500."""
        try:
            return await super().get_json(force, silent, cache)
        except (UnicodeDecodeError, RecursionError) as error:
            return self.on_json_loading_failed(error)


def register_problem_handlers(app: Quart, trace_id: TraceId) -> None:
    """Make every error response of `app` a problem that includes the result of `trace_id()`."""

    def respond(
        status: int, code: str, detail: str, fields: Sequence[Mapping[str, str]], headers: Mapping[str, str]
    ) -> Response:
        body = json.dumps(document(status, code, detail, trace_id=trace_id(), fields=fields))
        return Response(body, status, dict(headers), content_type=MEDIA_TYPE)

    async def handle_problem(problem: Problem) -> Response:
        # Keep one frame: without any traceback, ddtrace would leave out the type and the message as well.
        while not problem.stack and problem.__traceback__ and problem.__traceback__.tb_next:
            problem.__traceback__ = problem.__traceback__.tb_next
        return respond(problem.status, problem.code, problem.detail, problem.fields, problem.headers)

    async def handle_validation_error(error: RequestSchemaValidationError) -> Response:
        validation_error = cast("ValidationError", error.validation_error)
        # quart-schema validates a body of another media type as null.
        is_null = any(details["input"] is None and not details["loc"] for details in validation_error.errors())
        if is_null and not request.is_json:
            return await handle_http_error(UnsupportedMediaType())
        return await handle_problem(Invalid("The request has invalid values.", _field_errors(validation_error)))

    async def handle_http_error(error: HTTPException) -> Response:
        status = error.code or 500
        if status in HTTP_ERRORS:
            code, detail = HTTP_ERRORS[status]
        else:
            code = re.sub("[^a-z]+", "-", error.name.lower())  # too-many-requests, from "Too Many Requests"
            detail = error.description or error.name
        headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
        return respond(status, code, detail.rstrip(".") + ".", fields=(), headers=headers)

    app.request_class = _Request
    app.register_error_handler(Problem, handle_problem)
    app.register_error_handler(RequestSchemaValidationError, handle_validation_error)
    app.register_error_handler(HTTPException, handle_http_error)


def _field_errors(error: ValidationError) -> list[Mapping[str, str]]:
    return [
        {
            "field": ".".join(str(part) for part in details["loc"]) or "body",
            "reason": details["msg"].removeprefix("Value error, "),
        }
        for details in error.errors(include_url=False, include_context=False, include_input=False)
    ]
