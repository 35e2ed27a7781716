"""A drill of a rolling deployment: behind a load balancer, one process after the other is replaced."""

from __future__ import annotations

import asyncio
import csv
import io
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from running import Running, clean_environment, eventually, free_port, service, started

from drills.drill import Size, drill
from drills.sink import sink
from drills.traffic import Request, load_generator

RATE = 100
MIX = [
    *[Request("/api/hello")] * 7,
    Request("/api/hello", "POST", b'{"name": "Ada"}'),
    Request("/api/hello/Ada"),
    Request("/api/faults/slow?seconds=0.3"),
]
HAPROXY_CONFIG = """\
global
    stats socket {folder}/socket
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check 5s
    option httpchk GET /ready
    http-check expect status 200
    default-server check inter 100ms fall 1 rise 1
listen service
    bind 127.0.0.1:{port}
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
"""


class Balancer:
    """HAProxy in front of two processes. It opens new connections only to those whose `/ready` responds with 200."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.config = folder / "haproxy.cfg"
        self.config.write_text(HAPROXY_CONFIG.format(folder=folder, port=self.port, a=ports[0], b=ports[1]))

    def count_processes_up(self) -> int:
        """Return the number of processes that get new connections."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self.folder / "socket"))
            stats.sendall(b"show stat\n")
            text = stats.makefile().read().removeprefix("# ")  # before the names of the columns
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row["svname"] in {"a", "b"}]
        return sum(row["status"] == "UP" for row in rows)


@contextmanager
def balancer(ports: tuple[int, int]) -> Iterator[Balancer]:
    """Run HAProxy in front of the processes on `ports`, and wait until both are up."""
    with TemporaryDirectory() as folder:
        haproxy = Balancer(Path(folder), ports)
        with started(["haproxy", "-db", "-f", str(haproxy.config)], clean_environment()):
            eventually((haproxy.folder / "socket").exists)
            eventually(haproxy.count_processes_up, lambda count: count == 2)
            yield haproxy


class ReplaceableProcess:
    """A process that is replaced repeatedly on the same port, and the exit codes of all that were stopped."""

    def __init__(self, agent_url: str) -> None:
        self.port = free_port()
        # The drain lasts ten checks of the balancer, which must detect it before the process stops listening.
        self.settings = {"PORT": str(self.port), "FAULTS": "true", "DRAIN_SECONDS": "1"}
        self.agent_url = agent_url
        self.exit_codes: list[int] = []
        self.start()

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        self._context = service(self.agent_url, self.settings)  # `stop` exits it, so no `with` block is possible
        self.running: Running = self._context.__enter__()

    def stop(self) -> None:
        """Stop the process as ECS does, with a SIGTERM, and record its exit code."""
        self.exit_codes.append(self.running.stop(signal.SIGTERM))
        self._context.__exit__(None, None, None)


@drill(
    "20 rolling restarts under 100 requests/s, two processes behind a TCP balancer that follows `/ready`",
    "No request fails and no trace is lost",
    needs=("haproxy",),
)
def rolling_restarts(size: Size) -> str:
    """Each process gets a SIGTERM while it has requests in flight, and a new process takes its port."""
    return asyncio.run(_rolling_restarts(restarts=size.of(3, 20)))


async def _rolling_restarts(restarts: int) -> str:
    with sink() as agent:
        processes = [ReplaceableProcess(agent.url), ReplaceableProcess(agent.url)]
        with balancer((processes[0].port, processes[1].port)) as haproxy, load_generator(haproxy.url) as clients:

            def restart_in_turn() -> None:
                for number in range(restarts):
                    process = processes[number % 2]
                    process.stop()
                    process.start()
                    eventually(haproxy.count_processes_up, lambda count: count == 2)

            stop = asyncio.Event()
            began = monotonic()
            load = asyncio.create_task(clients.open_loop(MIX, RATE, stop))
            await asyncio.to_thread(restart_in_turn)
            stop.set()
            await load
            seconds = monotonic() - began
        for process in processes:
            process.stop()

    results = clients.results
    lost_ids = set(results.span_ids) - agent.span_ids
    codes = [code for process in processes for code in process.exit_codes]
    sent_count = len(results.span_ids) + len(results.failures)
    assert sent_count > RATE * seconds / 2, f"{sent_count} requests in {seconds:.0f} s are too few to prove anything"
    assert not results.failures, f"{len(results.failures)} of {sent_count} failed: {results.failures[:5]}"
    assert not lost_ids, f"{len(lost_ids)} of {sent_count} traces lost"
    assert codes == [0] * (restarts + 2), codes  # both processes were also stopped at the end
    return (
        f"{restarts} restarts in {seconds:.0f} s, {sent_count} requests ({sent_count / seconds:.0f}/s): "
        f"{len(results.failures)} failed, {len(lost_ids)} traces lost, each exit 0"
    )
