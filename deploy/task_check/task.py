"""A task definition with the role of each container, such as the Agent, a log router or a traced service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from task_check.reading import Source
from task_check.values import is_open, plain, values_by_name

# The roles of containers. An init container ends before others start, and a sidecar is a third-party program.
AGENT, INIT, ROUTER, SIDECAR, SERVICE, OTHER = "agent", "init", "router", "sidecar", "service", "other"
# The launch types of ECS for which rules differ.
FARGATE, EC2, MANAGED = "FARGATE", "EC2", "MANAGED_INSTANCES"

AGENT_IMAGE = re.compile(
    r"(?:^|/)(?:datadog|datadoghq)/(?:agent|docker-dd-agent)(?:-dev)?$"  # the image, or a mirror that keeps its path
    r"|^(?:registry\.datadoghq\.com|datadoghq\.azurecr\.io)/(?:.*/)?agent$"  # Datadog's own registries
    r"|(?:^|[/_-])(?:datadog|dd)[_-]?agent(?:[_-](?:fips|jmx|full|custom|mirror))?$",  # a copy with another path
    re.IGNORECASE,
)
# The name of a container, such as datadog-agent or dd_agent_1.
AGENT_NAME = re.compile(r"(?:^|[-_.])(?:datadog|dd)[-_]?agent(?:$|[-_.\d])|^datadog(?:[-_]sidecar)?$", re.IGNORECASE)
# Variables that only an Agent reads.
AGENT_VARIABLES = {"ECS_FARGATE", "ECS_MANAGED_INSTANCES", "DD_APM_NON_LOCAL_TRAFFIC", "DD_DOGSTATSD_NON_LOCAL_TRAFFIC"}
AGENT_VARIABLES |= {"DD_APM_ENABLED", "DD_PROCESS_AGENT_ENABLED", "DD_LOGS_CONFIG_CONTAINER_COLLECT_ALL"}
# Variables whose value is a Datadog key.
KEY_VARIABLES = {"DD_API_KEY", "DATADOG_API_KEY", "DD_APP_KEY", "DD_APPLICATION_KEY", "DATADOG_APP_KEY"}

# Log collectors, by the last part of the image's name.
ROUTER_IMAGE = re.compile(r"fluent-?bit|fluentd|logstash|filebeat|^vector$", re.IGNORECASE)
# Third-party programs, which have no Datadog tracer, by the last part of the image's name or by the container's name.
# fluent-bit is here, too, because ROUTER_IMAGE is not compared with the container's name.
THIRD_PARTY = re.compile(
    r"(?:[\w.]+-)*?(?:nginx|openresty|envoy|haproxy|traefik|caddy|httpd|varnish|kong|squid|proxyv2|aws-xray-daemon|xray"
    r"|cloudwatch|cwagent|otel|opentelemetry|otelcol|adot|statsd|collectd|telegraf|prometheus|grafana|cloudflared|tailscale|consul"
    r"|vault|linkerd|istio|dapr|daprd|oauth2|pgbouncer|redis|valkey|memcached|postgres|postgresql|mysql|mariadb|mongo"
    r"|mongodb|rabbitmq|kafka|zookeeper|elasticsearch|opensearch|minio|localstack|jenkins|sonarqube|nexus|keycloak"
    r"|falcon|sysdig|twistlock|guardduty|cws-instrumentation|busybox|alpine|bash|curl|ssm|aws-cli|flyway|liquibase|fluent-bit)"
    r"(?:[-_](?:unprivileged|alpine|proxy|sidecar|daemon|agent|sensor|exporter|collector|contrib|config|custom|base|server|init))*",
    re.IGNORECASE,
)
# Words of a command that load a Datadog tracer. hello-service runs itself under ddtrace-run.
TRACER = re.compile(r"\bddtrace\b|ddtrace-run|dd-java-agent|dd-trace|ddtracerb|datadog/init|hello-service")
END_CONDITIONS = {"COMPLETE", "SUCCESS"}  # conditions of `dependsOn` that wait for the end of a container

Container = dict[str, Any]


def name_of(container: Container) -> str:
    """Return the name of `container`."""
    return str(container.get("name"))


def command_words(container: Container) -> list[str]:
    """Return the words of the entry point and of the command of `container`."""
    return [*(container.get("entryPoint") or []), *(container.get("command") or [])]


def command(container: Container) -> str:
    """Return the entry point and the command of `container` as one line."""
    return " ".join(map(plain, command_words(container)))


def environment(container: Container) -> dict[str, str]:
    """Return the variables that `container` sets by value."""
    return values_by_name(container.get("environment"), "value")


def secrets(container: Container) -> dict[str, str]:
    """Return the secret variables of `container` with their sources."""
    return values_by_name(container.get("secrets"), "valueFrom")


def has_more_variables(container: Container) -> bool:
    """Return whether `container` may have variables that the file does not show, as with `environmentFiles`."""
    return bool(container.get("environmentFiles")) or any(
        is_open(container.get(name)) for name in ("environment", "secrets", "environmentFiles")
    )


def is_essential(container: Container) -> bool:
    """Return whether the task stops when `container` stops, which is ECS's default."""
    return container.get("essential", True) is not False


