"""Runs deploy/task-definition.json, filled in, with both containers in one network namespace, as on Fargate."""

from __future__ import annotations

import json
from collections import Counter
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


class World:
    """A task, and the intake that its Agent sends to."""

    def __init__(self, task: Task, intake: Intake, definition: dict[str, Any]) -> None:
        self.task = task
        self.intake = intake
        self.definition = definition
        self.url = task.url(8080)


@contextmanager
def a_world(engine: Engine, image: str, intake_image: str, definition: dict[str, Any]) -> Iterator[World]:
    """Run the task of `definition`; only the intake and the faults are added."""
    network = f"net-{uuid4().hex[:8]}"
    engine.docker("network", "create", network)
    options = ["--network", network, "--network-alias", "intake", "--publish", "127.0.0.1::8080"]
    extra = {"datadog-agent": {"DD_APM_DD_URL": "http://intake:8080"}, "service": {"FAULTS": "true"}}
    try:
        with engine.container(intake_image, *options) as intake:
            engine.wait_until_healthy(intake)
            with running_task(engine, definition, network=network, image=image, key=KEY, extra=extra) as task:
                yield World(task, Intake(engine, engine.published_url(intake, 8080)), definition)
    finally:
        engine.docker("network", "rm", network)


@pytest.fixture
def world(engine: Engine, image: str, intake_image: str) -> Iterator[World]:
    """The task as it ships."""
    with a_world(engine, image, intake_image, filled_definition({"IMAGE": image})) as world:
        yield world


def test_a_trace_of_the_task_arrives(world: World) -> None:
    """It goes from the service over the task's loopback to its Agent, with the names of the definition."""
    engine = world.task.engine
    body = engine.get(f"{world.url}/api/hello/Ada")
    (span,) = world.intake.wait_for_spans(1)
    requests = world.intake.received()["requests"]

    assert json.loads(body) == {"message": "Hello, Ada!"}
    assert (span["service"], span["resource"]) == ("hello-service", "GET /api/hello/<name>")
    assert (span["meta"]["env"], span["meta"]["version"]) == ("staging", "7.8.9")
    assert {request["api_key_end"] for request in requests} == {KEY[-4:]}


def test_the_task_runs_as_the_definition_says(world: World) -> None:
    """User, file system, capabilities and memory are as defined."""
    engine = world.task.engine
    described = engine.inspect(world.task.container("service"))
    status = engine.docker("exec", world.task.container("service"), "cat", "/proc/1/status")
    agent = engine.inspect(world.task.container("datadog-agent"))
    request = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/info', timeout=10).read().decode())"
    info = json.loads(
        engine.docker("exec", world.task.container("service"), "python", "-Ic", request)
    )  # only a loopback caller gets the details

    assert "Uid:\t10001\t" in status
    assert "CapEff:\t0000000000000000" in status
    assert described["HostConfig"]["ReadonlyRootfs"]
    assert described["HostConfig"]["Memory"] == 512 * 2**20
    assert described["Config"]["StopTimeout"] == 60
    assert described["Config"]["Labels"]["com.datadoghq.tags.version"] == "7.8.9"
    assert "ECS_FARGATE=true" in agent["Config"]["Env"]
    assert agent["HostConfig"]["Memory"] == 512 * 2**20
    assert info["tracing"]["sampling_rules"] == '[{"sample_rate": 1.0}]'
    assert KEY not in json.dumps(described)


def test_a_task_that_is_stopped_loses_nothing(world: World) -> None:
    """Under load, the service stops before its Agent: every response is 200, every span arrives, exit codes are 0."""
    with world.task.engine.load(world.url, "--slow", "--balance") as load:
        codes = world.task.stop()
    total = sum(load.statuses.values())
    spans = world.intake.wait_for_spans(total)

    bytes_of_a_span = world.intake.bytes_of_traces() / len(spans)

    assert codes == {"service": 0, "datadog-agent": 0}
    assert (load.failures, set(load.statuses)) == ([], {"200"})
    assert len(spans) == total
    assert SPAN_BYTES / 2 < bytes_of_a_span < SPAN_BYTES  # deploy/cost.py assumes it
    assert set(Counter(span["resource"] for span in spans)) == {"GET /api/hello", "GET /api/faults/slow"}


def test_an_agent_that_dies_is_restarted_and_fails_no_request(world: World) -> None:
    """Its restart policy restarts it while the service keeps serving."""
    engine, agent = world.task.engine, world.task.container("datadog-agent")
    with engine.load(world.url) as load:
        world.intake.wait_for_spans(1)
        state = engine.inspect(agent)["State"]
        engine.docker("exec", agent, "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        wait_until_restarted(engine, agent, state["StartedAt"])

        def arrived() -> bool:
            engine.get(f"{world.url}/api/hello/again")
            return any("again" in span["meta"]["http.url"] for span in world.intake.spans())

        eventually(arrived, timeout=40)

    assert (load.failures, set(load.statuses)) == ([], {"200"})


def test_a_read_only_agent_with_routed_logs_traces_and_logs(
    engine: Engine, image: str, intake_image: str, tmp_path: Path
) -> None:
    """With both parameters, a request's trace arrives, and its log line arrives at the router with the same trace id.

    Agent and router are stand-ins, so this proves that the definition starts, not what the real images write and send.
    """
    definition = filled_definition({"IMAGE": image}, logs_to="datadog", readonly_agent=True)
    containers = {each["name"]: each for each in definition["containerDefinitions"]}
    # The real image has its configuration there; the stand-in needs one.
    stage = f"FROM {containers['datadog-agent']['image']}\nRUN mkdir /etc/datadog-agent && touch /etc/datadog-agent/datadog.yaml\n"
    (tmp_path / "Dockerfile").write_text(stage)
    engine.docker("build", "--tag", "agent-with-configuration", str(tmp_path))
    for name in ("datadog-agent", "datadog-agent-config"):
        containers[name]["image"] = "agent-with-configuration"
    router = containers["log-router"]
    router |= {
        "image": image,
        "command": ["python", "-c", (Path(__file__).parents[1] / "forward_router.py").read_text()],
    }
    with a_world(engine, image, intake_image, definition) as world:
        engine.get(f"{world.url}/api/hello/Ada")
        (span,) = world.intake.wait_for_spans(1)
        agent = engine.inspect(world.task.container("datadog-agent"))
        copied = engine.docker("exec", world.task.container("datadog-agent"), "ls", "/etc/datadog-agent")

        def lines() -> list[dict[str, Any]]:
            printed = engine.logs(world.task.container("log-router")).splitlines()
            logged = [json.loads(json.loads(line)["log"]) for line in printed if '"tag"' in line]
            return [each for each in logged if each.get("path") == "/api/hello/Ada"]

        (line,) = eventually(lines)

    assert agent["HostConfig"]["ReadonlyRootfs"]
    assert copied == "datadog.yaml"
    assert int(line["dd.trace_id"], 16) % 2**64 == int(span["trace_id"])
    assert KEY not in json.dumps(definition)
    assert containers["service"]["logConfiguration"]["secretOptions"] == [
        {"name": "apikey", "valueFrom": containers["datadog-agent"]["secrets"][0]["valueFrom"]}
    ]
