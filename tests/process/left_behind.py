"""Serve some requests in this process and print, as JSON, the types of the objects in the reference cycles that they
left, with counts.

Objects in a cycle stay in memory until the cyclic GC finds them, which costs more the longer it is put off.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
from collections import Counter

from machine import serve_endpoints_of_tests

from hello_service.observability import logs, tracing
from hello_service.serving import server
from hello_service.settings import Settings

REQUESTS = 20
# No 404: Quart keeps the exception on the request, whose traceback holds the request.
PATHS = ("/api/hello", "/api/relay?count=1", "/api/hello?name=")


async def send_requests(port: int, path: str, times: int, gone: bool) -> None:
    """Send requests over one new connection, and read each response, or disconnect before it."""
    for _ in range(times):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        end = "" if gone else "Connection: close\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{end}\r\n".encode())
        if gone:
            await writer.drain()
        else:
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()


async def main(settings: Settings) -> None:
    serve_endpoints_of_tests()
    listener = server.listen(settings)
    listener.listen()  # connections that arrive early have to wait
    port = listener.getsockname()[1]
    serving = server.Server(settings, listener, os.environ)
    running = asyncio.create_task(serving.serve())
    for path in PATHS:
        await send_requests(port, path, 2, gone=False)  # creates everything that is created once
    gc.collect()
    gc.disable()
    for path in PATHS:
        await send_requests(port, path, REQUESTS, gone=False)
    await send_requests(port, "/api/faults/slow?seconds=60", REQUESTS, gone=True)
    while serving.lifecycle.in_flight:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.01)
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    left = Counter(f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
    print(json.dumps(left), flush=True)  # noqa: T201 - for the test
    running.cancel()
    os._exit(0)


if __name__ == "__main__":
    from_environment = Settings.from_environment(os.environ)
    logs.configure(from_environment, tracing.log_ids, io.StringIO())
    asyncio.run(main(from_environment))
