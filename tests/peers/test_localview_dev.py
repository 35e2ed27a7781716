"""Tests of `hello-service dev` and `view`: how they start, their output, and how they stop all their processes."""

from __future__ import annotations

import asyncio
import contextlib
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
from developing import DEV, FREE_PORTS, MARK, VIEW, Dev, developing, launched, write_sitecustomize
from local_view import send_spans, trace_id
from running import Agent, clean_environment, eventually, free_port, service
from tracing_data import span

from hello_service.localview import processes


@pytest.fixture(scope="module")
def dev() -> Iterator[Dev]:
    """Yield a running `dev` that several tests share."""
    with developing() as dev:
        yield dev


def test_each_request_is_a_tree_in_the_terminal(dev: Dev) -> None:
    """The first line links to the page of the trace. If standard output is not a terminal, the tree is plain text."""
    link = f"{dev.page_url}/trace/{trace_id(dev.get('/api/relay?count=2'))}"
    output = dev.wait_for(link)
    lines = output.splitlines()
    begin = next(number for number, line in enumerate(lines) if link in line)
    head, *rows = lines[begin : begin + 6]  # a line for the trace and one for each of its five spans

    assert head.startswith("GET /api/relay  200  ")
    assert head.endswith(f" ms  5 spans  {link}")
    # The last two of the five rows show the second call like the first one.
    assert [row.split()[:4] for row in rows[:3]] == [
        ["asgi.request", "GET", "/api/relay", "hello-service"],
        ["├─", "http.request", "GET", "hello-service/api/hello"],
        ["│", "└─", "asgi.request", "GET"],
    ]
    assert all("█" in row for row in rows)
    assert "\x1b" not in output


def test_an_error_shows_its_type_and_message(dev: Dev) -> None:
    """The error is below its span, with the file and line of the code. The log line is below the tree."""
    dev.get("/api/faults/error")
    output = dev.wait_for("error: Exception on request GET /api/faults/error")

    assert re.search(r"hello_service\.api\.faults\.Fault: this endpoint always fails \(faults\.py:\d+\)\n", output)
    assert output.index("Fault: this endpoint always fails") < output.index("error: Exception on request")


@pytest.mark.once
def test_the_option_tree_selects_traces() -> None:
    """The page still has all traces, and the terminal shows the log lines of traces that it does not draw."""
    with developing("--tree", "slow") as dev:
        fast, failed = dev.get("/api/hello"), dev.get("/api/faults/error")
        dev.wait_for("error: Exception on request GET /api/faults/error")
        slow = dev.get("/api/faults/slow?seconds=0.6")  # `slow` selects traces over half a second
        dev.wait_for(trace_id(slow))

        assert trace_id(fast) not in dev.output
        assert trace_id(failed) not in dev.output
        assert httpx.get(f"{dev.page_url}/trace/{trace_id(fast)}").status_code == 200


def test_ctrl_c_shows_the_last_trace_and_its_log_line() -> None:
    with developing() as dev:
        failed = dev.get("/api/faults/error")
        dev.running.stop(signal.SIGINT)

        assert trace_id(failed) in dev.output
        assert dev.output.endswith("error: Exception on request GET /api/faults/error")


def test_the_service_links_to_the_page(dev: Dev) -> None:
    """The link is in the HTML for browsers, and in the JSON for other clients."""
    html = httpx.get(dev.url, headers={"accept": "text/html"}).text
    document = httpx.get(dev.url).json()

    assert f'<a href="{dev.page_url}">' in html
    assert document["traces"] == dev.page_url


def test_neither_probes_nor_access_log_lines_are_shown(dev: Dev) -> None:
    dev.get("/health")
    later_response = dev.get("/api/hello/Probe")
    output = dev.wait_for(trace_id(later_response))

    assert "GET /health" not in output
    assert '"event": "request"' not in output


def test_a_malformed_trace_does_not_affect_others(dev: Dev) -> None:
    httpx.put(f"{dev.agent_url}/v0.4/traces", content=b"\xff", headers={"content-type": "application/msgpack"})

    dev.wait_for(trace_id(dev.get("/api/hello")))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_shows_the_last_trace(signum: int) -> None:
    """Ctrl-C, `kill` and a closed terminal send these signals."""
    with developing() as dev:
        processes_before = dev.processes()
        response = dev.get("/api/hello")
        exit_code = dev.running.stop(signum)

        assert len(processes_before) == 3  # dev, the agent and the service
        assert exit_code == 0
        assert dev.processes() == {}
        assert trace_id(response) in dev.output
        assert "Traceback" not in dev.output


