"""`hello-service dev` starts what a person needs to see a trace, shows it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from developing import DEV, FREE_PORTS, MARK, VIEW, Dev, customized, developing, launched
from running import Agent, clean_environment, eventually, free_port, service

from hello_service.localview import processes


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """A `dev` that several tests share."""
    with developing() as dev:
        yield dev


def trace_id(answer: httpx.Response) -> str:
    """Return the trace id of an answer."""
    return answer.headers["traceresponse"].split("-")[1]


def test_each_request_is_a_tree_in_the_terminal(dev: Dev) -> None:
    """With a link to its page, in plain text when standard output is no terminal."""
    link = f"{dev.page_url}/trace/{trace_id(dev.get('/api/relay?count=2'))}"
    said = dev.wait_for(link)
    head, *rows = said[: said.index(link)].splitlines()[-1:] + said[said.index(link) :].splitlines()[1:6]

    assert head.startswith("GET /api/relay  200  ")
    assert head.endswith(" ms  5 spans  ")
    assert [row.split()[:4] for row in rows[:3]] == [
        ["asgi.request", "GET", "/api/relay", "hello-service"],
        ["├─", "http.request", "GET", "hello-service/api/hello"],
        ["│", "└─", "asgi.request", "GET"],
    ]
    assert all("█" in row for row in rows)
    assert "\x1b" not in said


def test_an_error_shows_its_type_and_message(dev: Dev) -> None:
    """Below its span, with the place in the code; the log line comes after the tree."""
    dev.get("/api/faults/error")
    said = dev.wait_for("error: Exception on request GET /api/faults/error")

    assert re.search(r"hello_service\.api\.faults\.Fault: this endpoint always fails \(faults\.py:\d+\)\n", said)
    assert said.index("Fault: this endpoint always fails") < said.index("error: Exception on request")


def test_only_the_traces_that_are_asked_for_are_drawn() -> None:
    """The page has all of them, and a log line without its trace is shown all the same."""
    with developing("--tree", "slow") as dev:
        fast, failed = dev.get("/api/hello"), dev.get("/api/faults/error")
        dev.wait_for("error: Exception on request GET /api/faults/error")
        slow = dev.get("/api/faults/slow?seconds=0.6")
        dev.wait_for(trace_id(slow))

        assert trace_id(fast) not in dev.said
        assert trace_id(failed) not in dev.said
        assert httpx.get(f"{dev.page_url}/trace/{trace_id(fast)}").status_code == 200


def test_nothing_that_waits_is_lost_at_the_end() -> None:
    """Neither the last trace nor its log line."""
    with developing() as dev:
        failed = dev.get("/api/faults/error")
        dev.running.stop(signal.SIGINT)

        assert trace_id(failed) in dev.said
        assert dev.said.endswith("error: Exception on request GET /api/faults/error")


def test_the_service_links_to_the_page(dev: Dev) -> None:
    """For a browser, and for anything else."""
    page = httpx.get(dev.url, headers={"accept": "text/html"})

    assert f'<a href="{dev.page_url}">' in page.text
    assert httpx.get(dev.url).json()["traces"] == dev.page_url


def test_probes_make_no_tree_and_request_lines_are_not_repeated(dev: Dev) -> None:
    """What comes after a probe is shown."""
    dev.get("/health")
    answer = dev.get("/api/hello/Probe")
    said = dev.wait_for(trace_id(answer))

    assert "GET /health" not in said
    assert '"event": "request"' not in said


def test_what_is_no_trace_costs_no_other_its_place(dev: Dev) -> None:
    """Whoever sends to the agent."""
    httpx.put(f"{dev.agent_url}/v0.4/traces", content=b"\xff", headers={"content-type": "application/msgpack"})
    answer = dev.get("/api/hello")

    assert trace_id(answer) in dev.wait_for(trace_id(answer))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_its_end_ends_everything_and_shows_the_last_traces(signum: int) -> None:
    """Ctrl-C, a stop from outside, a terminal that was closed."""
    with developing() as dev:
        started = dev.processes()
        answer = dev.get("/api/hello")
        code = dev.running.stop(signum)

        assert len(started) == 3
        assert code == 0
        assert dev.processes() == {}
        assert trace_id(answer) in dev.said
        assert "Traceback" not in dev.said


@pytest.mark.parametrize("option", ["--port", "--agent-port", "--view-port"])
def test_a_busy_port_is_a_sentence(option: str) -> None:
    """It names the port and the option; the exit code is 1 and no process is left."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with launched(option, str(port)) as dev:
            code = dev.running.wait()

            assert code == 1
            assert dev.said == (
                f"Can't listen on 127.0.0.1 port {port}: Address already in use. Choose another port with {option}."
            )
            assert dev.processes() == {}


