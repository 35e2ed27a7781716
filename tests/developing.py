"""`hello-service dev` as a real process: what it says, where it listens, what it leaves behind."""

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
MARK = "HELLO_TEST_MARK"  # a variable that tells the processes of one run


class Dev:
    """A `dev` that runs; standard output and standard error are one."""

    def __init__(self, running: Running, mark: str) -> None:
        self.running = running
        self.mark = mark

    @property
    def said(self) -> str:
        """All that it has said."""
        return "\n".join(list(self.running.lines))

    def wait_for(self, text: str, timeout: float = 60.0) -> str:
        """Wait until it has said `text`, and return all that it has said."""

        def ask() -> str:
            ended = self.running.process.poll() is not None
            said = self.said
            assert text in said or not ended, said
            return said

        return eventually(ask, lambda said: text in said, timeout)

    def _found(self, pattern: str) -> str:
        found = re.search(pattern + r" (http://127\.0\.0\.1:\d+)", self.said)
        assert found, self.said
        return found[1]

    @property
    def url(self) -> str:
        """The service's."""
        return self._found("Service:")

    @property
    def agent_url(self) -> str:
        """The embedded agent's."""
        return self._found("Trace agent:")

    @property
    def page_url(self) -> str:
        """The page's."""
        return self._found("View traces:")

    def get(self, path: str) -> httpx.Response:
        """Send a request to the service."""
        return httpx.get(self.url + path, timeout=30)

    def processes(self) -> dict[int, str]:
        """Return the command lines of all living processes of this run, by process id."""
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
    """Start `dev` on free ports, or another `command`; options given here win. It need not come up."""
    mark = uuid.uuid4().hex
    merged = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh", *command, *options]
    with started(merged, clean_environment({MARK: mark, **(environment or {})})) as running:
        yield Dev(running, mark)


@contextmanager
def developing(
    *options: str, environment: Mapping[str, str] | None = None, command: Sequence[str] = (*DEV, *FREE_PORTS)
) -> Iterator[Dev]:
    """Run `dev`, or another `command`, on free ports and wait until all of it is up."""
    with launched(*options, environment=environment, command=command) as dev:
        dev.wait_for(READY)
        yield dev


def customized(folder: Path, of: str, code: str) -> dict[str, str]:
    """Return an environment in which a Python process with `of` on its command line begins with `code`."""
    begin = f"import sys, time\nif {of!r} in sys.orig_argv:\n    {code}\n"
    (folder / "sitecustomize.py").write_text(begin)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
