"""Tests of the compose files: the configuration, arriving traces, a stop under load, and an Agent that is killed."""

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
from containers import INTAKE_IMAGE, Engine, Intake
from running import ROOT, eventually, free_port

from hello_service.settings import Settings

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(240)]

KEY = "0123456789abcdef0123456789abcdef"
SHIPPED_FILES = ["compose.yaml", "compose.override.yaml"]
LOCAL_FILES = ["compose.yaml", "compose.local.yaml"]
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
    """A compose project with the configuration in `files`, and `environment` for its variables."""

    def __init__(self, engine: Engine, files: list[str], environment: dict[str, str]) -> None:
        self.engine = engine
        self.environment = environment
        self.command = ["compose", "--project-name", f"hello-{uuid4().hex[:8]}", *file_options(files)]

    def compose(self, *arguments: str) -> str:
        """Run `docker compose ARGUMENTS` in this project, and return its standard output."""
        return self.engine.run(*self.command, *arguments, extra=self.environment).stdout.strip()

    def container_id(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service)

    def url(self, service: str, port: int) -> str:
        """Return the URL on which `port` of `service` is published."""
        return f"http://{self.compose('port', service, str(port))}"

    def intake(self) -> Intake:
        return Intake(self.engine, self.url("intake", 8080))


def file_options(files: list[str]) -> list[str]:
    """Return the options that make docker compose read `files`."""
    return [part for file in files for part in ("--file", file)]


@contextmanager
def running_project(engine: Engine, files: list[str], environment: dict[str, str]) -> Iterator[Project]:
    """Run a compose project until the block ends, and yield it when its health checks have passed."""
    # For port 0, the engine chooses a free port. The page's port is chosen here, because it is part of LOCAL_VIEW_URL.
    ports = {"PORT": "0", "AGENT_PORT": "0", "VIEW_PORT": str(free_port())}
    project = Project(engine, files, {**ports, **environment})
    try:
        project.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "120")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture
def project(engine: Engine, intake_image: str, tmp_path: Path) -> Iterator[Project]:
    """Run the shipped files and an intake that the Agent sends to."""
    additions = tmp_path / "compose.intake.yaml"
    additions.write_text(json.dumps(INTAKE_ADDITIONS))
    environment = {"DD_API_KEY": KEY, "DD_ENV": "staging", "DD_VERSION": "3.2.1"}
    with running_project(engine, [*SHIPPED_FILES, str(additions)], environment) as project:
        yield project


def configured_services(engine: Engine, files: list[str]) -> dict[str, Any]:
    """Return the configuration of each service, as compose combines it from `files`."""
    command = ["compose", *file_options(files), "config", "--format", "json"]
    result = engine.run(*command, extra={"DD_API_KEY": KEY})
    return dict(json.loads(result.stdout)["services"])


def test_only_up_needs_a_key(engine: Engine, tmp_path: Path) -> None:
    """Without a key, `up` starts nothing, and its error has the variable and the fix. Other commands succeed."""
    # The service uses an image that exists, so nothing has to be built.
    override = tmp_path / "compose.image.yaml"
    override.write_text(json.dumps({"services": {"service": {"image": containers.agent_image()}}}))
    project = Project(engine, [*SHIPPED_FILES, str(override)], {"PORT": "0", "AGENT_PORT": "0"})
    try:
        up_result = engine.run(*project.command, "up", "--no-build", check=False, extra=project.environment)
        running_containers = project.compose("ps", "--quiet")
        project.compose("logs")
    finally:
        project.compose("down")

    assert up_result.returncode != 0
    (message,) = [line for line in up_result.stderr.splitlines() if "DD_API_KEY" in line]
    assert "set it to a Datadog API key, or start without one by docker compose -f" in message
    assert running_containers == ""


@pytest.mark.parametrize("files", [SHIPPED_FILES, LOCAL_FILES], ids=["shipped", "local"])
def test_every_container_is_restricted_and_restarted(engine: Engine, files: list[str]) -> None:
    """Each has a memory limit, no new privileges and ports on loopback only.

    The service also has no capabilities and a read-only file system. The Agent also has a health check, but the service
    starts without waiting for it.
    """
    services = configured_services(engine, files)

    assert set(services) == {"service", "datadog-agent"}
    for service in services.values():
        # Equal limits mean that the container gets no swap. test_image.py runs the service with 256 MiB.
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
    pinned_image = configured_services(engine, SHIPPED_FILES)["datadog-agent"]["image"]
    files = [path for path in (ROOT / "deploy").glob("*") if path.is_file()]
    images_in_deploy = {image for path in files for image in re.findall(r"[\w./]*/agent:[\w.]+", path.read_text())}

    assert re.fullmatch(r"public\.ecr\.aws/datadog/agent:7\.\d+\.\d+", pinned_image)
    assert images_in_deploy == {pinned_image}


