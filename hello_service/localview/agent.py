"""Datadog's own test agent with two more routes, for this machine alone.

`GET /drain` returns the traces received and forgets them: the agent keeps everything until `/test/session/clear`, and
what arrives between a read and a clear would be lost. `PUT /v0.3/traces` takes JSON, as Datadog documents it for sending
traces without a library. Requests of web pages are refused, and nothing is sent on to another machine.
Started as `python -m hello_service.localview.agent --port ...`, with the options of ddapm-test-agent and --allow-host.
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

DOCUMENTED = "/v0.3/traces"  # takes what /v0.4/traces takes
# The test agent's own ways to other machines: a proxy to any URL, and settings and headers that name an agent to forward to.
FORWARDING_PATHS = ("/vcr/", "/test/settings")
FORWARDING_HEADERS = ("X-Datadog-Proxy-Port", "X-Datadog-Agent-Proxy-Disabled")

dumps = partial(json.dumps, default=repr)  # a span may hold bytes


def make_app(allowed_hosts: Collection[str] = (), **options: Any) -> web.Application:
    """Return the test agent's own application, with `/drain` and `/v0.3/traces`, guarded.

    Args:
        allowed_hosts: names in the Host header that are accepted beside those that only this machine can have.
        options: those of ddapm-test-agent.
    """
    # It draws each trace for its log, at any log level; under coverage one of 5,000 nested spans took it two minutes.
    ddapm.pprint_trace = _drawn
    app: web.Application = ddapm.make_app(**options)
    app.router.add_get("/drain", drain)
    agent: ddapm.Agent = app["agent"]
    agent._forward_endpoints.append(DOCUMENTED)  # noqa: SLF001 - the paths whose requests it stores; its version is locked
    app.router.add_put(DOCUMENTED, agent.handle_v04_traces)
    app.router.add_post(DOCUMENTED, agent.handle_v04_traces)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if refusal := _refusal(request, allowed_hosts):
            return web.json_response({"error": refusal}, status=403)
        return await handler(request)

    app.middlewares.insert(0, guard)
    return app


def _refusal(request: web.Request, allowed_hosts: Collection[str]) -> str | None:
    """Return why `request` gets no response, None where it does."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    name = host_name(host)
    if name is None or not is_local(name, allowed_hosts):
        return f"Host {host!r} is not this machine. Allow it with --allow-host."
    if origin is not None and not is_own_origin(origin, host):
        return f"This agent does not respond to web pages, such as those of {origin!r}."
    if request.path.startswith(FORWARDING_PATHS) or any(name in request.headers for name in FORWARDING_HEADERS):
        return "The embedded agent sends nothing on to other machines."
    return None


def _drawn(*_: object) -> str:
    return ""


async def drain(request: web.Request) -> web.Response:
    """Answer with the traces received since the last call, a list of lists of spans, and forget them.

    Nothing is awaited between taking the requests and forgetting them, so none can slip through.
    """
    agent: ddapm.Agent = request.app["agent"]
    received, agent._requests = agent._requests, []  # noqa: SLF001 - the agent has no such operation; its version is locked
    chunks: list[Any] = []
    for each in received:
        if each.path.endswith("/traces") and each.method in {"PUT", "POST"}:
            try:
                chunks.extend(await agent._traces_from_request(each))  # noqa: SLF001 - the same
            except Exception:  # noqa: BLE001, S112 - whoever sent what is no trace got the reason as the answer
                continue
            await asyncio.sleep(0)
    return web.json_response(chunks, dumps=dumps)


def main(arguments: list[str]) -> None:
    """Run the agent until a signal ends it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--allow-host", action="append", default=[], type=str.lower)
    own, rest = parser.parse_known_args(arguments)
    ddapm.main(rest, app_factory=partial(make_app, own.allow_host))


if __name__ == "__main__":
    main(sys.argv[1:])
