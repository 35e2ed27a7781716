"""Drills in which the upstream misbehaves, or is slow while many clients send requests."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from time import perf_counter

from fake_http import fake_http
from fake_upstream import FakeUpstream, fake_upstream
from running import Agent, Running, Span, eventually, service, trace_agent

from drills.connections import (
    Connection,
    Response,
    connect,
    connected,
    descriptors,
    in_flight,
    memory_mib,
    percentile,
    until,
)
from drills.drill import Size, drill

TIMEOUT_SECONDS = 2.0  # the service's time limit for a call of its upstream
BODY_BYTES = 1_048_576  # the service's limit for the body of an upstream's response, by default

# Each row has the upstream's behavior, the status of the service's response, and the type and message of the error on
# the spans of the request and of its call. If the message is a status, the span of the call has only that status.
MISBEHAVIORS = (
    ("/hang", 504, "Timeout", "The upstream did not respond in time."),
    ("/drip", 504, "Timeout", "The upstream's response was not complete in time."),
    ("/reset", 502, "ReadError", "The upstream's response was cut short."),
    ("/cut", 502, "ReadError", "The upstream's response was cut short."),
    ("/nothing", 502, "ReadError", "The upstream closed the connection before it responded."),
    ("/garbage", 502, "ProtocolError", "The upstream's response is not HTTP."),
    ("/big", 502, "TooLarge", "The upstream's response is larger than this service accepts."),
    ("/broken", 502, "BadStatus", "500"),
    ("/loop", 502, "BadStatus", "302"),
    # The last row, because the upstream doesn't listen again.
    ("refused", 502, "ConnectError", "The upstream refused the connection, or could not be reached."),
)


@drill(
    "upstream refuses connections, hangs, resets a response, responds with 500, sends 100 MB, sends garbage, "
    "drips a byte a second, redirects forever, or closes idle connections just as they are reused",
    "The client gets 502 or 504, whichever fits, within 125% of the timeout. The body limit holds, no connection,"
    " request or descriptor remains, a call on a stale connection is retried, and both spans have the cause",
)
def misbehaving_upstream(size: Size) -> str:
    """First the upstream closes connections as they are reused. Then it misbehaves in each way to several requests."""
    return asyncio.run(_misbehaving_upstream(requests=size.of(5, 100), drip_seconds=size.of(0.2, 1.0)))


async def _misbehaving_upstream(requests: int, drip_seconds: float) -> str:
    slowest = 0.0
    async with fake_upstream() as fake:
        settings = {"UPSTREAM_URL": f"{fake.url}/any", "UPSTREAM_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}
        with trace_agent() as agent, service(agent.url, settings) as running:
            async with connected(running) as watcher:
                clients = [await connect(running) for _ in range(requests)]
                stale_calls = await _reuse_stale_connections(fake, clients)
                # There were four rounds, and each request has two spans: its own, and the span of its call.
                await asyncio.to_thread(_take_spans, agent, 4 * 2 * requests)
                descriptors_before = descriptors(running) - fake.open_connections
                fake.delay_seconds = drip_seconds
                for behavior, status, error, message in MISBEHAVIORS:
                    if behavior == "refused":
                        fake.refuse()
                    fake.behavior = behavior
                    calls_before = len(fake.paths)
                    responses = await asyncio.gather(*(client.get("/api/relay?count=1") for client in clients))
                    slowest = max(slowest, *(response.seconds for response in responses))
                    assert {response.status for response in responses} == {status}, (behavior, responses)
                    calls = len(fake.paths) - calls_before
                    assert calls == (0 if behavior == "refused" else requests), behavior
                    spans = await asyncio.to_thread(_take_spans, agent, 2 * requests)
                    _check_spans(spans, behavior, error, message)
                    # After a complete response, the service may keep its connection to the upstream. Its pool has 100.
                    max_idle = 100 if behavior in {"/broken", "/loop"} else 0
                    await until(lambda max_idle=max_idle: fake.open_connections <= max_idle)
                    await until(lambda: descriptors(running) - fake.open_connections <= descriptors_before)
                    assert await in_flight(watcher) == 0
                for client in clients:
                    client.close()
    sent_per_call = fake.sent_bytes / requests
    assert slowest < TIMEOUT_SECONDS * 1.25, f"the slowest response took {slowest:.2f} s"
    # The buffers between the upstream and the service hold several times the body limit.
    assert sent_per_call < 20 * BODY_BYTES, f"the upstream could send {sent_per_call:.0f} bytes of 100 MB"
    return (
        f"{requests} requests for each: all responses correct, "
        f"the slowest after {slowest:.2f} s of {TIMEOUT_SECONDS:g}; "
        f"{sent_per_call / 1e6:.1f} of 100 MB left the upstream; "
        f"{stale_calls} calls on stale connections got 200; nothing remained"
    )


async def _reuse_stale_connections(fake: FakeUpstream, clients: list[Connection]) -> int:
    """Let the service reuse connections that the upstream closes on reuse, with and without a reset.

    Returns:
        The number of calls whose connection was closed, all of which succeeded by a retry.
    """
    for behavior in ("/once", "/once-reset"):
        for path in (behavior, "/json"):
            fake.behavior = path
            responses = await asyncio.gather(*(client.get("/api/relay?count=1") for client in clients))
            assert {response.status for response in responses} == {200}, (behavior, path, responses)
    assert fake.dropped, "no connection was reused"
    return len(fake.dropped)


def _take_spans(agent: Agent, count: int) -> list[Span]:
    """Wait for `count` spans of relay requests and their calls, return all of them and clear the agent."""

    def relay_spans() -> list[Span]:
        return [span for span in agent.spans() if span["resource"] != "GET /info"]

    spans = eventually(relay_spans, lambda spans: len(spans) >= count)
    agent.clear()
    return spans


def _check_spans(spans: list[Span], behavior: str, error: str, message: str) -> None:
    for span in spans:
        meta = span["meta"]
        if span["name"] == "http.request" and message.isdigit():
            assert meta.get("http.status_code") == message, (behavior, span)
        else:
            assert meta.get("error.type") == f"hello_service.problems.Upstream{error}", (behavior, span)
            assert message in meta["error.message"], (behavior, span)


UPSTREAM_SECONDS = 2.0  # the time that the upstream takes for each response
SATURATED = b"too many calls wait for one"  # part of the detail of an UpstreamSaturated problem


@dataclass
class Measurements:
    """Measurements during a flood of requests.

    Attributes:
        refusals: the responses to requests that were refused because too many calls waited.
        other_responses: all other responses.
        health_seconds: the seconds that each request to `/health` took.
        most_requests: the highest number of requests that were in flight at once.
        most_calls: the highest number of connections that were open to the upstream at once.
        growth_mib: the growth of the service's memory.
        recovery_seconds: the seconds from the end of the flood until a call succeeded.
    """

    refusals: list[Response] = field(default_factory=list)
    other_responses: list[Response] = field(default_factory=list)
    health_seconds: list[float] = field(default_factory=list)
    most_requests: int = 0
    most_calls: int = 0
    growth_mib: float = 0.0
    recovery_seconds: float = 0.0


@drill(
    "slow upstream with 2,000 clients",
    "No more requests wait than the settings allow, and the rest get a 503 with `Retry-After` within 100 ms "
    "(p99). `/health` responds within 200 ms (p99), memory grows by less than 150 MiB, and calls succeed again "
    "within 2 s of the flood's end",
)
def flood(size: Size) -> str:
    """Clients connect one after the other over some seconds, and retry after the time in `Retry-After`.

    If all of them connected at the same moment, the drill would measure the wrong thing: one process needs some seconds
    for 2,000 requests, whatever the response is, so the last client couldn't get its response within 100 ms. The
    refusals have to spread the retries: the more clients there are, the later each has to retry.
    """
    return asyncio.run(_flood(size))


async def _flood(size: Size) -> str:
    clients = size.of(300, 2000)
    seconds = size.of(10, 60)
    connections = waiting = size.of(15, 100)  # far fewer than the clients, so requests are refused
    measured = Measurements()
    settings = {"UPSTREAM_CONNECTIONS": str(connections), "UPSTREAM_WAITING": str(waiting)}
    async with fake_upstream() as fake:
        fake.behavior = "/slow"
        fake.delay_seconds = UPSTREAM_SECONDS
        # This agent discards the spans, which the drill doesn't check.
        with fake_http({}) as agent, service(agent.url, {**settings, "UPSTREAM_URL": f"{fake.url}/any"}) as running:
            async with connected(running) as watcher:
                await watcher.get("/info")
                memory_before = memory_mib(running)
                async with asyncio.timeout(seconds + 60):
                    tasks = [asyncio.create_task(_send_requests(running, measured, clients)) for _ in range(clients)]
                    await _watch(watcher, measured, seconds)
                measured.growth_mib = memory_mib(running) - memory_before
                for task in tasks:
                    task.cancel()
                fake.behavior = "/json"
                measured.recovery_seconds = await until(lambda: _call_succeeds(watcher))
                await until(lambda: _is_idle(watcher))
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert isinstance(result, asyncio.CancelledError), result
    measured.most_calls = fake.most_open_connections
    return _check_promise(measured, connections, waiting, tolerance=size.of(10, 1))


async def _send_requests(running: Running, measured: Measurements, clients: int) -> None:
    """Connect at a random time, so that about a hundred of the `clients` connect each second. Then send requests until
    canceled, each after the time in the last `Retry-After`, or after 5 s without this header.
    """
    await asyncio.sleep(random.uniform(0, clients / 100))
    async with connected(running) as connection:
        while True:
            response = await connection.get("/api/relay?count=1")
            if SATURATED in response.body:
                measured.refusals.append(response)
            else:
                measured.other_responses.append(response)
            # Up to 50% later than required, so that the clients don't retry at the same moment.
            await asyncio.sleep(float(response.headers.get("retry-after", "5")) * random.uniform(1, 1.5))


async def _watch(watcher: Connection, measured: Measurements, seconds: float) -> None:
    """Measure `/health` and the requests in flight for `seconds` seconds."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        measured.health_seconds.append((await watcher.get("/health")).seconds)
        measured.most_requests = max(measured.most_requests, await in_flight(watcher))
        await asyncio.sleep(0.2)  # the service closes a connection after 1,000 requests, so this sends fewer


