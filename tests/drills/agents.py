"""Drills in which the trace agent is absent or fails, which must not affect the service."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import httpx
from running import SERVE_TEST_ENDPOINTS, Running, eventually, service

from drills.connections import memory_mib
from drills.drill import Size, drill
from drills.sink import GARBAGE, HANG, SERVER_ERROR, TOO_MANY_REQUESTS, Sink, sink
from drills.traffic import HELLO, LoadGenerator

FLUSH_SECONDS = 5  # the default of the setting with this name
MAX_GROWTH_MIB = 30
UNDISTURBED = "undisturbed"
NAME_GONE = "name gone"
# As in production, because without an agent the first two features could fill the log. QUIET of running.py turns them
# off and shortens the interval.
LIKE_PRODUCTION = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "true",
    "DD_REMOTE_CONFIGURATION_ENABLED": "true",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "1",
}


def tracing_status(url: str) -> dict[str, Any]:
    """Return the tracing section of `/info`. This request has a trace of its own."""
    status: dict[str, Any] = httpx.get(f"{url}/info", timeout=60).json()["tracing"]
    return status


def logged_warnings(running: Running) -> list[str]:
    """Return the lines that an operator has to read: those that aren't JSON, or whose level isn't info."""
    return [line for line in list(running.lines) if not line.startswith("{") or json.loads(line)["level"] != "info"]


async def send_requests(clients: LoadGenerator, rate: float, seconds: float) -> None:
    """Send `rate` requests a second for `seconds` seconds, and close the connections."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await clients.open_loop([HELLO], rate, stop)
    clients.close()


@drill(
    "agent is absent at the start and comes later",
    "The service starts in the usual time and logs one warning (not one a second). Spans arrive within 5 s of the"
    " agent's start",
)
def absent_agent(size: Size) -> str:
    """This happens if the agent's container takes longer to start than the service's."""
    load_seconds = size.of(8, 60)
    with sink() as running_agent, sink(listening=False) as late_agent:
        start_seconds: dict[Sink, list[float]] = {running_agent: [], late_agent: []}
        for _ in range(size.of(2, 5)):
            for agent, seconds in start_seconds.items():
                began = perf_counter()
                with service(agent.url, LIKE_PRODUCTION):
                    seconds.append(perf_counter() - began)
        with_agent = statistics.median(start_seconds[running_agent])
        without_agent = statistics.median(start_seconds[late_agent])

        with service(late_agent.url, LIKE_PRODUCTION) as running:
            clients = LoadGenerator(running.url)
            asyncio.run(send_requests(clients, rate=20, seconds=load_seconds))
            warnings = logged_warnings(running)
            late_agent.listen()
            agent_start_time = perf_counter()
            httpx.get(f"{running.url}/api/hello")  # creates a trace for the agent
            eventually(lambda: late_agent.traces > 0, timeout=60)
            seconds_until_spans = perf_counter() - agent_start_time
            status = eventually(lambda: tracing_status(running.url), lambda status: status["agent_error"] is None)
            later_warnings = eventually(lambda: logged_warnings(running)[len(warnings) :])

    missing_ids = set(clients.results.span_ids) - late_agent.span_ids
    lost_count = status["traces_lost"]
    sent_count = len(clients.results.span_ids)
    assert len(warnings) == 1, warnings
    assert "the agent accepts no traces: " in warnings[0]
    assert len(later_warnings) == 1, later_warnings
    assert "the agent accepts traces again" in later_warnings[0]
    assert lost_count > 0, "no trace was lost while the agent was absent"
    assert len(missing_ids) == lost_count, f"{len(missing_ids)} traces are missing, {lost_count} are counted as lost"
    # The usual time, with a tolerance of 20%, or of 100% in the short form.
    assert without_agent < with_agent * size.of(2.0, 1.2), (
        f"start in {without_agent:.2f} s, {with_agent:.2f} s with an agent"
    )
    assert seconds_until_spans < size.of(15, 5), f"the first spans after {seconds_until_spans:.1f} s"
    return (
        f"start in {without_agent:.2f} s ({with_agent:.2f} s with an agent); "
        f"{len(warnings)} warning in {load_seconds} s; spans after {seconds_until_spans:.1f} s; "
        f"{lost_count} of {sent_count} traces lost, each counted"
    )