def image_name(container: Container) -> str:
    """Return the image without tag and digest, such as `public.ecr.aws/datadog/agent`."""
    image = str(container.get("image", "")).partition("@")[0]
    path, slash, last_part = image.rpartition("/")  # a colon before the last slash belongs to the registry's port
    return path + slash + last_part.partition(":")[0]


class TaskDefinition:
    """One task definition, with the names and types of RegisterTaskDefinition."""

    def __init__(self, document: dict[str, Any], source: Source) -> None:
        self.document = document
        self.source = source
        self.containers: list[Container] = document.get("containerDefinitions") or []
        self.volumes: dict[str, dict[str, Any]] = {
            str(volume.get("name")): volume for volume in document.get("volumes") or []
        }

    def container(self, name: str) -> Container | None:
        """Return the container with the name `name`, None if the task has no such container."""
        return next((container for container in self.containers if container.get("name") == name), None)

    @cached_property
    def launch_types(self) -> set[str]:
        """The launch types in `requiresCompatibilities`. Without it, the one whose features the definition uses.

        Empty if no field shows the launch type.
        """
        if required := {str(launch_type) for launch_type in self.document.get("requiresCompatibilities") or []}:
            return required
        names = {name for container in self.containers for name in environment(container)}
        if names & {"ECS_FARGATE", "DD_ECS_FARGATE"}:  # the second is a misspelling, which the rule ecs-fargate reports
            return {FARGATE}
        if "ECS_MANAGED_INSTANCES" in names:
            return {MANAGED}
        uses_host = any(
            (volume.get("host") or {}).get("sourcePath") or volume.get("dockerVolumeConfiguration")
            for volume in self.volumes.values()
        )
        if uses_host or self.document.get("networkMode") in {"bridge", "host", "none"}:
            return {EC2}
        # Fargate requires a size of the task, and awsvpc.
        has_size = "cpu" in self.document and "memory" in self.document
        return {FARGATE} if has_size and self.document.get("networkMode") == "awsvpc" else set()

    @property
    def on_fargate(self) -> bool:
        """Whether Fargate's rules apply."""
        return FARGATE in self.launch_types

    @property
    def on_windows(self) -> bool:
        """Whether the containers run Windows."""
        family = str((self.document.get("runtimePlatform") or {}).get("operatingSystemFamily", ""))
        paths = [
            str(mount.get("containerPath", ""))
            for container in self.containers
            for mount in container.get("mountPoints") or []
        ]
        # On Windows, the path of a named pipe begins with \\.\, and other paths begin with a drive.
        return family.startswith("WINDOWS") or any(path.startswith(("\\\\.\\", "C:\\", "c:\\")) for path in paths)

    @cached_property
    def dependencies(self) -> list[tuple[Container, str, str]]:
        """For every `dependsOn`: the container, the name of the container that it depends on, and the condition."""
        return [
            (container, str(entry.get("containerName", "")), str(entry.get("condition", "")))
            for container in self.containers
            for entry in container.get("dependsOn") or []
        ]

    @cached_property
    def _roles(self) -> list[str]:
        """The role of each container, in the order of `containers`."""
        awaited_names = {dependency for _, dependency, condition in self.dependencies if condition in END_CONDITIONS}
        roles = [self._role(container, awaited_names) for container in self.containers]
        if AGENT not in roles:  # an Agent with an unusual name is recognized by variables that only an Agent has
            for index, container in enumerate(self.containers):
                names = environment(container).keys() | secrets(container).keys()
                if roles[index] in {SERVICE, OTHER} and "DD_API_KEY" in names and names & AGENT_VARIABLES:
                    roles[index] = AGENT
        return roles

    def _role(self, container: Container, awaited_names: set[str]) -> str:
        """Return the role of `container`; `awaited_names` has the containers whose end another container waits for."""
        image, name = image_name(container), str(container.get("name", ""))
        program = image.rpartition("/")[2]
        is_router = "firelensConfiguration" in container
        is_agent = bool(AGENT_IMAGE.search(image))
        if not is_agent and AGENT_NAME.search(name):  # perhaps a copy of the Agent's image under another name
            is_other_program = bool(THIRD_PARTY.fullmatch(program) or ROUTER_IMAGE.search(program))
            is_agent = not is_router and not is_other_program
        if name in awaited_names or (is_agent and _only_prepares_files(container)):
            return INIT
        is_traced = bool(TRACER.search(command(container)))
        if is_router or (ROUTER_IMAGE.search(program) and not is_traced):
            return ROUTER
        if is_agent:
            return AGENT
        if is_traced:
            return SERVICE
        if THIRD_PARTY.fullmatch(program) or THIRD_PARTY.fullmatch(name):
            return SIDECAR
        variables = environment(container).keys() | secrets(container).keys()
        has_variables = any(variable.startswith(("DD_", "DATADOG_")) for variable in variables - KEY_VARIABLES)
        has_labels = any(label.startswith("com.datadoghq.tags.") for label in container.get("dockerLabels") or {})
        has_port = bool(container.get("portMappings")) and is_essential(container)
        return SERVICE if has_variables or has_labels or has_port else OTHER

    def _with_role(self, wanted_role: str) -> list[Container]:
        return [container for container, role in zip(self.containers, self._roles, strict=True) if role == wanted_role]

    @property
    def agents(self) -> list[Container]:
        """The Datadog Agents, without init containers that have the Agent's image."""
        return self._with_role(AGENT)

    @property
    def services(self) -> list[Container]:
        """The containers that are traced, or should be."""
        return self._with_role(SERVICE)

    @property
    def firelens_routers(self) -> list[Container]:
        """The log routers of FireLens. The role ROUTER also includes other log collectors."""
        return [container for container in self.containers if "firelensConfiguration" in container]

    @property
    def has_collector(self) -> bool:
        """Whether a sidecar has the image of an OpenTelemetry Collector, which may receive the traces."""
        return any(re.search(r"otel|opentelemetry", image_name(container)) for container in self._with_role(SIDECAR))

    def mounts(self, container: Container) -> Iterator[dict[str, Any]]:
        """Yield the mount points of `container` and of the containers in its `volumesFrom`."""
        yield from container.get("mountPoints") or []
        for entry in container.get("volumesFrom") or []:
            yield from (self.container(str(entry.get("sourceContainer"))) or {}).get("mountPoints") or []

    def depends_on_any(self, start: Container, targets: set[str]) -> bool:
        """Return whether `start` depends on one of the containers `targets`, directly or through others."""
        start_name = name_of(start)
        visited, pending = set(), [start_name]
        while pending:
            if (name := pending.pop()) in visited:
                continue
            visited.add(name)
            pending += [dependency for container, dependency, _ in self.dependencies if container.get("name") == name]
        return bool(targets & (visited - {start_name}))


def _only_prepares_files(container: Container) -> bool:
    """Return whether a container with the Agent's image only prepares files and exits."""
    line = command(container)
    if re.search(r"agent run|entrypoint", line):  # starts the Agent
        return False
    # Commands such as cp exit, unless the line goes on with /init, the start script of the Agent's image.
    exits = bool(re.search(r"\bcp\s|\bmkdir\s|\bchown\s|\btrue\b|exit 0", line)) and "/init" not in line
    has_init_name = bool(re.search(r"(?:^|[-_])init(?:$|[-_])", name_of(container)))
    return exits or (has_init_name and not is_essential(container))
