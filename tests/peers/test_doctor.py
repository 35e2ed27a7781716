"""What `hello-service doctor` says with real agents, real servers, and things that are neither, as a real command."""

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

from hello_service.doctor.finding import COLOURS

DOCTOR = [str(BIN / "hello-service"), "doctor"]
PATIENT = """
import json, os, sys
from hello_service.doctor import examine, finding
results = list(examine(os.environ, *sys.argv[1:], seconds=60))
print(json.dumps(finding.document(results)))
sys.exit(finding.exit_code(results))
"""
INFO = {"version": "7.99.0", "endpoints": ["/v0.4/traces", "/v0.5/traces"]}
# Root may open everything, unless it is without this right.
OBEDIENT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
PROMISED_SECONDS = 10.0
Line = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _compiled(_agent: Agent) -> None:
    """What a fresh installation compiles when it is first imported is not in the doctor's time."""
    with service(_agent.url):
        pass


class Said:
    """What the command printed as JSON, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.text = done.stdout + done.stderr
        self.document = json.loads(done.stdout)
        self.lines: dict[str, Line] = {line["check"]: line for line in self.document["checks"]}

    def outcome(self, check: str) -> str:
        return str(self.lines[check]["outcome"])

    def sentence(self, check: str) -> str:
        return str(self.lines[check]["sentence"])


def doctor(extra: Mapping[str, str], url: str | None = None, prefix: Sequence[str] = ()) -> Said:
    """Examine an environment with `extra`, with more time than the command has: this machine may be a busy one.

    No server runs where that environment says.
    """
    return said([*prefix, sys.executable, "-c", PATIENT, *([url] if url else [])], extra)


def in_time(extra: Mapping[str, str], *arguments: str) -> Said:
    """Run the command itself, with the time that it has."""
    return said([*DOCTOR, "--json", *arguments], extra)


def said(command: Sequence[str], extra: Mapping[str, str]) -> Said:
    environ = clean_environment({"HOST": "127.0.0.1", "PORT": str(free_port()), **extra})
    return Said(
        subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    )


def examined(extra: Mapping[str, str], prefix: Sequence[str] = ()) -> Said:
    """As `doctor`, where the server is not what the test is about: a fake one says that it is traced."""
    with fake_http({"tracing": {"active": True, "ddtrace": "4", "agent": None, "sampling_rules": None}}) as server:
        return doctor(extra, server.url, prefix)


@contextmanager
def silent_port() -> Iterator[str]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def replaced(where: Path, source: str) -> str:
    """Return a PYTHONPATH on which `source` runs before the command does."""
    (where / "sitecustomize.py").write_text(source)
    return str(where)


def test_where_traces_arrive_it_says_so(agent: Agent) -> None:
    """Every line is a pass, or says why it does not matter; ddtrace's own span is with the agent."""
    names = {"DD_SERVICE": "shop", "DD_ENV": "prod", "DD_VERSION": "1.2"}
    said = doctor({"DD_TRACE_AGENT_URL": agent.url, **names})
    spans = agent.wait_for_spans(1)

    assert said.code == 0, said.text
    assert {said.outcome(check) for check in said.lines} == {"pass", "skipped"}
    assert said.document["verdict"] == "Traces would arrive."
    assert said.sentence("server") == "a server started like `serve` is traced by ddtrace 4.16.0"
    assert said.sentence("agent").startswith(f"agent test responds at {agent.url} in ")
    assert said.sentence("trace format") == "ddtrace will send v0.5, and the agent accepts it"
    (span,) = [span for span in spans if span["name"] == "hello_service.doctor"]
    assert (span["service"], span["meta"]["env"], span["meta"]["version"]) == ("shop", "prod", "1.2")


