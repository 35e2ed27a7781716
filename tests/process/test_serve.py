"""Tests of `hello-service serve` as a real process: its start, with errors and warnings, and its connections."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from running import PLAIN_HYPERCORN, SERVE, Running, clean_environment, eventually, service, started
from websockets.sync.client import connect

from hello_service import contract

NO_AGENT = "http://127.0.0.1:1"  # nothing listens on this port


def test_it_serves_without_an_agent() -> None:
    with service(NO_AGENT) as running:
        responses = [httpx.get(running.url + path).status_code for path in ("/", "/api/hello", "/health", "/info")]
        code = running.stop()

    assert responses == [200] * 4
    assert code == 0


def test_it_serves_with_tracing_off() -> None:
    """The response has no trace id, and `/info` shows why the service isn't traced."""
    with service(NO_AGENT, {"DD_TRACE_ENABLED": "false"}) as running:
        response = httpx.get(f"{running.url}/api/hello")
        info = httpx.get(f"{running.url}/info").json()

    assert response.status_code == 200
    assert "traceresponse" not in response.headers
    assert info["tracing"]["active"] is False
    assert info["tracing"]["reason"] == "DD_TRACE_ENABLED is false"


def test_the_service_does_not_start_with_invalid_variables() -> None:
    """The error message lists all of them, and the exit code is 1."""
    environment = clean_environment({"DD_TRACE_SAMPLE_RATE": "half", "PORT": "x"})
    result = subprocess.run(SERVE, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "The service can't start with this environment:",
        "PORT='x': must be a valid integer, unable to parse string as an integer",
        "DD_TRACE_SAMPLE_RATE='half': must be a valid number, unable to parse string as a number",
    ]


def warnings_with_prefix(running: Running, prefix: str) -> list[str]:
    """Return the logged warnings that begin with `prefix`."""
    logged = [line["event"] for line in running.log if line["level"] == "warning"]
    return [event for event in logged if event.startswith(prefix)]


@pytest.mark.parametrize(
    ("command", "count"), [(SERVE, 0), (PLAIN_HYPERCORN, 1)], ids=["hello-service serve", "plain hypercorn"]
)
def test_only_a_start_without_serve_logs_a_warning_about_the_missing_drain(command: list[str], count: int) -> None:
    with service(NO_AGENT, {"LOG_FORMAT": "json"}, command) as running:
        status = httpx.get(running.url).status_code
        logged = warnings_with_prefix(running, "Not started by `hello-service serve`: there is no drain")

    assert status == 200
    assert len(logged) == count


# Programs that rename a private name that the service relies on, as a new version of the library could.
RENAMED_CLASS = "from quart import Quart as Q; Q.renamed = Q.asgi_websocket_class; del Q.asgi_websocket_class"
RENAMED_PARAMETER = (
    "from ddtrace.internal.writer import NativeWriter as W; code = W._metrics_dist.__code__; "
    "W._metrics_dist.__code__ = code.replace(co_varnames=('self', 'renamed', *code.co_varnames[2:]))"
)


@pytest.mark.parametrize(
    ("command", "rename", "part", "sentence"),
    [
        (SERVE, RENAMED_CLASS, "WebSocket bound", "quart.app:Quart.asgi_websocket_class is missing"),
        (PLAIN_HYPERCORN, RENAMED_CLASS, "WebSocket bound", "quart.app:Quart.asgi_websocket_class is missing"),
        (SERVE, RENAMED_PARAMETER, "trace loss", "ddtrace.internal.writer:NativeWriter._metrics_dist takes"),
    ],
)
def test_a_renamed_private_name_is_logged_as_one_warning(
    tmp_path: Path, command: list[str], rename: str, part: str, sentence: str
) -> None:
    """The service starts without the part that relies on the name."""
    (tmp_path / "sitecustomize.py").write_text(rename)  # Python runs it at the start
    with service(NO_AGENT, {"LOG_FORMAT": "json", "PYTHONPATH": str(tmp_path)}, command) as running:
        status = httpx.get(running.url).status_code
        lost = httpx.get(f"{running.url}/info").json()["tracing"]["traces_lost"]
        logged = warnings_with_prefix(running, sentence)

    assert status == 200
    assert len(logged) == 1
    assert logged[0].endswith(contract.WITHOUT[part])
    number_is_unknown = part == "trace loss"
    assert (lost is None) == number_is_unknown


