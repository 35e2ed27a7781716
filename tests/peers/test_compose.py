"""Tests of the compose files: their configuration, arriving traces, a stop under load, and an Agent that is killed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import containers
import pytest
from containers import INTAKE_IMAGE, Engine, Intake, Load
from running import ROOT, eventually, free_port

from hello_service.settings import Settings

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(240)]

KEY = "0123456789abcdef0123456789abcdef"
SHIPPED = ["compose.yaml", "compose.override.yaml"]
LOCAL = ["compose.yaml", "compose.local.yaml"]
# Additions to the shipped files: the Agent sends to a stand-in for Datadog's intake, and /api/faults is enabled.
INTAKE_ADDITIONS = {
    "services": {
        "datadog-agent": {
            "environment": {"DD_APM_DD_URL": "http://intake:8080"},
            "depends_on": {"intake": {"condition": "service_healthy"}},
        },
        "intake": {"image": INTAKE_IMAGE, "pull_policy": "never", "ports": ["127.0.0.1::8080"]},
        "service": {"environment": {"FAULTS": "true"}},
    }
}


class Project:
    """A compose project with the configuration in `files`."""

    def __init__(self, engine: Engine, files: list[str], environment: dict[str, str]) -> None:
        self.engine = engine
        self.environment = environment
        self.command = ["compose", "--project-name", f"hello-{uuid4().hex[:8]}"]
        self.command += [part for file in files for part in ("--file", file)]

    def compose(self, *arguments: str) -> str:
        return self.engine.run(*self.command, *arguments, extra=self.environment).stdout.strip()

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service)

    def url(self, service: str, port: int) -> str:
        return f"http://{self.compose('port', service, str(port))}"

    def intake(self) -> Intake:
        return Intake(self.engine, self.url("intake", 8080))


@contextmanager
def up(engine: Engine, files: list[str], environment: dict[str, str]) -> Iterator[Project]:
    # With 0, the engine chooses a free port. The page's port is chosen here, because it is part of LOCAL_VIEW_URL.
    ports = {"PORT": "0", "AGENT_PORT": "0", "VIEW_PORT": str(free_port())}
    project = Project(engine, files, {**ports, **environment})
    try:
        project.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture
def project(engine: Engine, intake_image: str, tmp_path: Path) -> Iterator[Project]:
    """Run the shipped files, with an intake that the Agent sends to."""
    additions = tmp_path / "compose.intake.yaml"
    additions.write_text(json.dumps(INTAKE_ADDITIONS))
    environment = {"DD_API_KEY": KEY, "DD_ENV": "staging", "DD_VERSION": "3.2.1"}
    with up(engine, [*SHIPPED, str(additions)], environment) as project:
        yield project


def config(engine: Engine, files: list[str], **environment: str) -> dict[str, Any]:
    arguments = [part for file in files for part in ("--file", file)]
    done = engine.run("compose", *arguments, "config", "--format", "json", extra=environment)
    return dict(json.loads(done.stdout))


def test_only_up_needs_a_key(engine: Engine, tmp_path: Path) -> None:
    """Without a key, `up` starts nothing, and its error has the variable and the fix. All other commands work."""
    # The service uses an image that exists, so nothing has to be built.
    override = tmp_path / "compose.image.yaml"
    override.write_text(json.dumps({"services": {"service": {"image": containers.agent_image()}}}))
    project = Project(engine, [*SHIPPED, str(override)], {"PORT": "0", "AGENT_PORT": "0"})
    try:
        rejected = engine.run(*project.command, "up", "--no-build", check=False, extra=project.environment)
        running = project.compose("ps", "--quiet")
        project.compose("logs")
    finally:
        project.compose("down")

    assert rejected.returncode != 0
    (sentence,) = [line for line in rejected.stderr.splitlines() if "DD_API_KEY" in line]
    assert "set it to a Datadog API key, or start without one by docker compose -f" in sentence
    assert running == ""


@pytest.mark.parametrize("files", [SHIPPED, LOCAL], ids=["shipped", "local"])
def test_every_container_is_limited_and_checked(engine: Engine, files: list[str]) -> None:
    """Each has a memory limit, a health check, a restart policy, no new privileges, and ports on loopback only."""
    services = config(engine, files, DD_API_KEY=KEY)["services"]

    assert set(services) == {"service", "datadog-agent"}
    for service in services.values():
        assert int(service["mem_limit"]) == int(service["memswap_limit"]) >= 256 * 2**20
        assert service["restart"] == "unless-stopped"
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
    assert services["service"]["depends_on"]["datadog-agent"]["condition"] == "service_started"
    assert services["service"]["cap_drop"] == ["ALL"]
    assert services["service"]["read_only"]
    assert services["datadog-agent"]["healthcheck"]["test"]


def test_one_agent_version_is_pinned_everywhere(engine: Engine) -> None:
    """compose.yaml and the files in deploy/ have the same release, not `latest`."""
    pinned = config(engine, SHIPPED, DD_API_KEY=KEY)["services"]["datadog-agent"]["image"]
    files = [path for path in (ROOT / "deploy").glob("*") if path.is_file()]
    in_deploy = {image for path in files for image in re.findall(r"[\w./]*/agent:[\w.]+", path.read_text())}

    assert re.fullmatch(r"public\.ecr\.aws/datadog/agent:7\.\d+\.\d+", pinned)
    assert in_deploy <= {pinned}


def test_the_service_stops_within_the_grace_period(engine: Engine) -> None:
    """Compose kills the container after its grace period, so the service's own budget must be shorter."""
    grace = config(engine, SHIPPED, DD_API_KEY=KEY)["services"]["service"]["stop_grace_period"]

    assert float(grace.removesuffix("s")) > Settings.from_environment({}).stop_budget_seconds


