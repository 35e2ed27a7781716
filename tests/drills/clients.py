"""A drill in which clients disconnect before they have their response."""

from __future__ import annotations

import asyncio
import sys

from fake_upstream import FakeUpstream, fake_upstream
from running import Agent, Running, eventually, service, trace_agent

from drills.connections import Connection, connect, connected, descriptors, in_flight, memory_mib, until
from drills.drill import Size, drill

AT_ONCE = 50
BATCHES_BETWEEN_COUNTS = 20  # bounds what the trace agent has to keep
TRACERS_OWN = 2  # connections that the tracer opens and closes
# asyncio.TaskGroup of earlier releases leaves a cancelled handler in a reference cycle (python/cpython#124958).
LIMIT_MIB = 20 if sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13) else 40


@drill(
    "client disconnects before the response ends",
    "The handler and its outbound call are cancelled, after `HALF_CLOSE_SECONDS` if no response has started. The "
    "span ends and records the disconnect. 10,000 disconnects leave no request, connection or file descriptor,"
    " and memory grows by less than 20 MiB (40 MiB on CPython 3.11, 3.12.7 and 3.13.0, whose `asyncio.TaskGroup` leaves"
    " reference cycles)",
    every_python=True,
)
def disconnects(size: Size) -> str:
    """Clients disconnect, half of them with a reset: during an outbound call, an upload and a stream."""
    return asyncio.run(_disconnect(size.of(6, 200)))


async def _disconnect(batches: int) -> str:
    tagged = cancelled = 0
    async with fake_upstream() as fake:
        with trace_agent() as agent, service(agent.url, {"UPSTREAM_URL": f"{fake.url}/any"}) as running:
            async with connected(running) as watcher:
                fake.behaviour = "/hang"
                await _go_away(running, watcher, fake)  # create everything that is created only once
                await asyncio.to_thread(_count, agent, AT_ONCE)
                before, memory = descriptors(running) + TRACERS_OWN, memory_mib(running)
                for batch in range(1, batches + 1):
                    await _go_away(running, watcher, fake)
                    if batch % BATCHES_BETWEEN_COUNTS == 0 or batch == batches:
                        so_far = (batch - 1) % BATCHES_BETWEEN_COUNTS + 1
                        found = await asyncio.to_thread(_count, agent, so_far * AT_ONCE)
                        tagged, cancelled = tagged + found[0], cancelled + found[1]
                await until(lambda: descriptors(running) <= before)
                grown = memory_mib(running) - memory
                fake.behaviour = "/json"
                after = (await watcher.get("/api/relay?count=1")).status
                left = (await in_flight(watcher), fake.open - 1, after)
    gone = batches * AT_ONCE
    assert left == (0, 0, 200), f"in flight, at the upstream, status afterwards: {left}"
    assert tagged == gone, f"{tagged} of {gone} spans record the disconnect"
    assert cancelled == gone * 3 // 5, f"{cancelled} of {gone * 3 // 5} outbound calls were cancelled"
    assert grown < LIMIT_MIB, f"{grown:.0f} MiB more"
    return (
        f"{gone} disconnects: {tagged} spans record them, {cancelled} outbound calls were cancelled; left behind: 0 requests, 0 outbound "
        f"connections, 0 descriptors; memory {grown:+.0f} MiB"
    )


async def _go_away(running: Running, watcher: Connection, fake: FakeUpstream) -> None:
    """Start requests, wait until they are in flight, close their connections, and wait until the requests have ended."""
    clients = [await connect(running) for _ in range(AT_ONCE)]
    calls = len(fake.paths)
    for number, client in enumerate(clients):
        if number % 5 == 0:
            client.send("/api/hello", "content-type: application/json\r\ncontent-length: 20\r\n", "POST")
        elif number % 5 == 1:
            client.send("/api/hello/stream?count=20")
        else:
            client.send("/api/relay?count=1")
    await until(lambda: len(fake.paths) - calls == AT_ONCE * 3 // 5)
    await until(lambda: _in_flight(watcher, AT_ONCE))
    for number, client in enumerate(clients):
        client.close(reset=number % 2 == 1)
    await until(lambda: _in_flight(watcher, 0))
    await until(lambda: fake.open == 0)


async def _in_flight(watcher: Connection, count: int) -> bool:
    return await in_flight(watcher) == count


def _count(agent: Agent, expected: int) -> tuple[int, int]:
    """Return how many requests and outbound calls have a span that records the disconnect, and clear the agent."""

    def gone() -> list[str]:
        return ["call" if span["name"] == "http.request" else "request" for span in agent.spans() if _ended(span)]

    found = eventually(gone, lambda names: names.count("request") >= expected, timeout=60)
    agent.clear()
    return found.count("request"), found.count("call")


def _ended(span: dict[str, dict[str, str]]) -> bool:
    meta = span["meta"]
    return meta.get("http.client_disconnected") == "true" or "no longer needed" in meta.get("error.message", "")