@pytest.mark.parametrize("option", ["--port", "--agent-port", "--view-port"])
def test_a_busy_port_is_reported(option: str) -> None:
    """The message has the port and the option that changes it. All processes have ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with launched(option, str(port)) as dev:
            exit_code = dev.running.wait()

            assert exit_code == 1
            assert dev.output == (
                f"Can't listen on 127.0.0.1 port {port}: Address already in use. Choose another port with {option}."
            )
            assert dev.processes() == {}


def test_a_service_that_does_not_start_is_reported_with_its_output() -> None:
    with launched(environment={"DD_TRACE_SAMPLE_RATE": "1.5"}) as dev:
        exit_code = dev.running.wait()

        assert exit_code == 1
        assert "DD_TRACE_SAMPLE_RATE='1.5': must be less than or equal to 1" in dev.output
        assert "The service did not start." in dev.output.splitlines()[-1]
        assert dev.processes() == {}


@pytest.mark.once
def test_everything_stops_if_the_service_dies() -> None:
    """The service's exit code is shown."""
    with developing() as dev:
        os.kill(dev.process_id("hello_service.serving.server"), signal.SIGKILL)
        exit_code = dev.running.wait()

        assert exit_code == 1
        assert dev.output.endswith("exited with code -9.")
        assert dev.processes() == {}


@pytest.mark.once
def test_the_service_continues_if_the_agent_dies() -> None:
    """A message reports that no more traces are shown."""
    with developing() as dev:
        os.kill(dev.process_id("hello_service.localview.agent"), signal.SIGKILL)
        dev.wait_for("no more traces are shown")

        assert dev.get("/api/hello").status_code == 200
        assert dev.running.stop(signal.SIGINT) == 0
        assert dev.processes() == {}


@pytest.mark.once
def test_dev_exits_with_the_service_after_the_agent_has_died() -> None:
    with developing() as dev:
        os.kill(dev.process_id("hello_service.localview.agent"), signal.SIGKILL)
        dev.wait_for("The embedded trace agent has exited")
        os.kill(dev.process_id("hello_service.serving.server"), signal.SIGTERM)

        assert dev.running.wait() == 0
        assert dev.processes() == {}


@pytest.mark.once
def test_an_agent_that_does_not_start_is_reported_with_advice(tmp_path: Path) -> None:
    environment = write_sitecustomize(tmp_path, "hello_service.localview.agent", "sys.exit(3)")
    with launched(environment=environment) as dev:
        exit_code = dev.running.wait()

        assert exit_code == 1
        assert "run `python -m hello_service.localview.agent`" in dev.output
        assert dev.processes() == {}


@pytest.mark.once
def test_no_trace_is_lost_if_the_agent_starts_slowly(tmp_path: Path) -> None:
    """`dev` is ready only when its agent is ready. Here, the agent starts 6 seconds late."""
    with developing(environment=write_sitecustomize(tmp_path, "hello_service.localview.agent", "time.sleep(6)")) as dev:
        dev.wait_for(trace_id(dev.get("/api/hello")))

        assert dev.running.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("module", ["hello_service.localview.agent", "hello_service.serving.server"])
def test_dev_can_be_stopped_while_it_starts(tmp_path: Path, module: str) -> None:
    """`dev` waits for the process of `module`, which hangs."""
    with launched(environment=write_sitecustomize(tmp_path, module, "time.sleep(600)")) as dev:
        eventually(lambda: [command for command in dev.processes().values() if module in command])
        eventually(lambda: len(dev.processes()), lambda number: number >= 3)  # dev, the agent and the service
        exit_code = dev.running.stop(signal.SIGINT)

        assert exit_code == 0
        assert dev.processes() == {}
        assert "Traceback" not in dev.output


