"""Tests of `hello-service doctor` with real agents and servers, and with fake ones that misbehave."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from fake_http import fake_http
from running import BIN, ROOT, Agent, clean_environment, eventually, free_port, service, started, trace_agent

from hello_service.doctor.finding import COLORS

DOCTOR = [str(BIN / "hello-service"), "doctor"]
# The code of `hello-service doctor --json`, with 60 seconds in place of its own time limit.
WITH_LONG_TIME_LIMIT = """
import json, os, sys
from hello_service.doctor import examine, finding
results = list(examine(os.environ, *sys.argv[1:], seconds=60))
print(json.dumps(finding.document(results)))
sys.exit(finding.exit_code(results))
"""
# An agent's response to /info.
INFO = {"version": "7.99.0", "endpoints": ["/v0.4/traces", "/v0.5/traces"]}
# A prefix of commands: it removes root's capabilities to open files without permission.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
TIME_LIMIT_SECONDS = 10.0  # of the whole command
Finding = dict[str, Any]  # the result of one check in the JSON output


@pytest.fixture(scope="module", autouse=True)
def _compiled_modules(_agent: Agent) -> None:
    """Import all modules once. Otherwise, after an installation, their compilation would count as the doctor's time."""
    with service(_agent.url):
        pass


class Report:
    """The JSON output and the exit code of the doctor."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.text = process.stdout + process.stderr
        self.document = json.loads(process.stdout)
        self.findings: dict[str, Finding] = {finding["check"]: finding for finding in self.document["checks"]}

    def outcome(self, check: str) -> str:
        return str(self.findings[check]["outcome"])

    def sentence(self, check: str) -> str:
        return str(self.findings[check]["sentence"])


def doctor(extra: Mapping[str, str], url: str | None = None, prefix: Sequence[str] = ()) -> Report:
    """Run the doctor with a long time limit, because the machine may be busy, and with `extra` in its environment.

    `url` is the value of `--url`. Without it, and without PORT in `extra`, the doctor finds no running server.
    """
    arguments = [] if url is None else [url]
    return run([*prefix, sys.executable, "-c", WITH_LONG_TIME_LIMIT, *arguments], extra)


def doctor_command(extra: Mapping[str, str], *arguments: str) -> Report:
    """Run the command `hello-service doctor`, with its own time limit and `extra` in its environment."""
    return run([*DOCTOR, "--json", *arguments], extra)


def run(command: Sequence[str], extra: Mapping[str, str]) -> Report:
    """Run a doctor's `command`. Nothing listens at its HOST and PORT, unless `extra` overrides them."""
    environ = clean_environment({"HOST": "127.0.0.1", "PORT": str(free_port()), **extra})
    # The timeout is longer than each of the doctor's time limits.
    return Report(
        subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    )


def doctor_with_traced_server(extra: Mapping[str, str], prefix: Sequence[str] = ()) -> Report:
    """Run `doctor` with the URL of a fake server that reports that it is traced, so the check of the server passes."""
    with fake_http({"tracing": {"active": True, "ddtrace": "4", "agent": None, "sampling_rules": None}}) as server:
        return doctor(extra, server.url, prefix)


@contextmanager
def silent_server() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def write_sitecustomize(folder: Path, code: str) -> str:
    """Write a sitecustomize.py to `folder`. Return a PYTHONPATH that makes Python run `code` at its start."""
    (folder / "sitecustomize.py").write_text(code)
    return str(folder)


def hanging_serve(folder: Path) -> str:
    """Return a PYTHONPATH that makes `serve` write its process id to `folder` / "pid", and hang."""
    code = f"""
import os, pathlib, sys, time
if "serve" in sys.orig_argv:
    pathlib.Path({str(folder / "pid")!r}).write_text(str(os.getpid()))
    time.sleep(600)
"""
    return write_sitecustomize(folder, code)


