"""Runs `hello-service dev` as a real process, and reads its output, its URLs and its child processes."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from running import BIN, ROOT, Running, clean_environment, eventually, started, unmeasured_environment

DEV = [str(BIN / "hello-service"), "dev"]
FREE_VIEW_PORTS = ["--agent-port", "0", "--view-port", "0"]
FREE_PORTS = ["--port", "0", *FREE_VIEW_PORTS]
VIEW = [str(BIN / "hello-service"), "view", *FREE_VIEW_PORTS]
READY = "Press Ctrl-C to stop."
MARK = "HELLO_TEST_MARK"  # an environment variable whose value is the same in all processes of one run


class Dev:
    """A running `dev`. Its output is standard output and standard error combined."""

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
            # Checked before the output is read, so that an exit in between does not hide the last lines.
            exited = self.running.process.poll() is not None
            output = self.output
            assert text in output or not exited, output
            return output

        return eventually(read, lambda output: text in output, timeout)

    def _url_after(self, label: str) -> str:
        match = re.search(label + r" (http://127\.0\.0\.1:\d+)", self.output)
        assert match, self.output
        return match[1]

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
        """The URL of the local view's page."""
        return self._url_after("View traces:")

    def get(self, path: str) -> httpx.Response:
        """Send a request to the service."""
        return httpx.get(self.url + path, timeout=30)

    def processes(self) -> dict[int, str]:
        """Return the command line of each process of this run that is still running, by process id."""
        commands = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # the process has exited
                continue
        return commands

    def process_id(self, part: str) -> int:
        """Return the id of the process with `part` in its command line."""
        (pid,) = [pid for pid, command in self.processes().items() if part in command]
        return pid


@contextmanager
def launched(
    *options: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (*DEV, *FREE_PORTS),
    measured: bool = True,
) -> Iterator[Dev]:
    """Start `dev` on free ports, or another `command`, and don't wait until it is ready.

    The `options` come last, so they override those in `command`. Tests of the page pass `measured=False`, because
    coverage measurement takes most of a request's time, and other tests cover the same code.
    """
    mark = uuid.uuid4().hex
    # `started` reads only standard error, so standard output is redirected to it.
    redirected_command = ["/bin/sh", "-c", 'exec "$@" 1>&2', "sh", *command, *options]
    make_environment = clean_environment if measured else unmeasured_environment
    with started(redirected_command, make_environment({MARK: mark, **(environment or {})})) as running:
        yield Dev(running, mark)


@contextmanager
def developing(
    *options: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (*DEV, *FREE_PORTS),
    measured: bool = True,
) -> Iterator[Dev]:
    """Start `dev` as `launched` does, with the same parameters, and wait until it is ready."""
    with launched(*options, environment=environment, command=command, measured=measured) as dev:
        dev.wait_for(READY)
        yield dev


def write_sitecustomize(folder: Path, module: str, code: str) -> dict[str, str]:
    """Make each Python process with `module` among its arguments first run `code`, which may use `sys` and `time`.

    Returns:
        The environment variables that such a process needs.
    """
    script = f"import sys, time\nif {module!r} in sys.orig_argv:\n    {code}\n"
    (folder / "sitecustomize.py").write_text(script)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