@pytest.mark.parametrize("variable", ["PORT", "DD_TRACE_SAMPLE_RATE"])
def test_the_server_module_also_rejects_invalid_variables(variable: str) -> None:
    """The module can be started without `serve`, which would check the variables first."""
    command = [sys.executable, "-m", "hello_service.serving.server"]
    environment = clean_environment({variable: "x"})
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 1
    assert result.stderr.startswith(f"{variable}='x': must be")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_reported(host: str) -> None:
    """The error message contains the variables that set another address, and the exit code is 1."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        port = listener.getsockname()[1]
        environment = clean_environment({"HOST": host, "PORT": str(port), "DD_TRACE_ENABLED": "false"})
        result = subprocess.run(SERVE, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 1
    assert result.stderr.strip() == (
        f"Can't listen on {host} port {port}: Address already in use. Set HOST and PORT to another address."
    )


def test_it_serves_on_ipv6() -> None:
    """The service can also call itself over IPv6."""
    with service(NO_AGENT, {"HOST": "::1", "DD_TRACE_ENABLED": "false"}) as running:
        response = httpx.get(f"{running.url}/api/relay?count=2")

    assert response.status_code == 200
    assert len(response.json()["answers"]) == 2


def test_configuration_warnings_are_logged_once() -> None:
    """The warning shows the rule that replaces the old sampling variable."""
    with service(NO_AGENT, {"DD_TRACE_SAMPLE_RATE": "0.5"}) as running:
        httpx.get(f"{running.url}/api/hello")
        running.stop()
        logged = [entry["event"] for entry in running.log if entry["event"].startswith("DD_TRACE_SAMPLE_RATE")]

    assert logged == [
        "DD_TRACE_SAMPLE_RATE=0.5 is applied as DD_TRACE_SAMPLING_RULES='[{\"sample_rate\": 0.5}]'",
    ]


def test_no_response_has_a_server_header() -> None:
    """This holds for the application's responses and for the server's own, such as that to an invalid Host."""
    with service(NO_AGENT) as running:
        responses = [httpx.get(running.url, headers={"Host": host}) for host in ("localhost", "a/b")]

    assert [response.status_code for response in responses] == [200, 400]
    assert responses[1].json()["type"] == "urn:hello-service:problem:bad-request"
    assert all("server" not in response.headers for response in responses)
    assert all(response.headers["X-Content-Type-Options"] == "nosniff" for response in responses)


def test_the_server_closes_a_connection_when_its_client_does() -> None:
    """The server doesn't wait for KEEP_ALIVE_SECONDS, the limit for an idle connection."""
    with service(NO_AGENT, {"KEEP_ALIVE_SECONDS": "600"}) as running:
        descriptors = Path(f"/proc/{running.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        httpx.get(f"{running.url}/health")

        eventually(lambda: len(list(descriptors.iterdir())), lambda count: count <= before)


def test_only_a_connection_without_a_request_is_idle() -> None:
    """A request may take longer than KEEP_ALIVE_SECONDS. The idle time begins after its response."""
    with service(NO_AGENT, {"KEEP_ALIVE_SECONDS": "1", "FAULTS": "true"}) as running:
        connection = HTTPConnection("127.0.0.1", int(httpx.URL(running.url).port or 0), timeout=30)
        for path in ("/health", "/api/faults/slow?seconds=2", "/health"):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            assert response.read()
        response_end = time.monotonic()
        assert connection.sock.recv(1) == b""
        idle_seconds = time.monotonic() - response_end
        connection.close()

    # Less than KEEP_ALIVE_SECONDS, because the idle time begins before the client has read the response.
    assert idle_seconds > 0.9


def test_an_idle_connection_does_not_delay_the_exit() -> None:
    """This holds for new connections and for those that had a request, however long they may be idle."""
    with service(NO_AGENT, {"KEEP_ALIVE_SECONDS": "600"}) as running:
        port = int(httpx.URL(running.url).port or 0)
        new_connection = HTTPConnection("127.0.0.1", port, timeout=30)
        new_connection.connect()
        used_connection = HTTPConnection("127.0.0.1", port, timeout=30)
        used_connection.request("GET", "/health")
        used_connection.getresponse().read()
        code = running.stop()
        received = [connection.sock.recv(1) for connection in (used_connection, new_connection)]
        for connection in (used_connection, new_connection):
            connection.close()

    assert code == 0
    assert received == [b"", b""]  # each connection was closed
    assert "deadline" not in {line["event"] for line in running.log}


def test_a_websocket_is_served() -> None:
    with service(NO_AGENT) as running, connect(running.url.replace("http", "ws") + "/api/hello/ws") as client:
        client.send("Ada")
        assert client.recv() == "Hello, Ada!"


def test_a_stream_that_breaks_closes_the_connection() -> None:
    """Otherwise the client would treat the incomplete response as a complete one."""
    with (
        service(NO_AGENT, {"FAULTS": "true"}) as running,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
    ):
        httpx.get(f"{running.url}/api/faults/stream")


def test_a_malformed_trace_header_breaks_nothing() -> None:
    """The request starts a new trace."""
    malformed = [b"00-zz-11-01", b"\xff\xfe", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"x" * 8000]
    with service(NO_AGENT) as running:
        responses = [
            httpx.get(f"{running.url}/api/hello", headers={b"traceparent": value, b"x-datadog-trace-id": value})
            for value in malformed
        ]

    assert [response.status_code for response in responses] == [200] * len(malformed)
    assert len({response.headers["traceresponse"] for response in responses}) == len(malformed)


def test_closed_connections_leave_no_task_and_no_descriptor() -> None:
    """This holds for clients that disconnect after their response and for those that disconnect during a request."""
    with (
        service(NO_AGENT, {"FAULTS": "true", "KEEP_ALIVE_SECONDS": "600"}) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        descriptors = Path(f"/proc/{running.process.pid}/fd")
        tasks_before = client.get("/info").json()["tasks"]
        descriptors_before = len(list(descriptors.iterdir()))
        for path, timeout in (("/api/hello", 60), ("/api/faults/slow?seconds=1", 0.3)):
            for _ in range(10):
                with suppress(httpx.ReadTimeout):
                    httpx.get(running.url + path, timeout=timeout)
        tasks_after = eventually(lambda: client.get("/info").json()["tasks"], lambda tasks: tasks <= tasks_before)
        descriptors_after = len(list(descriptors.iterdir()))

    assert tasks_after == tasks_before
    assert descriptors_after == descriptors_before


def test_production_imports_no_development_package() -> None:
    """A deployed service doesn't have these packages. The local view, which needs some, isn't imported either."""
    program = (
        "import sys, json, hello_service.serving.server, hello_service.__main__; print(json.dumps(list(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules = json.loads(result.stdout)
    packages = {name.split(".")[0] for name in modules}

    # rich is a development package too, but httpx imports it if it is installed.
    assert not packages & {"ddapm_test_agent", "pytest", "playwright"}
    assert "hello_service.localview" not in modules


def test_a_start_without_serve_logs_the_variables_that_only_the_environment_can_set() -> None:
    """One warning lists the variables and their values."""
    with started(PLAIN_HYPERCORN, clean_environment({"DD_TRACE_AGENT_URL": NO_AGENT})) as running:
        running.wait_until_running()
        (line,) = [entry for entry in running.log if entry["event"].startswith("These variables are unset")]

    assert "DD_TRACE_AIOHTTP_ENABLED=false" in line["event"]
    assert line["level"] == "warning"