@pytest.mark.once
def test_a_very_long_line_is_cut(tmp_path: Path) -> None:
    """The output after that line is still read, so the service never blocks on a full pipe."""
    print_long_line = "sys.stderr.write('x' * 3_000_000 + '\\n')"  # about three times LINE_BYTES
    with developing(environment=write_sitecustomize(tmp_path, "hello_service.serving.server", print_long_line)) as dev:
        dev.get("/api/faults/error")

        dev.wait_for("error: Exception on request GET /api/faults/error")
        assert max(len(line) for line in dev.output.splitlines()) == processes.LINE_BYTES


def test_the_option_no_embedded_agent_uses_the_agent_in_the_environment(agent: Agent) -> None:
    """The terminal shows no traces, and there is no page."""
    with developing("--no-embedded-agent", environment={"DD_TRACE_AGENT_URL": agent.url}) as dev:
        dev.get("/api/hello")
        (span,) = agent.wait_for_spans(1)

        assert span["resource"] == "GET /api/hello"
        assert "traces" not in httpx.get(dev.url).json()
        assert dev.running.stop(signal.SIGINT) == 0
        assert f"Traces go to {agent.url} (DD_TRACE_AGENT_URL)." in dev.output
        assert "View traces" not in dev.output
        assert "asgi.request" not in dev.output


@pytest.mark.once
def test_an_agent_in_the_environment_is_ignored_with_a_message() -> None:
    """The message does not contain the password in the agent's URL."""
    environment = {"DD_TRACE_AGENT_URL": "http://user:secret@agent.example:8126", "DD_AGENT_HOST": "agent.example"}
    with developing(environment=environment) as dev:
        dev.wait_for(trace_id(dev.get("/api/hello")))

        assert "DD_TRACE_AGENT_URL=http://***@agent.example:8126 is ignored. Use --no-embedded-agent" in dev.output
        assert "DD_AGENT_HOST=agent.example is ignored." in dev.output
        assert "secret" not in dev.output


def test_view_shows_the_traces_of_services_that_run_elsewhere() -> None:
    """With `--host 0.0.0.0`, `view` listens on all addresses. It prints nothing about an agent in the environment."""
    environment = {"DD_TRACE_AGENT_URL": "http://agent.example:8126"}
    options = ["--host", "0.0.0.0", "--allow-host", "agent.example"]
    with developing(*options, command=VIEW, environment=environment) as view:
        with service(view.agent_url, {"DD_SERVICE": "elsewhere"}) as other_service:
            identity = trace_id(httpx.get(f"{other_service.url}/api/hello"))
        view.wait_for(identity)
        page = httpx.get(f"{view.page_url}/trace/{identity}")
        response_to_allowed_host = httpx.get(f"{view.agent_url}/info", headers={"Host": "agent.example:8126"})
        # The second column is the local address and port, in hexadecimal.
        local_addresses = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()}
        exit_code = view.running.stop()

    assert "elsewhere" in page.text
    assert response_to_allowed_host.status_code == 200
    for url in (view.page_url, view.agent_url):
        port = int(url.rpartition(":")[2])
        assert f"00000000:{port:04X}" in local_addresses
    assert "Service: " not in view.output
    assert "is ignored" not in view.output
    assert exit_code == 0
    assert view.processes() == {}


def test_view_listens_on_one_address_of_this_machine() -> None:
    """It prints this address, because neither the agent nor the page listens on 127.0.0.1."""
    with developing("--host", "127.0.0.2", command=VIEW) as view:
        agent_url, page_url = re.findall(r"(?:Trace agent|View traces): (http://127\.0\.0\.2:\d+)", view.output)
        send_spans(agent_url, [span(trace=0xADD)])

        view.wait_for(f"{0xADD:032x}")
        assert httpx.get(f"{page_url}/trace/{0xADD:032x}").status_code == 200


def test_view_exits_with_its_agent() -> None:
    """The exit code is 1, because `view` can't show anything without an agent."""
    with developing(command=VIEW) as view:
        os.kill(view.process_id("hello_service.localview.agent"), signal.SIGKILL)

        assert view.running.wait() == 1
        assert "The embedded trace agent has exited" in view.output
        assert view.processes() == {}