def test_no_check_fails_if_traces_would_arrive(agent: Agent) -> None:
    """Every check passes or is skipped, and the test span arrives at the agent."""
    tags = {"DD_SERVICE": "shop", "DD_ENV": "prod", "DD_VERSION": "1.2"}
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, **tags})
    spans = agent.wait_for_spans(1)

    assert report.code == 0, report.text
    assert {report.outcome(check) for check in report.findings} == {"pass", "skipped"}
    assert report.document["verdict"] == "Traces would arrive."
    assert report.sentence("server") == "a server started like `serve` is traced by ddtrace 4.16.0"
    # The test agent's version is "test".
    assert report.sentence("agent").startswith(f"agent test responds at {agent.url} in ")
    assert report.sentence("trace format") == "ddtrace will send v0.5, and the agent accepts it"
    (span,) = [span for span in spans if span["name"] == "hello_service.doctor"]
    assert (span["service"], span["meta"]["env"], span["meta"]["version"]) == ("shop", "prod", "1.2")


def test_a_running_server_is_checked(agent: Agent) -> None:
    """The server's address comes from the settings or from `--url`. The server keeps running.

    It is a warning if the server sends its traces to another agent than the one that the doctor checks.
    """
    with service(agent.url) as running:
        port = running.url.rpartition(":")[2]
        found_by_settings = doctor({"DD_TRACE_AGENT_URL": agent.url, "PORT": port})
        localhost_url = agent.url.replace("127.0.0.1", "localhost")
        same_agent = doctor({"DD_TRACE_AGENT_URL": localhost_url}, running.url)
        found_by_url = doctor({"DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}, running.url)

        assert running.process.poll() is None
    assert found_by_settings.sentence("server") == f"the server at {running.url} is traced by ddtrace 4.16.0"
    assert same_agent.outcome("server") == "pass"
    assert found_by_url.outcome("server") == "warn"
    assert "with a different agent address" in found_by_url.sentence("server")


def test_an_untraced_server_is_reported(agent: Agent) -> None:
    """ddtrace is installed, but the server was not started under ddtrace-run."""
    hypercorn = [str(BIN / "hypercorn"), "hello_service.app:create_app()", "--bind", f"127.0.0.1:{free_port()}"]
    with service(agent.url, command=hypercorn) as running:
        report = doctor({"DD_TRACE_AGENT_URL": agent.url}, running.url)

    assert report.code == 1
    assert report.sentence("server") == f"the server at {running.url} is not traced: not started under ddtrace-run"


@pytest.mark.once
def test_a_server_that_cannot_be_checked_is_reported(agent: Agent) -> None:
    """A missing server is a failure. If the server is silent or another program, the verdict is undetermined."""
    variables = {"DD_TRACE_AGENT_URL": agent.url}
    with silent_server() as silent_url, fake_http({"hello": 1}) as other_program:
        missing = doctor(variables, f"http://127.0.0.1:{free_port()}")
        silent = doctor(variables, silent_url)
        other = doctor(variables, other_program.url)

    assert (missing.code, missing.outcome("server")) == (1, "fail")
    assert "nothing listens there" in missing.sentence("server")
    assert (silent.code, silent.outcome("server")) == (2, "skipped")
    assert "no response came" in silent.sentence("server")
    assert (other.code, other.outcome("server")) == (2, "skipped")
    assert "is not this service" in other.sentence("server")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://localhost:x"])
def test_a_malformed_url_is_rejected(url: str) -> None:
    """The doctor reports an error in the command line."""
    process = subprocess.run([*DOCTOR, "--url", url], capture_output=True, text=True, timeout=60, check=False)

    assert process.returncode == 2
    assert "must be a URL like http://host:port" in process.stderr
    assert process.stdout == ""


def test_invalid_settings_do_not_stop_the_other_checks(agent: Agent) -> None:
    """The check "settings" reports the invalid setting."""
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "DRAIN_SECONDS": "soon"})

    assert report.code == 1
    assert "DRAIN_SECONDS must be a valid number" in report.sentence("settings")
    assert report.outcome("server") == "skipped"
    assert report.outcome("test span") == "pass"


def test_settings_that_ddtrace_rejects_are_reported(agent: Agent) -> None:
    """With such settings, ddtrace exits before it sends anything."""
    report = doctor_with_traced_server(
        {"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_AGENT_PORT": "x", "DD_TRACE_AGENT_TIMEOUT_SECONDS": "x"}
    )

    assert report.code == 1
    assert report.outcome("trace format") == "skipped"
    assert "ddtrace can't start with this environment" in report.sentence("test span")


