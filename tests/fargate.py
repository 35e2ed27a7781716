"""Runs an ECS Fargate task on a container engine: a filled-in task definition, translated key by key.

All containers share one network namespace, as with `awsvpc`, and start in the order of `dependsOn`. A key that this
module can't translate is an error, so that a new key in the task definition can't stay untested.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import definition
from containers import Engine
from running import eventually

FORWARD_PORT = "24224"  # the port on which a FireLens router receives log lines
# A value for each placeholder of the task definition, in the form that deploy/deploy uses.
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

    `values` take precedence over VALUES. `parameters` are keyword arguments of `definition.build`.
    """
    return definition.build(definition.FILE.read_text(), {**VALUES, **(values or {})}, **parameters)


class Task:
    """A running task. Its methods take the names of containers in the task definition."""

    def __init__(self, engine: Engine, definition: Mapping[str, Any]) -> None:
        self.engine = engine
        self.definition = definition
        self.prefix = f"task-{uuid4().hex[:8]}"
        self.network_container = f"{self.prefix}-network"  # the others share its network namespace
        self._started: list[str] = []

    def container(self, name: str) -> str:
        """Return the name that the container `name` has in the engine."""
        return f"{self.prefix}-{name}"

    def url(self, port: int) -> str:
        """Return the URL on which `port` of the task is published."""
        return self.engine.published_url(self.network_container, port)

    def start(
        self, network: str, image: str, secrets: Mapping[str, str], extra_variables: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Start each container as soon as its dependencies allow it.

        `network` is the engine's network that the task joins. `image` is the image of the container that owns the
        network namespace; this container needs only Python. `secrets` maps each `valueFrom` to the secret's value, and
        `extra_variables` maps a container's name to additional environment variables.
        """
        containers = {container["name"]: container for container in self.definition["containerDefinitions"]}
        self._start_network_container(network, image, containers.values())
        while waiting := [name for name in containers if name not in self._started]:
            name = next(name for name in waiting if self._may_start(containers[name]))
            container = containers[name]
            options, command = translate(container, secrets, extra_variables.get(name, {}), self._open_files_limit())
            for mount in container.get("mountPoints", []):
                options += ["--volume", f"{self.container(mount['sourceVolume'])}:{mount['containerPath']}"]
            if container["logConfiguration"]["logDriver"] == "awsfirelens":
                address = self.url(int(FORWARD_PORT)).removeprefix("http://")
                options += ["--log-driver", "fluentd", "--log-opt", f"fluentd-address={address}"]
            run = ["run", "--detach", "--name", self.container(name)]
            run += ["--network", f"container:{self.network_container}"]
            self.engine.docker(*run, *options, container["image"], *command)
            self._started.append(name)

    def _start_network_container(self, network: str, image: str, containers: Iterable[Mapping[str, Any]]) -> None:
        """Start the container that owns the network namespace, and publish the ports of all containers."""
        ports: list[str] = []
        for container in containers:
            ports += [str(mapping["containerPort"]) for mapping in container.get("portMappings", [])]
            if "firelensConfiguration" in container:
                ports.append(FORWARD_PORT)
        publish: list[str] = []
        for port in ports:
            publish += ["--publish", f"127.0.0.1::{port}"]
        do_nothing = ["python", "-c", "import signal; signal.pause()"]
        run = ["run", "--detach", "--name", self.network_container, "--network", network]
        self.engine.docker(*run, *publish, image, *do_nothing)

    def stop(self) -> dict[str, int]:
        """Stop the containers as ECS does, each before the containers it depends on, and return their exit codes."""
        codes = {}
        for name in reversed(self._started):
            self.engine.docker("stop", self.container(name))  # waits up to the container's own stopTimeout
            codes[name] = int(self.engine.inspect(self.container(name))["State"]["ExitCode"])
        return codes

    def remove(self) -> None:
        """Remove every container and volume of the task."""
        names = [*(self.container(name) for name in reversed(self._started)), self.network_container]
        self.engine.run("rm", "--force", "--volumes", *names, check=False)
        volumes = [self.container(volume["name"]) for volume in self.definition.get("volumes", [])]
        if volumes:
            self.engine.run("volume", "rm", "--force", *volumes, check=False)

    def _may_start(self, container: Mapping[str, Any]) -> bool:
        """Return whether `container` may start. Wait until the dependencies that must succeed have exited."""
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
        """Return the highest limit of open files that the engine can give to a container."""
        limit = self.engine.docker("exec", self.network_container, "sh", "-c", "ulimit -Hn")
        return int(limit) if limit.isdecimal() else 2**20  # for "unlimited", the default of Linux's fs.nr_open


def translate(
    container: Mapping[str, Any], secrets: Mapping[str, str], extra_variables: Mapping[str, str], open_files_limit: int
) -> tuple[list[str], list[str]]:
    """Return the options of `docker run` for `container`, and its command.

    `secrets` maps each `valueFrom` to the secret's value. `extra_variables` has additional environment variables.
    """
    remaining = dict(container)
    memory = f"{remaining.pop('memory')}m"
    options = ["--memory", memory, "--memory-swap", memory]  # equal, so the container has no swap
    environment = {variable["name"]: variable["value"] for variable in remaining.pop("environment", [])}
    environment |= {secret["name"]: secrets[secret["valueFrom"]] for secret in remaining.pop("secrets", [])}
    for name, value in {**environment, **extra_variables}.items():
        options += ["--env", f"{name}={value}"]
    for name, value in remaining.pop("dockerLabels", {}).items():
        options += ["--label", f"{name}={value}"]
    for limit in remaining.pop("ulimits", []):
        soft = min(limit["softLimit"], open_files_limit)
        hard = min(limit["hardLimit"], open_files_limit)
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
    # `Task` uses these keys, except `essential` and `startTimeout`, for which docker has no option.
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
    extra_variables: Mapping[str, Mapping[str, str]],
) -> Iterator[Task]:
    """Run a task with `key` as the API key until the block ends, and yield it when its health checks have passed.

    `Task.start` explains `network`, `image` and `extra_variables`.
    """
    secrets = {f"{VALUES['SECRET_ARN']}:DD_API_KEY::": key}
    task = Task(engine, definition)
    try:
        task.start(network, image, secrets, extra_variables)
        for container in definition["containerDefinitions"]:
            if "healthCheck" in container:
                engine.wait_until_healthy(task.container(container["name"]))
        yield task
    finally:
        task.remove()


def wait_until_restarted(engine: Engine, container: str, before: str) -> None:
    """Wait until `container` has been started again after the time `before`, and is healthy."""
    eventually(
        lambda: engine.inspect(container)["State"], lambda state: state["Running"] and state["StartedAt"] > before
    )
    engine.wait_until_healthy(container)
