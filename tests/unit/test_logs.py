"""Tests of the log: one line for each request and each event, as JSON for machines and as text on a terminal."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from quart import Quart
from routes import ENDPOINTS

from hello_service.app import create_app
from hello_service.observability import logs
from hello_service.settings import Settings

IDS = {"dd.trace_id": "0" * 31 + "1", "dd.span_id": "2"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def log_to(stream: io.StringIO, **settings: Any) -> io.StringIO:
    """Configure logging to write to `stream`, and return the stream."""
    logs.configure(Settings(**settings), lambda: IDS, stream)
    return stream


def parse_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("library", ["structlog", "logging"])
def test_an_event_is_a_json_line_with_its_ids(library: str) -> None:
    """The event may come from structlog or from a library's own logging.

    The ids and tags that ddtrace adds to a library's record are replaced.
    """
    stream = log_to(io.StringIO(), dd_env="test", dd_version="1.2.3")
    if library == "structlog":
        structlog.stdlib.get_logger("a").info("it happened", thing=1)
    else:
        logging.getLogger("a").info("it %s", "happened", extra={"thing": 1, "dd.trace_id": "0", "dd.env": ""})
    (line,) = parse_lines(stream)

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        **IDS,
        "event": "it happened",
        "thing": 1,
        "level": "info",
        "logger": "a",
        "service": "hello-service",
        "env": "test",
        "version": "1.2.3",
    }


def test_a_library_may_use_a_field_called_request() -> None:
    """A library's field named `request` doesn't turn its line into a request's line."""
    stream = log_to(io.StringIO())
    logging.getLogger("a").info("sent", extra={"request": "GET /"})
    (line,) = parse_lines(stream)

    assert (line["event"], line["request"], line["logger"]) == ("sent", "GET /", "a")


def test_an_exception_is_a_field_of_its_line() -> None:
    stream = log_to(io.StringIO())
    try:
        int("no")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = parse_lines(stream)

    assert "ValueError: invalid literal" in line["exception"]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "logged_value"),
    [
        (2**70, 2**70),  # orjson encodes at most 64 bits
        ("\ud800", "\ud800"),
        ({1: "a"}, {"1": "a"}),
        (b"\xff", "b'\\xff'"),
        ({"deep": [Path("/x")]}, {"deep": [repr(Path("/x"))]}),
        (Unprintable(), "<Unprintable whose repr raised RuntimeError>"),
        ([2**70, Unprintable()], [2**70, "<Unprintable whose repr raised RuntimeError>"]),
    ],
    ids=["integer", "surrogate", "keys", "bytes", "object", "unprintable", "both"],
)
def test_a_line_is_logged_even_if_orjson_cannot_encode_a_value(value: object, logged_value: object) -> None:
    stream = log_to(io.StringIO())
    structlog.stdlib.get_logger("a").info("it happened", value=value)
    (line,) = parse_lines(stream)

    assert line["value"] == logged_value


def test_a_field_may_have_the_name_of_an_attribute_of_log_records() -> None:
    """`logging` itself raises KeyError for these names in `extra`."""
    stream = log_to(io.StringIO())
    structlog.stdlib.get_logger("a").info("it happened", name="Ada", args=[1], module="m", message="hi")
    (line,) = parse_lines(stream)

    assert (line["event"], line["name"], line["args"], line["module"]) == ("it happened", "Ada", [1], "m")
    assert (line["message"], line["logger"]) == ("hi", "a")


def test_an_event_keeps_its_exception_and_its_stack() -> None:
    stream = log_to(io.StringIO())
    try:
        int("no")
    except ValueError:
        structlog.stdlib.get_logger("a").exception("failed", why="100% sure", stack_info=True)
    (line,) = parse_lines(stream)

    assert (line["event"], line["why"], line["level"]) == ("failed", "100% sure", "error")
    assert "ValueError: invalid literal" in line["exception"]
    assert "Stack (most recent call last)" in line["stack"]


def test_a_handler_that_a_team_adds_receives_every_event() -> None:
    log_to(io.StringIO())
    messages: list[str] = []

    class TeamHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logging.getLogger().addHandler(TeamHandler())
    structlog.stdlib.get_logger("a").info("ours")
    logging.getLogger("b").info("a %s", "library's")

    assert messages == ["ours", "a library's"]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_long_line_is_written_whole_to_a_full_pipe(blocking: bool) -> None:
    """The line is longer than the pipe's buffer, so its end waits until the reader has made room.

    A process that shares the pipe may have made it non-blocking.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, blocking)
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "w") as writer, ThreadPoolExecutor() as pool:
        logs.configure(Settings(), ids=dict, stream=writer)
        line = pool.submit(reader.readline)
        structlog.stdlib.get_logger("a").info("it happened", value="x" * 1_000_000)

        assert len(json.loads(line.result())["value"]) == 1_000_000


def test_a_stream_that_fails_raises_no_exception(capsys: pytest.CaptureFixture[str]) -> None:
    """`logging` reports the failure on standard error, as it does for every handler."""

    class FullStream(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError("no space left")

    log_to(FullStream())
    structlog.stdlib.get_logger("a").info("it happened")

    assert "no space left" in capsys.readouterr().err


def test_ddtrace_does_not_write_its_lines_a_second_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is logged once, as JSON. A log file that the operator configured for ddtrace is still written."""
    logger = logging.getLogger("ddtrace")
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(tmp_path / "log")]
    for handler in handlers:
        logger.addHandler(handler)
    stream = log_to(io.StringIO())
    logging.getLogger("ddtrace.writer").error("it happened")
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()

    assert [line["event"] for line in parse_lines(stream)] == ["it happened"]
    assert (tmp_path / "log").read_text() == "it happened\n"
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_text() -> None:
    """With LOG_FORMAT=json, a terminal also gets JSON."""
    default_terminal = log_to(Terminal())
    structlog.stdlib.get_logger("a").info("it happened")
    json_terminal = log_to(Terminal(), log_format="json")
    structlog.stdlib.get_logger("a").info("it happened")

    assert "it happened" in default_terminal.getvalue()
    assert not default_terminal.getvalue().startswith("{")
    assert parse_lines(json_terminal)[0]["event"] == "it happened"