@pytest.mark.once
def test_without_a_page_the_terminal_shows_the_trace_id() -> None:
    """The service's host and port come from the environment."""
    port = free_port()
    command = [*DEV, "--agent-port", "0", "--no-view"]
    environment = clean_environment({"HOST": "localhost", "PORT": str(port)})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        service_line, _agent_line, last_line = (process.stdout.readline() for _ in range(3))
        response = httpx.get(f"http://127.0.0.1:{port}/")
        process.send_signal(signal.SIGINT)
        later_output = process.stdout.read()

    assert service_line == f"Service: http://127.0.0.1:{port}\n"
    assert last_line == "Press Ctrl-C to stop.\n"
    assert "traces" not in response.json()
    assert f"trace {trace_id(response)}" in later_output
    assert process.returncode == 0


def test_the_option_open_opens_the_page_in_a_browser(tmp_path: Path) -> None:
    """The variable BROWSER selects the browser."""
    opened_url = tmp_path / "url"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >"{opened_url}"\n')
    browser.chmod(0o755)
    with developing("--open", environment={"BROWSER": f"{browser} %s"}) as dev:
        assert eventually(lambda: opened_url.exists() and opened_url.read_text().strip()) == dev.page_url


def test_everything_stops_if_the_reader_of_the_output_exits() -> None:
    """An example is `hello-service dev | head -1`. `dev` stops when it can't write its next output, a trace."""
    environment = clean_environment({MARK: f"reader-{os.getpid()}"})
    process = subprocess.Popen([*DEV, *FREE_PORTS], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().removeprefix("Service: ").strip()
        process.stdout.close()

        def has_exited_after_a_request() -> bool:
            with contextlib.suppress(httpx.TransportError):  # the service may not have started, or may have stopped
                httpx.get(f"{url}/api/hello")
            return process.poll() is not None

        eventually(has_exited_after_a_request, timeout=40)

    assert process.returncode != 0
    assert Dev(None, environment[MARK]).processes() == {}  # type: ignore[arg-type]  # only the mark is needed


@pytest.mark.once
def test_errors_are_red_in_a_terminal() -> None:
    master, slave = pty.openpty()
    environment = clean_environment({"TERM": "xterm-256color", "COLUMNS": "140"})
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen([*DEV, *FREE_PORTS], env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    output = ""
    try:
        output = _read_until(master, "Press Ctrl-C to stop.")
        url = output.split("Service: ")[1].split()[0].replace("\x1b[0m", "")  # without the code that ends bold text
        httpx.get(f"{url}/api/faults/error")
        output = _read_until(master, "Fault: this endpoint always fails")
    finally:
        process.send_signal(signal.SIGINT)
        later_output = _read_until(master, None)
        os.close(master)

    assert process.wait(60) == 0
    # 31 is red, 1;31 is bold and red.
    assert "\x1b[31masgi.request" in output
    assert "\x1b[1;31mGET /api/faults/error  500" in output
    assert "\x1b[31mhello_service.api.faults.Fault: this endpoint always fails" in output
    assert "Traceback" not in later_output


def _read_until(terminal: int, text: str | None) -> str:
    """Return the terminal's output up to `text`, or until the other end of the terminal is closed."""
    output = ""
    while text is None or text not in output:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        output += part.decode(errors="replace")
    return output


def test_serve_does_not_import_the_local_view() -> None:
    """`serve` imports neither the local view's modules nor the libraries that only the local view needs."""
    code = """
import sys
import hello_service.__main__, hello_service.serving.server
local_view = ("hello_service.localview", "ddapm_test_agent", "aiohttp.web")
print([name for name in sys.modules if name.startswith(local_view)])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert process.stdout.strip() == "[]"


def test_without_the_dev_group_the_missing_package_is_reported(tmp_path: Path) -> None:
    """A deployed service is installed without that group of packages. Here, a fake package raises the same error."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')")
    environment = clean_environment({"PYTHONPATH": str(tmp_path)})
    process = subprocess.run(DEV, env=environment, capture_output=True, text=True, check=False)

    assert process.returncode == 1
    assert "rich" in process.stderr
    assert "scripts/dev installs it" in process.stderr
    assert len(process.stderr.splitlines()) == 1


async def test_a_process_that_ignores_the_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dev` waits for `STOP_SECONDS` before it kills a process."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    ignore_sigterm = "trap '' TERM; echo up; while :; do read x; done"
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", ignore_sigterm, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    async with processes._stopped_at_exit(process):
        assert process.stdout is not None
        await process.stdout.readline()  # the process now ignores SIGTERM

    assert process.returncode == -signal.SIGKILL
