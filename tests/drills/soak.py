"""A drill of a long time under load: nothing grows, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import httpx
from running import Running, eventually, service

from drills.drill import Size, drill
from drills.sink import sink
from drills.traffic import LoadGenerator, Request

SHARE = 0.6
SPARE_DESCRIPTORS = 2  # opened once, such as the connection to the agent
MIX = [
    *[Request("/api/hello"), Request("/api/hello?name=Ada"), Request("/api/hello/Ada")] * 10,
    *[Request("/api/hello", "POST", b'{"name": "Ada"}')] * 8,
    *[Request("/api/hello/stream?count=2"), Request("/api/relay?count=2"), Request("/nothing/here", status=404)] * 4,
    Request("/api/faults/error", status=500),
]


@dataclass(frozen=True)
class Sample:
    """The resources of the process at one moment.

    Attributes:
        memory_mib: RSS.
        descriptors: open files and sockets.
        tasks: asyncio tasks, with one or two for each open connection.
    """

    memory_mib: float
    descriptors: int
    tasks: int


def sample(running: Running, client: httpx.Client) -> Sample:
    """Take a sample; `client` has its own connection."""
    tasks = client.get("/info").json()["tasks"]
    process = Path(f"/proc/{running.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    running.lines.clear()  # one line per request
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list((process / "fd").iterdir())), tasks)


@drill(
    "30 minutes at 60% of capacity",
    "Memory levels off, descriptors and tasks don't grow, and every request has its trace",
)
def soak(size: Size) -> str:
    """The load has every kind of request, with an error now and then."""
    return asyncio.run(soaked(size.of(20, 1800), size))


async def soaked(seconds: float, size: Size) -> str:
    """Measure the capacity of the service, and send a share of it for `seconds`."""
    with (
        sink() as agent,
        service(agent.url, {"FAULTS": "true"}) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        full = LoadGenerator(running.url)
        await full.closed_loop(MIX, 1, count=len(MIX))
        full.close()
        rested = await asyncio.to_thread(sample, running, client)
        capacity = await full.closed_loop(MIX, 16, seconds=size.of(4, 20))
        full.close()

        clients, over, samples = LoadGenerator(running.url), asyncio.Event(), list[Sample]()
        load = asyncio.create_task(clients.open_loop(MIX, capacity * SHARE, over))
        asyncio.get_running_loop().call_later(seconds, over.set)
        while not load.done():
            samples.append(await asyncio.to_thread(sample, running, client))
            await asyncio.wait({load}, timeout=seconds / 180)
        clients.close()

        def at_rest(now: Sample) -> bool:
            # Connections to the upstream, the service itself, are kept idle for some seconds.
            return now.tasks <= rested.tasks and now.descriptors <= rested.descriptors + SPARE_DESCRIPTORS

        after = await asyncio.to_thread(eventually, lambda: sample(running, client), at_rest, 120)
        code = running.stop()

    failures = full.results.failures + clients.results.failures
    sent = len(clients.results.spans)
    missing = set(full.results.spans + clients.results.spans) - agent.spans
    third = len(samples) // 3
    middle, last = (
        [statistics.median(each.memory_mib for each in part), statistics.median(each.descriptors for each in part)]
        for part in (samples[third : 2 * third], samples[2 * third :])
    )
    grown = last[0] - middle[0]
    rate = sent / seconds
    assert rate > capacity * SHARE / 2, f"{rate:.0f} requests/s show nothing"
    assert not failures, f"{len(failures)} of {sent} failed: {failures[:5]}"
    assert not missing, f"{len(missing)} of {sent} traces are missing"
    assert code == 0
    assert grown < size.of(8, 2), f"{middle[0]:.1f} MiB in the middle third, {last[0]:.1f} MiB in the last"
    return (
        f"{seconds / 60:.1f} minutes at {rate:.0f}/s ({SHARE:.0%} of {capacity:.0f}/s): {sent} requests, {len(missing)} traces "
        f"missing; {samples[0].memory_mib:.0f} MiB at first, {middle[0]:.1f} in the middle third, {last[0]:.1f} in the last; at rest "
        f"{rested.descriptors} descriptors and {rested.tasks} tasks before, {after.descriptors} and {after.tasks} after"
    )