def test_the_service_stops_within_the_grace_period(engine: Engine) -> None:
    """Compose kills the container after its grace period, so the service's own budget must be shorter."""
    grace_period = configured_services(engine, SHIPPED_FILES)["service"]["stop_grace_period"]

    assert float(grace_period.removesuffix("s")) > Settings.from_environment({}).stop_budget_seconds


def test_the_trace_of_a_request_arrives_at_the_intake(project: Project) -> None:
    """The span has the right service, resource, environment and version, and the Agent uses the right key."""
    body = project.engine.get(f"{project.url('service', 8080)}/api/hello/Ada")
    (span,) = project.intake().wait_for_spans(1)
    requests = project.intake().received()["requests"]
    stats_payloads = eventually(lambda: project.intake().received()["counts"].get("/api/v0.2/stats"), timeout=40)

    assert json.loads(body) == {"message": "Hello, Ada!"}
    assert (span["service"], span["name"]) == ("hello-service", "asgi.request")
    assert span["resource"] == "GET /api/hello/<name>"
    assert (span["meta"]["env"], span["meta"]["version"]) == ("staging", "3.2.1")
    assert {request["api_key_end"] for request in requests} == {KEY[-4:]}
    assert stats_payloads


def test_a_stop_under_load_loses_nothing(project: Project) -> None:
    """After `docker stop` under load, every response is 200, every request has its span, and the exit code is 0."""
    # Some requests take a second. Like a load balancer, the clients stop when `/ready` reports that the service stops.
    with project.engine.load(project.url("service", 8080), "--slow", "--balance") as load:
        exit_code = project.engine.stop(project.container_id("service"))
    total = sum(load.statuses.values())
    spans = project.intake().wait_for_spans(total)

    assert exit_code == 0
    assert load.failures == []
    assert set(load.statuses) == {"200"}
    assert len(spans) == total
    assert {span["resource"] for span in spans} == {"GET /api/hello", "GET /api/faults/slow"}


def test_no_request_fails_when_the_agent_is_killed(project: Project) -> None:
    """The Agent is killed and started again under load. Every response is 200, and spans arrive again."""
    agent = project.container_id("datadog-agent")
    with project.engine.load(project.url("service", 8080)) as load:
        project.intake().wait_for_spans(1)
        project.engine.docker("kill", agent)
        project.engine.get(f"{project.url('service', 8080)}/api/hello/missed")
        project.engine.docker("start", agent)
        project.engine.wait_until_healthy(agent)

        def new_span_has_arrived() -> bool:
            project.engine.get(f"{project.url('service', 8080)}/api/hello/again")
            return any("again" in span["meta"]["http.url"] for span in project.intake().spans())

        eventually(new_span_has_arrived, timeout=40)

    assert load.failures == []
    assert set(load.statuses) == {"200"}
    assert project.engine.inspect(project.container_id("service"))["RestartCount"] == 0


def test_traces_are_shown_without_account_or_key(engine: Engine) -> None:
    """With compose.local.yaml, the agent and page of this repository show the service's traces."""
    with running_project(engine, LOCAL_FILES, {}) as project:
        engine.get(f"{project.url('service', 8080)}/api/relay?count=2")
        page_url = project.url("datadog-agent", 8081)

        def read_spans() -> list[dict[str, Any]]:
            """Return the spans of the relay's trace that the page has so far."""
            link = re.search(r"/trace/([0-9a-f]{32})\b", engine.get(f"{page_url}/?q=resource_name%3A*relay"))
            if link is None:
                return []
            document = json.loads(engine.get(f"{page_url}/trace/{link[1]}/json"))
            return list(document["spans"])

        spans = eventually(read_spans, lambda spans: len(spans) == 5)

    assert Counter((span["name"], span["resource"]) for span in spans) == {
        ("asgi.request", "GET /api/relay"): 1,
        ("http.request", "GET hello-service/api/hello"): 2,
        ("asgi.request", "GET /api/hello"): 2,
    }
    assert {span["meta"]["env"] for span in spans if span["parent_id"] == 0} == {"dev"}
