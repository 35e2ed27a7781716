"""The error tree and its answers: application/problem+json (RFC 9457). A leaf: it imports nothing of this package.

    Problem
    ├── Invalid                     422  a value has the wrong type, length or range
    ├── UpstreamFailed              502  one of these kinds:
    │   ├── UpstreamConnectError         no connection was made, so nothing was sent
    │   ├── UpstreamReadError            the connection broke before the response was complete
    │   ├── UpstreamProtocolError        the response is not valid HTTP or JSON, or is compressed
    │   ├── UpstreamTooLarge             the response is larger than the limit
    │   └── UpstreamBadStatus            a redirect or a 5xx
    ├── UpstreamSaturated           503  no outbound connection became free in time; nothing was sent
    └── UpstreamTimeout             504  the response was not complete in time

Clients get a stable code and a sentence; what caused it goes to the log and the span by exception chaining.
"""

from __future__ import annotations

import json
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
    """An error that a caller is told about.

    Args:
        detail: one sentence for the caller; never the text of a foreign exception.
        fields: for Invalid, what is wrong with which field.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    headers: Mapping[str, str] = {}
    stack: ClassVar[bool] = True  # whether the span shows the whole way to where it was raised

    def __init__(self, detail: str, fields: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields


class Invalid(Problem):
    status = 422
    code = "invalid"


class UpstreamFailed(Problem):
    """A call to an upstream failed. Its kinds are for the caller of `Upstream`; to clients of this service they are one."""

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
    stack = False  # it is the same each time, and would be a fifth of what refusing a request costs

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_seconds)}


class UpstreamTimeout(Problem):
    status = 504
    code = "upstream-late"
    stack = False  # it is the same each time, and slow upstreams make floods of it


# What Quart raises by itself, by status: code and sentence.
HTTP_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("bad-request", "The request could not be understood."),
    403: ("forbidden", "This WebSocket is not served to this client."),
    404: ("not-found", "Nothing is served under this path."),
    405: ("method-not-allowed", "This path does not serve this method; see the Allow header."),
    408: ("request-timeout", "The request did not arrive in time."),
    413: ("too-large", "The request's body is larger than this service takes."),
    415: ("unsupported-media-type", "Send the body as application/json."),
    426: ("upgrade-required", "This service speaks version 13 of WebSocket."),
    431: ("headers-too-large", "The request's head is larger than this service takes."),
    500: ("internal-error", "Something went wrong here; the trace id finds the cause."),
    501: ("not-implemented", "This service knows neither this method nor, if there is one, this transfer coding."),
    505: ("version-not-supported", "This service speaks HTTP/1.1."),
}

TraceId = Callable[[], str | None]


def document(
    status: int, code: str, detail: str, *, trace_id: str | None = None, fields: Sequence[Mapping[str, str]] = ()
) -> dict[str, object]:
    """Return the body of a problem as RFC 9457, section 3, names its members.

    `type` is a stable URN made of `code`; `trace_id` (32 hexadecimal characters) and `errors` are extensions.
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
    _routing_exception: Exception | None = None

    @property
    def routing_exception(self) -> Exception | None:
        """Why no route was found. A redirect stays on whatever host the client has reached: it may have made the name up."""
        return self._routing_exception

    @routing_exception.setter
    def routing_exception(self, error: Exception | None) -> None:
        if isinstance(error, RequestRedirect):
            url = urlsplit(error.new_url)
            error.new_url = urlunsplit(("", "", f"/{url.path.lstrip('/')}", url.query, ""))
        self._routing_exception = error

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Read the body as JSON; one that is no UTF-8 (RFC 8259, section 8.1) or nested too deep is bad, and not our error."""
        try:
            return await super().get_json(force, silent, cache)
        except (UnicodeDecodeError, RecursionError) as error:
            return self.on_json_loading_failed(error)


def answer_problems(app: Quart, trace_id: TraceId) -> None:
    """Let every error of `app` answer as a problem that carries what `trace_id()` says at that moment."""

    def respond(
        status: int, code: str, detail: str, fields: Sequence[Mapping[str, str]], headers: Mapping[str, str]
    ) -> Response:
        body = json.dumps(document(status, code, detail, trace_id=trace_id(), fields=fields))
        return Response(body, status, dict(headers), content_type=MEDIA_TYPE)

    async def ours(problem: Problem) -> Response:
        # Not without any: ddtrace would leave out type and message, too.
        while not problem.stack and problem.__traceback__ and problem.__traceback__.tb_next:
            problem.__traceback__ = problem.__traceback__.tb_next
        return respond(problem.status, problem.code, problem.detail, problem.fields, problem.headers)

    async def rejected(error: RequestSchemaValidationError) -> Response:
        if request.method == "POST" and not request.is_json:
            return await http_error(UnsupportedMediaType())
        return await ours(
            Invalid(
                "The request has values that can't be used.", _flaws(cast("ValidationError", error.validation_error))
            )
        )

    async def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        code, detail = HTTP_ERRORS.get(status, (error.name.lower().replace(" ", "-"), error.description or error.name))
        headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
        return respond(status, code, detail.rstrip(".") + ".", (), headers)

    app.request_class = _Request
    app.register_error_handler(Problem, ours)
    app.register_error_handler(RequestSchemaValidationError, rejected)
    app.register_error_handler(HTTPException, http_error)


def _flaws(error: ValidationError) -> list[Mapping[str, str]]:
    return [
        {
            "field": ".".join(str(part) for part in flaw["loc"]) or "body",
            "reason": flaw["msg"].removeprefix("Value error, "),
        }
        for flaw in error.errors(include_url=False, include_context=False, include_input=False)
    ]