def test_a_service_that_does_not_start_says_why() -> None:
    """Its own words, exit code 1, and no process is left."""
    with launched(environment={"DD_TRACE_SAMPLE_RATE": "1.5"}) as dev:
        code = dev.running.wait()

        assert code == 1
        assert "DD_TRACE_SAMPLE_RATE='1.5': must be less than or equal to 1" in dev.said
        assert dev.said.endswith("The service did not start; what it said stands above.")
        assert dev.processes() == {}


def test_a_service_that_dies_ends_all() -> None:
    """With its exit code told."""
    with developing() as dev:
        os.kill(dev.process("hello_service.serving.server"), signal.SIGKILL)
        code = dev.running.wait()

        assert code == 1
        assert dev.said.endswith("The service has ended by itself, exit code -9.")
        assert dev.processes() == {}


def test_an_agent_that_dies_is_told_and_the_service_goes_on() -> None:
    """Nothing more can be shown."""
    with developing() as dev:
        os.kill(dev.process("hello_service.localview.agent"), signal.SIGKILL)
        dev.wait_for("The embedded trace agent has ended: no more traces are shown.")

        assert dev.get("/api/hello").status_code == 200
        assert dev.running.stop(signal.SIGINT) == 0
        assert dev.processes() == {}


def test_a_service_that_dies_after_its_agent_ends_all() -> None:
    """Also then."""
    with developing() as dev:
        os.kill(dev.process("hello_service.localview.agent"), signal.SIGKILL)
        dev.wait_for("The embedded trace agent has ended")
        os.kill(dev.process("hello_service.serving.server"), signal.SIGTERM)

        assert dev.running.wait() == 0
        assert dev.processes() == {}


def test_an_agent_that_does_not_start_says_what_to_do(tmp_path: Path) -> None:
    """Exit code 1, and no process is left."""
    environment = customized(tmp_path, "hello_service.localview.agent", "sys.exit(3)")
    with launched(environment=environment) as dev:
        code = dev.running.wait()

        assert code == 1
        assert (
            "The embedded trace agent did not start: run `python -m hello_service.localview.agent` to see why"
            in dev.said
        )
        assert dev.processes() == {}


def test_an_agent_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    """Nothing is lost by it."""
    with developing(environment=customized(tmp_path, "hello_service.localview.agent", "time.sleep(6)")) as dev:
        dev.wait_for(trace_id(dev.get("/api/hello")))

        assert dev.running.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("slow", ["hello_service.localview.agent", "hello_service.serving.server"])
def test_it_can_be_ended_while_it_starts(tmp_path: Path, slow: str) -> None:
    """At once, whatever it is waiting for."""
    with launched(environment=customized(tmp_path, slow, "time.sleep(600)")) as dev:
        eventually(lambda: [command for command in dev.processes().values() if slow in command])
        eventually(lambda: len(dev.processes()), lambda number: number >= 3)
        code = dev.running.stop(signal.SIGINT)

        assert code == 0
        assert dev.processes() == {}
        assert "Traceback" not in dev.said


def test_a_line_of_any_length_is_survived(tmp_path: Path) -> None:
    """What comes after it is still read, so that the service never stands still on a full pipe."""
    code = "sys.stderr.write('x' * 3_000_000 + '\\n')"
    with developing(environment=customized(tmp_path, "hello_service.serving.server", code)) as dev:
        dev.get("/api/faults/error")

        dev.wait_for("error: Exception on request GET /api/faults/error")
        assert max(len(line) for line in dev.said.splitlines()) == processes.LINE_BYTES


def test_another_agent_is_used_when_asked_for(agent: Agent) -> None:
    """The one that the environment names; no trace is shown, no page is served."""
    with developing("--no-embedded-agent", environment={"DD_TRACE_AGENT_URL": agent.url}) as dev:
        dev.get("/api/hello")
        (span,) = agent.wait_for_spans(1)

        assert span["resource"] == "GET /api/hello"
        assert "traces" not in httpx.get(dev.url).json()
        assert dev.running.stop(signal.SIGINT) == 0
        assert f"Traces go to {agent.url} (DD_TRACE_AGENT_URL)." in dev.said
        assert "View traces" not in dev.said
        assert "asgi.request" not in dev.said


def test_an_agent_in_the_environment_is_set_aside_and_said_so() -> None:
    """Without its password."""
    environment = {"DD_TRACE_AGENT_URL": "http://user:secret@agent.example:8126", "DD_AGENT_HOST": "agent.example"}
    with developing(environment=environment) as dev:
        dev.wait_for(trace_id(dev.get("/api/hello")))

        assert (
            "DD_TRACE_AGENT_URL=http://***@agent.example:8126 is set aside: --no-embedded-agent sends there."
            in dev.said
        )
        assert "DD_AGENT_HOST=agent.example is set aside" in dev.said
        assert "secret" not in dev.said


