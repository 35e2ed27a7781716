"""Serve three requests of hello_service in this process, and say which functions of ddtrace were called meanwhile.

python served.py        says as JSON: {"traced": whether a layer of tracing.py is in the way, "calls": {...}}
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


def note(frame: FrameType, event: str, _argument: object) -> None:
    """Count a call of a function of ddtrace, and of nothing else."""
    if event == "call" and "/ddtrace/" in frame.f_code.co_filename:
        calls[f"{frame.f_code.co_filename.rpartition('/ddtrace/')[2]}:{frame.f_code.co_name}"] += 1


async def serve(app: Quart) -> None:
    async with app.test_app() as running:
        client = running.test_client()
        for path in PATHS:  # what is imported late is imported now
            await client.get(path)
        threading.setprofile(note)
        sys.setprofile(note)
        for path in PATHS:
            await client.get(path)
        sys.setprofile(None)
        threading.setprofile(None)


def main() -> None:
    app = create_app(endpoints=ENDPOINTS)
    layers = []
    layer: Any = app.asgi_app
    while not inspect.ismethod(layer):  # Quart's own
        layers.append(type(layer).__module__)
        layer = next(value for name, value in vars(layer).items() if name in {"app", "_app", "quart"})
    asyncio.run(serve(app))
    print(json.dumps({"layers": layers, "calls": calls, "loaded": "ddtrace.bootstrap" in sys.modules}))  # noqa: T201 - for the test


if __name__ == "__main__":
    os.environ.setdefault("UPSTREAM_URL", "http://127.0.0.1:9/")
    main()
