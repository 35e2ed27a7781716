"""Serves requests in this process, and prints the objects that remain in reference cycles: a count per type, as JSON.

Objects in a cycle stay in memory until the cyclic GC frees them. A collection costs more the longer it is delayed.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
from collections import Counter

from serve_test_endpoints import use_test_endpoints

from hello_service.observability import logs, tracing
from hello_service.serving.server import Server, listen
from hello_service.settings import Settings

REQUESTS = 20  # to each path, because a cycle may depend on the order of events
# A request that succeeds, one with an outbound call, and one that fails because its name is empty. There is no 404,
# because it makes a cycle in Quart: the request keeps the exception, whose traceback keeps the request.
PATHS = ("/api/hello", "/api/relay?count=1", "/api/hello?name=")


async def send_requests(port: int, path: str, times: int, *, disconnect: bool = False) -> None:
    """Send each request over a new connection. Read the response, or disconnect before it if `disconnect` is set."""
    for _ in range(times):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        close_header = "" if disconnect else "Connection: close\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{close_header}\r\n".encode())
        if disconnect:
            await writer.drain()
        else:
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()


async def main(settings: Settings) -> None:
    """Print the counts after successful, failed and canceled requests, with an outbound call and without."""
    use_test_endpoints()
    listener = listen(settings)
    listener.listen()  # so that connections before the server starts wait instead of being refused
    port = listener.getsockname()[1]
    server = Server(settings, listener, os.environ)
    server_task = asyncio.create_task(server.serve())
    for path in PATHS:
        await send_requests(port, path, 2)  # creates everything that is created only once
    gc.collect()
    gc.disable()
    for path in PATHS:
        await send_requests(port, path, REQUESTS)
    await send_requests(port, "/api/faults/slow?seconds=60", REQUESTS, disconnect=True)
    while server.lifecycle.in_flight:  # noqa: ASYNC110 - no event signals it
        await asyncio.sleep(0.01)
    gc.set_debug(gc.DEBUG_SAVEALL)  # the next collection puts the objects in cycles into gc.garbage
    gc.collect()
    gc.set_debug(0)
    types = [type(item) for item in gc.garbage]
    counts = Counter(f"{kind.__module__}.{kind.__name__}" for kind in types)
    print(json.dumps(counts), flush=True)  # noqa: T201 - read by the test
    server_task.cancel()
    os._exit(0)  # the stop of the server isn't tested here


if __name__ == "__main__":
    environment_settings = Settings.from_environment(os.environ)
    logs.configure(environment_settings, tracing.log_ids, io.StringIO())
    asyncio.run(main(environment_settings))
