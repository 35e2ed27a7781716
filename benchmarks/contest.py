"""The contestants: the command that starts each of them, and the paths and numbers of clients to measure it with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
PACKAGE = "benchmarks.contestants"


@dataclass(frozen=True)
class Point:
    """A path and a number of clients, with which a contestant is measured.

    Attributes:
        path: the path that every client requests.
        clients: the number of concurrent clients.
        duration_factor: multiplies the duration of the measurement. With many clients, a request takes over a second.
    """

    path: str
    clients: int
    duration_factor: int = 1

    @property
    def name(self) -> str:
        """The point's key in the results."""
        return f"{self.path.rpartition('/')[2].partition('?')[0]}-{self.clients}"


ONE_CALL = "/api/relay?count=1"  # one call to the upstream for each request
HELLO = Point("/api/hello", clients=64)
RELAY_16 = Point(ONE_CALL, clients=16)
RELAY = Point(ONE_CALL, clients=64)
RELAY_256 = Point(ONE_CALL, clients=256)
RELAY_1024 = Point(ONE_CALL, clients=1024, duration_factor=3)


@dataclass(frozen=True)
class Contestant:
    """A server to measure, which has a row in the tables of docs/performance.md.

    Attributes:
        title: its name in the tables.
        command: its command line; {port} is the port to listen on. If it is None, the upstream itself is measured.
        points: the paths and numbers of clients to measure it with.
        spans: the number of spans of one request, by path without the query; empty for untraced contestants.
        environment: its additional variables.
    """

    title: str
    command: tuple[str, ...] | None
    points: tuple[Point, ...] = (HELLO, RELAY)
    spans: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def traced(*command: str) -> tuple[str, ...]:
    """Return `command`, with the path of its program, under ddtrace-run."""
    return (str(BIN / "ddtrace-run"), str(BIN / command[0]), *command[1:])


def plain(*command: str) -> tuple[str, ...]:
    """Return `command`, with the path of its program, without ddtrace-run."""
    return (str(BIN / command[0]), *command[1:])


SERVE = plain("hello-service", "serve")  # starts ddtrace-run itself, unless tracing is off
# With 1,024 clients, no call should wait for a connection, or get a 503 because too many calls wait.
OUR_ENVIRONMENT = {
    "HOST": "127.0.0.1",
    "LOG_FORMAT": "json",
    "UPSTREAM_CONNECTIONS": "1024",
    "UPSTREAM_WAITING": "1024",
}
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:{port}")
UVICORN = ("uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "warning")
GRANIAN = ("granian", "--interface", "asgi", "--port", "{port}", "--no-access-log", "--log-level", "warning")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning")

OURS_NAME = "hello_service"

# The numbers of spans differ, because ddtrace's integrations do: that of Flask has a span for each step of a request,
# that of FastAPI one for the response's serialization, and that of aiohttp's client two for each call, in addition to
# the one of httpx.
ALL: Mapping[str, Contestant] = {
    OURS_NAME: Contestant(
        "**hello_service** (Quart, Hypercorn)",
        SERVE,
        points=(HELLO, RELAY_16, RELAY, RELAY_256, RELAY_1024),
        spans={"/api/hello": 1, "/api/relay": 2},
        environment=OUR_ENVIRONMENT,
    ),
    "naive": Contestant(
        "the naive form (Quart, Hypercorn, httpx)",
        traced(*HYPERCORN, f"{PACKAGE}.naive:app"),
        spans={"/api/hello": 1, "/api/relay": 2},
    ),
    "flask-sync": Contestant(
        "Flask, gunicorn sync, 4 workers, requests",
        traced(*GUNICORN, "--workers", "4", f"{PACKAGE}.flask_requests:app"),
        spans={"/api/hello": 9, "/api/relay": 10},
    ),
    "flask-gthread": Contestant(
        "Flask, gunicorn gthread, 64 threads, requests",
        traced(*GUNICORN, "--worker-class", "gthread", "--threads", "64", f"{PACKAGE}.flask_requests:app"),
        spans={"/api/hello": 9, "/api/relay": 10},
    ),
    "fastapi": Contestant(
        "FastAPI, uvicorn, httpx",
        traced(*UVICORN, f"{PACKAGE}.fastapi_httpx:app"),
        spans={"/api/hello": 2, "/api/relay": 3},
    ),
    "starlette": Contestant(
        "Starlette, uvicorn, httpx-aiohttp",
        traced(*UVICORN, f"{PACKAGE}.starlette_httpx_aiohttp:app"),
        spans={"/api/hello": 1, "/api/relay": 4},
    ),
    "litestar": Contestant(
        "Litestar, granian, httpx-aiohttp",
        traced(*GRANIAN, f"{PACKAGE}.litestar_httpx_aiohttp:app"),
        spans={"/api/hello": 1, "/api/relay": 4},
    ),
    "aiohttp": Contestant(
        "aiohttp, server and client",
        traced("python", "-m", f"{PACKAGE}.aiohttp_both"),
        spans={"/api/hello": 1, "/api/relay": 3},
    ),
    "hello_service-untraced": Contestant(
        "**hello_service**, untraced", SERVE, environment={**OUR_ENVIRONMENT, "DD_TRACE_ENABLED": "false"}
    ),
    "fastapi-untraced": Contestant(
        "FastAPI, uvicorn, untraced", plain(*UVICORN, f"{PACKAGE}.fastapi_httpx:app"), points=(HELLO,)
    ),
    "starlette-untraced": Contestant(
        "Starlette, uvicorn, untraced", plain(*UVICORN, f"{PACKAGE}.starlette_httpx_aiohttp:app"), points=(HELLO,)
    ),
    "naive-untraced": Contestant(
        "the naive form, untraced", plain(*HYPERCORN, f"{PACKAGE}.naive:app"), points=(HELLO,)
    ),
    "raw-hypercorn": Contestant(
        "raw ASGI on Hypercorn, untraced", plain(*HYPERCORN, f"{PACKAGE}.raw:app"), points=(HELLO,)
    ),
    "raw-uvicorn": Contestant("raw ASGI on uvicorn, untraced", plain(*UVICORN, f"{PACKAGE}.raw:app"), points=(HELLO,)),
    "raw-granian": Contestant("raw ASGI on granian, untraced", plain(*GRANIAN, f"{PACKAGE}.raw:app"), points=(HELLO,)),
    "upstream": Contestant("the upstream itself", command=None, points=(RELAY,)),
}
