"""Datadog's own test agent with one route more: GET /drain hands over the traces received and forgets them.

The agent keeps everything until `/test/session/clear`, and what arrives between a read and a clear would be lost.
Started as `python -m hello_service.localview.agent --port ...`, with the options of ddapm-test-agent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import Any

from aiohttp import web
from ddapm_test_agent import agent as ddapm

dumps = partial(json.dumps, default=repr)  # a span may hold bytes


def make_app(**options: Any) -> web.Application:
    """Return the test agent's own application, with `/drain`."""
    # It draws each trace for its log, at any log level; under coverage one of 5,000 nested spans took it two minutes.
    ddapm.pprint_trace = _drawn
    app: web.Application = ddapm.make_app(**options)
    app.router.add_get("/drain", drain)
    return app


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


if __name__ == "__main__":
    ddapm.main(sys.argv[1:], app_factory=make_app)
