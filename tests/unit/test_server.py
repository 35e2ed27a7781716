"""Tests of the server that need no process of their own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from typing import Any

import pytest
from drills.connections import until
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.config import Config
from structlog.testing import capture_logs

from hello_service.app import create_app
from hello_service.observability import trace_loss, tracing
from hello_service.serving import server
from hello_service.settings import Settings


async def test_another_server_in_this_process_keeps_hypercorns_own_class() -> None:
    """Only a server with a `ServerConfig` uses the service's own connections."""
    # The arguments of Hypercorn's TCPServer: app, loop, config, context, state, reader, writer.
    arguments: list[Any] = [None, None, Config(), None, {}, None, None]

    assert isinstance(server.tcp_server(*arguments), server.HYPERCORN_TCP_SERVER)


# `broken` is the result of `contract.check`: the sentences about each broken part.
@pytest.mark.parametrize("broken", [{}, {"fast_span": ["It changed."]}], ids=["intact", "broken"])
def test_ddtraces_middleware_makes_the_span_if_the_fast_span_is_broken(
    monkeypatch: pytest.MonkeyPatch, broken: dict[str, list[str]]
) -> None:
    middlewares: list[Callable[..., Any] | None] = []

    def trace(_app: object, _probes: Collection[str], _service: str, middleware: Callable[..., Any] | None) -> None:
        middlewares.append(middleware)

    monkeypatch.setattr(tracing, "active", lambda: True)
    monkeypatch.setattr(tracing, "trace", trace)
    monkeypatch.setattr(trace_loss, "watch", lambda: None)
    create_app(Settings(), environ={}, broken=broken)
    (middleware,) = middlewares

    assert (middleware is None) is bool(broken)  # None: ddtrace's own middleware


@pytest.fixture
def restored_tcp_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore Hypercorn's `TCPServer` after the test, because `Server` replaces it."""
    monkeypatch.setattr(hypercorn_run, "TCPServer", server.HYPERCORN_TCP_SERVER)


@pytest.mark.parametrize(("signum", "seconds"), [(signal.SIGTERM, 0.01), (signal.SIGINT, 0.0)])
@pytest.mark.usefixtures("restored_tcp_server")
async def test_a_stopping_server_is_not_ready_and_logs_each_stage(signum: signal.Signals, seconds: float) -> None:
    """Ctrl-C at a terminal skips the drain, because no load balancer sends traffic there."""
    settings = Settings(host="127.0.0.1", port=0, drain_seconds=0.01)
    serving = server.Server(settings, server.listen(settings), environ={})
    with capture_logs() as lines:
        serving._on_signal(signum)
        await serving.serve()
    (drain_line,) = [line for line in lines if line["event"] == "draining"]

    assert serving.lifecycle.stopping
    assert (drain_line["seconds"], drain_line["in_flight"]) == (seconds, 0)
    assert lines[-1]["event"] == "stopped"


@pytest.mark.usefixtures("restored_tcp_server")
async def test_a_server_logs_a_warning_for_a_part_that_it_leaves_out() -> None:
    settings = Settings(host="127.0.0.1", port=0, drain_seconds=0)
    serving = server.Server(settings, server.listen(settings), environ={}, broken={"trace loss": ["It changed."]})
    with capture_logs() as lines:
        serving._on_signal(signal.SIGTERM)
        await serving.serve()

    assert [line["log_level"] for line in lines if line["event"] == "It changed."] == ["warning"]


@pytest.mark.parametrize("part", ["http1", "websocket"])
@pytest.mark.usefixtures("restored_tcp_server")
def test_hypercorns_own_classes_serve_after_a_change_in_a_library(part: str) -> None:
    """`create_app` logs another warning with the changed name. test_contract.py tests it."""
    settings = Settings(host="127.0.0.1", port=0)
    serving = server.Server(settings, server.listen(settings), environ={}, broken={part: ["It was renamed."]})
    with capture_logs() as lines:
        config = serving._config()
    config.create_sockets().insecure_sockets[0].close()  # the listener, because no server runs to close it

    assert config.connections is None
    assert [line["event"] for line in lines] == [server.HYPERCORN_CLASSES_WARNING]


@pytest.mark.usefixtures("restored_tcp_server")
async def test_a_request_that_outlasts_the_deadline_is_a_503_and_a_warning() -> None:
    settings = Settings(host="127.0.0.1", port=0, drain_seconds=0, graceful_seconds=0)
    listener = server.listen(settings)
    listener.listen()  # so that the client can connect before the server accepts connections
    port = listener.getsockname()[1]
    serving = server.Server(settings, listener, environ={})

    @serving.app.get("/hang")
    async def hang() -> str:
        return str(await asyncio.Event().wait())

    with capture_logs() as lines:
        task = asyncio.create_task(serving.serve())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")
        await until(lambda: serving.lifecycle.in_flight == 1)
        serving._on_signal(signal.SIGTERM)
        response = await reader.read()
        writer.close()
        await task
    (deadline_line,) = [line for line in lines if line["event"] == "deadline"]

    assert response.startswith(b"HTTP/1.1 503 ")
    assert (deadline_line["log_level"], deadline_line["in_flight"]) == ("warning", 1)


@pytest.mark.usefixtures("restored_tcp_server")
async def test_background_tasks_may_end_after_connections_are_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits for the tasks until CLOSING_SECONDS are over, and not only for ABORT_SECONDS."""
    monkeypatch.setattr(server, "ABORT_SECONDS", 0.0)
    settings = Settings(host="127.0.0.1", port=0, drain_seconds=0, graceful_seconds=0)
    serving = server.Server(settings, server.listen(settings), environ={})
    aborted = asyncio.Event()
    monkeypatch.setattr(serving.connections, "abort", aborted.set)
    ended = []

    async def background_task() -> None:
        await aborted.wait()
        for _ in range(100):  # longer than ABORT_SECONDS, which is 0 here
            await asyncio.sleep(0)
        ended.append(True)

    @serving.app.before_serving
    async def start_background_task() -> None:
        serving.app.add_background_task(background_task)

    serving._on_signal(signal.SIGTERM)
    await serving.serve()

    assert ended
