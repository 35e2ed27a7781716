"""Runs an ECS Fargate task on a container engine: a filled-in task definition, translated key by key.

All containers share one network namespace, as with `awsvpc`, and start in the order of `dependsOn`. A key of a
container that has no translation here is an error, so that no part of the file goes untested unnoticed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import definition
from containers import Engine
from running import eventually

FORWARD = "24224"  # the port on which a FireLens router receives log lines
# A value for each placeholder, as deploy/deploy would fill it in.
VALUES = {
    "FAMILY": "hello-service",
    "CPU_ARCHITECTURE": "X86_64",
    "EXECUTION_ROLE_ARN": "arn:aws:iam::123456789012:role/execution",
    "TASK_ROLE_ARN": "arn:aws:iam::123456789012:role/task",
    "SECRET_ARN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:datadog-AbCdEf",
    "SERVICE_LOG_GROUP": "/ecs/hello-service/service",
    "AGENT_LOG_GROUP": "/ecs/hello-service/datadog-agent",
    "IMAGE": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/hello-service:7.8.9",
    "VERSION": "7.8.9",
    "ENVIRONMENT": "staging",
    "SAMPLE_RATE": "1.0",
    "DD_SITE": "datadoghq.eu",
    "REGION": "eu-west-1",
    "TRUST_TRACE_HEADERS": "false",
    "ECS_TASK_COLLECTION": "true",
}


def filled(values: Mapping[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
    """Return the task definition that ships, filled in by the code that deploys it; `parameters` are those of `build`."""
    return definition.build(definition.FILE.read_text(), {**VALUES, **(values or {})}, **parameters)


class Task:
    """A running task: the containers by their names in the definition."""

    def __init__(self, engine: Engine, definition: Mapping[str, Any]) -> None:
        self.engine = engine
        self.definition = definition
        self.prefix = f"task-{uuid4().hex[:8]}"
        self.network = f"{self.prefix}-network"  # the container that holds the namespace
        self._started: list[str] = []

    def container(self, name: str) -> str:
        """Return the engine's name for the container `name`."""
        return f"{self.prefix}-{name}"

    def url(self, port: int) -> str:
        """Return the URL on which `port` of the task is published."""
        return self.engine.published(self.network, port)

    def start(
        self, network: str, image: str, secrets: Mapping[str, str], extra: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Start every container, each once its dependencies have started or succeeded."""
        containers = {each["name"]: each for each in self.definition["containerDefinitions"]}
        ports = [str(port["containerPort"]) for each in containers.values() for port in each.get("portMappings", [])]
        if any("firelensConfiguration" in each for each in containers.values()):
            ports.append(FORWARD)
        publish = [part for port in ports for part in ("--publish", f"127.0.0.1::{port}")]
        wait = ["python", "-c", "import signal; signal.pause()"]
        self.engine.docker("run", "--detach", "--name", self.network, "--network", network, *publish, image, *wait)
        while waiting := [name for name in containers if name not in self._started]:
            name = next(each for each in waiting if self._ready(containers[each]))
            options, command = translate(containers[name], secrets, extra.get(name, {}), self._files())
            for mount in containers[name].get("mountPoints", []):
                options += ["--volume", f"{self.container(mount['sourceVolume'])}:{mount['containerPath']}"]
            if containers[name]["logConfiguration"]["logDriver"] == "awsfirelens":
                address = self.url(int(FORWARD)).removeprefix("http://")
                options += ["--log-driver", "fluentd", "--log-opt", f"fluentd-address={address}"]
            self.engine.docker(
                *["run", "--detach", "--name", self.container(name), "--network", f"container:{self.network}"],
                *[*options, containers[name]["image"], *command],
            )
            self._started.append(name)

    def stop(self) -> dict[str, int]:
        """Stop the containers as ECS does, those that depend on others first; return their exit codes."""
        codes = {}
        for name in reversed(self._started):
            self.engine.docker("stop", self.container(name))  # its own stopTimeout counts
            codes[name] = int(self.engine.inspect(self.container(name))["State"]["ExitCode"])
        return codes

    def remove(self) -> None:
        """Remove every container and volume of the task."""
        names = [*(self.container(name) for name in reversed(self._started)), self.network]
        self.engine.run("rm", "--force", "--volumes", *names, check=False)
        volumes = [self.container(each["name"]) for each in self.definition.get("volumes", [])]
        if volumes:
            self.engine.run("volume", "rm", "--force", *volumes, check=False)

    def _ready(self, container: Mapping[str, Any]) -> bool:
        for dependency in container.get("dependsOn", []):
            if dependency["containerName"] not in self._started:
                return False
            if dependency["condition"] == "SUCCESS":
                ended = self.container(dependency["containerName"])
                assert self.engine.docker("wait", ended) == "0", self.engine.logs(ended)
            else:
                assert dependency["condition"] == "START"
        return True

    def _files(self) -> int:
        limit = self.engine.docker("exec", self.network, "sh", "-c", "ulimit -Hn")
        return int(limit) if limit.isdecimal() else 2**20


def translate(
    container: Mapping[str, Any], secrets: Mapping[str, str], extra: Mapping[str, str], most_files: int
) -> tuple[list[str], list[str]]:
    """Return `container` as the options of `docker run`, and its command. `secrets` is by `valueFrom`."""
    left = dict(container)
    options = ["--memory", f"{left['memory']}m", "--memory-swap", f"{left.pop('memory')}m"]
    environment = {each["name"]: each["value"] for each in left.pop("environment", [])}
    environment |= {each["name"]: secrets[each["valueFrom"]] for each in left.pop("secrets", [])}
    for name, value in {**environment, **extra}.items():
        options += ["--env", f"{name}={value}"]
    for name, value in left.pop("dockerLabels", {}).items():
        options += ["--label", f"{name}={value}"]
    for limit in left.pop("ulimits", []):  # an engine can't grant more than it has
        soft, hard = (min(limit[end], most_files) for end in ("softLimit", "hardLimit"))
        options += ["--ulimit", f"{limit['name']}={soft}:{hard}"]
    if user := left.pop("user", None):
        options += ["--user", user]
    if left.pop("readonlyRootFilesystem", False):
        options += ["--read-only"]
    for capability in left.pop("linuxParameters", {}).get("capabilities", {}).get("drop", []):
        options += ["--cap-drop", capability]
    if check := left.pop("healthCheck", None):
        kind, *command = check["command"]
        options += ["--health-cmd", shlex.join(command) if kind == "CMD" else command[0]]
        options += ["--health-interval", f"{check['interval']}s", "--health-timeout", f"{check['timeout']}s"]
        options += ["--health-retries", str(check["retries"]), "--health-start-period", f"{check['startPeriod']}s"]
        options += ["--health-start-interval", "1s"]  # ECS has no such option; it saves the tests waiting
    options += ["--stop-timeout", str(left.pop("stopTimeout"))]
    if left.pop("restartPolicy", {}).get("enabled"):
        options += ["--restart", "always"]
    command = left.pop("command", [])
    assert left.pop("logConfiguration")["logDriver"] in {"awslogs", "awsfirelens"}  # `Task.start` sets the driver
    # `Task.start` translates these keys; any other key is an error.
    rest = {
        "name",
        "image",
        "essential",
        "portMappings",
        "dependsOn",
        "startTimeout",
        "mountPoints",
        "firelensConfiguration",
    }
    assert set(left) <= rest, f"no translation for {set(left) - rest}"
    return options, command


@contextmanager
def running_task(
    engine: Engine,
    definition: Mapping[str, Any],
    *,
    network: str,
    image: str,
    key: str,
    extra: Mapping[str, Mapping[str, str]],
) -> Iterator[Task]:
    """Run the task that `definition` describes, with `key` as the API key, and yield it once every container is healthy."""
    secrets = {f"{VALUES['SECRET_ARN']}:DD_API_KEY::": key}
    task = Task(engine, definition)
    try:
        task.start(network, image, secrets, extra)
        for each in definition["containerDefinitions"]:
            if "healthCheck" in each:
                engine.healthy(task.container(each["name"]))
        yield task
    finally:
        task.remove()


def restarted(engine: Engine, container: str, before: str) -> None:
    """Wait until `container` has been restarted after `before` and is healthy."""
    eventually(
        lambda: engine.inspect(container)["State"], lambda state: state["Running"] and state["StartedAt"] > before
    )
    engine.healthy(container)
