"""The process: Hypercorn's configuration, signals, drain, deadline, exit code.

No other module that runs in production imports Hypercorn.

Hypercorn accepts connections, runs the lifespan and shuts down. For each connection it creates an `http1.Connection`
instead of its own `TCPServer`. It does create a `TCPServer` with HTTP_IMPLEMENTATION=hypercorn, and if a library name
that http1.py or websocket.py relies on has changed (contract.py).

The service is a single process, because Hypercorn's worker pool drops requests when it stops. The shutdown has a time
budget, `Settings.stop_budget_seconds`. Hypercorn's `graceful_timeout` can't enforce it: CPython 3.12.1 and newer wait
for open connections without a limit before Hypercorn applies the timeout.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from hypercorn.asyncio import run as hypercorn_run
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config, Sockets

from hello_service import contract
from hello_service.app import create_app
from hello_service.observability import logs, status, trace_loss, tracing
from hello_service.serving.connections import GRACE_SECONDS, Connections, Limits
from hello_service.serving.http1 import Connection
from hello_service.serving.listener import Listener
from hello_service.settings import CLOSING_SECONDS, Settings, SettingsError

BACKLOG = 1024  # connections that the kernel queues until they are accepted; Hypercorn's own 100 is low for a burst
EXIT_CANNOT_START = 1
HOUR_SECONDS = 3600.0
ABORT_SECONDS = 1.0  # of CLOSING_SECONDS, for Hypercorn to stop after every connection was aborted
HYPERCORN_CLASSES_WARNING = (
    "Hypercorn's own classes serve HTTP and WebSocket: BODY_TIMEOUT_SECONDS, WRITE_TIMEOUT_SECONDS, HALF_CLOSE_SECONDS and "
    "WEBSOCKET_PING_SECONDS have no effect, so a client that neither sends nor reads holds its request without a limit."
)
# None if Hypercorn has renamed it, which `contract.check` reports.
HYPERCORN_TCP_SERVER: Any = getattr(hypercorn_run, "TCPServer", None)
# Thresholds of the garbage collector's three generations; the first and the last are much higher than CPython's own. A
# full collection delays every request, under heavy load for most of a second, so it should be rare.
GC_THRESHOLDS = (20_000, 10, 100)


def main() -> None:
    """Serve until SIGTERM or SIGINT, with the environment that `launch` has prepared."""
    sys.exit(run(os.environ))


def run(environ: Mapping[str, str]) -> int:
    """Serve until a signal arrives. Return the exit code: 0, or 1 if the service could not start."""
    broken = contract.check()
    fatal = [" ".join(sentences) for part, sentences in broken.items() if part in contract.REQUIRED]
    if fatal:
        sys.stderr.write("\n".join(fatal) + "\n")
        return EXIT_CANNOT_START
    try:
        settings = Settings.from_environment(environ)
        listener = listen(settings)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CANNOT_START
    logs.configure(settings, tracing.log_ids)
    server = Server(settings, listener, environ, broken)
    gc.freeze()  # these objects live as long as the process, so no collection needs to visit them
    gc.set_threshold(*GC_THRESHOLDS)
    asyncio.run(server.serve())
    flush_or_exit(settings.flush_seconds)
    return 0


def flush_or_exit(seconds: float) -> None:
    """Send the last spans. If that takes more than `seconds`, end the process at once."""

    def flush_spans() -> None:
        # In effect no timeout. With `seconds`, ddtrace would return as if it had sent everything, and wait at exit.
        status.flush(HOUR_SECONDS)
        trace_loss.current.end()

    flush = threading.Thread(target=flush_spans, daemon=True)
    flush.start()
    flush.join(seconds)
    if flush.is_alive():
        reason = f"the agent did not accept them within {seconds:g} s of the shutdown"
        structlog.stdlib.get_logger("hello_service.serving.server").warning("traces lost", reason=reason)
        os._exit(0)  # a normal exit would wait for the unresponsive agent again, for half a minute


def listen(settings: Settings) -> socket.socket:
    """Return a socket that is bound to the address in `settings`. Hypercorn makes it listen.

    Raises:
        OSError: the address can't be used. The message has the reason, and the variables that set the address.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        message = (
            f"Can't listen on {settings.host} port {settings.port}: {reason}. Set HOST and PORT to another address."
        )
        raise OSError(message) from error
    return listener


class ServerConfig(Config):
    """Hypercorn's configuration: plain HTTP on `listener` only.

    `connections` tracks the open connections and has their limits. With None, Hypercorn's own classes serve them.
    """

    def __init__(self, listener: socket.socket, connections: Connections | None) -> None:
        super().__init__()
        self.connections = connections
        self.accesslog = None
        self.include_server_header = False
        self._listener = Listener(fileno=listener.detach())
        self._listener.setblocking(False)
        if connections is not None:
            hypercorn_run.TCPServer = tcp_server  # type: ignore[assignment,attr-defined]  # Hypercorn has no setting for it

    def create_sockets(self) -> Sockets:
        return Sockets(secure_sockets=[], insecure_sockets=[self._listener], quic_sockets=[])


