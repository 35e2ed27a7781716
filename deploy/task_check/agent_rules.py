"""Rules for the Datadog Agent: it exists, it can work, and its failure does not stop the service.

The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from task_check.finding import HINT, MISTAKE, WARNING, Violation, rule
from task_check.task import (
    EC2,
    END_CONDITIONS,
    FARGATE,
    Container,
    TaskDefinition,
    command,
    command_words,
    environment,
    has_more_variables,
    is_essential,
    name_of,
    secrets,
)
from task_check.values import is_open, number, quoted

AGENT_MIB = 512  # with 256, the Agent gets killed
# datad0g.com is Datadog's own site for tests: it is accepted, but not suggested.
SITES = {"datadoghq.com", "us3.datadoghq.com", "us5.datadoghq.com", "datadoghq.eu", "ap1.datadoghq.com"}
SITES |= {"ap2.datadoghq.com", "ddog-gov.com", "us2.ddog-gov.com", "datad0g.com"}
# The spellings of false, in lower case.
FALSE = {"false", "0", "no", "off", "f", "n"}
# The folders that the Agent writes to; each needs a volume if the root file system is read-only.
CONFIG_FOLDER = "/etc/datadog-agent"
WRITABLE_FOLDERS = (CONFIG_FOLDER, "/opt/datadog-agent/run", "/tmp")  # noqa: S108 - paths inside a container


@rule("agent-missing", MISTAKE, 'add a container with the image "public.ecr.aws/datadog/agent:<version>"')
def an_agent_is_in_the_task(task: TaskDefinition) -> Iterator[Violation]:
    """No container of a Fargate task with a traced service is a Datadog Agent or an OpenTelemetry Collector."""
    if task.on_fargate and not task.agents and task.services and not task.has_collector:
        yield Violation("", "no container is a Datadog Agent, so nothing receives the traces")


@rule("agent-twice", WARNING, "keep one Agent; the containers of a task share one loopback and its ports")
def there_is_one_agent(task: TaskDefinition) -> Iterator[Violation]:
    """Two Agents of one task compete for port 8126."""
    # In the mode bridge, which is the default on EC2 and on external instances, each container has a network of its own.
    has_bridge_by_default = not task.on_fargate and not task.launch_types.isdisjoint({EC2, "EXTERNAL"})
    mode = task.document.get("networkMode") or ("bridge" if has_bridge_by_default else "awsvpc")
    if len(task.agents) > 1 and mode != "bridge":
        names = ", ".join(quoted(agent.get("name")) for agent in task.agents)
        yield Violation("", f"the Agents {names} share one port")


@rule("ecs-fargate", MISTAKE, 'add {"name": "ECS_FARGATE", "value": "true"} to the Agent\'s environment')
def the_agent_is_configured_for_fargate(task: TaskDefinition) -> Iterator[Violation]:
    """`ECS_FARGATE` of the Agent is not `true`, or is misspelled as `DD_ECS_FARGATE`, which nothing reads."""
    for container in task.containers:
        name, variables = name_of(container), environment(container)
        is_configured = variables.get("ECS_FARGATE", "").lower() == "true" or is_open(variables.get("ECS_FARGATE"))
        if "DD_ECS_FARGATE" in variables:
            # The misspelling does no harm next to the right variable, or in a container that is not an Agent.
            level = HINT if is_configured or container not in task.agents else ""
            fix = "remove it" if level == HINT else "rename it to ECS_FARGATE"
            yield Violation(name, "`DD_ECS_FARGATE` does nothing; the Agent reads `ECS_FARGATE`", fix=fix, level=level)
        # A definition that is also for EC2 is left out, because the variable would be wrong there.
        elif container in task.agents and task.launch_types == {FARGATE} and not is_configured:
            if "ECS_FARGATE" in variables:
                yield Violation(
                    name, f"`ECS_FARGATE` is {quoted(variables['ECS_FARGATE'])}, not `true`", "set it to true"
                )
            elif not has_more_variables(container):
                yield Violation(name, "`ECS_FARGATE` is not set, so the Agent is not configured for Fargate")


@rule("api-key-missing", MISTAKE, 'add {"name": "DD_API_KEY", "valueFrom": "<ARN of the secret>"} to its `secrets`')
def the_agent_has_a_key(task: TaskDefinition) -> Iterator[Violation]:
    """The Agent has no `DD_API_KEY`."""
    for container in task.agents:
        # A key in `environment` is reported by key-in-clear or value-from-in-environment.
        is_misplaced = "DD_API_KEY" in environment(container)
        if not is_misplaced and "DD_API_KEY" not in secrets(container) and not has_more_variables(container):
            yield Violation(name_of(container), "the Agent has no `DD_API_KEY`, so it can send nothing")


@rule("agent-memory", WARNING, f'give it "memory": {AGENT_MIB} or more')
def the_agent_has_enough_memory(task: TaskDefinition) -> Iterator[Violation]:
    """The Agent's `memory` is below 512 MiB; with 256 MiB it gets killed."""
    for container in task.agents:
        if (memory := number(container.get("memory"))) and memory < AGENT_MIB:
            yield Violation(name_of(container), f"the Agent's `memory` is {memory:g} MiB, below {AGENT_MIB} MiB")


