"""A real container engine for tests: this machine's, or one started by "the lab", a script outside of the repository.

Without either, the tests that need an engine are skipped. The lab's engine publishes ports in a network of its own, not
on this machine's loopback. `Engine.enter` returns a command line that runs a program in that network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from running import ROOT, Span, clean_environment, eventually

LAB = Path(os.environ.get("LAB", ROOT.parent / "shared" / "container-lab" / "lab"))
LOAD_SCRIPT = Path(__file__).with_name("load.py")
INTAKE_IMAGE = "lab/intake"  # stands in for Datadog's intake; `Intake` is its client
# Options of `docker run` that take all privileges from a container, as compose.yaml does.
LOCKED_DOWN = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]


def agent_image() -> str:
    """Return the Datadog Agent's image as compose.yaml pins it."""
    match = re.search(r"image: (\S*/agent:\S+)", (ROOT / "compose.yaml").read_text())
    assert match
    return match[1]


class Engine:
    """Runs docker commands in an `environment` that selects the engine.

    `lab` is the path of the lab's script if the lab runs the engine, otherwise None.
    """

    def __init__(self, environment: Mapping[str, str], lab: Path | None) -> None:
        self.environment = dict(environment)
        self.lab = lab

    def run(
        self, *arguments: str, check: bool = True, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS` at the root of the repository, with `extra` in its environment."""
        return run_command(["docker", *arguments], {**self.environment, **(extra or {})}, check)

    def docker(self, *arguments: str) -> str:
        """Run `docker ARGUMENTS` and return its standard output."""
        return self.run(*arguments).stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the engine's description of a container or image."""
        (description,) = json.loads(self.docker("inspect", name))
        return dict(description)

    def has(self, image: str) -> bool:
        """Return whether `image` is available without a pull."""
        return self.run("image", "inspect", image, check=False).returncode == 0

    def enter(self, *command: str) -> list[str]:
        """Return a command line that runs `command` in the network with the published ports."""
        return [str(self.lab), "enter", *command] if self.lab else list(command)

    def get(self, url: str, *options: str) -> str:
        """Return the body of the response from `url`, whatever its status. Without a response it is empty."""
        command = self.enter("curl", "--silent", "--max-time", "20", *options, url)
        return run_command(command, self.environment, check=False).stdout

    @contextmanager
    def container(self, image: str, *options: str, command: Sequence[str] = ()) -> Iterator[str]:
        """Run `docker run OPTIONS IMAGE COMMAND` until the block ends, and yield the name of the container."""
        name = f"hello-{uuid4().hex[:8]}"
        self.docker("run", "--detach", "--name", name, *options, image, *command)
        try:
            yield name
        finally:
            self.docker("rm", "--force", "--volumes", name)

    def wait_until_healthy(self, container: str, timeout: float = 60.0) -> None:
        """Wait until the health check of `container` has passed."""

        def health() -> str:
            state = self.inspect(container)["State"]
            assert state["Running"], self.logs(container)
            return str(state["Health"]["Status"])

        eventually(health, lambda status: status == "healthy", timeout)

    def logs(self, container: str) -> str:
        """Return everything that `container` has written."""
        return run_command(["docker", "logs", container], self.environment, check=True, merge=True).stdout

    def published_url(self, container: str, port: int) -> str:
        """Return the URL of the address on which `port` of `container` is published."""
        return f"http://{self.docker('port', container, str(port)).splitlines()[0]}"

    def stop(self, container: str, timeout: int = 45) -> int:
        """Stop `container` with SIGTERM, as an orchestrator does, and return its exit code.

        After `timeout` seconds it is killed. The default is the service's `stop_grace_period` in compose.yaml.
        """
        self.docker("stop", "--time", str(timeout), container)
        return int(self.inspect(container)["State"]["ExitCode"])

    @contextmanager
    def load(self, url: str, *options: str) -> Iterator[Load]:
        """Send requests to `url` from several clients until the block ends. load.py describes the options."""
        command = self.enter(sys.executable, str(LOAD_SCRIPT), url, *options)
        with subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            load = Load(process)
            try:
                yield load
            finally:
                load.end()


class Load:
    """A running load.py, and its results after `end`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.statuses: dict[str, int] = {}
        self.failures: list[str] = []
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"

    def end(self) -> None:
        """Send no more requests, wait until none is in flight, and read the results."""
        if self._process.poll() is None:
            output, _ = self._process.communicate(timeout=90)  # closes standard input; a last request can take 60 s
            results = json.loads(output)
            self.statuses, self.failures = results["statuses"], results["failures"]


def run_command(
    command: Sequence[str], environment: Mapping[str, str], check: bool, *, merge: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `command`. With `check`, a failure raises an error that contains the output.

    With `merge`, standard error is part of the standard output that is returned.
    """
    errors = subprocess.STDOUT if merge else subprocess.PIPE
    result = subprocess.run(
        list(command), cwd=ROOT, env=dict(environment), stdout=subprocess.PIPE, stderr=errors, text=True, check=False
    )
    if check and result.returncode:
        output = f"{result.stdout}\n{result.stderr or ''}"
        raise AssertionError(f"{shlex.join(command)} exited with {result.returncode}:\n{output}")
    return result


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield this machine's engine, or the lab's, which runs until the block ends. Without either, skip the test."""
    environment = clean_environment()
    if not LAB.exists():
        try:
            run_command(["docker", "info"], environment, check=True)
        except (AssertionError, OSError):
            pytest.skip("no container engine runs here, and there is no lab to start one")
        yield Engine(environment, lab=None)
        return
    was_up = run_command([str(LAB), "status"], environment, check=False).returncode == 0
    run_command([str(LAB), "up"], {**environment, "LAB_AGENT_IMAGE": agent_image()}, check=True)
    try:
        # `lab env` prints `export` commands. `env -0` prints the environment after them.
        print_environment = ["bash", "-c", 'eval "$("$0" env)"; env -0', str(LAB)]
        variables = run_command(print_environment, environment, check=True).stdout
        yield Engine(dict(line.split("=", 1) for line in variables.split("\0") if line), lab=LAB)
    finally:
        if not was_up:
            run_command([str(LAB), "down"], environment, check=True)


class Intake:
    """A client of a container that stands in for Datadog and returns what it has received."""

    def __init__(self, engine: Engine, url: str) -> None:
        self._engine = engine
        self._url = f"{url}/received"

    def received(self) -> dict[str, Any]:
        """Return everything that the container has received."""
        return dict(json.loads(self._engine.get(self._url)))

    def spans(self) -> list[Span]:
        """Return every span that the container has received."""
        return list(self.received()["spans"])

    def bytes_of_traces(self) -> int:
        """Return the total size of the trace payloads, decompressed."""
        requests = self.received()["requests"]
        numbers = [number for number, request in enumerate(requests) if request["path"] == "/api/v0.2/traces"]
        # `/received/N` is the body of the Nth request. curl prints only its size.
        print_size = ["--output", os.devnull, "--write-out", "%{size_download}"]
        return sum(int(self._engine.get(f"{self._url}/{number}", *print_size)) for number in numbers)

    def wait_for_spans(self, count: int, timeout: float = 30.0) -> list[Span]:
        """Wait until at least `count` spans have arrived, and return all of them."""
        return eventually(self.spans, lambda spans: len(spans) >= count, timeout)
