"""A long drill under load: memory levels off, descriptors and tasks don't grow, and no request or trace is lost."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass

import httpx
from running import Running, eventually, service

from drills.connections import descriptors, memory_mib
from drills.drill import Size, drill
from drills.sink import sink
from drills.traffic import LoadGenerator, Request

CAPACITY_SHARE = 0.6
SAMPLES = 180  # one every 10 s at full size
SPARE_DESCRIPTORS = 2  # for descriptors that are opened only once, such as the connection to the agent
MIX = [
    *[Request("/api/hello"), Request("/api/hello?name=Ada"), Request("/api/hello/Ada")] * 10,
    *[Request("/api/hello", "POST", b'{"name": "Ada"}')] * 8,
    *[
        Request("/api/hello/stream?count=2"),
        Request("/api/relay?count=2"),
        Request("/nothing/here", expected_status=404),
    ]
    * 4,
    Request("/api/faults/error", expected_status=500),
]


@dataclass(frozen=True)
class Sample:
    """The resources of the process at one moment.

    Attributes:
        memory_mib: the resident memory (RSS).
        descriptors: the number of open files and sockets.
        tasks: the number of asyncio tasks; each open connection has one or two.
    """

    memory_mib: float
    descriptors: int
    tasks: int


def take_sample(running: Running, client: httpx.Client) -> Sample:
    """Measure the process. `client` is a client of the service."""
    tasks = client.get("/info").json()["tasks"]
    running.lines.clear()  # otherwise the list grows by a line per request
    return Sample(memory_mib=memory_mib(running), descriptors=descriptors(running), tasks=tasks)


@drill(
    "30 minutes at 60% of capacity",
    "Memory levels off, descriptors and tasks don't grow, and every request has its trace",
)
def soak(size: Size) -> str:
    """The load consists of plain, streamed, relayed and failing requests."""
    return asyncio.run(_soak(seconds=size.of(20, 1800), size=size))


async def _soak(seconds: float, size: Size) -> str:
    """Measure the capacity of the service, and send a share of it for `seconds` seconds."""
    with (
        sink() as agent,
        service(agent.url, {"FAULTS": "true"}) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        capacity_test = LoadGenerator(running.url)
        await capacity_test.closed_loop(MIX, clients=1, count=len(MIX))  # creates everything that is created only once
        capacity_test.close()
        before = await asyncio.to_thread(take_sample, running, client)
        capacity = await capacity_test.closed_loop(MIX, clients=16, seconds=size.of(4, 20))
        capacity_test.close()

        clients = LoadGenerator(running.url)
        samples: list[Sample] = []
        stop = asyncio.Event()
        load = asyncio.create_task(clients.open_loop(MIX, capacity * CAPACITY_SHARE, stop))
        asyncio.get_running_loop().call_later(seconds, stop.set)
        while not load.done():
            samples.append(await asyncio.to_thread(take_sample, running, client))
            await asyncio.wait({load}, timeout=seconds / SAMPLES)
        clients.close()

        def is_at_rest(sample: Sample) -> bool:
            return sample.tasks <= before.tasks and sample.descriptors <= before.descriptors + SPARE_DESCRIPTORS

        # The service is its own upstream. It keeps idle connections to itself for some seconds.
        after = await asyncio.to_thread(eventually, lambda: take_sample(running, client), is_at_rest, timeout=120)
        code = running.stop()

    failures = capacity_test.results.failures + clients.results.failures
    sent_count = len(clients.results.span_ids)
    missing_ids = set(capacity_test.results.span_ids + clients.results.span_ids) - agent.span_ids
    third = len(samples) // 3
    middle_mib = statistics.median(sample.memory_mib for sample in samples[third : 2 * third])
    last_mib = statistics.median(sample.memory_mib for sample in samples[2 * third :])
    rate = sent_count / seconds
    assert rate > capacity * CAPACITY_SHARE / 2, f"{rate:.0f} requests/s are too few to prove anything"
    assert not failures, f"{len(failures)} of {sent_count} failed: {failures[:5]}"
    assert not missing_ids, f"{len(missing_ids)} of {sent_count} traces are missing"
    assert code == 0
    # The memory levels off, with a tolerance of 2 MiB, or of 8 MiB in the short form.
    assert last_mib - middle_mib < size.of(8, 2), (
        f"{middle_mib:.1f} MiB in the middle third, {last_mib:.1f} in the last"
    )
    return (
        f"{seconds / 60:.1f} minutes at {rate:.0f}/s ({CAPACITY_SHARE:.0%} of {capacity:.0f}/s): {sent_count} requests, "
        f"{len(missing_ids)} traces missing; {samples[0].memory_mib:.0f} MiB at first, "
        f"{middle_mib:.1f} in the middle third, {last_mib:.1f} in the last; "
        f"at rest {before.descriptors} descriptors and {before.tasks} tasks before, "
        f"{after.descriptors} and {after.tasks} after"
    )
