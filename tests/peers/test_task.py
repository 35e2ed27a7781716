"""Tests of the task that deploy/task-definition.json defines, run by a container engine in place of Fargate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from containers import Engine, Intake
from cost import SPAN_BYTES
from fargate import Task, filled_definition, running_task, wait_until_restarted
from running import eventually

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(240)]

KEY = "fedcba9876543210fedcba9876543210"


class Deployment:
    """A running task, and the intake that its Agent sends to."""

    def __init__(self, task: Task, intake: Intake) -> None:
        self.task = task
        self.intake = intake
        self.url = task.url(8080)


@contextmanager
def running_deployment(
    engine: Engine, image: str, intake_image: str, definition: dict[str, Any]
) -> Iterator[Deployment]:
    """Run the task of `definition`. Two variables are added: the intake's URL, and FAULTS, which adds /api/faults."""
    network = f"net-{uuid4().hex[:8]}"
    engine.docker("network", "create", network)
    options = ["--network", network, "--network-alias", "intake", "--publish", "127.0.0.1::8080"]
    extra_variables = {"datadog-agent": {"DD_APM_DD_URL": "http://intake:8080"}, "service": {"FAULTS": "true"}}
    try:
        with engine.container(intake_image, *options) as intake:
            engine.wait_until_healthy(intake)
            with running_task(
                engine, definition, network=network, image=image, key=KEY, extra_variables=extra_variables
            ) as task:
                yield Deployment(task, Intake(engine, engine.published_url(intake, 8080)))
    finally:
        engine.docker("network", "rm", network)


@pytest.fixture
def deployment(engine: Engine, image: str, intake_image: str) -> Iterator[Deployment]:
    """Run the task as it ships."""
    with running_deployment(engine, image, intake_image, filled_definition({"IMAGE": image})) as deployment:
        yield deployment


def test_a_trace_of_the_task_arrives(deployment: Deployment) -> None:
    """The service sends its span over the task's loopback, with the definition's service, environment and version."""
    engine = deployment.task.engine
    body = engine.get(f"{deployment.url}/api/hello/Ada")
    (span,) = deployment.intake.wait_for_spans(1)
    requests = deployment.intake.received()["requests"]

    assert json.loads(body) == {"message": "Hello, Ada!"}
    assert (span["service"], span["resource"]) == ("hello-service", "GET /api/hello/<name>")
    assert (span["meta"]["env"], span["meta"]["version"]) == ("staging", "7.8.9")
    assert {request["api_key_end"] for request in requests} == {KEY[-4:]}


def test_the_task_runs_as_defined(deployment: Deployment) -> None:
    """The definition sets user, file system, capabilities and memory, among others."""
    engine = deployment.task.engine
    service_container = deployment.task.container("service")
    service = engine.inspect(service_container)
    agent = engine.inspect(deployment.task.container("datadog-agent"))
    status = engine.docker("exec", service_container, "cat", "/proc/1/status")
    # The request comes from inside the task, because only a loopback caller gets the details.
    request = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/info', timeout=10).read().decode())"
    info = json.loads(engine.docker("exec", service_container, "python", "-Ic", request))

    assert "Uid:\t10001\t" in status
    assert "CapEff:\t0000000000000000" in status
    assert service["HostConfig"]["ReadonlyRootfs"]
    assert service["HostConfig"]["Memory"] == 512 * 2**20
    assert service["Config"]["StopTimeout"] == 60
    assert service["Config"]["Labels"]["com.datadoghq.tags.version"] == "7.8.9"
    assert "ECS_FARGATE=true" in agent["Config"]["Env"]
    assert agent["HostConfig"]["Memory"] == 512 * 2**20
    assert info["tracing"]["sampling_rules"] == '[{"sample_rate": 1.0}]'
    assert KEY not in json.dumps(service)


