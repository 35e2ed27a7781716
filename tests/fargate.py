"""Runs an ECS Fargate task on a container engine: a filled-in task definition, translated key by key.

All containers share one network namespace, as with `awsvpc`, and start in the order of `dependsOn`. A container with a
key that is unknown here is an error, so that a new key of the file can't stay untested.
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

FORWARD_PORT = "24224"  # the port on which a FireLens router receives log lines
# A value for each placeholder, in the form in which deploy/deploy fills it in.
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


def filled_definition(values: Mapping[str, str] | None = None, **parameters: Any) -> dict[str, Any]:
    """Return deploy/task-definition.json, filled in by deploy's own code with VALUES and `values`.

    `parameters` are the keyword arguments of `definition.build`.
    """
    return definition.build(definition.FILE.read_text(), {**VALUES, **(values or {})}, **parameters)


class Task:
    """A running task. Its methods use the names that the containers have in the definition."""

    def __init__(self, engine: Engine, definition: Mapping[str, Any]) -> None:
        self.engine = engine
        self.definition = definition
        self.prefix = f"task-{uuid4().hex[:8]}"
        self.network = f"{self.prefix}-network"  # the container whose network namespace the others share
        self._started: list[str] = []

    def container(self, name: str) -> str:
        """Return the engine's name for the container `name`."""
        return f"{self.prefix}-{name}"

    def url(self, port: int) -> str:
        """Return the URL on which `port` of the task is published."""
        return self.engine.published_url(self.network, port)

    def start(
        self, network: str, image: str, secrets: Mapping[str, str], extra: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Start each container as soon as its dependencies allow it.

        `image` only needs Python: it runs the container that owns the network namespace. `secrets` has values by
        `valueFrom`, and `extra` has additional environment variables by container.
        """
        containers = {each["name"]: each for each in self.definition["containerDefinitions"]}
        ports = [str(port["containerPort"]) for each in containers.values() for port in each.get("portMappings", [])]
        if any("firelensConfiguration" in each for each in containers.values()):
            ports.append(FORWARD_PORT)
        publish = [part for port in ports for part in ("--publish", f"127.0.0.1::{port}")]
        do_nothing = ["python", "-c", "import signal; signal.pause()"]
        run = ["run", "--detach", "--name", self.network, "--network", network]
        self.engine.docker(*run, *publish, image, *do_nothing)
        while waiting := [name for name in containers if name not in self._started]:
            name = next(each for each in waiting if self._ready(containers[each]))
            options, command = translate(containers[name], secrets, extra.get(name, {}), self._open_files_limit())
            for mount in containers[name].get("mountPoints", []):
                options += ["--volume", f"{self.container(mount['sourceVolume'])}:{mount['containerPath']}"]
            if containers[name]["logConfiguration"]["logDriver"] == "awsfirelens":
                address = self.url(int(FORWARD_PORT)).removeprefix("http://")
                options += ["--log-driver", "fluentd", "--log-opt", f"fluentd-address={address}"]
            run = ["run", "--detach", "--name", self.container(name), "--network", f"container:{self.network}"]
            self.engine.docker(*run, *options, containers[name]["image"], *command)
            self._started.append(name)

    def stop(self) -> dict[str, int]:
        """Stop the containers as ECS does, each before its dependencies, and return their exit codes."""
        codes = {}
        for name in reversed(self._started):
            self.engine.docker("stop", self.container(name))  # waits for the container's own stopTimeout
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
        """Return whether the dependencies of `container` allow it to start. Waits for those that must succeed."""
        for dependency in container.get("dependsOn", []):
            if dependency["containerName"] not in self._started:
                return False
            if dependency["condition"] == "SUCCESS":
                name = self.container(dependency["containerName"])
                assert self.engine.docker("wait", name) == "0", self.engine.logs(name)
            else:
                assert dependency["condition"] == "START"
        return True

    def _open_files_limit(self) -> int:
        """Return the most open files that the engine can grant a container."""
        limit = self.engine.docker("exec", self.network, "sh", "-c", "ulimit -Hn")
        return int(limit) if limit.isdecimal() else 2**20  # the shell prints "unlimited"


def translate(
    container: Mapping[str, Any], secrets: Mapping[str, str], extra: Mapping[str, str], open_files_limit: int
) -> tuple[list[str], list[str]]:
    """Return the options of `docker run` for `container`, and its command.

    `secrets` has values by `valueFrom`. `extra` has additional environment variables.
    """
    remaining = dict(container)
    memory = f"{remaining.pop('memory')}m"
    options = ["--memory", memory, "--memory-swap", memory]
    environment = {each["name"]: each["value"] for each in remaining.pop("environment", [])}
    environment |= {each["name"]: secrets[each["valueFrom"]] for each in remaining.pop("secrets", [])}
    for name, value in {**environment, **extra}.items():
        options += ["--env", f"{name}={value}"]
    for name, value in remaining.pop("dockerLabels", {}).items():
        options += ["--label", f"{name}={value}"]
    for limit in remaining.pop("ulimits", []):
        soft, hard = (min(limit[end], open_files_limit) for end in ("softLimit", "hardLimit"))
        options += ["--ulimit", f"{limit['name']}={soft}:{hard}"]
    if user := remaining.pop("user", None):
        options += ["--user", user]
    if remaining.pop("readonlyRootFilesystem", False):
        options += ["--read-only"]
    for capability in remaining.pop("linuxParameters", {}).get("capabilities", {}).get("drop", []):
        options += ["--cap-drop", capability]
    if check := remaining.pop("healthCheck", None):
        kind, *command = check["command"]
        options += ["--health-cmd", shlex.join(command) if kind == "CMD" else command[0]]
        options += ["--health-interval", f"{check['interval']}s", "--health-timeout", f"{check['timeout']}s"]
        options += ["--health-retries", str(check["retries"]), "--health-start-period", f"{check['startPeriod']}s"]
        options += ["--health-start-interval", "1s"]  # makes the tests faster; ECS has no such option
    options += ["--stop-timeout", str(remaining.pop("stopTimeout"))]
    if remaining.pop("restartPolicy", {}).get("enabled"):
        options += ["--restart", "always"]
    command = remaining.pop("command", [])
    assert remaining.pop("logConfiguration")["logDriver"] in {"awslogs", "awsfirelens"}  # `Task.start` sets the driver
    # Keys that `Task.start` uses, and two that docker has no option for: `essential` and `startTimeout`.
    not_translated = {
        "name",
        "image",
        "essential",
        "portMappings",
        "dependsOn",
        "startTimeout",
        "mountPoints",
        "firelensConfiguration",
    }
    assert set(remaining) <= not_translated, f"no translation for {set(remaining) - not_translated}"
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
    """Run a task until the block ends, with `key` as the API key, and yield it when its health checks have passed."""
    secrets = {f"{VALUES['SECRET_ARN']}:DD_API_KEY::": key}
    task = Task(engine, definition)
    try:
        task.start(network, image, secrets, extra)
        for each in definition["containerDefinitions"]:
            if "healthCheck" in each:
                engine.wait_until_healthy(task.container(each["name"]))
        yield task
    finally:
        task.remove()


def wait_until_restarted(engine: Engine, container: str, before: str) -> None:
    """Wait until `container` has been started again after the time `before`, and is healthy."""
    eventually(
        lambda: engine.inspect(container)["State"], lambda state: state["Running"] and state["StartedAt"] > before
    )
    engine.wait_until_healthy(container)
