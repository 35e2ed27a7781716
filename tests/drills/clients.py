"""A drill in which clients disconnect before they have their response."""

from __future__ import annotations

import asyncio
import sys

from fake_upstream import FakeUpstream, fake_upstream
from running import Agent, Running, eventually, service, trace_agent

from drills.connections import Connection, connect, connected, descriptors, in_flight, memory_mib, until
from drills.drill import Size, drill

CLIENTS = 50
CALLS = CLIENTS * 3 // 5  # the number of clients whose requests make the service call its upstream
BATCHES_BETWEEN_COUNTS = 20  # few, because the trace agent keeps all spans until they are counted
TRACER_CONNECTIONS = 2  # the tracer opens and closes them, at most two at once
# Before 3.12.8 and in 3.13.0, asyncio.TaskGroup leaves a canceled handler in a reference cycle
# (python/cpython#124958).
MAX_GROWTH_MIB = 20 if sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13) else 40


@drill(
    "client disconnects before the response ends",
    "The handler and its outbound call are canceled, after `HALF_CLOSE_SECONDS` if no response has started. The "
    "span ends and records the disconnect. 10,000 disconnects leave no request, connection or file descriptor,"
    " and memory grows by less than 20 MiB (40 MiB on CPython before 3.12.8, and 3.13.0, whose `asyncio.TaskGroup`"
    " leaves reference cycles)",
    every_python=True,
)
def disconnects(size: Size) -> str:
    """Clients disconnect during an outbound call, an upload or a stream, half of them with a reset."""
    return asyncio.run(_disconnect(batches=size.of(6, 200)))


async def _disconnect(batches: int) -> str:
    recorded_count = canceled_count = 0
    async with fake_upstream() as fake:
        with trace_agent() as agent, service(agent.url, {"UPSTREAM_URL": f"{fake.url}/any"}) as running:
            async with connected(running) as watcher:
                fake.behavior = "/hang"
                await _send_and_disconnect(running, watcher, fake)  # creates everything that is created only once
                await asyncio.to_thread(_count_disconnects, agent, CLIENTS)
                max_descriptors = descriptors(running) + TRACER_CONNECTIONS
                memory_before = memory_mib(running)
                uncounted = 0
                for batch in range(1, batches + 1):
                    await _send_and_disconnect(running, watcher, fake)
                    uncounted += CLIENTS
                    if batch % BATCHES_BETWEEN_COUNTS == 0 or batch == batches:
                        requests, calls = await asyncio.to_thread(_count_disconnects, agent, uncounted)
                        recorded_count += requests
                        canceled_count += calls
                        uncounted = 0
                await until(lambda: descriptors(running) <= max_descriptors)
                growth = memory_mib(running) - memory_before
                fake.behavior = "/json"
                status = (await watcher.get("/api/relay?count=1")).status
                in_flight_after = await in_flight(watcher)
                outbound_after = fake.open_connections - 1  # without the idle connection of the last call
    total = batches * CLIENTS
    total_calls = batches * CALLS
    assert in_flight_after == 0
    assert outbound_after == 0
    assert status == 200
    assert recorded_count == total, f"{recorded_count} of {total} spans record the disconnect"
    assert canceled_count == total_calls, f"{canceled_count} of {total_calls} outbound calls were canceled"
    assert growth < MAX_GROWTH_MIB, f"{growth:.0f} MiB more"
    return (
        f"{total} disconnects: {recorded_count} spans record them, {canceled_count} outbound calls were canceled; "
        f"remaining: 0 requests, 0 outbound connections, 0 descriptors; memory {growth:+.0f} MiB"
    )


async def _send_and_disconnect(running: Running, watcher: Connection, fake: FakeUpstream) -> None:
    """Send requests, disconnect while all of them are in flight, and wait until they have ended.

    Of every five clients, one uploads, one receives a stream, and three make the service call its upstream.
    """
    clients = [await connect(running) for _ in range(CLIENTS)]
    calls_before = len(fake.paths)
    for number, client in enumerate(clients):
        if number % 5 == 0:
            # The body isn't sent, so the upload stays in flight.
            header_lines = "content-type: application/json\r\ncontent-length: 20\r\n"
            client.send("/api/hello", header_lines, method="POST")
        elif number % 5 == 1:
            client.send("/api/hello/stream?count=20")
        else:
            client.send("/api/relay?count=1")
    await until(lambda: len(fake.paths) - calls_before == CALLS)
    await until(lambda: _has_in_flight(watcher, CLIENTS))
    for number, client in enumerate(clients):
        client.close(reset=number % 2 == 1)
    await until(lambda: _has_in_flight(watcher, 0))
    await until(lambda: fake.open_connections == 0)


async def _has_in_flight(watcher: Connection, count: int) -> bool:
    return await in_flight(watcher) == count


def _count_disconnects(agent: Agent, expected: int) -> tuple[int, int]:
    """Wait for the spans of `expected` requests that record a disconnect, and clear the agent.

    Returns:
        The number of requests whose span records a disconnect, and the number of outbound calls canceled by one.
    """

    def kinds() -> list[str]:
        spans = [span for span in agent.spans() if _records_disconnect(span)]
        return ["call" if span["name"] == "http.request" else "request" for span in spans]

    received_kinds = eventually(kinds, lambda kinds: kinds.count("request") >= expected, timeout=60)
    agent.clear()
    return received_kinds.count("request"), received_kinds.count("call")


def _records_disconnect(span: dict[str, dict[str, str]]) -> bool:
    """Return whether the span of a request has the tag, or the span of a call has the message of a canceled call."""
    meta = span["meta"]
    return meta.get("http.client_disconnected") == "true" or "no longer needed" in meta.get("error.message", "")
