"""Tests of `hello-service doctor` with real agents and servers, and with servers of other kinds."""

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
# The code of the command, with 60 seconds in place of its own time limit.
WITH_LONG_TIME_LIMIT = """
import json, os, sys
from hello_service.doctor import examine, finding
results = list(examine(os.environ, *sys.argv[1:], seconds=60))
print(json.dumps(finding.document(results)))
sys.exit(finding.exit_code(results))
"""
# An agent's response to /info.
INFO = {"version": "7.99.0", "endpoints": ["/v0.4/traces", "/v0.5/traces"]}
# Root can open every file, but not without these capabilities.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
TIME_LIMIT_SECONDS = 10.0  # of the whole command
Line = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _compiled(_agent: Agent) -> None:
    """Import everything once, because the compilation after an installation would count as the doctor's time."""
    with service(_agent.url):
        pass


class Report:
    """The JSON output and the exit code of the doctor."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.text = done.stdout + done.stderr
        self.document = json.loads(done.stdout)
        self.lines: dict[str, Line] = {line["check"]: line for line in self.document["checks"]}

    def outcome(self, check: str) -> str:
        return str(self.lines[check]["outcome"])

    def sentence(self, check: str) -> str:
        return str(self.lines[check]["sentence"])


def doctor(extra: Mapping[str, str], url: str | None = None, prefix: Sequence[str] = ()) -> Report:
    """Run the doctor with a long time limit, because the machine may be busy, and with `extra` in its environment.

    No server runs at the environment's HOST and PORT. `url` is the value of `--url`.
    """
    return run([*prefix, sys.executable, "-c", WITH_LONG_TIME_LIMIT, *([url] if url else [])], extra)


def doctor_command(extra: Mapping[str, str], *arguments: str) -> Report:
    """Run the command `hello-service doctor`, with its own time limit and `extra` in its environment."""
    return run([*DOCTOR, "--json", *arguments], extra)


def run(command: Sequence[str], extra: Mapping[str, str]) -> Report:
    environ = clean_environment({"HOST": "127.0.0.1", "PORT": str(free_port()), **extra})
    return Report(
        subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    )


def doctor_with_traced_server(extra: Mapping[str, str], prefix: Sequence[str] = ()) -> Report:
    """Do the same as `doctor`, but with a fake server that reports that it is traced."""
    with fake_http({"tracing": {"active": True, "ddtrace": "4", "agent": None, "sampling_rules": None}}) as server:
        return doctor(extra, server.url, prefix)


@contextmanager
def silent_port() -> Iterator[str]:
    """Yield the URL of a port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def sitecustomize(folder: Path, code: str) -> str:
    """Return a PYTHONPATH with which every Python process runs `code` first."""
    (folder / "sitecustomize.py").write_text(code)
    return str(folder)


def hanging_server(folder: Path) -> str:
    """Return a PYTHONPATH with which `serve` writes its process id to `folder` / "pid", and hangs."""
    code = "import os, sys, time\nif 'serve' in sys.orig_argv:\n"
    code += f"    open({str(folder / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    return sitecustomize(folder, code)


def test_no_check_fails_if_traces_would_arrive(agent: Agent) -> None:
    """Every check passes or is skipped, and the test span arrives at the agent."""
    names = {"DD_SERVICE": "shop", "DD_ENV": "prod", "DD_VERSION": "1.2"}
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, **names})
    spans = agent.wait_for_spans(1)

    assert report.code == 0, report.text
    assert {report.outcome(check) for check in report.lines} == {"pass", "skipped"}
    assert report.document["verdict"] == "Traces would arrive."
    assert report.sentence("server") == "a server started like `serve` is traced by ddtrace 4.16.0"
    assert report.sentence("agent").startswith(f"agent test responds at {agent.url} in ")
    assert report.sentence("trace format") == "ddtrace will send v0.5, and the agent accepts it"
    (span,) = [span for span in spans if span["name"] == "hello_service.doctor"]
    assert (span["service"], span["meta"]["env"], span["meta"]["version"]) == ("shop", "prod", "1.2")