async def _call_succeeds(watcher: Connection) -> bool:
    return (await watcher.get("/api/relay?count=1")).status == 200


async def _is_idle(watcher: Connection) -> bool:
    return await in_flight(watcher) == 0


def _check_promise(measured: Measurements, connections: int, waiting: int, *, tolerance: int) -> str:
    """Compare the measurements with the promise, and return them as text.

    Responses may take `tolerance` times as long as promised: in its short form, the drill may run on a busy machine.
    """
    refused_ms = percentile([response.seconds for response in measured.refusals], 0.99) * 1000
    health_ms = percentile(measured.health_seconds, 0.99) * 1000
    statuses = {response.status for response in measured.other_responses}
    figures = (
        f"{len(measured.refusals)} refused, p99 {refused_ms:.0f} ms; {len(measured.other_responses)} waited, "
        f"at most {measured.most_calls} calls at once; `/health` p99 {health_ms:.0f} ms; "
        f"memory {measured.growth_mib:+.0f} MiB; calls succeed again after {measured.recovery_seconds:.2f} s"
    )
    assert {response.status for response in measured.refusals} == {503}, figures
    # At least one timeout of a call, which is 5 s by default.
    assert all(int(response.headers["retry-after"]) >= 5 for response in measured.refusals), figures
    assert statuses <= {200, 503, 504}, statuses
    assert 200 in statuses, figures
    assert measured.most_calls <= connections * 1.5, figures  # an abandoned connection is open a moment longer
    # Requests that are just being refused are also in flight.
    assert measured.most_requests <= (connections + waiting) * 1.5, f"{measured.most_requests} in flight; {figures}"
    assert refused_ms < 100 * tolerance, figures
    assert health_ms < 200 * tolerance, figures
    assert measured.growth_mib < 150, figures
    assert measured.recovery_seconds < 2 * tolerance, figures
    return figures
