"""Serves three requests of hello_service in this process, and prints which Python functions of ddtrace they call.

`python count_calls.py` prints a JSON object: `middleware` has the modules of the app's ASGI middleware, and `calls` has
the number of calls by function.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import threading
from collections import Counter
from types import FrameType
from typing import Any

from quart import Quart
from routes import ENDPOINTS

from hello_service.app import create_app

PATHS = ["/api/hello", "/api/relay", "/nowhere"]
calls: Counter[str] = Counter()


def count_call(frame: FrameType, event: str, _argument: object) -> None:
    """Count a call if the function is ddtrace's. This is a profile function for `sys.setprofile`."""
    if event == "call" and "/ddtrace/" in frame.f_code.co_filename:
        calls[f"{frame.f_code.co_filename.rpartition('/ddtrace/')[2]}:{frame.f_code.co_name}"] += 1


async def send_requests(app: Quart) -> None:
    async with app.test_app() as running:
        client = running.test_client()
        for path in PATHS:  # once without counting, because first requests import modules
            await client.get(path)
        threading.setprofile(count_call)
        sys.setprofile(count_call)
        for path in PATHS:
            await client.get(path)
        sys.setprofile(None)
        threading.setprofile(None)


def main() -> None:
    app = create_app(endpoints=ENDPOINTS)
    modules = []
    asgi_app: Any = app.asgi_app
    while not inspect.ismethod(asgi_app):  # the innermost is Quart's own asgi_app, which is a method
        modules.append(type(asgi_app).__module__)
        # Each middleware keeps the app that it wraps in an attribute with one of these names.
        asgi_app = next(value for name, value in vars(asgi_app).items() if name in {"app", "_app", "inner", "quart"})
    asyncio.run(send_requests(app))
    print(json.dumps({"middleware": modules, "calls": calls}))  # noqa: T201 - for the test


if __name__ == "__main__":
    os.environ.setdefault("UPSTREAM_URL", "http://127.0.0.1:9/")  # nothing listens on this port
    main()