def test_the_trace_of_a_request_arrives_at_datadog(project: Project) -> None:
    """The span has the right service, resource, environment and version, and the Agent uses the right key."""
    body = project.engine.get(f"{project.url('service', 8080)}/api/hello/Ada")
    (span,) = project.intake().wait_for_spans(1)
    received = project.intake().received()
    stats = eventually(lambda: project.intake().received()["counts"].get("/api/v0.2/stats"), timeout=40)

    assert json.loads(body) == {"message": "Hello, Ada!"}
    assert (span["service"], span["name"]) == ("hello-service", "asgi.request")
    assert span["resource"] == "GET /api/hello/<name>"
    assert (span["meta"]["env"], span["meta"]["version"]) == ("staging", "3.2.1")
    assert {request["api_key_end"] for request in received["requests"]} == {KEY[-4:]}
    assert stats


def test_a_stop_under_load_loses_nothing(project: Project) -> None:
    """After `docker stop` under load, every response is 200, every request has its span, and the exit code is 0."""
    with project.engine.load(project.url("service", 8080), "--slow", "--balance") as load:
        code = project.engine.stop(project.container("service"))
    total = sum(load.statuses.values())
    spans = project.intake().wait_for_spans(total)
    resources = Counter(span["resource"] for span in spans)

    assert code == 0
    assert load.failures == []
    assert set(load.statuses) == {"200"}
    assert len(spans) == total
    assert set(resources) == {"GET /api/hello", "GET /api/faults/slow"}


def test_no_request_fails_when_the_agent_is_killed(project: Project) -> None:
    """The Agent is killed and started again under load. Every response is 200, and spans arrive again."""
    agent = project.container("datadog-agent")
    with project.engine.load(project.url("service", 8080)) as load:
        wait_for_first_span(load, project)
        project.engine.docker("kill", agent)
        project.engine.get(f"{project.url('service', 8080)}/api/hello/missed")
        project.engine.docker("start", agent)
        project.engine.wait_until_healthy(agent)

        def arrived() -> bool:
            project.engine.get(f"{project.url('service', 8080)}/api/hello/again")
            return any("again" in span["meta"]["http.url"] for span in project.intake().spans())

        eventually(arrived, timeout=40)

    assert load.failures == []
    assert set(load.statuses) == {"200"}
    assert project.engine.inspect(project.container("service"))["RestartCount"] == 0


def wait_for_first_span(load: Load, project: Project) -> None:
    """Wait until a span of `load` has arrived at the intake."""
    assert load.failures == []
    project.intake().wait_for_spans(1)


def test_a_trace_is_shown_without_account_or_key(engine: Engine) -> None:
    """With compose.local.yaml, the agent and page of this repository show the service's traces."""
    with up(engine, LOCAL, {}) as project:
        engine.get(f"{project.url('service', 8080)}/api/relay?count=2")
        page = project.url("datadog-agent", 8081)

        def read_spans() -> list[dict[str, Any]]:
            link = re.search(r"/trace/([0-9a-f]{32})\b", engine.get(f"{page}/?q=resource_name%3A*relay"))
            return list(json.loads(engine.get(f"{page}/trace/{link[1]}/json"))["spans"]) if link else []

        spans = eventually(read_spans, lambda spans: len(spans) == 5)

    assert Counter((span["name"], span["resource"]) for span in spans) == {
        ("asgi.request", "GET /api/relay"): 1,
        ("http.request", "GET hello-service/api/hello"): 2,
        ("asgi.request", "GET /api/hello"): 2,
    }
    assert {span["meta"]["env"] for span in spans if span["parent_id"] == 0} == {"dev"}
