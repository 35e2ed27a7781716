"""One JSON line for each request and each event, with trace and span ids; readable text on a terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, TextIO, cast

import structlog
from quart import Quart, request, websocket
from quart.signals import request_started, websocket_started

from hello_service.asgi import ASGIApp, Message, Receive, Scope, Send
from hello_service.settings import Settings

Ids = Callable[[], Mapping[str, str]]

REQUESTS = "hello_service.request"  # the logger of requests' lines


def configure(settings: Settings, ids: Ids, stream: TextIO | None = None) -> None:
    """Send everything that this process logs to `stream` (standard error), one line an event.

    `ids` gives the trace and span id that hold where it is called, `{}` where there is no span.
    """
    stream = stream or sys.stderr
    text = settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())
    unified = {"service": settings.dd_service, "env": settings.dd_env, "version": settings.dd_version}

    def correlate(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Put the ids in: those that the event brings, else those of here. ddtrace's own injection has only the latter."""
        own = event.pop("ids", None) or ids()
        kept = {name: value for name, value in event.items() if not name.startswith("dd.")}
        return {**kept, **own, **({} if text else unified)}

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    if not text:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = _Formatter(
        None if text else unified,
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, correlate, *last],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # ddtrace writes each of its lines to standard error itself, too, and that is no JSON; a file that was asked for stays.
    for own in [own for own in logging.getLogger("ddtrace").handlers if type(own) is logging.StreamHandler]:
        logging.getLogger("ddtrace").removeHandler(own)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call; the span says it
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Makes a request's line by a short way where it is JSON: by structlog's it took a tenth of the request's CPU.

    `unified` is what each line says of this process; None: text is wanted.
    """

    def __init__(self, unified: Mapping[str, str | None] | None, **rest: Any) -> None:
        super().__init__(**rest)
        self.unified = unified
        self.encode = json.JSONEncoder().encode

    def format(self, record: logging.LogRecord) -> str:
        if record.name != REQUESTS:
            return super().format(record)
        fields: dict[str, Any] = record.__dict__["request"]
        if self.unified is None:
            shown = logging.makeLogRecord({**record.__dict__, **fields})
            del shown.__dict__["request"]
            return super().format(shown)
        at = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        line = {"event": "request", **fields, "level": "info", "logger": REQUESTS, "timestamp": f"{at}Z"}
        return self.encode({**line, **record.__dict__["ids"], **self.unified})


def log_requests(app: Quart, quiet: Collection[str], ids: Ids) -> None:
    """Log one line for each request and WebSocket of `app` when it is over, none for the paths in `quiet`."""
    around: Any = _RequestLog(cast("ASGIApp", app.asgi_app), frozenset(quiet), ids)
    app.asgi_app = around  # type: ignore[method-assign]  # Quart documents this assignment
    request_started.connect(_note_request_route, app)
    websocket_started.connect(_note_websocket_route, app)


async def _note_request_route(_app: Quart, **_: object) -> None:
    scope: Any = request.scope
    scope["logs.route"] = request.url_rule.rule if request.url_rule else None


async def _note_websocket_route(_app: Quart, **_: object) -> None:
    scope: Any = websocket.scope
    scope["logs.route"] = websocket.url_rule.rule if websocket.url_rule else None


class _RequestLog:
    def __init__(self, app: ASGIApp, quiet: frozenset[str], ids: Ids) -> None:
        self.app = app
        self.quiet = quiet
        self.ids = ids
        self.log = logging.getLogger(REQUESTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.quiet:
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        ids = self.ids()  # the span is over when the line is written
        status: int | None = None
        complete = False

        def write() -> None:
            if not self.log.isEnabledFor(logging.INFO):
                return
            record = logging.LogRecord(REQUESTS, logging.INFO, "", 0, "request", None, None)
            record.request = {
                "method": scope.get("method", "GET"),
                "route": scope.get("logs.route"),
                "path": scope["path"],
                "status": status,
                "duration_ms": round((perf_counter() - started) * 1000, 3),
                **({} if complete else {"incomplete": True}),
            }
            record.ids = ids
            self.log.handle(record)

        async def watch_send(message: Message) -> None:
            nonlocal status, complete
            kind = message["type"]
            if kind.endswith("response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close" or (kind.endswith("response.body") and not message.get("more_body", False)):
                complete = True
            await send(message)
            if complete:
                write()

        try:
            await self.app(scope, receive, watch_send)
        finally:
            if not complete:
                write()