@pytest.mark.once
def test_a_server_that_does_not_start_is_reported(agent: Agent, tmp_path: Path) -> None:
    """If no server is running, the doctor starts one the way `serve` does. Here its import of Quart fails."""
    path = write_sitecustomize(tmp_path, "import sys\nsys.modules['quart'] = None\n")
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert report.code == 1
    assert report.sentence("server") == "no server is running, and a server started like `serve` exited at once"


def test_a_missing_ddtrace_is_reported(agent: Agent, tmp_path: Path) -> None:
    """The doctor itself runs without ddtrace."""
    path = write_sitecustomize(tmp_path, "import sys\nsys.modules['ddtrace'] = None\n")
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert report.code == 1
    assert report.sentence("test span") == "ddtrace can't start with this environment (ModuleNotFoundError)"
    assert report.outcome("server") == "fail"


def test_disabled_tracing_is_reported(agent: Agent) -> None:
    """Three checks fail: those of the variable, of the server, and of the test span."""
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_ENABLED": "false"})

    assert report.code == 1
    assert {report.outcome(check) for check in ("tracing on", "server", "test span")} == {"fail"}
    assert agent.spans() == []


def test_a_missing_agent_is_reported() -> None:
    """The agent's port is closed."""
    url = f"http://127.0.0.1:{free_port()}"
    report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": url})

    assert report.code == 1
    assert report.sentence("agent") == f"{url}: nothing listens there"
    assert "Start the agent" in report.findings["agent"]["fix"]
    assert {report.outcome(check) for check in ("trace format", "test span", "clock")} == {"skipped"}


@pytest.mark.once
def test_an_agent_that_never_responds_is_reported() -> None:
    """The agent's port only accepts connections."""
    with silent_server() as url:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": url})

    assert report.code == 1
    assert report.sentence("agent") == f"{url}: no response came (waited 2 s)"


def test_a_host_name_that_does_not_resolve_is_reported() -> None:
    """RFC 6761 guarantees that no name under .invalid resolves."""
    report = doctor_with_traced_server({"DD_AGENT_HOST": "agent.invalid"})

    assert report.code == 1
    assert report.sentence("agent").startswith("http://agent.invalid:8126: the host name does not resolve")


@pytest.mark.parametrize(("body", "status"), [({"hello": 1}, 200), ([], 200), ({}, 404)])
def test_an_http_server_that_is_not_an_agent_is_reported(body: object, status: int) -> None:
    """For example, some servers respond with 200 to every request."""
    with fake_http(body, status) as server:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": server.url})

    assert report.code == 1
    assert report.sentence("agent").startswith(f"{server.url} is not a trace agent (HTTP {status} for /info)")


# The code of a server that prints its port, and sends the first line of the SSH protocol to each client.
SSH_SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n")
        connection.close()
"""


@pytest.mark.once
def test_an_agent_url_with_the_wrong_protocol_is_reported() -> None:
    """The URL is https although the server has no TLS, or the server's protocol isn't HTTP but, for example, SSH."""
    with silent_server() as silent_url, started([sys.executable, "-c", SSH_SERVER], clean_environment()) as ssh_server:
        port = eventually(lambda: next(iter(ssh_server.lines), ""))
        https = doctor_with_traced_server({"DD_TRACE_AGENT_URL": silent_url.replace("http:", "https:")})
        ssh = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"http://127.0.0.1:{port}"})

    assert "no response came" in https.sentence("agent")
    assert "not HTTP" in ssh.sentence("agent")


@pytest.mark.once
def test_an_agent_that_rejects_spans_is_reported() -> None:
    """The agent's response to `/info` lists the trace format, but the agent rejects the traces."""
    with fake_http(INFO) as agent:
        accepted = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})
        paths = list(agent.paths)
        agent.status_of_other_methods = 413  # of all except GET, so also of the requests that send traces
        rejected = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert (accepted.code, accepted.outcome("test span")) == (0, "pass")
    assert "/v0.5/traces" in paths
    assert (rejected.code, rejected.outcome("test span")) == (1, "fail")
    assert "413" in rejected.sentence("test span")