def test_the_operator_sets_the_level() -> None:
    stream = log_to(io.StringIO(), log_level="WARNING")
    structlog.stdlib.get_logger("a").info("quiet")
    structlog.stdlib.get_logger("a").warning("loud")

    assert [line["event"] for line in parse_lines(stream)] == ["loud"]


async def log_line_of_request(path: str) -> Mapping[str, Any]:
    """Send a GET request for `path`, and return its log line. Without such a line, the result is empty."""
    stream = log_to(io.StringIO())
    async with create_app(Settings(), environ={}, endpoints=ENDPOINTS).test_app() as app:
        await app.test_client().get(path)
    return next((line for line in parse_lines(stream) if line["event"] == "request"), {})


async def test_a_request_is_logged() -> None:
    """The line contains the method, the route, the path without the query, the status and the duration."""
    line = await log_line_of_request("/api/hello/Ada?token=secret")

    assert {name: line[name] for name in ("method", "route", "path", "status")} == {
        "method": "GET",
        "route": "/api/hello/<name>",
        "path": "/api/hello/Ada",
        "status": 200,
    }
    assert line["duration_ms"] > 0
    assert "secret" not in str(line)
    assert "incomplete" not in line


async def test_a_request_is_text_on_a_terminal() -> None:
    """The text has the same fields, and no JSON is written in addition."""
    stream = log_to(Terminal())
    async with create_app(Settings(), environ={}, endpoints=ENDPOINTS).test_app() as app:
        await app.test_client().get("/api/hello/Ada")
    (line,) = [line for line in stream.getvalue().splitlines() if "hello_service.request" in line]

    assert all(text in line for text in ("request", "method", "/api/hello/<name>", "200", "dd.trace_id"))
    assert "{" not in line


async def test_the_log_level_also_applies_to_requests() -> None:
    stream = log_to(io.StringIO(), log_level="ERROR")
    async with create_app(Settings(), environ={}, endpoints=ENDPOINTS).test_app() as app:
        await app.test_client().get("/api/hello")

    assert not parse_lines(stream)


async def test_a_request_without_a_route_is_logged() -> None:
    """The field `route` is null."""
    line = await log_line_of_request("/nope")

    assert (line["route"], line["status"]) == (None, 404)


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_probe_is_not_logged(path: str) -> None:
    """Load balancers send probes every few seconds."""
    assert not await log_line_of_request(path)


async def test_a_websocket_is_logged() -> None:
    """The line is written after the end of the WebSocket."""
    stream = log_to(io.StringIO())
    async with (
        create_app(Settings(), environ={}, endpoints=ENDPOINTS).test_app() as app,
        app.test_client().websocket("/api/hello/ws") as socket,
    ):
        await socket.send("Ada")
        await socket.receive()
    (line,) = [line for line in parse_lines(stream) if line["event"] == "request"]

    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/hello/ws", 101)


async def test_a_websocket_that_is_closed_before_it_is_accepted_is_logged_as_403() -> None:
    """The server responds with this status."""
    stream = log_to(io.StringIO())

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async def do_nothing(*_: object) -> Any: ...

    request_log = logs.RequestLog(application, Quart(__name__), quiet_paths=(), ids=dict)
    await request_log({"type": "websocket", "path": "/"}, do_nothing, do_nothing)
    (line,) = parse_lines(stream)

    assert line["status"] == 403


LAST_MESSAGE = {"type": "http.response.body", "body": b""}


async def test_a_response_whose_last_message_fails_is_logged_as_incomplete() -> None:
    stream = log_to(io.StringIO())

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send(LAST_MESSAGE)

    async def fail_at_the_end(message: Any) -> None:
        if message is LAST_MESSAGE:
            raise ConnectionResetError

    async def receive() -> Any: ...

    request_log = logs.RequestLog(application, Quart(__name__), quiet_paths=(), ids=dict)
    with pytest.raises(ConnectionResetError):
        await request_log({"type": "http", "method": "GET", "path": "/"}, receive, fail_at_the_end)
    (line,) = parse_lines(stream)

    assert (line["status"], line["incomplete"]) == (200, True)


async def test_a_message_after_the_last_one_is_not_logged_as_a_second_request() -> None:
    stream = log_to(io.StringIO())

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send(LAST_MESSAGE)
        await send(LAST_MESSAGE)

    async def do_nothing(*_: object) -> Any: ...

    request_log = logs.RequestLog(application, Quart(__name__), quiet_paths=(), ids=dict)
    await request_log({"type": "http", "method": "GET", "path": "/"}, do_nothing, do_nothing)

    assert [line["status"] for line in parse_lines(stream)] == [200]


async def test_the_settings_are_logged_once_without_secrets() -> None:
    stream = log_to(io.StringIO())
    async with create_app(Settings(upstream_url="http://ada:secret@host/"), environ={}).test_app():
        pass
    (line,) = [line for line in parse_lines(stream) if line["event"] == "settings"]

    assert line["PORT"] == 8080
    assert line["UPSTREAM_URL"] == "http://***@host/"
    assert "secret" not in stream.getvalue()