def tcp_server(*arguments: Any) -> Any:
    """Return the awaitable that serves one connection. This function replaces Hypercorn's `TCPServer`.

    Any other Hypercorn server in this process, such as one in a test, keeps Hypercorn's own class.
    """
    app, _loop, config, _context, state, reader, writer = arguments
    connections = config.connections if isinstance(config, ServerConfig) else None
    if connections is None:
        return HYPERCORN_TCP_SERVER(*arguments)
    return Connection(connections, app=app, state=state, reader=reader, writer=writer)


class Server:
    """Serves on `listener` until SIGTERM or SIGINT. `broken` is the result of `contract.check()`."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        environ: Mapping[str, str],
        broken: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.settings = settings
        self.listener = listener
        self.broken = broken or {}
        self.app = create_app(settings, environ, self.broken)
        self.lifecycle = self.app.extensions["lifecycle"]
        self.log = structlog.stdlib.get_logger("hello_service.serving.server")
        self.connections = Connections(_limits(settings))
        self.app.extensions["rejected_requests"] = lambda: dict(self.connections.rejections.counts)
        self._stop = asyncio.Event()
        self._drained = asyncio.Event()
        self._drain_seconds = settings.drain_seconds

    async def serve(self) -> None:
        """Serve, then stop within the budget."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_signal, signum)
        serving = asyncio.create_task(hypercorn_serve(self.app, self._config(), shutdown_trigger=self._drain))
        drained = asyncio.create_task(self._drained.wait())
        await asyncio.wait({serving, drained}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        # Requests in flight may finish until the deadline, then they are canceled. All that follows takes at most
        # CLOSING_SECONDS, so that the process keeps to its stop budget.
        await asyncio.wait({serving}, timeout=self.settings.graceful_seconds)
        end = loop.time() + CLOSING_SECONDS
        if not serving.done() and self.lifecycle.in_flight:
            self.log.warning("deadline", in_flight=self.lifecycle.in_flight)
            self.lifecycle.cancel(f"still running {self.settings.graceful_seconds:g} s after the server began to stop")
            await asyncio.wait({serving}, timeout=CLOSING_SECONDS - ABORT_SECONDS)
        if not serving.done():  # the remaining clients neither read their responses nor close their side
            self.connections.abort()
            await asyncio.wait({serving}, timeout=end - loop.time())
        if not serving.done():  # pragma: no cover - a connection that outlives its abort
            serving.cancel()
            await asyncio.wait({serving})
        if not serving.cancelled():  # pragma: no branch - as above
            serving.result()  # raises the exception that ended `serving`, if any
        self.log.info("stopped")

    async def _drain(self) -> None:
        """Wait for a signal, then serve for `drain_seconds` more. Hypercorn shuts down when this returns."""
        await self._stop.wait()
        self.lifecycle.stopping = True
        self.log.info("draining", seconds=self._drain_seconds, in_flight=self.lifecycle.in_flight)
        await asyncio.sleep(self._drain_seconds)
        # The grace period is a part of `graceful_seconds`, and a request that arrives in it needs some of the rest.
        self.connections.stop(min(GRACE_SECONDS, self.settings.graceful_seconds / 2))
        self._drained.set()

    def _on_signal(self, signum: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + signum)  # a second signal ends the process at once
        if signum == signal.SIGINT:
            self._drain_seconds = 0.0  # Ctrl-C at a terminal: no load balancer sends traffic here
        self._stop.set()

    def _config(self) -> ServerConfig:
        # For a broken part, `create_app` logs another warning with the names that have changed.
        intact = self.broken.keys().isdisjoint({"http1", "websocket"})
        uses_http1 = intact and self.settings.http_implementation == "httptools"
        if not uses_http1:
            self.log.warning(HYPERCORN_CLASSES_WARNING)
        config = ServerConfig(self.listener, self.connections if uses_http1 else None)
        config.backlog = BACKLOG
        config.errorlog = logging.getLogger("hypercorn.error")
        config.keep_alive_timeout = self.settings.keep_alive_seconds
        config.websocket_max_message_size = self.settings.body_bytes
        config.graceful_timeout = self.settings.stop_budget_seconds + 60  # never reached: `serve` stops earlier
        return config


def _limits(settings: Settings) -> Limits:
    return Limits(
        body_bytes=settings.body_bytes,
        keep_alive_seconds=settings.keep_alive_seconds,
        body_seconds=settings.body_timeout_seconds,
        write_seconds=settings.write_timeout_seconds,
        half_close_seconds=settings.half_close_seconds,
        ping_seconds=settings.websocket_ping_seconds,
    )


if __name__ == "__main__":
    main()
