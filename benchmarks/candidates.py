"""The candidates: the command that starts each of them, and the points at which it is measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
APPS = "benchmarks.apps"


@dataclass(frozen=True)
class Point:
    """A path and a number of clients, with which a candidate is measured.

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
        """The point's key in the results, such as `relay-64`."""
        return f"{self.path.rpartition('/')[2].partition('?')[0]}-{self.clients}"


ONE_CALL = "/api/relay?count=1"  # one call to the upstream for each request
HELLO = Point("/api/hello", clients=64)
RELAY = Point(ONE_CALL, clients=64)
# Only this service is measured at these points.
RELAY_16 = Point(ONE_CALL, clients=16)
RELAY_256 = Point(ONE_CALL, clients=256)
RELAY_1024 = Point(ONE_CALL, clients=1024, duration_factor=3)


@dataclass(frozen=True)
class Candidate:
    """A server to measure, which has a row in the tables of docs/performance.md.

    Attributes:
        title: its name in the tables, in Markdown.
        command: its command line; {port} is the port to listen on. If it is None, the upstream itself is measured.
        points: the paths and numbers of clients to measure it with.
        spans: the number of spans of one request, by path without the query; empty for untraced candidates.
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

THIS_SERVICE = "hello_service"

# The numbers of spans differ because ddtrace's integrations differ. The one for Flask creates a span for each step of a
# request, and the one for FastAPI a second span, for serializing the response. A call has one span with httpx or
# requests, two with aiohttp, and three with httpx-aiohttp, which is both. `serve` switches the spans of aiohttp off.
CANDIDATES: Mapping[str, Candidate] = {
    THIS_SERVICE: Candidate(
        "**hello_service** (Quart, Hypercorn)",
        SERVE,
        points=(HELLO, RELAY_16, RELAY, RELAY_256, RELAY_1024),
        spans={"/api/hello": 1, "/api/relay": 2},
        environment=OUR_ENVIRONMENT,
    ),
    "naive": Candidate(
        "the naive form (Quart, Hypercorn, httpx)",
        traced(*HYPERCORN, f"{APPS}.naive:app"),
        spans={"/api/hello": 1, "/api/relay": 2},
    ),
    "flask-sync": Candidate(  # as in the older Flask guide
        "Flask, gunicorn sync, 4 workers, requests",
        traced(*GUNICORN, "--workers", "4", f"{APPS}.flask_requests:app"),
        spans={"/api/hello": 9, "/api/relay": 10},
    ),
    "flask-gthread": Candidate(  # with a thread for each client
        "Flask, gunicorn gthread, 64 threads, requests",
        traced(*GUNICORN, "--worker-class", "gthread", "--threads", "64", f"{APPS}.flask_requests:app"),
        spans={"/api/hello": 9, "/api/relay": 10},
    ),
    "fastapi": Candidate(
        "FastAPI, uvicorn, httpx",
        traced(*UVICORN, f"{APPS}.fastapi_httpx:app"),
        spans={"/api/hello": 2, "/api/relay": 3},
    ),
    "starlette": Candidate(
        "Starlette, uvicorn, httpx-aiohttp",
        traced(*UVICORN, f"{APPS}.starlette_httpx_aiohttp:app"),
        spans={"/api/hello": 1, "/api/relay": 4},
    ),
    "litestar": Candidate(
        "Litestar, granian, httpx-aiohttp",
        traced(*GRANIAN, f"{APPS}.litestar_httpx_aiohttp:app"),
        spans={"/api/hello": 1, "/api/relay": 4},
    ),
    "aiohttp": Candidate(
        "aiohttp, server and client",
        traced("python", "-m", f"{APPS}.aiohttp_both"),
        spans={"/api/hello": 1, "/api/relay": 3},
    ),
    "hello_service-untraced": Candidate(
        "**hello_service**, untraced", SERVE, environment={**OUR_ENVIRONMENT, "DD_TRACE_ENABLED": "false"}
    ),
    "fastapi-untraced": Candidate(
        "FastAPI, uvicorn, untraced", plain(*UVICORN, f"{APPS}.fastapi_httpx:app"), points=(HELLO,)
    ),
    "starlette-untraced": Candidate(
        "Starlette, uvicorn, untraced", plain(*UVICORN, f"{APPS}.starlette_httpx_aiohttp:app"), points=(HELLO,)
    ),
    "naive-untraced": Candidate("the naive form, untraced", plain(*HYPERCORN, f"{APPS}.naive:app"), points=(HELLO,)),
    "raw-hypercorn": Candidate(
        "raw ASGI on Hypercorn, untraced", plain(*HYPERCORN, f"{APPS}.raw:app"), points=(HELLO,)
    ),
    "raw-uvicorn": Candidate("raw ASGI on uvicorn, untraced", plain(*UVICORN, f"{APPS}.raw:app"), points=(HELLO,)),
    "raw-granian": Candidate("raw ASGI on granian, untraced", plain(*GRANIAN, f"{APPS}.raw:app"), points=(HELLO,)),
    "upstream": Candidate("the upstream itself", command=None, points=(RELAY,)),
}