@dataclass
class ServiceWithAgent:
    """A service, its agent, and a function that makes the agent fail.

    Attributes:
        failure: the name of the agent's failure in the results, or UNDISTURBED.
    """

    failure: str
    agent: Sink
    cause_failure: Callable[[], None]
    running: Running

    def __post_init__(self) -> None:
        self.clients = LoadGenerator(self.running.url)
        self.polls = 0  # the number of requests to /info, whose traces can also be lost

    def count_missing(self) -> int:
        """Return the number of completed requests whose trace the agent hasn't received."""
        return len(set(self.clients.results.span_ids) - self.agent.span_ids)

    def poll_lost(self) -> int:
        """Return the number of traces that the service reports as lost, by a request to `/info`."""
        self.polls += 1
        return int(tracing_status(self.running.url)["traces_lost"])

    def stop(self) -> float:
        """Stop the service, and return the seconds that its exit took."""
        began = perf_counter()
        code = self.running.stop()
        assert code == 0, f"{self.failure}: exit {code}"
        return perf_counter() - began


@contextmanager
def private_host_name(name: str) -> Iterator[tuple[list[str], Callable[[], object]]]:
    """Make `name` resolve to the loopback address in one process only.

    The process has files of this drill mounted over /etc/hosts and /etc/nsswitch.conf, in a mount namespace of its own.
    The machine's own files stay as they are, and once the name is removed, the C library stops resolving it for every
    caller in the process.

    Yields:
        A prefix for the command that starts the process, and a function that removes the name.
    """
    with TemporaryDirectory() as folder:
        hosts, switch = Path(folder, "hosts"), Path(folder, "nsswitch.conf")
        without_name = "127.0.0.1 localhost\n"
        hosts.write_text(f"{without_name}127.0.0.1 {name}\n")
        switch.write_text("hosts: files\n")
        mount = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
        prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(hosts), str(switch)]
        yield prefix, partial(hosts.write_text, without_name)


def start_services(stack: ExitStack) -> list[ServiceWithAgent]:
    """Start a service whose agent keeps working, and one service for each failure of an agent."""
    prefix, remove_name = stack.enter_context(private_host_name("agent.drill"))

    def set_behavior(agent: Sink, behavior: str) -> None:
        agent.behavior = behavior

    def lose_name(agent: Sink) -> None:
        remove_name()
        agent.drop_connections()  # so that the service has to connect again; the agent still listens on its address

    failures: dict[str, Callable[[Sink], None]] = {
        UNDISTURBED: lambda _: None,
        "dies": Sink.die,
        "hangs": partial(set_behavior, behavior=HANG),
        "500": partial(set_behavior, behavior=SERVER_ERROR),
        "429": partial(set_behavior, behavior=TOO_MANY_REQUESTS),
        "garbage": partial(set_behavior, behavior=GARBAGE),
        NAME_GONE: lose_name,
    }

    def start(failure: str) -> ServiceWithAgent:
        agent = stack.enter_context(sink())
        url = agent.url
        command = SERVE_TEST_ENDPOINTS
        if failure == NAME_GONE:
            url = url.replace("127.0.0.1", "agent.drill")
            command = [*prefix, *command]
        settings = {"DD_TRACE_WRITER_INTERVAL_SECONDS": "1"}  # as in production
        running = stack.enter_context(service(url, settings, command))
        cause_failure = partial(failures[failure], agent)
        return ServiceWithAgent(failure=failure, agent=agent, cause_failure=cause_failure, running=running)

    with ThreadPoolExecutor(3) as pool:  # not all at once, because a start takes a few seconds of CPU
        return list(pool.map(start, failures))


async def send_in_turns(services: list[ServiceWithAgent], rounds: int, count: int) -> None:
    """Send `count` requests to one service after the other, `rounds` times, so that disturbances of the machine affect
    all services alike.
    """
    for _ in range(rounds):
        for instance in services:
            await instance.clients.closed_loop([HELLO], clients=2, count=count)


async def send_concurrently(services: list[ServiceWithAgent], count: int) -> None:
    """Send requests to all services concurrently, to each until it has sent `count` responses or a request failed."""

    async def send(instance: ServiceWithAgent) -> None:
        results = instance.clients.results
        while len(results.seconds) < count and not results.failures:
            remaining = count - len(results.seconds)
            # In parts, because the log in this process's memory has one line per request.
            await instance.clients.closed_loop([HELLO], clients=2, count=min(remaining, 10_000))
            instance.running.lines.clear()

    await asyncio.gather(*map(send, services))


