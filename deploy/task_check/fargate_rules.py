"""Rules for what Fargate rejects and for the limits of ECS.

The sources are the Amazon ECS Developer Guide ("Task definition differences for Fargate") and the ECS API Reference.
The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from task_check.finding import MISTAKE, WARNING, Violation, rule
from task_check.task import EC2, FARGATE, MANAGED, Container, TaskDefinition, name_of
from task_check.values import is_open, number, quoted

# Fields of a container and of its linuxParameters that Fargate does not support.
UNSUPPORTED: tuple[str, ...] = ("privileged", "links", "dockerSecurityOptions", "dnsServers", "dnsSearchDomains")
UNSUPPORTED += ("extraHosts", "hostname", "disableNetworking")
UNSUPPORTED_LINUX = ("devices", "sharedMemorySize", "maxSwap", "swappiness")
UNSUPPORTED_VOLUMES = {
    "dockerVolumeConfiguration": "Docker volumes",
    "fsxWindowsFileServerVolumeConfiguration": "FSx for Windows volumes",
}
LOG_DRIVERS = {
    FARGATE: {"awslogs", "splunk", "awsfirelens"},
    MANAGED: {"awslogs", "splunk", "awsfirelens", "json-file"},
}
WINDOWS_UNSUPPORTED = ("readonlyRootFilesystem", "linuxParameters", "privileged", "links", "dnsServers", "extraHosts")

# The bounds of a container's fields. These and the other numbers in the rule limits come from the API reference:
# ContainerDefinition, HealthCheck, ContainerRestartPolicy, EphemeralStorage.
BOUNDS = (
    (("healthCheck", "interval"), 5, 300),
    (("healthCheck", "timeout"), 2, 60),
    (("healthCheck", "retries"), 1, 10),
    (("healthCheck", "startPeriod"), 0, 300),
    (("restartPolicy", "restartAttemptPeriod"), 60, 1800),
)
FARGATE_BOUNDS = ((("stopTimeout",), 0, 120), (("startTimeout",), 0, 120))


@rule("fargate-unsupported", MISTAKE, "remove it")
def fargate_supports_every_field(task: TaskDefinition) -> Iterator[Violation]:
    """A field or value that Fargate does not support. Registering or running the task fails."""
    if not task.on_fargate:
        return
    for container in task.containers:
        name, linux = name_of(container), container.get("linuxParameters") or {}
        fields = [field for field in UNSUPPORTED if container.get(field)]
        fields += [
            f"linuxParameters.{field}"
            for field in UNSUPPORTED_LINUX
            if linux.get(field) is not None and linux[field] != []
        ]
        for field in fields:
            yield Violation(name, f"Fargate does not support `{field}`")
        added = (linux.get("capabilities") or {}).get("add") or []
        if rejected := [capability for capability in added if capability != "SYS_PTRACE" and not is_open(capability)]:
            sentence = f"Fargate can add only the capability SYS_PTRACE, not {', '.join(map(quoted, rejected))}"
            yield Violation(name, sentence, "remove it from `linuxParameters.capabilities.add`")
        if any(
            entry.get("type") in {"GPU", "InferenceAccelerator", "NeuronDevice"}
            for entry in container.get("resourceRequirements") or []
        ):
            yield Violation(name, "Fargate has no GPUs or accelerators, but `resourceRequirements` has one")
        options = (container.get("firelensConfiguration") or {}).get("options") or {}
        if options.get("config-file-type") == "s3":
            fix = "put the file into the router's image, with config-file-type `file`"
            yield Violation(name, "Fargate can't load a FireLens configuration from `s3`", fix)
    yield from _unsupported_by_fargate(task)


def _unsupported_by_fargate(task: TaskDefinition) -> Iterator[Violation]:
    """Yield a violation for each field of the task itself that Fargate does not support."""
    document, network_mode = task.document, task.document.get("networkMode")
    if network_mode and network_mode != "awsvpc" and not is_open(network_mode):
        sentence = f"`networkMode` is {quoted(network_mode)}; Fargate supports only `awsvpc`"
        yield Violation("", sentence, "write awsvpc")
    elif not network_mode and task.source.is_whole:
        yield Violation("", "`networkMode` is missing; Fargate needs `awsvpc`", 'add "networkMode": "awsvpc"')
    if document.get("pidMode") == "host":
        yield Violation("", "`pidMode` is `host`; Fargate supports only `task`", "remove it, or write task")
    for field in ("ipcMode", "placementConstraints", "inferenceAccelerators"):
        if document.get(field):
            yield Violation("", f"Fargate does not support `{field}`")
    for name, volume in task.volumes.items():
        if path := (volume.get("host") or {}).get("sourcePath"):
            fix = "remove `host`, or use an EFS volume"
            yield Violation(
                "", f"the volume `{name}` has `host.sourcePath` {quoted(path)}; Fargate has no host to mount from", fix
            )
        for field, volume_kind in UNSUPPORTED_VOLUMES.items():
            if field in volume:
                sentence = f"the volume `{name}` has `{field}`; Fargate has no {volume_kind}"
                yield Violation("", sentence, "remove it, or use an EFS volume")


@rule("fargate-size", MISTAKE, "add it; a small task has cpu 512 and memory 1024")
def a_fargate_task_has_a_size(task: TaskDefinition) -> Iterator[Violation]:
    """`cpu` or `memory` of a Fargate task is missing, or cfn-lint reports that Fargate does not have this size."""
    missing = [f"`{field}`" for field in ("cpu", "memory") if not task.document.get(field)]
    if task.source.is_whole and task.on_fargate and missing:
        verb = "are" if len(missing) > 1 else "is"
        yield Violation("", f"{' and '.join(missing)} {verb} missing at the task level; Fargate needs both")


@rule("log-driver", MISTAKE, "use awslogs or awsfirelens")
def the_launch_type_supports_the_log_driver(task: TaskDefinition) -> Iterator[Violation]:
    """Fargate or managed instances do not support the log driver."""
    for launch_type, drivers in LOG_DRIVERS.items():
        for container in task.containers if launch_type in task.launch_types else []:
            driver = (container.get("logConfiguration") or {}).get("logDriver")
            if driver and driver not in drivers and not is_open(driver):
                yield Violation(name_of(container), f"{launch_type} does not support the log driver {quoted(driver)}")


@rule("awslogs-options", MISTAKE, 'add "awslogs-group", "awslogs-region" and "awslogs-stream-prefix"')
def awslogs_has_its_options(task: TaskDefinition) -> Iterator[Violation]:
    """The log driver `awslogs` has no group or, on Fargate, no region or stream prefix, or its region is malformed."""
    for container in task.containers:
        log = container.get("logConfiguration") or {}
        needed = ["awslogs-group"]
        if task.on_fargate:
            needed += ["awslogs-region", "awslogs-stream-prefix"]
        missing = [f"`{option}`" for option in needed if not (log.get("options") or {}).get(option)]
        if log.get("logDriver") == "awslogs" and missing:
            yield Violation(name_of(container), f"the log `options` lack {', '.join(missing)}")
        region = str((log.get("options") or {}).get("awslogs-region", ""))
        if region and not is_open(region) and not re.fullmatch(r"[a-z]{2,3}(?:-[a-z]+)+-\d+", region):
            yield Violation(
                name_of(container), f"`awslogs-region` is {quoted(region)}, which is not a region", "correct it"
            )


@rule("limits", MISTAKE, "use a value within these bounds")
def values_are_within_bounds(task: TaskDefinition) -> Iterator[Violation]:
    """A timeout, an interval, a count, a size or a port is outside the bounds of ECS or Fargate."""
    for container in task.containers:
        bounds = (*BOUNDS, *(FARGATE_BOUNDS if task.on_fargate else ()))
        for path, low, high in bounds:
            value = number(_value_at(container, path))
            if value is not None and not low <= value <= high:
                yield Violation(name_of(container), f"`{'.'.join(path)}` is {value:g}; it must be {low} to {high}")
        codes = (container.get("restartPolicy") or {}).get("ignoredExitCodes") or []
        if len(codes) > 50:
            yield Violation(
                name_of(container),
                f"`restartPolicy.ignoredExitCodes` has {len(codes)} codes; the maximum is 50",
            )
        memory = number(container.get("memory"))
        if memory is not None and memory < 6 and not task.on_windows:
            yield Violation(name_of(container), f"`memory` is {memory:g} MiB; Docker needs 6 or more", "give it in MiB")
        yield from _ports_outside_bounds(container)
    size = number((task.document.get("ephemeralStorage") or {}).get("sizeInGiB"))
    if size is not None and not 21 <= size <= 200:
        yield Violation("", f"`ephemeralStorage.sizeInGiB` is {size:g}; it must be 21 to 200")


def _value_at(container: Container, path: tuple[str, ...]) -> Any:
    """Return the value of the field with the names `path` in `container`, None if it is not set."""
    value: Any = container
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _ports_outside_bounds(container: Container) -> Iterator[Violation]:
    for mapping in container.get("portMappings") or []:
        for field in ("containerPort", "hostPort"):
            port = number(mapping.get(field))
            low = 1 if field == "containerPort" else 0  # host port 0 means a free port
            if port is not None and not low <= port <= 65535:
                yield Violation(name_of(container), f"`{field}` is {port:g}; a port is {low} to 65535")


@rule("host-port", MISTAKE, "leave `hostPort` out")
def host_ports_equal_container_ports(task: TaskDefinition) -> Iterator[Violation]:
    """With `awsvpc`, a `hostPort` differs from its `containerPort`."""
    if not (task.on_fargate or task.document.get("networkMode") == "awsvpc"):
        return
    for container in task.containers:
        for mapping in container.get("portMappings") or []:
            container_port, host_port = number(mapping.get("containerPort")), number(mapping.get("hostPort"))
            if container_port is not None and host_port and container_port != host_port:
                yield Violation(
                    name_of(container),
                    f"`hostPort` {host_port:g} differs from `containerPort` {container_port:g}; "
                    "with awsvpc both must be equal",
                )


@rule("port-twice", MISTAKE, "give each its own port; the containers of a task share one network")
def no_port_is_taken_twice(task: TaskDefinition) -> Iterator[Violation]:
    """Two containers of one task map the same port."""
    if not (task.on_fargate or task.document.get("networkMode") in {"awsvpc", "host"}):
        return
    first_container: dict[tuple[float, str], str] = {}  # by port and protocol
    for container in task.containers:
        for mapping in container.get("portMappings") or []:
            port, name = number(mapping.get("containerPort")), name_of(container)
            protocol = str(mapping.get("protocol") or "tcp")
            if not port:
                continue
            first_name = first_container.setdefault((port, protocol), name)
            if first_name != name:
                yield Violation(name, f"port {port:g}/{protocol} is also mapped by `{first_name}`")


@rule("windows", MISTAKE, "remove it")
def windows_supports_every_field(task: TaskDefinition) -> Iterator[Violation]:
    """A field that Windows containers do not support."""
    for container in task.containers if task.on_windows else []:
        for field in WINDOWS_UNSUPPORTED:
            is_reported = task.on_fargate and field in UNSUPPORTED  # by the rule fargate-unsupported
            if container.get(field) and not is_reported:
                yield Violation(name_of(container), f"Windows containers do not support `{field}`")


@rule("ec2-memory", MISTAKE, 'add "memory" or "memoryReservation"')
def a_container_on_ec2_has_memory(task: TaskDefinition) -> Iterator[Violation]:
    """On EC2 neither the task nor the container has a memory limit."""
    if EC2 not in task.launch_types or task.document.get("memory") or not task.source.is_whole:
        return
    for container in task.containers:
        if not container.get("memory") and not container.get("memoryReservation"):
            yield Violation(name_of(container), "neither the container nor the task has `memory`")


@rule("names", MISTAKE, "use letters, digits, - and _ only, at most 255")
def names_are_allowed(task: TaskDefinition) -> Iterator[Violation]:
    """The family's, a container's or a volume's name is too long, or has characters that ECS rejects."""
    names = [("", "family", task.document.get("family"))]
    names += [(name_of(container), "name", container.get("name")) for container in task.containers]
    names += [("", "volume", volume) for volume in task.volumes]
    for container, kind, name in names:
        if name and not is_open(name) and not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", str(name)):
            yield Violation(container, f"ECS does not accept the {kind} {quoted(name)}")


@rule("required-platform", WARNING, 'add "requiresCompatibilities": ["FARGATE"]')
def the_launch_type_is_set(task: TaskDefinition) -> Iterator[Violation]:
    """A definition for Fargate has no `requiresCompatibilities`, so ECS reports mistakes only when a task starts."""
    if task.source.is_whole and task.on_fargate and not task.document.get("requiresCompatibilities"):
        yield Violation(
            "",
            "`requiresCompatibilities` is missing, "
            "so ECS does not validate this definition for Fargate when it is registered",
        )