@pytest.mark.once
def test_an_agent_that_lacks_the_trace_format_is_reported() -> None:
    """An older agent accepts only v0.4, which a variable selects. An agent with APM switched off accepts no format."""
    with fake_http({"endpoints": ["/v0.4/traces"]}) as older, fake_http({"endpoints": ["/info"]}) as without_apm:
        older.missing_paths = {"/v0.5/traces"}
        default_format = doctor_with_traced_server({"DD_TRACE_AGENT_URL": older.url})
        older_format = doctor_with_traced_server({"DD_TRACE_AGENT_URL": older.url, "DD_TRACE_API_VERSION": "v0.4"})
        no_format = doctor_with_traced_server({"DD_TRACE_AGENT_URL": without_apm.url})

    assert default_format.sentence("agent").startswith("an agent of unknown version responds")
    assert (default_format.outcome("trace format"), default_format.outcome("test span")) == ("fail", "fail")
    assert default_format.findings["trace format"]["fix"] == "DD_TRACE_API_VERSION=v0.4"
    assert (older_format.outcome("trace format"), older_format.outcome("test span")) == ("pass", "pass")
    assert older_format.code == 0
    assert (no_format.code, no_format.outcome("trace format")) == (1, "fail")
    assert "DD_APM_ENABLED=true" in no_format.findings["trace format"]["fix"]


@pytest.mark.parametrize(("agent_clock_offset", "relation"), [(-600, "ahead of"), (600, "behind")])
def test_a_wrong_clock_is_reported(agent_clock_offset: float, relation: str) -> None:
    """The doctor compares this machine's clock with the Date header of the agent."""
    with fake_http(INFO, headers={"Date": formatdate(time() + agent_clock_offset, usegmt=True)}) as agent:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert report.outcome("clock") == "warn"
    assert f"{relation} the agent's" in report.sentence("clock")


def test_a_correct_clock_passes() -> None:
    with fake_http(INFO, headers={"Date": formatdate(usegmt=True)}) as agent:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert report.outcome("clock") == "pass"


def test_without_a_date_header_the_clock_is_not_checked() -> None:
    with fake_http(INFO) as agent:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert report.outcome("clock") == "skipped"


@pytest.mark.once
def test_a_unix_socket_needs_permission(tmp_path: Path) -> None:
    """With permission, the test span arrives. A missing permission is reported, with a fix."""
    path = tmp_path / "apm.socket"
    with trace_agent(unix_socket=path):
        allowed = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{path}"}, WITHOUT_CAPABILITIES)
        path.chmod(0)
        denied = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{path}"}, WITHOUT_CAPABILITIES)

    assert (allowed.outcome("agent"), allowed.outcome("test span")) == ("pass", "pass"), allowed.text
    assert denied.sentence("agent") == f"unix://{path}: this user has no permission for the socket"
    assert "chmod" in denied.findings["agent"]["fix"]


def test_a_missing_unix_socket_is_reported(tmp_path: Path) -> None:
    """The usual reason is a volume that is not mounted."""
    report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{tmp_path}/none"})

    assert report.sentence("agent") == f"unix://{tmp_path}/none: there is no such socket"
    assert "Mount the directory" in report.findings["agent"]["fix"]


@pytest.mark.once
def test_a_proxy_that_captures_localhost_is_reported(agent: Agent) -> None:
    """The agent responds, but ddtrace sends to the proxy, which can't reach this machine's localhost."""
    with fake_http({}, status=502) as proxy:
        variables = {"DD_TRACE_AGENT_URL": agent.url, "HTTP_PROXY": proxy.url}
        captured = doctor_with_traced_server(variables)
        paths_at_proxy = list(proxy.paths)
        exempt = doctor_with_traced_server({**variables, "NO_PROXY": "127.0.0.1"})

    assert captured.code == 1
    assert captured.outcome("proxy") == "fail"
    assert captured.outcome("agent") == "pass"
    assert captured.outcome("test span") == "fail"
    assert paths_at_proxy
    assert (exempt.code, exempt.outcome("proxy"), exempt.outcome("test span")) == (0, "pass", "pass")


LABELS = {"com.datadoghq.tags.env": "prod", "com.datadoghq.tags.service": "hello"}
SERVICE = {"Image": "hello", "KnownStatus": "RUNNING", "Labels": LABELS}
AGENT = {
    "Image": "public.ecr.aws/datadog/agent:7.60.0",
    "KnownStatus": "RUNNING",
    "Labels": {},
    "Health": {"status": "HEALTHY"},
}
UNHEALTHY_AGENT = {**AGENT, "Health": {"status": "UNHEALTHY"}}
STOPPED_AGENT = {**AGENT, "KnownStatus": "STOPPED", "Health": None}