def test_a_stop_of_the_task_under_load_loses_nothing(deployment: Deployment) -> None:
    """The service stops before its Agent, so every response is 200, every span arrives, and both exit codes are 0."""
    # Some requests take a second. Like a load balancer, the clients stop when `/ready` reports that the service stops.
    with deployment.task.engine.load(deployment.url, "--slow", "--balance") as load:
        exit_codes = deployment.task.stop()
    total = sum(load.statuses.values())
    spans = deployment.intake.wait_for_spans(total)
    bytes_per_span = deployment.intake.bytes_of_traces() / len(spans)

    assert exit_codes == {"service": 0, "datadog-agent": 0}
    assert (load.failures, set(load.statuses)) == ([], {"200"})
    assert len(spans) == total
    # deploy/cost.py estimates at least the real size of a span, and less than twice that size.
    assert SPAN_BYTES / 2 < bytes_per_span < SPAN_BYTES
    assert {span["resource"] for span in spans} == {"GET /api/hello", "GET /api/faults/slow"}


def test_an_agent_that_dies_is_restarted_and_no_request_fails(deployment: Deployment) -> None:
    """The restart policy restarts the Agent's container, and the service keeps serving."""
    engine, agent = deployment.task.engine, deployment.task.container("datadog-agent")
    with engine.load(deployment.url) as load:
        deployment.intake.wait_for_spans(1)
        state = engine.inspect(agent)["State"]
        # `docker kill` would also stop the container, but then the engine would not restart it.
        engine.docker("exec", agent, "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        wait_until_restarted(engine, agent, state["StartedAt"])

        def new_span_has_arrived() -> bool:
            engine.get(f"{deployment.url}/api/hello/again")
            return any("again" in span["meta"]["http.url"] for span in deployment.intake.spans())

        eventually(new_span_has_arrived, timeout=40)

    assert (load.failures, set(load.statuses)) == ([], {"200"})


def test_traces_and_logs_arrive_with_a_read_only_agent_and_routed_logs(
    engine: Engine, image: str, intake_image: str, tmp_path: Path
) -> None:
    """A request's trace arrives at the intake, and its log line arrives at the router with the same trace id.

    Stand-ins replace the images of Agent and router. This proves that the task starts and how its containers are
    connected, but nothing about the real images.
    """
    definition = filled_definition({"IMAGE": image}, logs_to="datadog", readonly_agent=True)
    containers = {container["name"]: container for container in definition["containerDefinitions"]}
    # The real image has a configuration file, which the init container copies. The stand-in gets one here.
    dockerfile = f"FROM {containers['datadog-agent']['image']}\n"
    dockerfile += "RUN mkdir /etc/datadog-agent && touch /etc/datadog-agent/datadog.yaml\n"
    (tmp_path / "Dockerfile").write_text(dockerfile)
    engine.docker("build", "--tag", "agent-with-configuration", str(tmp_path))
    for name in ("datadog-agent", "datadog-agent-config"):
        containers[name]["image"] = "agent-with-configuration"
    router_code = (Path(__file__).parents[1] / "forward_router.py").read_text()
    containers["log-router"].update(image=image, command=["python", "-c", router_code])
    with running_deployment(engine, image, intake_image, definition) as deployment:
        engine.get(f"{deployment.url}/api/hello/Ada")
        (span,) = deployment.intake.wait_for_spans(1)
        agent_container = deployment.task.container("datadog-agent")
        agent = engine.inspect(agent_container)
        copied_files = engine.docker("exec", agent_container, "ls", "/etc/datadog-agent")

        def routed_lines() -> list[dict[str, Any]]:
            """Return the log lines of the request that have arrived at the router."""
            # The router prints records as JSON. The `log` of a record is a line that the service logged, also JSON.
            printed = engine.logs(deployment.task.container("log-router")).splitlines()
            events = [json.loads(json.loads(line)["log"]) for line in printed if '"tag"' in line]
            return [event for event in events if event.get("path") == "/api/hello/Ada"]

        (log_line,) = eventually(routed_lines)

    assert agent["HostConfig"]["ReadonlyRootfs"]
    assert copied_files == "datadog.yaml"
    assert int(log_line["dd.trace_id"], 16) % 2**64 == int(span["trace_id"])  # the span has only the lower 64 bits
    assert KEY not in json.dumps(definition)
    assert containers["service"]["logConfiguration"]["secretOptions"] == [
        {"name": "apikey", "valueFrom": containers["datadog-agent"]["secrets"][0]["valueFrom"]}
    ]