def test_a_running_server_is_checked(agent: Agent) -> None:
    """Its address comes from the settings or from `--url`. The server keeps running."""
    with service(agent.url) as running:
        port = running.url.rpartition(":")[2]
        by_settings = doctor({"DD_TRACE_AGENT_URL": agent.url, "PORT": port})
        by_url = doctor({"DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}, running.url)

        assert running.process.poll() is None
    assert by_settings.sentence("server") == f"the server at {running.url} is traced by ddtrace 4.16.0"
    assert by_url.outcome("server") == "warn"
    assert "with a different agent address" in by_url.sentence("server")


def test_an_untraced_server_is_found(agent: Agent) -> None:
    """The server can import ddtrace, but ddtrace is not active."""
    hypercorn = [str(BIN / "hypercorn"), "hello_service.app:create_app()", "--bind", f"127.0.0.1:{free_port()}"]
    with service(agent.url, command=hypercorn) as running:
        report = doctor({"DD_TRACE_AGENT_URL": agent.url}, running.url)

    assert report.code == 1
    assert report.sentence("server") == f"the server at {running.url} is not traced: not started under ddtrace-run"


def test_a_server_that_can_not_be_checked_is_reported(agent: Agent) -> None:
    """A missing server is a failure. With a silent one or another program, the result is undetermined."""
    with silent_port() as silent, fake_http({"hello": 1}) as other:
        reports = [
            doctor({"DD_TRACE_AGENT_URL": agent.url}, url)
            for url in (f"http://127.0.0.1:{free_port()}", silent, other.url)
        ]

    assert [(report.code, report.outcome("server")) for report in reports] == [
        (1, "fail"),
        (2, "skipped"),
        (2, "skipped"),
    ]
    assert "nothing listens there" in reports[0].sentence("server")
    assert "no response came" in reports[1].sentence("server")
    assert "is not this service" in reports[2].sentence("server")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://localhost:x"])
def test_a_malformed_url_is_rejected(url: str) -> None:
    """The doctor reports an error in the command line."""
    done = subprocess.run([*DOCTOR, "--url", url], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "must be a URL like http://host:port" in done.stderr
    assert done.stdout == ""


def test_invalid_settings_do_not_stop_the_other_checks(agent: Agent) -> None:
    """The invalid setting is the finding of a check of its own."""
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "DRAIN_SECONDS": "soon"})

    assert report.code == 1
    assert "DRAIN_SECONDS must be a valid number" in report.sentence("settings")
    assert report.outcome("server") == "skipped"
    assert report.outcome("test span") == "pass"


def test_settings_that_ddtrace_rejects_are_found(agent: Agent) -> None:
    """With them, ddtrace exits before it sends anything."""
    report = doctor_with_traced_server(
        {"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_AGENT_PORT": "x", "DD_TRACE_AGENT_TIMEOUT_SECONDS": "x"}
    )

    assert report.code == 1
    assert report.outcome("trace format") == "skipped"
    assert "ddtrace can't start with this environment" in report.sentence("test span")


def test_a_server_that_does_not_start_is_found(agent: Agent, tmp_path: Path) -> None:
    """The doctor starts the server the way `serve` does."""
    path = sitecustomize(tmp_path, "import sys\nsys.modules['quart'] = None\n")
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert report.code == 1
    assert report.sentence("server") == "no server is running, and a server started like `serve` exited at once"


def test_a_missing_ddtrace_is_found(agent: Agent, tmp_path: Path) -> None:
    """The doctor itself runs without ddtrace."""
    path = sitecustomize(tmp_path, "import sys\nsys.modules['ddtrace'] = None\n")
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert report.code == 1
    assert report.sentence("test span") == "ddtrace can't start with this environment (ModuleNotFoundError)"
    assert report.outcome("server") == "fail"


def test_tracing_that_is_switched_off_is_found(agent: Agent) -> None:
    """Three checks fail: those of the variable, of the server, and of the test span."""
    report = doctor({"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_ENABLED": "false"})

    assert report.code == 1
    assert [report.outcome(check) for check in ("tracing on", "server", "test span")] == ["fail"] * 3
    assert agent.spans() == []


def test_a_missing_agent_is_found() -> None:
    """Its port is closed."""
    url = f"http://127.0.0.1:{free_port()}"
    report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": url})

    assert report.code == 1
    assert report.sentence("agent") == f"{url}: nothing listens there"
    assert "Start the agent" in report.lines["agent"]["fix"]
    assert {report.outcome(check) for check in ("trace format", "test span", "clock")} == {"skipped"}


def test_an_agent_that_never_responds_is_found() -> None:
    """Its port only accepts connections."""
    with silent_port() as url:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": url})

    assert report.code == 1
    assert report.sentence("agent") == f"{url}: the connection was accepted, but no response came (waited 2 s)"


def test_a_host_name_that_does_not_resolve_is_found() -> None:
    """RFC 6761 reserves .invalid for this."""
    report = doctor_with_traced_server({"DD_AGENT_HOST": "agent.invalid"})

    assert report.code == 1
    assert report.sentence("agent").startswith("http://agent.invalid:8126: the host name does not resolve")


@pytest.mark.parametrize(("body", "status"), [({"hello": 1}, 200), ([], 200), ({}, 404)])
def test_an_http_server_that_is_not_an_agent_is_found(body: object, status: int) -> None:
    """An example is a server that responds with 200 to every request."""
    with fake_http(body, status) as other:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": other.url})

    assert report.code == 1
    assert report.sentence("agent").startswith(f"{other.url} is not a trace agent (HTTP {status} for /info)")


def test_another_protocol_is_found() -> None:
    """The URL is https although the server has no TLS, or the server's protocol is not HTTP but, for example, SSH."""
    with silent_port() as silent, started([sys.executable, "-c", SSH_SERVER], clean_environment()) as ssh_server:
        port = eventually(lambda: next(iter(ssh_server.lines), ""))
        https = doctor_with_traced_server({"DD_TRACE_AGENT_URL": silent.replace("http:", "https:")})
        ssh = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"http://127.0.0.1:{port}"})

    assert "no response came" in https.sentence("agent")
    assert "not HTTP" in ssh.sentence("agent")