async def close_connections(services: list[ServiceWithAgent]) -> None:
    """Close every connection to the services. This needs a running event loop, so it is a coroutine."""
    for instance in services:
        instance.clients.close()


@drill(
    "agent dies, hangs, responds with 500, 429 or garbage, or its host name stops resolving",
    "p99 stays within 10% of an undisturbed service next to it, memory grows by less than 30 MiB in 100,000 "
    "requests, the exit takes at most 5 s longer, and `/info` counts each lost trace",
    needs=("unshare",),
)
def failing_agent(size: Size) -> str:
    """Seven services receive the same requests in turn. The agents of six of them fail."""
    with ExitStack() as stack, asyncio.Runner() as runner:
        services = start_services(stack)
        undisturbed, *disturbed = services
        without_name = disturbed[-1]
        assert without_name.failure == NAME_GONE
        # A warm-up, whose durations are not counted.
        runner.run(send_in_turns(services, rounds=1, count=size.of(100, 3000)))
        for instance in services:
            eventually(instance.count_missing, lambda count: count == 0)
            instance.clients.results.seconds.clear()
            instance.cause_failure()
        memory_before = {instance.failure: memory_mib(instance.running) for instance in disturbed}
        connections_before = without_name.agent.connections

        # At full size, each service gets 12,000 requests, so 120 of them are slower than its p99.
        runner.run(send_in_turns(services, rounds=size.of(5, 60), count=size.of(40, 200)))
        p99 = {instance.failure: instance.clients.results.p99() for instance in services}
        runner.run(send_concurrently(disturbed, size.of(500, 100_000)))
        runner.run(close_connections(services))
        for instance in services:
            failures = instance.clients.results.failures
            assert not failures, f"{instance.failure}: {failures[:5]}"
        growth = {
            instance.failure: memory_mib(instance.running) - memory_before[instance.failure] for instance in disturbed
        }

        def uncounted() -> list[str]:
            """Return the failures whose lost traces aren't all counted yet. In the short form, one trace is enough."""
            return [
                instance.failure
                for instance in disturbed
                if instance.poll_lost() < size.of(1, instance.count_missing())
            ]

        # ddtrace tries six times before it gives up, which takes half a minute if each try times out after 3 s.
        eventually(uncounted, lambda failures: failures == [], timeout=120)
        lost_count = sum(instance.poll_lost() for instance in disturbed)
        missing_count = sum(instance.count_missing() for instance in disturbed)
        poll_count = sum(instance.polls for instance in disturbed)
        reconnected = without_name.agent.connections > connections_before
        with ThreadPoolExecutor(len(services)) as pool:
            exit_times = pool.map(ServiceWithAgent.stop, services)
            exit_seconds = {instance.failure: seconds for instance, seconds in zip(services, exit_times, strict=True)}
        assert undisturbed.count_missing() == 0

    usual_p99 = p99.pop(UNDISTURBED)
    usual_exit = exit_seconds.pop(UNDISTURBED)
    slower = ", ".join(f"{failure} {value / usual_p99 - 1:+.0%}" for failure, value in p99.items())
    exit_delays = {failure: seconds - usual_exit for failure, seconds in exit_seconds.items()}
    margin_ms = size.of(25, 0)  # in its short form, the drill may run on a busy machine
    assert not reconnected, "the service connected to its agent although the agent's name was gone"
    assert max(p99.values()) <= usual_p99 * size.of(3.0, 1.1) + margin_ms, (
        f"p99 {usual_p99:.1f} ms undisturbed; {slower}"
    )
    assert max(growth.values()) < MAX_GROWTH_MIB, f"memory growth in MiB: {growth}"
    # The rest of the exit may also take longer, by a second, or by five in the short form.
    assert max(exit_delays.values()) < FLUSH_SECONDS + size.of(5, 1), f"exit later by seconds: {exit_delays}"
    assert lost_count <= missing_count + poll_count, (
        f"{lost_count} counted as lost, but only {missing_count} and at most {poll_count} polls are missing"
    )
    return (
        f"p99, compared with {usual_p99:.1f} ms undisturbed: {slower}; "
        f"memory {max(growth.values()):+.1f} MiB at most after {size.of(500, 100_000)} requests; "
        f"exit {max(exit_delays.values()):.1f} s later at most; "
        f"{lost_count} traces counted as lost, {missing_count} traces of completed requests missing"
    )