def test_a_running_server_is_asked(agent: Agent) -> None:
    """By the address in the settings, or by --url; and it goes on running."""
    with service(agent.url) as running:
        port = running.url.rpartition(":")[2]
        by_settings = doctor({"DD_TRACE_AGENT_URL": agent.url, "PORT": port})
        by_url = doctor({"DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}, running.url)

        assert running.process.poll() is None
    assert by_settings.sentence("server") == f"the server at {running.url} is traced by ddtrace 4.16.0"
    assert by_url.outcome("server") == "warn"
    assert "with another agent address" in by_url.sentence("server")


def test_a_server_that_ddtrace_does_not_know_of_is_found(agent: Agent) -> None:
    """ddtrace is installed and importable there, and not active."""
    hypercorn = [str(BIN / "hypercorn"), "hello_service.app:create_app()", "--bind", f"127.0.0.1:{free_port()}"]
    with service(agent.url, command=hypercorn) as running:
        said = doctor({"DD_TRACE_AGENT_URL": agent.url}, running.url)

    assert said.code == 1
    assert said.sentence("server") == f"the server at {running.url} is not traced: not started under ddtrace-run"


def test_a_server_that_can_not_be_asked_leaves_it_open(agent: Agent) -> None:
    """Not there: no trace. Another program, or one that does not answer: it could not tell."""
    with silent_port() as silent, fake_http({"hello": 1}) as other:
        asked = [
            doctor({"DD_TRACE_AGENT_URL": agent.url}, url)
            for url in (f"http://127.0.0.1:{free_port()}", silent, other.url)
        ]

    assert [(said.code, said.outcome("server")) for said in asked] == [(1, "fail"), (2, "skipped"), (2, "skipped")]
    assert "nothing listens there" in asked[0].sentence("server")
    assert "no response came" in asked[1].sentence("server")
    assert "is not this service" in asked[2].sentence("server")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://localhost:x"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """As any wrong option is."""
    done = subprocess.run([*DOCTOR, "--url", url], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "must be a URL like http://host:port" in done.stderr
    assert done.stdout == ""


def test_settings_that_can_not_be_used_hide_nothing_else(agent: Agent) -> None:
    """They are a line of their own."""
    said = doctor({"DD_TRACE_AGENT_URL": agent.url, "DRAIN_SECONDS": "soon"})

    assert said.code == 1
    assert "DRAIN_SECONDS must be a valid number" in said.sentence("settings")
    assert said.outcome("server") == "skipped"
    assert said.outcome("test span") == "pass"


def test_settings_that_ddtrace_can_not_use_are_found(agent: Agent) -> None:
    """It ends before it could send anything."""
    said = examined(
        {"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_AGENT_PORT": "x", "DD_TRACE_AGENT_TIMEOUT_SECONDS": "x"}
    )

    assert said.code == 1
    assert said.outcome("trace format") == "skipped"
    assert "ddtrace can't start with this environment" in said.sentence("test span")


def test_a_server_that_does_not_start_is_found(agent: Agent, tmp_path: Path) -> None:
    """It is started as `serve` would start it."""
    path = replaced(tmp_path, "import sys\nsys.modules['quart'] = None\n")
    said = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert said.code == 1
    assert said.sentence("server") == "no server is running, and a server started like `serve` exited at once"


def test_ddtrace_that_is_not_there_is_found(agent: Agent, tmp_path: Path) -> None:
    """The doctor needs none to say so."""
    path = replaced(tmp_path, "import sys\nsys.modules['ddtrace'] = None\n")
    said = doctor({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": path})

    assert said.code == 1
    assert said.sentence("test span") == "ddtrace can't start with this environment (ModuleNotFoundError)"
    assert said.outcome("server") == "fail"


def test_tracing_that_is_switched_off_is_found(agent: Agent) -> None:
    """By the variable, by the server, by ddtrace."""
    said = doctor({"DD_TRACE_AGENT_URL": agent.url, "DD_TRACE_ENABLED": "false"})

    assert said.code == 1
    assert [said.outcome(check) for check in ("tracing on", "server", "test span")] == ["fail"] * 3
    assert agent.spans() == []


def test_an_agent_that_is_not_there_is_found() -> None:
    """A closed port."""
    url = f"http://127.0.0.1:{free_port()}"
    said = examined({"DD_TRACE_AGENT_URL": url})

    assert said.code == 1
    assert said.sentence("agent") == f"{url}: nothing listens there"
    assert "Start the agent" in said.lines["agent"]["fix"]
    assert {said.outcome(check) for check in ("trace format", "test span", "clock")} == {"skipped"}


def test_an_agent_that_never_answers_is_found() -> None:
    """A port that accepts, and that is all."""
    with silent_port() as url:
        said = examined({"DD_TRACE_AGENT_URL": url})

    assert said.code == 1
    assert said.sentence("agent") == f"{url}: the connection was accepted, but no response came (waited 2 s)"


def test_a_host_name_that_does_not_resolve_is_found() -> None:
    """RFC 6761 keeps .invalid for this."""
    said = examined({"DD_AGENT_HOST": "agent.invalid"})

    assert said.code == 1
    assert said.sentence("agent").startswith("http://agent.invalid:8126: the host name does not resolve")


@pytest.mark.parametrize(("answer", "status"), [({"hello": 1}, 200), ([], 200), ({}, 404)])
def test_an_http_server_that_is_no_agent_is_found(answer: object, status: int) -> None:
    """Even one that says yes to everything."""
    with fake_http(answer, status) as other:
        said = examined({"DD_TRACE_AGENT_URL": other.url})

    assert said.code == 1
    assert said.sentence("agent").startswith(f"{other.url} is not a trace agent (HTTP {status} for /info)")


def test_what_does_not_speak_http_is_found() -> None:
    """TLS where nobody speaks it, and another protocol altogether."""
    with silent_port() as silent, started([sys.executable, "-c", GREETER], clean_environment()) as greeter:
        port = eventually(lambda: next(iter(greeter.lines), ""))
        encrypted = examined({"DD_TRACE_AGENT_URL": silent.replace("http:", "https:")})
        greeted = examined({"DD_TRACE_AGENT_URL": f"http://127.0.0.1:{port}"})

    assert "no response came" in encrypted.sentence("agent")
    assert "not HTTP" in greeted.sentence("agent")


GREETER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], file=sys.stderr, flush=True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n")
        connection.close()
"""


def test_an_agent_that_refuses_spans_is_found() -> None:
    """It says that it takes them, and does not."""
    with fake_http(INFO, 200) as fine:
        answers = examined({"DD_TRACE_AGENT_URL": fine.url})
    with fake_http(INFO, 200) as agent:
        agent.refused = 413
        refuses = examined({"DD_TRACE_AGENT_URL": agent.url})

    assert (answers.code, answers.outcome("test span")) == (0, "pass")
    assert "/v0.5/traces" in fine.paths
    assert (refuses.code, refuses.outcome("test span")) == (1, "fail")
    assert "413" in refuses.sentence("test span")


def test_an_agent_that_lacks_the_format_is_found() -> None:
    """An older one takes v0.4 alone, and gets it when it is told to; one whose APM is off takes nothing."""
    with fake_http({"endpoints": ["/v0.4/traces"]}) as older, fake_http({"endpoints": ["/info"]}) as without:
        older.missing = {"/v0.5/traces"}
        refused, fails = (examined({"DD_TRACE_AGENT_URL": agent.url}) for agent in (older, without))
        told = examined({"DD_TRACE_AGENT_URL": older.url, "DD_TRACE_API_VERSION": "v0.4"})

    assert refused.sentence("agent").startswith("an agent of unknown version responds")
    assert [refused.outcome(check) for check in ("trace format", "test span")] == ["fail", "fail"]
    assert refused.lines["trace format"]["fix"] == "DD_TRACE_API_VERSION=v0.4"
    assert (told.code, told.outcome("trace format"), told.outcome("test span")) == (0, "pass", "pass")
    assert (fails.outcome("trace format"), fails.code) == ("fail", 1)
    assert "DD_APM_ENABLED=true" in fails.lines["trace format"]["fix"]


@pytest.mark.parametrize(("skew", "side"), [(-600, "ahead of"), (600, "behind")])
def test_a_clock_that_is_wrong_is_found(skew: float, side: str) -> None:
    """The agent's Date says so."""
    with fake_http(INFO, headers={"Date": formatdate(time() + skew, usegmt=True)}) as agent:
        said = examined({"DD_TRACE_AGENT_URL": agent.url})

    assert said.outcome("clock") == "warn"
    assert f"{side} the agent's" in said.sentence("clock")


def test_a_clock_that_is_right_passes_and_one_that_is_not_told_is_skipped() -> None:
    """A Date is not required of an agent."""
    with fake_http(INFO, headers={"Date": formatdate(usegmt=True)}) as agent, fake_http(INFO) as silent:
        right, untold = (examined({"DD_TRACE_AGENT_URL": each.url}) for each in (agent, silent))

    assert (right.outcome("clock"), untold.outcome("clock")) == ("pass", "skipped")


def test_a_unix_socket_needs_permission(tmp_path: Path) -> None:
    """With it the span arrives; without it the line says whose right is missing."""
    path = tmp_path / "apm.socket"
    with trace_agent(unix_socket=path):
        allowed = examined({"DD_TRACE_AGENT_URL": f"unix://{path}"}, OBEDIENT)
        path.chmod(0)
        denied = examined({"DD_TRACE_AGENT_URL": f"unix://{path}"}, OBEDIENT)

    assert (allowed.outcome("agent"), allowed.outcome("test span")) == ("pass", "pass"), allowed.text
    assert denied.sentence("agent") == f"unix://{path}: this user has no permission for the socket"
    assert "chmod" in denied.lines["agent"]["fix"]


def test_a_unix_socket_that_is_not_there_is_found(tmp_path: Path) -> None:
    """The usual reason is a volume that is not mounted."""
    said = examined({"DD_TRACE_AGENT_URL": f"unix://{tmp_path}/none"})

    assert said.sentence("agent") == f"unix://{tmp_path}/none: there is no such socket"
    assert "Mount the directory" in said.lines["agent"]["fix"]


def test_a_proxy_that_captures_localhost_is_found(agent: Agent) -> None:
    """ddtrace asks the proxy, which knows nothing of this localhost; the agent itself answers."""
    with fake_http({}, 502) as proxy:
        environ = {"DD_TRACE_AGENT_URL": agent.url, "HTTP_PROXY": proxy.url}
        captured = examined(environ)
        asked = list(proxy.paths)
        exempt = examined({**environ, "NO_PROXY": "127.0.0.1"})

    assert captured.code == 1
    assert [captured.outcome(check) for check in ("proxy", "agent", "test span")] == ["fail", "pass", "fail"]
    assert asked
    assert (exempt.code, exempt.outcome("proxy"), exempt.outcome("test span")) == (0, "pass", "pass")


LABELS = {"com.datadoghq.tags.env": "prod", "com.datadoghq.tags.service": "hello"}
SICK = {
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
        {**SICK, "Health": {"status": "HEALTHY"}},
    ],
}


@pytest.mark.parametrize(
    ("task", "extra", "outcome", "sentence"),
    [
        (TASK, {}, "pass", "task hello:7: 1 agent container"),
        (TASK, {"DD_VERSION": "2"}, "warn", "com.datadoghq.tags.* lack or contradict DD_VERSION"),
        (TASK, {"DD_ENV": "test"}, "warn", "lack or contradict DD_ENV"),
        ({**TASK, "Containers": [SICK]}, {}, "fail", "the agent container is RUNNING, UNHEALTHY"),
        ({**TASK, "Containers": [{**SICK, "KnownStatus": "STOPPED", "Health": None}]}, {}, "fail", "is STOPPED"),
        ({**TASK, "Containers": []}, {}, "fail", "task hello:7 has no agent container"),
        ({**TASK, "Containers": []}, {"DD_AGENT_HOST": "agent.invalid"}, "warn", "lack or contradict"),
        ({**TASK, "Containers": []}, {"DD_TRACE_AGENT_URL": "nonsense"}, "warn", "lack or contradict"),
    ],
)
def test_the_task_is_asked_on_fargate(task: object, extra: dict[str, str], outcome: str, sentence: str) -> None:
    """Whether an agent runs in it, and whether labels and environment agree."""
    names = {"DD_SERVICE": "hello", "DD_ENV": "prod"}
    with fake_http(task) as metadata:
        said = examined({**names, "ECS_CONTAINER_METADATA_URI_V4": f"{metadata.url}/v4/abc", **extra})

    assert said.outcome("ECS task") == outcome, said.text
    assert sentence in said.sentence("ECS task")
    assert "/v4/abc/task" in metadata.paths


def test_a_metadata_endpoint_that_is_not_there_is_a_warning() -> None:
    """It says nothing of traces."""
    said = examined({"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:1/v4/abc"})

    assert said.outcome("ECS task") == "warn"


def test_it_ends_in_time_when_everything_hangs(tmp_path: Path) -> None:
    """Agent, metadata endpoint and server take connections and never answer, and no name ever resolves."""
    hang = "import socket, threading\nsocket.getaddrinfo = lambda *_, **__: threading.Event().wait()\n"
    slow = {"PYTHONPATH": replaced(tmp_path, hang)}
    with silent_port() as url:
        begun = monotonic()
        silent = in_time({"DD_TRACE_AGENT_URL": url, "ECS_CONTAINER_METADATA_URI_V4": url}, "--url", url)
        then = monotonic()
        unresolved = in_time({**slow, "DD_AGENT_HOST": "agent.internal", "ECS_CONTAINER_METADATA_URI_V4": url})
        ended = monotonic()

    assert silent.code == unresolved.code == 1
    assert "does not resolve (waited 2 s)" in unresolved.sentence("agent")
    assert then - begun < PROMISED_SECONDS
    assert ended - then < PROMISED_SECONDS


def test_a_server_that_never_gets_ready_is_given_up_and_ended(agent: Agent, tmp_path: Path) -> None:
    """It could not tell, and nothing stays behind."""
    hang = "import os, sys, time\nif 'serve' in sys.orig_argv:\n"
    hang += f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    begun = monotonic()
    said = in_time({"DD_TRACE_AGENT_URL": agent.url, "PYTHONPATH": replaced(tmp_path, hang)})
    ended = monotonic()

    assert said.code == 2
    assert "did not respond in time" in said.sentence("server")
    assert ended - begun < PROMISED_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_ended_early_it_leaves_nothing_behind(agent: Agent, tmp_path: Path) -> None:
    """SIGTERM, as `timeout` sends it."""
    hang = "import os, sys, time\nif 'serve' in sys.orig_argv:\n"
    hang += f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.')\n    time.sleep(600)\n"
    extra = {"PYTHONPATH": replaced(tmp_path, hang), "DD_TRACE_AGENT_URL": agent.url, "PORT": str(free_port())}
    with started(DOCTOR, clean_environment(extra)) as command:
        pid = eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().partition(".")[0])
        code = command.stop(signal.SIGTERM)

    assert code == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_no_secret_is_shown(agent: Agent) -> None:
    """Whatever variable it was put into."""
    key, word = "5ec2e7" + "0" * 26, "s3cret-word"
    secret = {
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
    said = [in_time({**secret, "DD_TRACE_AGENT_URL": url}, "--url", f"http://me:{word}@127.0.0.1:1") for url in urls]
    usable = in_time({"DD_API_KEY": key, "DD_TRACE_AGENT_URL": urls[0], "DD_HOSTNAME": word, "DD_TAGS": word})

    for each in (*said, usable):
        assert word not in each.text
        assert key not in each.text
    assert usable.outcome("agent") == "pass"


def test_a_person_gets_a_line_for_each_check_and_the_verdict() -> None:
    """The fix below the line that it mends."""
    environ = clean_environment({"DD_AGENT_HOST": "agent.invalid", "PORT": str(free_port())})
    done = subprocess.run(DOCTOR, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    (broken,) = [number for number, line in enumerate(lines) if line.startswith("fail    agent ")]

    assert done.returncode == 1
    assert "pass    settings                every variable is valid" in lines
    assert lines[0].startswith("fail    ")
    outcomes = [line.partition(" ")[0] for line in lines[: lines.index("")] if line[:1].strip()]
    assert outcomes == sorted(outcomes, key=list(COLOURS).index)
    assert "http://agent.invalid:8126: the host name does not resolve" in lines[broken]
    assert lines[broken + 1].strip().startswith("-> Correct the name.")
    assert re.fullmatch(r"\d+ failed, \d+ warnings?, \d+ skipped, \d+ passed", lines[-2])
    assert lines[-1] == "Traces would not arrive. Fix the failures above."
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