# Prints its port, and sends the first line of an SSH server to each client.
SSH_SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n")
        connection.close()
"""


def test_an_agent_that_rejects_spans_is_found() -> None:
    """Its response to `/info` has the trace format, but it rejects the traces."""
    with fake_http(INFO, 200) as agent:
        accepting = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})
        paths = list(agent.paths)
        agent.status_of_other_methods = 413
        rejecting = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert (accepting.code, accepting.outcome("test span")) == (0, "pass")
    assert "/v0.5/traces" in paths
    assert (rejecting.code, rejecting.outcome("test span")) == (1, "fail")
    assert "413" in rejecting.sentence("test span")


def test_an_agent_that_lacks_the_format_is_found() -> None:
    """An older agent accepts only v0.4, which a variable selects. An agent with APM switched off accepts no format."""
    with fake_http({"endpoints": ["/v0.4/traces"]}) as older, fake_http({"endpoints": ["/info"]}) as without_apm:
        older.missing_paths = {"/v0.5/traces"}
        rejected, disabled = (
            doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url}) for agent in (older, without_apm)
        )
        selected = doctor_with_traced_server({"DD_TRACE_AGENT_URL": older.url, "DD_TRACE_API_VERSION": "v0.4"})

    assert rejected.sentence("agent").startswith("an agent of unknown version responds")
    assert [rejected.outcome(check) for check in ("trace format", "test span")] == ["fail", "fail"]
    assert rejected.lines["trace format"]["fix"] == "DD_TRACE_API_VERSION=v0.4"
    assert (selected.code, selected.outcome("trace format"), selected.outcome("test span")) == (0, "pass", "pass")
    assert (disabled.outcome("trace format"), disabled.code) == ("fail", 1)
    assert "DD_APM_ENABLED=true" in disabled.lines["trace format"]["fix"]


@pytest.mark.parametrize(("skew", "side"), [(-600, "ahead of"), (600, "behind")])
def test_a_wrong_clock_is_found(skew: float, side: str) -> None:
    """The clock is compared with the Date header of the agent."""
    with fake_http(INFO, headers={"Date": formatdate(time() + skew, usegmt=True)}) as agent:
        report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": agent.url})

    assert report.outcome("clock") == "warn"
    assert f"{side} the agent's" in report.sentence("clock")


def test_a_correct_clock_passes_and_an_unknown_one_is_skipped() -> None:
    """An agent may leave out the Date header."""
    with fake_http(INFO, headers={"Date": formatdate(usegmt=True)}) as agent, fake_http(INFO) as without:
        correct, unknown = (doctor_with_traced_server({"DD_TRACE_AGENT_URL": each.url}) for each in (agent, without))

    assert (correct.outcome("clock"), unknown.outcome("clock")) == ("pass", "skipped")


def test_a_unix_socket_needs_permission(tmp_path: Path) -> None:
    """With permission, the test span arrives. A missing permission is reported, with a fix."""
    path = tmp_path / "apm.socket"
    with trace_agent(unix_socket=path):
        allowed = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{path}"}, WITHOUT_CAPABILITIES)
        path.chmod(0)
        denied = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{path}"}, WITHOUT_CAPABILITIES)

    assert (allowed.outcome("agent"), allowed.outcome("test span")) == ("pass", "pass"), allowed.text
    assert denied.sentence("agent") == f"unix://{path}: this user has no permission for the socket"
    assert "chmod" in denied.lines["agent"]["fix"]


def test_a_missing_unix_socket_is_found(tmp_path: Path) -> None:
    """The usual reason is a volume that is not mounted."""
    report = doctor_with_traced_server({"DD_TRACE_AGENT_URL": f"unix://{tmp_path}/none"})

    assert report.sentence("agent") == f"unix://{tmp_path}/none: there is no such socket"
    assert "Mount the directory" in report.lines["agent"]["fix"]


def test_a_proxy_that_captures_localhost_is_found(agent: Agent) -> None:
    """The agent responds, but ddtrace sends to the proxy, which can't reach this machine's localhost."""
    with fake_http({}, 502) as proxy:
        variables = {"DD_TRACE_AGENT_URL": agent.url, "HTTP_PROXY": proxy.url}
        captured = doctor_with_traced_server(variables)
        paths = list(proxy.paths)
        exempt = doctor_with_traced_server({**variables, "NO_PROXY": "127.0.0.1"})

    assert captured.code == 1
    assert [captured.outcome(check) for check in ("proxy", "agent", "test span")] == ["fail", "pass", "fail"]
    assert paths
    assert (exempt.code, exempt.outcome("proxy"), exempt.outcome("test span")) == (0, "pass", "pass")


LABELS = {"com.datadoghq.tags.env": "prod", "com.datadoghq.tags.service": "hello"}
UNHEALTHY = {
    "Image": "public.ecr.aws/datadog/agent:7.60.0",
    "KnownStatus": "RUNNING",
    "Labels": {},
    "Health": {"status": "UNHEALTHY"},
}
TASK: dict[str, Any] = {
    "Family": "hello",
    "Revision": "7",
    "LaunchType": "FARGATE",
    "Containers": [
        {"Image": "hello", "KnownStatus": "RUNNING", "Labels": LABELS},
        {**UNHEALTHY, "Health": {"status": "HEALTHY"}},
    ],
}


@pytest.mark.parametrize(
    ("task", "extra", "outcome", "sentence"),
    [
        (TASK, {}, "pass", "task hello:7: 1 agent container"),
        (TASK, {"DD_VERSION": "2"}, "warn", "com.datadoghq.tags.* lack or contradict DD_VERSION"),
        (TASK, {"DD_ENV": "test"}, "warn", "lack or contradict DD_ENV"),
        ({**TASK, "Containers": [UNHEALTHY]}, {}, "fail", "the agent container is RUNNING, UNHEALTHY"),
        ({**TASK, "Containers": [{**UNHEALTHY, "KnownStatus": "STOPPED", "Health": None}]}, {}, "fail", "is STOPPED"),
        ({**TASK, "Containers": []}, {}, "fail", "task hello:7 has no agent container"),
        ({**TASK, "Containers": []}, {"DD_AGENT_HOST": "agent.invalid"}, "warn", "lack or contradict"),
        ({**TASK, "Containers": []}, {"DD_TRACE_AGENT_URL": "nonsense"}, "warn", "lack or contradict"),
    ],
)
def test_the_task_is_checked_on_fargate(task: object, extra: dict[str, str], outcome: str, sentence: str) -> None:
    """The task must run an agent, and its labels must agree with the environment."""
    names = {"DD_SERVICE": "hello", "DD_ENV": "prod"}
    with fake_http(task) as metadata:
        report = doctor_with_traced_server(
            {**names, "ECS_CONTAINER_METADATA_URI_V4": f"{metadata.url}/v4/abc", **extra}
        )

    assert report.outcome("ECS task") == outcome, report.text
    assert sentence in report.sentence("ECS task")
    assert "/v4/abc/task" in metadata.paths


def test_a_missing_metadata_endpoint_is_a_warning() -> None:
    """Traces don't depend on this endpoint."""
    report = doctor_with_traced_server({"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:1/v4/abc"})

    assert report.outcome("ECS task") == "warn"


