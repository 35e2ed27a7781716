"""Starts the benchmark's processes on a core, measures them through /proc, and stops them with all their children."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAXIMUM_START_SECONDS = 60.0
MAXIMUM_STOP_SECONDS = 20.0
CORES = sorted(os.sched_getaffinity(0))
CANDIDATE_CORE, OTHER_CORE = CORES[0], CORES[-1]

# Indexes into the result of `_fields`; proc(5) describes the fields, and its numbers are higher by three.
PARENT = 1
CPU_TIMES = slice(11, 15)  # user and system time of the process, and of its ended children
RESIDENT_PAGES = 21


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit: 1,024 clients need more than 1,024 descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, bytes]:
    """Send a GET request over a new connection, and return the status and the body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class ProcessTree:
    """A process and all its descendants."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def pids(self) -> list[int]:
        """Return the ids of the running processes, the root first."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            if fields := _fields(stat):
                children.setdefault(int(fields[PARENT]), []).append(int(stat.parent.name))
        pids = [self.process.pid]
        for pid in pids:  # the loop also visits the children that it appends
            pids += children.get(pid, [])
        return pids

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes, including ended ones that their parents have waited for."""
        ticks = 0
        for pid in self.pids():
            ticks += sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[CPU_TIMES]))
        return ticks / TICKS_PER_SECOND

    def resident_mib(self) -> float:
        """Return the resident memory of all processes in MiB."""
        processes = [_fields(Path(f"/proc/{pid}/stat")) for pid in self.pids()]
        return sum(int(fields[RESIDENT_PAGES]) for fields in processes if fields) * PAGE_BYTES / 2**20


def _fields(stat: Path) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on, or an empty list if the process has ended."""
    try:
        # The second field is the program's name in parentheses, which may contain any character.
        return stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], core: int, stdout: int = subprocess.DEVNULL
) -> Iterator[ProcessTree]:
    """Run `command` on `core` until the `with` block ends."""
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(core), *command],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield ProcessTree(process)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(MAXIMUM_STOP_SECONDS)
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the remaining processes in the process group of `process`, which leads its own group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_responding(port: int, process_tree: ProcessTree, path: str) -> float:
    """Wait until a GET of `path` gets a 200, and return the seconds that this took.

    Call it directly after the start of `process_tree`, so that the result is the start time.

    Raises:
        RuntimeError: the process ended, or did not respond with 200 in time.
    """
    start = time.monotonic()
    while time.monotonic() - start < MAXIMUM_START_SECONDS:
        if process_tree.process.poll() is not None:
            break
        try:
            if get(port, path)[0] == 200:
                return time.monotonic() - start
        except (OSError, HTTPException):
            pass
        time.sleep(0.005)
    command = " ".join(map(str, process_tree.process.args))  # type: ignore[arg-type]  # `running` passes a list
    status = process_tree.process.poll()
    problem = "No response with status 200 in time" if status is None else f"The process ended with exit code {status}"
    raise RuntimeError(f"{problem}: {command}")