@rule("agent-essential", WARNING, '"essential": false, and "dependsOn" with START in the service')
def an_unhealthy_agent_stops_nothing(task: TaskDefinition) -> Iterator[Violation]:
    """The Agent is essential and has a health check: a revoked API key makes it unhealthy, and ECS stops the service."""
    for container in task.agents:
        if is_essential(container) and container.get("healthCheck") and len(task.containers) > 1:
            sentence = "the Agent is essential and has a health check, which fails when Datadog rejects the API key; "
            yield Violation(name_of(container), sentence + "ECS then stops the whole task")


@rule("apm-disabled", MISTAKE, "remove it, or set it to true")
def the_agent_receives_traces(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_APM_ENABLED` of the Agent is false, although the task has a traced service."""
    for container in task.agents:
        value = environment(container).get("DD_APM_ENABLED", "")
        if task.services and value.lower() in FALSE:
            yield Violation(name_of(container), f"`DD_APM_ENABLED` is {quoted(value)}: the Agent receives no traces")


def receiver_port(agent: Container) -> float | None:
    """Return the TCP port on which `agent` receives traces, None if it is open or not a number."""
    return number(environment(agent).get("DD_APM_RECEIVER_PORT") or "8126")


@rule("receiver-port", MISTAKE, "remove it: the port is 8126")
def the_agent_receives_traces_over_tcp(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_APM_RECEIVER_PORT` is 0 or not a port, so the Agent has no TCP receiver."""
    for container in task.agents:
        value = environment(container).get("DD_APM_RECEIVER_PORT", "")
        # 0 turns the TCP receiver off, which services with Unix sockets don't need.
        uses_sockets = task.services and all(
            environment(service).get("DD_TRACE_AGENT_URL", "").startswith("unix:") for service in task.services
        )
        if value and not is_open(value) and not uses_sockets and not 0 < (number(value) or 0) < 65536:
            yield Violation(name_of(container), f"`DD_APM_RECEIVER_PORT` is {quoted(value)}, which is not a port")


@rule("site", MISTAKE, "write only your organization's site: " + ", ".join(sorted(SITES - {"datad0g.com"})))
def the_site_is_a_datadog_site(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_SITE` is a URL, a region's name or anything else that is not a Datadog site."""
    for container in task.containers:
        value = environment(container).get("DD_SITE", "")
        if not value or is_open(value) or value in SITES:
            continue
        name = name_of(container)
        is_host = re.fullmatch(r"(?:[a-z0-9-]+\.)*(?:datadoghq|ddog-gov|datad0g)\.\w+", value)
        if value.startswith(("app.", "api.")) or not is_host:
            host = re.sub(r"^https?://|/.*$", "", value.strip().lower())
            site = re.sub(r"^(?:app|api)\.", "", host)
            fix = f'write "{site}"' if site in SITES else ""
            yield Violation(name, f"`DD_SITE` is {quoted(value)}, which is not a Datadog site", fix)
        else:  # a host in one of Datadog's domains may be a site that SITES does not have yet
            yield Violation(name, f"`DD_SITE` is {quoted(value)}, which is not a known Datadog site", level=WARNING)


@rule("hostname", MISTAKE, "remove it")
def no_host_name_is_set(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_HOSTNAME` on Fargate turns every task into a host, which Datadog bills."""
    for container in task.containers if task.on_fargate else []:
        if "DD_HOSTNAME" in environment(container):
            yield Violation(name_of(container), "`DD_HOSTNAME` turns every Fargate task into a billed host")


@rule("trace-port-udp", MISTAKE, "remove the port mapping, or make its protocol tcp")
def the_trace_port_is_not_udp(task: TaskDefinition) -> Iterator[Violation]:
    """Port 8126 is mapped as UDP; traces use TCP."""
    for container in task.agents:
        ports = [mapping for mapping in container.get("portMappings") or [] if mapping.get("containerPort") == 8126]
        if ports and all(mapping.get("protocol") == "udp" for mapping in ports):
            yield Violation(name_of(container), "port 8126 is mapped as `udp`, but traces use TCP")


@rule(
    "read-only-agent",
    MISTAKE,
    "mount a writable volume there; Datadog's guide 'read-only root filesystem' shows every path",
)
def a_read_only_agent_has_writable_volumes(task: TaskDefinition) -> Iterator[Violation]:
    """The Agent's root file system is read-only, but a folder that it writes to has no writable volume, or its configuration is not copied there first."""
    for container in task.agents:
        if container.get("readonlyRootFilesystem") is not True or is_open(container.get("mountPoints")):
            continue
        name, mounts = name_of(container), list(task.mounts(container))
        tmpfs = [
            {"containerPath": mount.get("containerPath")}
            for mount in (container.get("linuxParameters") or {}).get("tmpfs") or []
        ]
        writable = [mount for mount in [*mounts, *tmpfs] if mount.get("readOnly") is not True]
        if missing := [path for path in WRITABLE_FOLDERS if not any(_covers(mount, path) for mount in writable)]:
            yield Violation(
                name, f"the root file system is read-only, but no writable volume is mounted at {', '.join(missing)}"
            )
            continue
        config_mount = next(mount for mount in writable if _covers(mount, CONFIG_FOLDER))
        config_volume = config_mount.get("sourceVolume")
        # The names of the other containers that mount the configuration's volume, so they can fill it.
        fillers = [
            other.get("name")
            for other in task.containers
            if other is not container
            and any(mount.get("sourceVolume") == config_volume for mount in task.mounts(other))
        ]
        awaited_names = {
            dependency
            for dependent, dependency, condition in task.dependencies
            if dependent is container and condition in END_CONDITIONS
        }
        if fillers and not awaited_names.intersection(fillers):
            fix = f'"dependsOn": [{{"containerName": "{fillers[0]}", "condition": "SUCCESS"}}] in the Agent'
            yield Violation(name, f"does not wait for {quoted(fillers[0])}, which fills {CONFIG_FOLDER}", fix)
        volume = task.volumes.get(str(config_volume), {})
        # An EFS volume keeps its files, and a volume that is configured at launch may be made from a snapshot.
        is_filled_elsewhere = bool(volume.keys() & {"efsVolumeConfiguration", "configuredAtLaunch"})
        if not fillers and task.source.is_whole and not is_filled_elsewhere:
            fix = f"add an init container that copies {CONFIG_FOLDER} of the Agent's image there"
            yield Violation(
                name, f"nothing fills the volume at {CONFIG_FOLDER}, so the Agent has no configuration", fix
            )


def _covers(mount: dict[str, object], path: str) -> bool:
    """Return whether `path` is the folder of `mount` or inside that folder."""
    return (path + "/").startswith(str(mount.get("containerPath", "")).rstrip("/") + "/")


@rule("agent-command", WARNING, "leave `command` and `entryPoint` to the image, or end the command with /init")
def the_agent_is_started(task: TaskDefinition) -> Iterator[Violation]:
    """The Agent's `command` replaces the image's own and does not seem to start the Agent."""
    for container in task.agents:
        line = command(container)
        has_open_part = any(map(is_open, command_words(container)))
        # The image's start scripts (/init, /initlog.sh, entrypoint.sh, s6-...), or a program of the Agent.
        if line and not has_open_part and not re.search(r"/init\b|agent|entrypoint|initlog|s6-", line):
            yield Violation(
                name_of(container),
                f"{quoted(line)} replaces the image's command, and does not seem to start the Agent",
            )
