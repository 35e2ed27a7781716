"""Drills in which the trace agent is absent or fails: the service must not suffer from it."""

from __future__ import annotations

import asyncio
import json
import os
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

from drills.drill import Size, drill
from drills.sink import GARBAGE, HANG, SERVER_ERROR, TOO_MANY, Sink, sink
from drills.traffic import HELLO, LoadGenerator

FLUSH_SECONDS = 5
MEMORY_MIB = 30
UNDISTURBED = "undisturbed"
# The settings of production. The other tests switch these features off, but their errors could fill a log.
LIKE_PRODUCTION = {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "true",
    "DD_REMOTE_CONFIGURATION_ENABLED": "true",
    "DD_TRACE_WRITER_INTERVAL_SECONDS": "1",
}


def tracing_of(url: str) -> dict[str, Any]:
    """Return the tracing section of `/info`. This request makes a trace, too."""
    status: dict[str, Any] = httpx.get(f"{url}/info", timeout=60).json()["tracing"]
    return status


def logged_warnings(running: Running) -> list[str]:
    """Return each line of the log that an operator would have to read."""
    return [line for line in list(running.lines) if not line.startswith("{") or json.loads(line)["level"] != "info"]


async def send_requests(clients: LoadGenerator, rate: float, seconds: float) -> None:
    """Send `rate` requests a second for `seconds`."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await clients.open_loop([HELLO], rate, over)
    clients.close()


@drill(
    "agent is absent at the start and comes later",
    "The service starts in the usual time and logs one warning (not one a second). Spans arrive within 5 s of the"
    " agent's start",
)
def absent_agent(size: Size) -> str:
    """An example: the agent's container takes longer to start than the service's."""
    with sink() as there, sink(there=False) as absent:
        times: dict[Sink, list[float]] = {there: [], absent: []}
        for _ in range(size.of(2, 5)):
            for agent, seconds in times.items():
                began = perf_counter()
                with service(agent.url, LIKE_PRODUCTION):
                    seconds.append(perf_counter() - began)
        usual, without = (statistics.median(seconds) for seconds in times.values())

        with service(absent.url, LIKE_PRODUCTION) as running:
            clients = LoadGenerator(running.url)
            asyncio.run(send_requests(clients, 20, size.of(8, 60)))
            warnings = logged_warnings(running)
            absent.listen()
            came = perf_counter()
            httpx.get(f"{running.url}/api/hello")
            eventually(lambda: absent.traces > 0, timeout=60)
            flow_seconds = perf_counter() - came
            back = eventually(lambda: tracing_of(running.url), lambda status: status["agent_error"] is None)
            later_warnings = eventually(lambda: logged_warnings(running)[len(warnings) :])

    missing = set(clients.results.spans) - absent.spans
    lost, sent = back["traces_lost"], len(clients.results.spans)
    assert len(warnings) == 1, warnings
    assert "the agent takes no traces: " in warnings[0]
    assert len(later_warnings) == 1, later_warnings
    assert "the agent takes traces again" in later_warnings[0]
    assert lost > 0, "nothing was lost while there was no agent"
    assert len(missing) == lost, f"{len(missing)} traces are not there, and {lost} counted"
    assert without < usual * size.of(20, 12) / 10, f"start in {without:.2f} s, {usual:.2f} s with an agent"
    assert flow_seconds < size.of(15, 5), f"the first spans after {flow_seconds:.1f} s"
    return (
        f"start in {without:.2f} s ({usual:.2f} s with an agent); {len(warnings)} warning in {size.of(8, 60)} s; spans after "
        f"{flow_seconds:.1f} s; {lost} of {sent} traces lost, each counted"
    )


@dataclass
class ServiceWithAgent:
    """A service, its agent, and the failure to cause."""

    event: str
    agent: Sink
    trouble: Callable[[], None]
    running: Running

    def __post_init__(self) -> None:
        self.clients = LoadGenerator(self.running.url)
        self.polls = 0

    def memory_mib(self) -> float:
        """Return the resident memory of the process (RSS)."""
        pages = int(Path(f"/proc/{self.running.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def missing(self) -> int:
        """Return how many traces of completed requests the agent hasn't received."""
        return len(set(self.clients.results.spans) - self.agent.spans)

    def lost(self) -> int:
        """Return how many traces the service reports as lost."""
        self.polls += 1
        return int(tracing_of(self.running.url)["traces_lost"])

    def exit_seconds(self) -> float:
        """Stop the service and return how long the exit took."""
        began = perf_counter()
        code = self.running.stop()
        assert code == 0, f"{self.event}: exit {code}"
        return perf_counter() - began


@contextmanager
def own_names(name: str) -> Iterator[tuple[list[str], Callable[[], object]]]:
    """Yield a command prefix whose process alone resolves `name`, to the loopback, and a function that removes the
    name.

    Files of this drill are mounted over /etc/hosts and /etc/nsswitch.conf in a mount namespace of the process. The
    machine's own files stay as they are, and the C library stops resolving the name for every caller in the process.
    """
    with TemporaryDirectory() as folder:
        hosts, switch = Path(folder, "hosts"), Path(folder, "nsswitch.conf")
        others = "127.0.0.1 localhost\n"
        hosts.write_text(f"{others}127.0.0.1 {name}\n")
        switch.write_text("hosts: files\n")
        mount = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@"'
        own = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(hosts), str(switch)]
        yield own, partial(hosts.write_text, others)


