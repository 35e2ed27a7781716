"""Tests that ddtrace's telemetry reports Quart's routes (the endpoint inventory), as it reports FastAPI's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx
from running import BIN, QUIET, Agent, clean_environment, eventually, free_port, started

from hello_service.observability import tracing

QUART_APP = """
import quart, tracing

app = tracing.trace(quart.Quart(__name__))

@app.get("/users/<int:number>")
async def user(number):
    return {}

@app.route("/things", methods=["POST", "PUT"])
async def things():
    return {}

@app.websocket("/ws")
async def ws():
    pass
"""
MOUNTED_QUART_APP = f"""{QUART_APP}
from hypercorn.middleware import DispatcherMiddleware

app = DispatcherMiddleware({{"/shop": app}})
"""
FASTAPI_APP = """
import fastapi

app = fastapi.FastAPI(openapi_url=None)

@app.get("/users/{number}")
async def user(number: int):
    return {}

@app.api_route("/things", methods=["POST", "PUT"])
async def things():
    return {}

@app.websocket("/ws")
async def ws(socket: fastapi.WebSocket):
    pass
"""


def reported_endpoints(
    source: str, folder: Path, agent: Agent, *, count: int, path: str = "/users/7"
) -> set[tuple[str, str, str]]:
    """Serve the app in `source`, and return method, path and resource of each endpoint that ddtrace reports.

    Sends a request for `path`, and waits until `count` endpoints have been reported.
    """
    agent.clear()
    folder.mkdir()
    (folder / "app.py").write_text(source)
    shutil.copy(tracing.__file__, folder)
    port = free_port()
    command = [str(BIN / "ddtrace-run"), str(BIN / "uvicorn"), "app:app", "--host", "127.0.0.1", "--port", str(port)]
    telemetry = {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "true", "DD_TELEMETRY_HEARTBEAT_INTERVAL": "1"}
    environment = {**QUIET, **telemetry, "PYTHONPATH": str(folder), "DD_TRACE_AGENT_URL": agent.url}

    def received_endpoints() -> set[tuple[str, str, str]]:
        endpoints = set()
        for message in httpx.get(f"{agent.url}/test/session/apmtelemetry", timeout=10).json():
            # An event arrives alone or in a batch.
            events = message["payload"] if message["request_type"] == "message-batch" else [message]
            for event in events:
                if event["request_type"] == "app-endpoints":
                    for endpoint in event["payload"]["endpoints"]:
                        endpoints.add((endpoint["method"], endpoint["path"], endpoint["resource_name"]))
        return endpoints

    with started(command, clean_environment(environment), cwd=folder) as running:
        running.wait_until_responding(f"http://127.0.0.1:{port}{path}")
        return eventually(received_endpoints, lambda endpoints: len(endpoints) >= count, timeout=60)


def test_the_agent_receives_the_same_routes_from_quart_and_from_fastapi(tmp_path: Path, agent: Agent) -> None:
    """Quart itself adds the methods HEAD and OPTIONS, and a route for static files, so it has nine endpoints.

    WebSockets aren't reported from either.
    """
    quart = reported_endpoints(QUART_APP, tmp_path / "quart", agent, count=9)
    fastapi = reported_endpoints(FASTAPI_APP, tmp_path / "fastapi", agent, count=3)
    # <int:number> becomes {number}, as in FastAPI.
    translated = {tuple(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text) for text in endpoint) for endpoint in quart}
    only_in_quart = {(method, path.split("/")[1]) for method, path, _ in translated - fastapi}

    assert len(fastapi) == 3
    assert fastapi <= translated
    assert only_in_quart == {
        ("HEAD", "users"),
        ("OPTIONS", "users"),
        ("OPTIONS", "things"),
        ("GET", "static"),
        ("HEAD", "static"),
        ("OPTIONS", "static"),
    }


def test_the_routes_of_a_mounted_app_have_the_mount_path(tmp_path: Path, agent: Agent) -> None:
    endpoints = reported_endpoints(MOUNTED_QUART_APP, tmp_path / "mounted", agent, count=9, path="/shop/users/7")

    assert ("GET", "/shop/users/<int:number>", "GET /shop/users/<int:number>") in endpoints
    assert [path for _, path, _ in endpoints if not path.startswith("/shop/")] == []