def test_the_doctor_exits_in_time_when_everything_hangs(tmp_path: Path) -> None:
    """Agent, metadata endpoint and server accept connections and never respond, or host names never resolve."""
    hang = "import socket, threading\nsocket.getaddrinfo = lambda *_, **__: threading.Event().wait()\n"
    never_resolving = {"PYTHONPATH": sitecustomize(tmp_path, hang), "DD_AGENT_HOST": "agent.internal"}
    with silent_port() as url:
        begin = monotonic()
        silent = doctor_command({"DD_TRACE_AGENT_URL": url, "ECS_CONTAINER_METADATA_URI_V4": url}, "--url", url)
        middle = monotonic()
        unresolved = doctor_command({**never_resolving, "ECS_CONTAINER_METADATA_URI_V4": url})
        end = monotonic()

    assert silent.code == unresolved.code == 1
    assert "does not resolve (waited 2 s)" in unresolved.sentence("agent")
    assert middle - begin < TIME_LIMIT_SECONDS
    assert end - middle < TIME_LIMIT_SECONDS


def test_a_server_that_never_gets_ready_is_stopped(agent: Agent, tmp_path: Path) -> None:
    """The result is undetermined, and no process is left."""
    path = hanging_server(tmp_path)
    begin = monotonic()
    report = doctor_command({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})
    end = monotonic()

    assert report.code == 2
    assert "did not respond in time" in report.sentence("server")
    assert end - begin < TIME_LIMIT_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_signal_ends_the_doctor_and_its_server(agent: Agent, tmp_path: Path) -> None:
    """The signal is SIGTERM, which `timeout` sends."""
    extra = {"PYTHONPATH": hanging_server(tmp_path), "DD_TRACE_AGENT_URL": agent.url, "PORT": str(free_port())}
    with started(DOCTOR, clean_environment(extra)) as command:
        pid = eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        code = command.stop(signal.SIGTERM)

    assert code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_no_secret_is_shown(agent: Agent) -> None:
    """This also holds for a secret in the wrong variable."""
    key, word = "5ec2e7" + "0" * 26, "s3cret-word"
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
    urls = (f"http://me:{word}@{agent.url.removeprefix('http://')}", f"http://{key}:{word}", word)
    url_option = ["--url", f"http://me:{word}@127.0.0.1:1"]
    reports = [doctor_command({**secrets, "DD_TRACE_AGENT_URL": url}, *url_option) for url in urls]
    usable = doctor_command({"DD_API_KEY": key, "DD_TRACE_AGENT_URL": urls[0], "DD_HOSTNAME": word, "DD_TAGS": word})

    for each in (*reports, usable):
        assert word not in each.text
        assert key not in each.text
    assert usable.outcome("agent") == "pass"


def test_the_output_has_a_line_for_each_check_and_the_verdict() -> None:
    """A fix is on the line after its finding."""
    environ = clean_environment({"DD_AGENT_HOST": "agent.invalid", "PORT": str(free_port())})
    done = subprocess.run(DOCTOR, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    (broken,) = [number for number, line in enumerate(lines) if line.startswith("fail    agent ")]

    assert done.returncode == 1
    assert "pass    settings                every variable is valid" in lines
    assert lines[0].startswith("fail    ")
    outcomes = [line.partition(" ")[0] for line in lines[: lines.index("")] if line[:1].strip()]
    assert outcomes == sorted(outcomes, key=[*map(str, COLORS)].index)
    assert "http://agent.invalid:8126: the host name does not resolve" in lines[broken]
    assert lines[broken + 1].strip().startswith("-> Correct the name.")
    assert re.fullmatch(r"\d+ failed, \d+ warnings?, \d+ skipped, \d+ passed", lines[-2])
    assert lines[-1] == "Traces would not arrive. Fix the failures above."
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