def every_trouble(stack: ExitStack) -> list[ServiceWithAgent]:
    """Start one service for each failure, all at the same time, and one whose agent works."""
    own, forget = stack.enter_context(own_names("agent.drill"))

    def change(agent: Sink, behaviour: str) -> None:
        agent.behaviour = behaviour

    def vanish(agent: Sink) -> None:
        forget()
        agent.hang_up()  # it still listens on its address

    troubles: dict[str, Callable[[Sink], None]] = {
        UNDISTURBED: lambda _: None,
        "dies": Sink.die,
        "hangs": partial(change, behaviour=HANG),
        "500": partial(change, behaviour=SERVER_ERROR),
        "429": partial(change, behaviour=TOO_MANY),
        "garbage": partial(change, behaviour=GARBAGE),
        "name gone": vanish,
    }

    def start(event: str) -> ServiceWithAgent:
        agent = stack.enter_context(sink())
        named = event == "name gone"
        url = agent.url.replace("127.0.0.1", "agent.drill") if named else agent.url
        command = [*own, *SERVE_TEST_ENDPOINTS] if named else SERVE_TEST_ENDPOINTS
        settings = {"DD_TRACE_WRITER_INTERVAL_SECONDS": "1"}
        running = stack.enter_context(service(url, settings, command))
        return ServiceWithAgent(event, agent, partial(troubles[event], agent), running)

    with ThreadPoolExecutor(3) as pool:  # a start takes a few seconds of CPU
        return list(pool.map(start, troubles))


async def in_turns(all_of_them: list[ServiceWithAgent], rounds: int, count: int) -> None:
    """Send each service `count` requests in turn, `rounds` times, so that disturbances of the machine affect all
    alike.
    """
    for _ in range(rounds):
        for watched in all_of_them:
            await watched.clients.closed_loop([HELLO], 2, count=count)


async def at_once(all_of_them: list[ServiceWithAgent], count: int) -> None:
    """Send requests to all services at once, `count` to each."""

    async def request(each: ServiceWithAgent) -> None:
        while (left := count - len(each.clients.results.seconds)) > 0 and not each.clients.results.failures:
            await each.clients.closed_loop([HELLO], 2, count=min(left, 10_000))
            each.running.lines.clear()  # one line per request

    await asyncio.gather(*map(request, all_of_them))


async def hang_up(all_of_them: list[ServiceWithAgent]) -> None:
    """Close every connection to the services."""
    for watched in all_of_them:
        watched.clients.close()


@drill(
    "agent dies, hangs, responds with 500, 429 or garbage, or its host name stops resolving",
    "p99 stays within 10% of an undisturbed service next to it, memory grows by less than 30 MiB in 100,000 "
    "requests, the exit takes at most 5 s longer, and `/info` counts each lost trace",
    needs=("unshare",),
)
def failing_agent(size: Size) -> str:
    """Seven services, six of them with a failing agent, get the same requests in turns."""
    with ExitStack() as stack, asyncio.Runner() as runner:
        watched = every_trouble(stack)
        undisturbed, disturbed = watched[0], watched[1:]
        runner.run(in_turns(watched, 1, size.of(100, 3000)))
        for each in watched:
            eventually(lambda each=each: each.missing() == 0)  # type: ignore[misc]
            each.clients.results.seconds.clear()
            each.trouble()
        before = {each.event: each.memory_mib() for each in disturbed}
        connections = disturbed[-1].agent.connections

        runner.run(in_turns(watched, size.of(5, 60), size.of(40, 200)))
        p99 = {each.event: each.clients.results.p99() for each in watched}
        runner.run(at_once(disturbed, size.of(500, 100_000)))
        runner.run(hang_up(watched))
        for each in watched:
            assert not each.clients.results.failures, f"{each.event}: {each.clients.results.failures[:5]}"
        grown = {each.event: each.memory_mib() - before[each.event] for each in disturbed}
        # ddtrace tries six times before it gives up, which takes half a minute if each try times out after 3 s.
        eventually(lambda: min(each.lost() - size.of(1, each.missing()) for each in disturbed) >= 0, timeout=120)
        lost = sum(each.lost() for each in disturbed)
        missing = sum(each.missing() for each in disturbed)
        polls = sum(each.polls for each in disturbed)
        found_nobody = disturbed[-1].agent.connections == connections
        with ThreadPoolExecutor(len(watched)) as pool:
            exits = dict(zip(p99, pool.map(ServiceWithAgent.exit_seconds, watched), strict=True))
        assert undisturbed.missing() == 0

    usual, later = p99.pop(UNDISTURBED), exits.pop(UNDISTURBED)
    slower = ", ".join(f"{event} {each / usual - 1:+.0%}" for event, each in p99.items())
    exits = {event: each - later for event, each in exits.items()}
    margin_ms = size.of(25, 0)
    assert found_nobody, "the agent was found although its name was gone"
    assert max(p99.values()) <= usual * size.of(30, 11) / 10 + margin_ms, f"p99 {usual:.1f} ms undisturbed; {slower}"
    assert max(grown.values()) < MEMORY_MIB, f"MiB more: {grown}"
    assert max(exits.values()) < FLUSH_SECONDS + size.of(5, 1), f"seconds later: {exits}"
    assert lost <= missing + polls, f"{lost} counted, {missing} and at most {polls} polls are not there"
    return (
        f"p99, compared with {usual:.1f} ms undisturbed: {slower}; memory {max(grown.values()):+.1f} MiB at most after "
        f"{size.of(500, 100_000)} requests; exit {max(exits.values()):.1f} s later at most; {lost} traces counted as lost, "
        f"{missing} traces of completed requests missing"
    )
