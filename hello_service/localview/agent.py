"""Datadog's own test agent with two more routes, protected from web pages.

`GET /drain` returns the traces received and forgets them in one step. The test agent itself keeps everything until
`/test/session/clear`, so traces that arrive between a read and a clear would be lost. `PUT /v0.3/traces` accepts JSON,
as Datadog documents it for sending traces without a library. Requests from web pages are rejected, and nothing is
forwarded to another machine.
Run it as `python -m hello_service.localview.agent --port ...`. It has the options of ddapm-test-agent and --allow-host.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from aiohttp import web
from ddapm_test_agent import agent as ddapm

from hello_service.localview.hosts import host_name, is_local, is_own_origin

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON_TRACES_PATH = "/v0.3/traces"  # accepts the same requests as /v0.4/traces
# The test agent can forward requests to other machines: it has a proxy to any URL, and settings and headers that
# select another agent or switch forwarding on.
FORWARDING_PATHS = ("/vcr/", "/test/settings")
FORWARDING_HEADERS = ("X-Datadog-Proxy-Port", "X-Datadog-Agent-Proxy-Disabled")

dumps = partial(json.dumps, default=repr)  # a span may contain bytes


def make_app(allowed_hosts: Collection[str] = (), **options: Any) -> web.Application:
    """Return the test agent's application with `/drain`, `/v0.3/traces` and the request checks.

    Args:
        allowed_hosts: names accepted in the Host header, in addition to those that `is_local` always accepts.
        options: options of ddapm-test-agent.
    """
    # The test agent renders each trace for its log, whatever the log level. Under coverage, this took two minutes for a
    # trace of 5,000 nested spans.
    ddapm.pprint_trace = _render_nothing
    app: web.Application = ddapm.make_app(**options)
    app.router.add_get("/drain", drain)
    agent: ddapm.Agent = app["agent"]
    agent._forward_endpoints.append(JSON_TRACES_PATH)  # noqa: SLF001 - the paths whose requests it stores; its version is locked
    app.router.add_put(JSON_TRACES_PATH, agent.handle_v04_traces)
    app.router.add_post(JSON_TRACES_PATH, agent.handle_v04_traces)

    @web.middleware
    async def check_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        if reason := _rejection_reason(request, allowed_hosts):
            return web.json_response({"error": reason}, status=403)
        return await handler(request)

    app.middlewares.insert(0, check_request)
    return app


def _rejection_reason(request: web.Request, allowed_hosts: Collection[str]) -> str | None:
    """Return the reason to reject `request`, None to accept it."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    name = host_name(host)
    if name is None or not is_local(name, allowed_hosts):
        return f"Host {host!r} is not this machine. Allow it with --allow-host."
    if origin is not None and not is_own_origin(origin, host):
        return f"This agent rejects requests from web pages, such as those of {origin!r}."
    if request.path.startswith(FORWARDING_PATHS) or any(header in request.headers for header in FORWARDING_HEADERS):
        return "The embedded agent forwards nothing to other machines."
    return None


def _render_nothing(*_: object) -> str:
    return ""


async def drain(request: web.Request) -> web.Response:
    """Return the traces received since the last call, as a list of lists of spans, and forget them.

    There is no await between reading the requests and forgetting them, so no request can be lost.
    """
    agent: ddapm.Agent = request.app["agent"]
    stored_requests, agent._requests = agent._requests, []  # noqa: SLF001 - the agent has no such operation; its version is locked
    chunks: list[Any] = []
    for stored_request in stored_requests:
        if stored_request.path.endswith("/traces") and stored_request.method in {"PUT", "POST"}:
            try:
                chunks.extend(await agent._traces_from_request(stored_request))  # noqa: SLF001 - its version is locked
            except Exception:  # noqa: BLE001, S112 - the sender of a malformed trace already received an error response
                continue
            await asyncio.sleep(0)  # lets the agent serve other requests between two traces
    return web.json_response(chunks, dumps=dumps)


def main(arguments: list[str]) -> None:
    """Run the agent until a signal stops it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # the test agent parses all other options
    parser.add_argument("--allow-host", action="append", default=[], type=str.lower)
    options, test_agent_arguments = parser.parse_known_args(arguments)
    ddapm.main(test_agent_arguments, app_factory=partial(make_app, options.allow_host))


if __name__ == "__main__":
    main(sys.argv[1:])
