"""Runs `hello-service dev` as a real process, and reads its output, its addresses and its processes."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from running import BIN, ROOT, Running, clean_environment, eventually, started

DEV = [str(BIN / "hello-service"), "dev"]
FREE_VIEW = ["--agent-port", "0", "--view-port", "0"]
FREE_PORTS = ["--port", "0", *FREE_VIEW]
VIEW = [str(BIN / "hello-service"), "view", *FREE_VIEW]
READY = "Press Ctrl-C to stop."
MARK = "HELLO_TEST_MARK"  # the variable by which the processes of one run are found


class Dev:
    """A running `dev`. Its output is standard output and standard error together."""

    def __init__(self, running: Running, mark: str) -> None:
        self.running = running
        self.mark = mark

    @property
    def output(self) -> str:
        """The output so far."""
        return "\n".join(list(self.running.lines))

    def wait_for(self, text: str, timeout: float = 60.0) -> str:
        """Wait until the output contains `text`, and return the output."""

        def read() -> str:
            exited = self.running.process.poll() is not None
            output = self.output
            assert text in output or not exited, output
            return output

        return eventually(read, lambda output: text in output, timeout)

    def _url_after(self, label: str) -> str:
        found = re.search(label + r" (http://127\.0\.0\.1:\d+)", self.output)
        assert found, self.output
        return found[1]

    @property
    def url(self) -> str:
        """The URL of the service."""
        return self._url_after("Service:")

    @property
    def agent_url(self) -> str:
        """The URL of the embedded agent."""
        return self._url_after("Trace agent:")

    @property
    def page_url(self) -> str:
        """The URL of the page."""
        return self._url_after("View traces:")

    def get(self, path: str) -> httpx.Response:
        """Send a request to the service."""
        return httpx.get(self.url + path, timeout=30)

    def processes(self) -> dict[int, str]:
        """Return the command lines of all running processes of this run by process id."""
        found = {}
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (each / "environ").read_bytes():
                    found[int(each.name)] = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def process(self, part: str) -> int:
        """Return the id of the process with `part` in its command line."""
        (pid,) = [pid for pid, command in self.processes().items() if part in command]
        return pid


@contextmanager
def launched(
    *options: str, environment: Mapping[str, str] | None = None, command: Sequence[str] = (*DEV, *FREE_PORTS)
) -> Iterator[Dev]:
    """Start `dev` on free ports, or another `command`, without waiting for it. The `options` override its own."""
    mark = uuid.uuid4().hex
    merged = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh", *command, *options]
    with started(merged, clean_environment({MARK: mark, **(environment or {})})) as running:
        yield Dev(running, mark)


@contextmanager
def developing(
    *options: str, environment: Mapping[str, str] | None = None, command: Sequence[str] = (*DEV, *FREE_PORTS)
) -> Iterator[Dev]:
    """Run `dev` on free ports, or another `command`, and wait until it is ready."""
    with launched(*options, environment=environment, command=command) as dev:
        dev.wait_for(READY)
        yield dev


def customized(folder: Path, module: str, code: str) -> dict[str, str]:
    """Return an environment in which a Python process with `module` in its arguments runs `code` first."""
    script = f"import sys, time\nif {module!r} in sys.orig_argv:\n    {code}\n"
    (folder / "sitecustomize.py").write_text(script)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