@pytest.mark.parametrize(
    ("containers", "extra", "outcome", "sentence"),
    [
        ([SERVICE, AGENT], {}, "pass", "task hello:7: 1 agent container, labels agree"),
        ([SERVICE, AGENT, AGENT], {}, "pass", "task hello:7: 2 agent containers, labels agree"),
        ([SERVICE, AGENT], {"DD_VERSION": "2"}, "warn", "com.datadoghq.tags.* lack or contradict DD_VERSION"),
        ([SERVICE, AGENT], {"DD_ENV": "test"}, "warn", "lack or contradict DD_ENV"),
        ([UNHEALTHY_AGENT], {}, "fail", "the agent container is RUNNING, UNHEALTHY"),
        ([STOPPED_AGENT], {}, "fail", "is STOPPED"),
        ([], {}, "fail", "task hello:7 has no agent container"),
        # The task needs an agent only if traces go to localhost.
        ([], {"DD_AGENT_HOST": "agent.invalid"}, "warn", "lack or contradict"),
        ([], {"DD_TRACE_AGENT_URL": "nonsense"}, "warn", "lack or contradict"),
    ],
)
@pytest.mark.once
def test_the_task_is_checked_on_fargate(
    containers: list[object], extra: dict[str, str], outcome: str, sentence: str
) -> None:
    """The task must run an agent, and its labels must agree with the environment."""
    tags = {"DD_SERVICE": "hello", "DD_ENV": "prod"}
    task = {"Family": "hello", "Revision": "7", "LaunchType": "FARGATE", "Containers": containers}
    with fake_http(task) as metadata:
        report = doctor_with_traced_server({**tags, "ECS_CONTAINER_METADATA_URI_V4": f"{metadata.url}/v4/abc", **extra})

    assert report.outcome("ECS task") == outcome, report.text
    assert sentence in report.sentence("ECS task")
    assert "/v4/abc/task" in metadata.paths


def test_a_missing_metadata_endpoint_is_a_warning() -> None:
    """Traces don't depend on this endpoint."""
    report = doctor_with_traced_server({"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:1/v4/abc"})

    assert report.outcome("ECS task") == "warn"


@pytest.mark.once
def test_the_doctor_exits_in_time_when_everything_hangs(tmp_path: Path) -> None:
    """Agent, metadata endpoint and server accept connections and never respond, or host names never resolve."""
    getaddrinfo_hangs = "import socket, threading\nsocket.getaddrinfo = lambda *_, **__: threading.Event().wait()\n"
    never_resolving = {
        "PYTHONPATH": write_sitecustomize(tmp_path, getaddrinfo_hangs),
        "DD_AGENT_HOST": "agent.internal",
    }
    with silent_server() as url:
        begin = monotonic()
        silent = doctor_command({"DD_TRACE_AGENT_URL": url, "ECS_CONTAINER_METADATA_URI_V4": url}, "--url", url)
        middle = monotonic()
        unresolved = doctor_command({**never_resolving, "ECS_CONTAINER_METADATA_URI_V4": url})
        end = monotonic()

    assert silent.code == unresolved.code == 1
    assert "does not resolve (waited 2 s)" in unresolved.sentence("agent")
    assert middle - begin < TIME_LIMIT_SECONDS
    assert end - middle < TIME_LIMIT_SECONDS


@pytest.mark.once
def test_a_server_that_never_becomes_ready_is_stopped(agent: Agent, tmp_path: Path) -> None:
    """The verdict is undetermined, and the server's process has ended."""
    path = hanging_serve(tmp_path)
    begin = monotonic()
    report = doctor_command({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})
    end = monotonic()

    assert report.code == 2
    assert "did not respond in time" in report.sentence("server")
    assert end - begin < TIME_LIMIT_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_sigterm_ends_the_doctor_and_its_server(agent: Agent, tmp_path: Path) -> None:
    """The command `timeout`, for example, sends SIGTERM."""
    extra = {"PYTHONPATH": hanging_serve(tmp_path), "DD_TRACE_AGENT_URL": agent.url, "PORT": str(free_port())}
    pid_file = tmp_path / "pid"
    with started(DOCTOR, clean_environment(extra)) as command:
        pid = eventually(lambda: pid_file.exists() and pid_file.read_text())
        code = command.stop(signal.SIGTERM)

    assert code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.once
