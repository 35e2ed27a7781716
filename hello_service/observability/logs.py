"""Logs one JSON line for each request and each event, with trace and span ids; readable text on a terminal.

Every event takes the same short path: a LogRecord, which additional handlers receive as well, then one dictionary, one
encoding and one write.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TextIO

import orjson
import structlog
from quart import Quart, has_request_context, request, websocket
from quart.signals import request_started, websocket_started

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send
from hello_service.settings import Settings

Ids = Callable[[], Mapping[str, str]]
Encode = Callable[[Mapping[str, Any]], bytes]  # a line's fields -> bytes that end with a line feed

REQUESTS = "hello_service.request"  # the logger of request lines
# Attributes of a LogRecord that this module sets: the fields of an event, and its trace and span ids.
FIELDS, IDS = "hello_service.fields", "hello_service.ids"
# Attributes of every LogRecord; all others came with `extra`. Source: Python documentation, "LogRecord attributes".
STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


def configure(settings: Settings, ids: Ids, stream: TextIO | None = None) -> None:
    """Write all logs of this process to `stream` (default: standard error), one line for each event.

    `ids` returns the current trace id and span id, or `{}` outside of a span.
    """
    stream = stream or sys.stderr
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    service_tags = {"service": settings.dd_service, "env": settings.dd_env, "version": settings.dd_version}
    root = logging.getLogger()
    if as_text:
        root.handlers = [_Handler(stream, ids, service_tags={}, encode=_text_encoder(colors=stream.isatty()))]
    else:
        root.handlers = [_Handler(stream, ids, service_tags, _encode_json)]
    root.setLevel(settings.log_level)
    # ddtrace's own handler would write its log lines a second time, and not as JSON.
    ddtrace_logger = logging.getLogger("ddtrace")
    for handler in list(ddtrace_logger.handlers):
        if type(handler) is logging.StreamHandler:  # not isinstance: a subclass writes a configured log file, and stays
            ddtrace_logger.removeHandler(handler)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs one line for each call, as a span does
    logging.getLogger("websockets.server").setLevel(logging.WARNING)  # it logs one line for each closed connection
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _to_logging],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _to_logging(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn a structlog event into the arguments of a call to `logging`."""
    options = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    return (event.pop("event", None),), {**options, "extra": {FIELDS: event}}


class _Handler(logging.Handler):
    """Writes each record to `stream` as one line, encoded by `encode`. `service_tags` are added to every line."""

    def __init__(self, stream: TextIO, ids: Ids, service_tags: Mapping[str, str | None], encode: Encode) -> None:
        super().__init__()
        self._stream = stream
        self._ids = ids
        self._service_tags = service_tags
        self._encode = encode
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`; a failure goes to `logging`'s own error handling, and never to the caller."""
        try:
            self._write(self._encode(self._build_line(record)))
        except Exception:  # noqa: BLE001 - logging must not break what it observes
            self.handleError(record)

    def _build_line(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = record.__dict__
        fields: Mapping[str, Any] | None = extra.get(FIELDS)
        if fields is None:  # a library's record; its ids from ddtrace (dd.*) are left out, because `ids` adds them
            fields = {
                name: value for name, value in extra.items() if name not in STANDARD and not name.startswith("dd.")
            }
        created = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        line = {
            "event": record.getMessage(),
            **fields,
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": created.isoformat(timespec="microseconds") + "Z",
            **(extra.get(IDS) or self._ids()),
            **self._service_tags,
        }
        if record.exc_info:
            line["exception"] = self._formatter.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return line

    def _write(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except (AttributeError, OSError):  # a stream in memory has no descriptor
            self._stream.write(data.decode())
            return
        while data:
            try:
                data = data[os.write(descriptor, data) :]  # a full pipe may accept only a part
            except BlockingIOError:  # another process has made the shared pipe or terminal non-blocking
                select.select([], [descriptor], [])


def _encode_json(line: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_safe_repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # an integer of more than 64 bits, or invalid Unicode: json accepts both
        return json.dumps(line, default=_safe_repr).encode() + b"\n"


def _text_encoder(*, colors: bool) -> Encode:
    render = structlog.dev.ConsoleRenderer(colors=colors)
    return lambda line: (render(None, "", dict(line)) + "\n").encode(errors="backslashreplace")


def _safe_repr(value: object) -> str:
    """Return `repr(value)`, or a placeholder if that fails."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - one bad field must not lose the log line
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


async def _store_route(_app: Quart, **_: object) -> None:
    """Store the route in the ASGI scope, where `RequestLog` reads it."""
    connection: Any = request if has_request_context() else websocket
    connection.scope["logs.route"] = connection.url_rule.rule if connection.url_rule else None


def _is_last(message: Message) -> bool:
    """Whether `message` is the last one of a response or of a WebSocket."""
    kind = message["type"]
    return kind == "websocket.close" or (kind.endswith("response.body") and not message.get("more_body", False))


class RequestLog:
    """ASGI middleware around `inner` that logs one line for each request and WebSocket of `app`, when it ends.

    Nothing is logged for the paths in `quiet_paths`.
    """

    def __init__(self, inner: ASGIApp, app: Quart, quiet_paths: Collection[str], ids: Ids) -> None:
        request_started.connect(_store_route, app)
        websocket_started.connect(_store_route, app)
        self.inner = inner
        self.quiet_paths = quiet_paths
        self.ids = ids
        self.log = logging.getLogger(REQUESTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.quiet_paths:
            await self.inner(scope, receive, send)
            return
        started = perf_counter()
        ids = self.ids()  # read now, because the span will have ended when the line is written
        status: int | None = None
        complete = False

        def write() -> None:
            if not self.log.isEnabledFor(logging.INFO):
                return
            record = logging.LogRecord(
                REQUESTS, logging.INFO, pathname="", lineno=0, msg="request", args=None, exc_info=None
            )
            record.__dict__[FIELDS] = {
                "method": scope.get("method", "GET"),  # the scope of a WebSocket has no method
                "route": scope.get("logs.route"),
                "path": scope["path"],
                "status": status,
                "duration_ms": round((perf_counter() - started) * 1000, 3),
                **({} if complete else {"incomplete": True}),
            }
            record.__dict__[IDS] = ids
            self.log.handle(record)

        async def watch_send(message: Message) -> None:
            nonlocal status, complete
            kind = message["type"]
            if kind.endswith("response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101  # Switching Protocols
            elif kind == "websocket.close":
                status = status or 403  # the server's response to a WebSocket that was not accepted
            await send(message)
            if not complete and _is_last(message):
                complete = True
                write()

        try:
            await self.inner(scope, receive, watch_send)
        finally:
            if not complete:
                write()