def test_view_shows_the_traces_of_services_that_run_elsewhere() -> None:
    """Agent and page alone, on an address that a container needs; an agent in the environment is no matter of theirs."""
    elsewhere = {"DD_TRACE_AGENT_URL": "http://agent.example:8126"}
    options = ["--host", "0.0.0.0", "--allow-host", "agent.example"]
    with developing(*options, command=VIEW, environment=elsewhere) as view:
        with service(view.agent_url, {"DD_SERVICE": "elsewhere"}) as other:
            identity = trace_id(httpx.get(f"{other.url}/api/hello"))
        view.wait_for(identity)
        page = httpx.get(f"{view.page_url}/trace/{identity}")
        allowed = httpx.get(f"{view.agent_url}/info", headers={"Host": "agent.example:8126"})
        listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()}
        code = view.running.stop()

    assert "elsewhere" in page.text
    assert allowed.status_code == 200
    assert {f"00000000:{int(url.rpartition(':')[2]):04X}" for url in (view.page_url, view.agent_url)} <= listening
    assert "Service: " not in view.said
    assert "set aside" not in view.said
    assert code == 0
    assert view.processes() == {}


def test_view_ends_with_its_agent() -> None:
    """There is nothing more to show then: exit code 1."""
    with developing(command=VIEW) as view:
        os.kill(view.process("hello_service.localview.agent"), signal.SIGKILL)

        assert view.running.wait() == 1
        assert "The embedded trace agent has ended" in view.said
        assert view.processes() == {}


def test_the_page_can_be_left_out_and_host_and_port_come_from_the_environment() -> None:
    """The terminal shows the trace id then."""
    port = free_port()
    command = [*DEV, "--agent-port", "0", "--no-view"]
    environment = clean_environment({"HOST": "localhost", "PORT": str(port)})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        answer = httpx.get(f"http://127.0.0.1:{port}/")
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()

    assert said[0] == f"Service: http://127.0.0.1:{port}\n"
    assert said[2] == "Press Ctrl-C to stop.\n"
    assert "traces" not in answer.json()
    assert f"trace {trace_id(answer)}" in rest
    assert process.returncode == 0


def test_the_page_is_opened_in_a_browser(tmp_path: Path) -> None:
    """The one that the person has chosen."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >"{opened}"\n')
    browser.chmod(0o755)
    with developing("--open", environment={"BROWSER": f"{browser} %s"}) as dev:
        assert eventually(lambda: opened.exists() and opened.read_text().strip()) == dev.page_url


def test_a_reader_that_goes_away_ends_all() -> None:
    """As in `hello-service dev | head -1`."""
    environment = clean_environment({MARK: "reader-" + str(os.getpid())})
    process = subprocess.Popen([*DEV, *FREE_PORTS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split()[-1].removesuffix(".")
        process.stdout.close()
        eventually(lambda: _asked(url) or process.poll() is not None, bool)
        eventually(lambda: process.poll() is not None or (_asked(url) and False))

    assert process.returncode != 0
    assert Dev(None, environment[MARK]).processes() == {}  # type: ignore[arg-type]  # only the mark is needed


def _asked(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/hello").status_code == 200
    except httpx.TransportError:
        return False


def test_a_terminal_gets_colours() -> None:
    """Errors in red."""
    master, slave = pty.openpty()
    environment = clean_environment({"TERM": "xterm-256color", "COLUMNS": "140"})
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([*DEV, *FREE_PORTS], env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = ""
    try:
        said = _read_until(master, "Press Ctrl-C to stop.")
        url = said.split("Service: ")[1].split()[0].replace("\x1b[0m", "")
        httpx.get(f"{url}/api/faults/error")
        said = _read_until(master, "Fault: this endpoint always fails")
    finally:
        process.send_signal(signal.SIGINT)
        rest = _read_until(master, None)
        os.close(master)

    assert process.wait(60) == 0
    assert "\x1b[31masgi.request" in said
    assert "\x1b[1;31mGET /api/faults/error  500" in said
    assert "\x1b[31mhello_service.api.faults.Fault: this endpoint always fails" in said
    assert "Traceback" not in rest


def _read_until(terminal: int, text: str | None) -> str:
    said = ""
    while text is None or text not in said:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        said += part.decode(errors="replace")
    return said


def test_serve_needs_nothing_of_it() -> None:
    """Neither its modules nor what only it needs."""
    code = (
        "import sys; import hello_service.__main__, hello_service.serving.server;"
        "print([name for name in sys.modules"
        " if name.startswith(('hello_service.localview', 'ddapm_test_agent', 'aiohttp.web'))])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


def test_without_the_dev_group_it_says_what_is_missing(tmp_path: Path) -> None:
    """As in the environment of a deployed service."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')")
    environment = clean_environment({"PYTHONPATH": str(tmp_path)})
    answer = subprocess.run(DEV, env=environment, capture_output=True, text=True, check=False)

    assert answer.returncode == 1
    assert answer.stderr == "Package rich of the dev group is not installed. scripts/dev installs it.\n"


async def test_a_process_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        "trap '' TERM; echo up; while :; do read x; done",
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    async with processes._ended(process):
        assert process.stdout is not None
        await process.stdout.readline()

    assert process.returncode == -signal.SIGKILL