def test_no_secret_is_shown(agent: Agent) -> None:
    """This also holds for a secret in the wrong variable."""
    key = "5ec2e7" + "0" * 26  # 32 hexadecimal digits, like an API key
    word = "s3cret-word"  # a password
    secrets = {
        "DD_API_KEY": f'{{"DD_API_KEY": "{key}"}}',
        "DD_APP_KEY": word,
        "DD_SERVICE": key,
        "DD_ENV": key,
        "DD_VERSION": key,
        "DD_HOSTNAME": word,
        "DD_SERVICE_NAME": word,
        "DD_ECS_FARGATE": word,
        "DD_TRACE_AGENT_HOSTNAME": key,
        "DD_AGENT_HOST": key,
        "DD_TRACE_AGENT_PORT": word,
        "DD_AGENT_PORT": word,
        "DD_TRACE_SAMPLE_RATE": word,
        "DD_TRACE_SAMPLING_RULES": word,
        "DD_TRACE_ENABLED": word,
        "DD_TAGS": f"token:{word}",
        "DD_TRACE_API_VERSION": word,
        "OTEL_EXPORTER_OTLP_HEADERS": f"dd-api-key={key}",
        "OTEL_TRACES_SAMPLER": word,
        "HTTP_PROXY": f"http://me:{word}@proxy.invalid:1",
        "NO_PROXY": word,
        "UPSTREAM_URL": f"http://me:{word}@upstream",
        "LOG_LEVEL": word,
        "PROBE_PATHS": word,
        "UPSTREAM_SERVICE": word,
        "LOCAL_VIEW_URL": word,
        "FAULTS": word,
        "ECS_CONTAINER_METADATA_URI_V4": f"http://me:{word}@127.0.0.1:1/v4",
        "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": word,
    }
    url_with_password = f"http://me:{word}@{agent.url.removeprefix('http://')}"
    agent_urls = [url_with_password, f"http://{key}:{word}", word]
    server_url = f"http://me:{word}@127.0.0.1:1"
    reports = [doctor_command({**secrets, "DD_TRACE_AGENT_URL": url}, "--url", server_url) for url in agent_urls]
    # These variables let the agent's check pass, so the output of a passed check is covered.
    few_secrets = {"DD_API_KEY": key, "DD_HOSTNAME": word, "DD_TAGS": word}
    report_with_agent = doctor_command({**few_secrets, "DD_TRACE_AGENT_URL": url_with_password})

    for report in (*reports, report_with_agent):
        assert word not in report.text
        assert key not in report.text
    assert report_with_agent.outcome("agent") == "pass"


def test_the_output_has_a_line_for_each_check_and_the_verdict() -> None:
    """A fix is on the line after its finding."""
    environ = clean_environment({"DD_AGENT_HOST": "agent.invalid", "PORT": str(free_port())})
    process = subprocess.run(DOCTOR, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = process.stdout.splitlines()
    (agent_line,) = [number for number, line in enumerate(lines) if line.startswith("fail    agent ")]
    # An empty line ends the checks. Lines that continue a check, such as a fix, are indented.
    check_lines = [line for line in lines[: lines.index("")] if not line.startswith(" ")]
    outcomes = [line.partition(" ")[0] for line in check_lines]
    order_of_outcomes = [str(outcome) for outcome in COLORS]  # the keys of COLORS are in the order of a report

    assert process.returncode == 1
    assert "pass    settings                every variable is valid" in lines
    assert lines[0].startswith("fail    ")
    assert outcomes == sorted(outcomes, key=order_of_outcomes.index)
    assert "http://agent.invalid:8126: the host name does not resolve" in lines[agent_line]
    assert lines[agent_line + 1].strip().startswith("-> Correct the name.")
    assert re.fullmatch(r"\d+ failed, \d+ warnings?, \d+ skipped, \d+ passed", lines[-2])
    assert lines[-1] == "Traces would not arrive. Fix the failures above."
    assert "\x1b" not in process.stdout  # no colors, because the output is not a terminal
    assert process.stderr == ""
