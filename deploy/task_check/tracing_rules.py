"""Rules for the tracer's configuration: the Agent's address, proxies, whether tracing is on, which traces are kept.

The name of a function with `@rule` states what must hold, and its docstring states the violation.
A value is open if it isn't known yet, such as `${NAME}` (see values.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from task_check.agent_rules import FALSE, receiver_port
from task_check.finding import MISTAKE, WARNING, Violation, rule
from task_check.service_rules import is_hello_service
from task_check.task import Container, TaskDefinition, command, environment, name_of
from task_check.values import is_open, number, quoted

# A connection to 0.0.0.0 reaches the same machine, too.
LOOPBACK = re.compile(r"localhost|127(?:\.\d+){1,3}|::1|0\.0\.0\.0", re.IGNORECASE)
PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")  # ddtrace 4.16 was observed to use them
# The tracer's variable, the Agent's variable for the same socket, and the Agent's default.
SOCKETS = {
    "DD_TRACE_AGENT_URL": ("DD_APM_RECEIVER_SOCKET", "/var/run/datadog/apm.socket"),
    "DD_DOGSTATSD_URL": ("DD_DOGSTATSD_SOCKET", "/var/run/datadog/dsd.socket"),
}
# Words of the command, and prefixes of the variables, of services in other languages.
NOT_PYTHON = re.compile(
    r"\b(?:java|node|npm|yarn|dotnet|php|php-fpm|rails|bundle|puma|ruby|go)\b|\.(?:jar|js|dll|rb)\b"
)
NOT_PYTHON_NAME = re.compile(r"JAVA_|NODE_|ASPNETCORE_|DOTNET_|CORECLR_|SPRING_|RAILS_|PHP_|RUBY")


@rule(
    "agent-address",
    MISTAKE,
    "remove the variable, or point it at http://localhost:8126: all containers of a task share one loopback",
)
def the_service_points_at_the_agent(task: TaskDefinition) -> Iterator[Violation]:
    """The tracer's address of the Agent is malformed, is not the task's own loopback, or does not have the Agent's port."""
    if not task.on_fargate or not task.agents:
        return
    agent_port = receiver_port(task.agents[0])
    for container in task.services:
        variables = environment(container)
        for name in ("DD_AGENT_HOST", "DD_TRACE_AGENT_HOSTNAME"):
            host = variables.get(name, "")
            if host and not is_open(host) and not LOOPBACK.fullmatch(host.strip("[]")):
                is_host_name = not re.search(r"[:/]", host)
                problem = "which is not the task's own loopback" if is_host_name else "which is not a host name"
                fix = "" if is_host_name else "write localhost"
                yield Violation(name_of(container), f"`{name}` is {quoted(host)}, {problem}", fix)
        url = variables.get("DD_TRACE_AGENT_URL", "")
        port_text = variables.get("DD_TRACE_AGENT_PORT") or variables.get("DD_AGENT_PORT") or "8126"
        port = number(port_text)
        uses_socket = url.startswith("unix:")
        if url and not is_open(url) and not uses_socket:
            problem, port = _parse_url(url)
            if problem:
                yield Violation(name_of(container), f"`DD_TRACE_AGENT_URL` is {quoted(url)}, {problem}")
                continue
        is_known = not is_open(url or port_text) and not uses_socket
        if agent_port and is_known and port != agent_port:
            target = quoted(url) if url else f"port {quoted(port_text)}"
            sentence = f"traces go to {target}, but the Agent listens on port {agent_port:g}"
            yield Violation(name_of(container), sentence, f"use port {agent_port:g}")


def _parse_url(url: str) -> tuple[str, float | None]:
    """Return the problem with the Agent's `url` as a clause, "" if it is valid, and the port of a valid URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "which is not a URL", None
    if parts.scheme == "https":
        return "but the Agent has no TLS", None
    if parts.scheme != "http" or not host:
        return "which is not a URL of the form http://host:port or unix:///path", None
    if not LOOPBACK.fullmatch(host):
        return "which is not the task's own loopback", None
    return "", float(port if port is not None else 80)


@rule("socket", MISTAKE, "mount one volume in both containers at the socket's folder, or use http://localhost:8126")
def a_socket_is_shared(task: TaskDefinition) -> Iterator[Violation]:
    """A `unix://` address is used on Windows, or without a volume that both containers mount and the Agent can write to."""
    for container in task.services:
        for name in SOCKETS:
            url = environment(container).get(name, "")
            if url.startswith("unix:") and not is_open(url) and not is_open(container.get("mountPoints")):
                yield from _socket_violations(task, container, name, re.sub(r"^unix:/*", "/", url))


def _socket_violations(task: TaskDefinition, container: Container, name: str, path: str) -> Iterator[Violation]:
    """Yield what is wrong with the socket at `path`, which is set by the variable `name` of `container`."""
    if task.on_windows:
        sentence = f"`{name}` is a Unix socket, which Windows containers do not have"
        yield Violation(name_of(container), sentence, "use http://localhost:8126")
    elif not task.agents and task.on_fargate:
        return  # the rule agent-missing reports this
    elif (service_volume := _volume(task, container, path)) is None:
        yield Violation(name_of(container), f"`{name}` is the socket {quoted(path)}, but no volume is mounted there")
    else:
        for agent in task.agents:
            variable, default = SOCKETS[name]
            agent_path = environment(agent).get(variable) or default
            agent_volume = _volume(task, agent, agent_path)
            is_known = not is_open(agent_path) and not is_open(agent.get("mountPoints"))
            if is_known and agent_volume != service_volume:
                yield Violation(
                    name_of(container),
                    f"`{name}` is the socket {quoted(path)}, and the Agent {quoted(agent.get('name'))} listens on "
                    f"{quoted(agent_path)}, which is not in the same volume",
                )
            elif any(
                mount.get("readOnly") is True and mount.get("sourceVolume") == service_volume[0]
                for mount in task.mounts(agent)
            ):
                yield Violation(
                    name_of(agent),
                    f"mounts the socket's volume {quoted(service_volume[0])} read-only",
                    "remove readOnly",
                )


def _volume(task: TaskDefinition, container: Container, path: str) -> tuple[str, str] | None:
    """Return the volume that `container` has at `path`, and the path inside the volume; None without a volume."""
    path = re.sub("^/var/run/", "/run/", path)  # /var/run is a link to /run in every Linux image
    volumes: list[tuple[str, str]] = []
    for mount in task.mounts(container):
        folder = re.sub("^/var/run(?=/|$)", "/run", str(mount.get("containerPath", "")).rstrip("/"))
        if path.startswith(folder + "/"):
            volumes.append((str(mount.get("sourceVolume")), path[len(folder) :]))
    # The innermost mount, whose path inside the volume is the shortest, hides the others.
    return min(volumes, key=lambda volume: len(volume[1]), default=None)


@rule("tracing-off", MISTAKE, "remove it")
def tracing_is_on(task: TaskDefinition) -> Iterator[Violation]:
    """A variable switches tracing off: `DD_TRACE_ENABLED`, `DD_APM_TRACING_ENABLED` or `OTEL_TRACES_EXPORTER=none`."""
    for container in task.services:
        variables = environment(container)
        for name in ("DD_TRACE_ENABLED", "DD_APM_TRACING_ENABLED"):
            value = variables.get(name, "").strip().lower()
            if value in FALSE:
                yield Violation(
                    name_of(container), f"`{name}` is {quoted(variables[name])}, which switches tracing off"
                )
            # hello-service accepts more spellings of true, and passes `true` to ddtrace.
            elif value and value not in {"true", "1"} and not is_open(value) and not is_hello_service(container):
                yield Violation(
                    name_of(container),
                    f"`{name}` is {quoted(variables[name])}, which ddtrace reads as false",
                    "write true",
                )
        if variables.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
            yield Violation(name_of(container), "`OTEL_TRACES_EXPORTER` is `none`, which switches tracing off")


@rule("proxy", MISTAKE, "add NO_PROXY=localhost,127.0.0.1")
def no_proxy_receives_the_traces(task: TaskDefinition) -> Iterator[Violation]:
    """A proxy variable is set without `NO_PROXY` for the Agent's address, so the tracer sends its traces to the proxy."""
    for container in task.services:
        variables = environment(container)
        url = variables.get("DD_TRACE_AGENT_URL", "")
        host = variables.get("DD_AGENT_HOST") or "localhost"
        if url and not is_open(url):  # a Unix socket has no host, and needs no proxy
            host = (urlsplit(url).hostname or "") if url.startswith("http") else ""
        names = [name for name in PROXY_VARIABLES if variables.get(name)]
        no_proxy = f"{variables.get('NO_PROXY', '')},{variables.get('no_proxy', '')}"
        entries = [entry.strip().lstrip(".") for entry in no_proxy.split(",")]
        if names and host and not is_open(no_proxy) and host not in entries and "*" not in entries:
            fix = f"add {host} to NO_PROXY"
            yield Violation(name_of(container), f"`{names[0]}` sends the traces for {quoted(host)} to a proxy", fix)


@rule("sampling-rules", MISTAKE, """write DD_TRACE_SAMPLING_RULES='[{"sample_rate": 0.5}]'""")
def sampling_rules_are_json(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_TRACE_SAMPLING_RULES` or `DD_SPAN_SAMPLING_RULES` is not a JSON list of rules with rates from 0 to 1, or keeps no trace, or `DD_TRACE_RATE_LIMIT` is 0."""
    for container in task.services:
        for name in ("DD_TRACE_SAMPLING_RULES", "DD_SPAN_SAMPLING_RULES"):
            text = environment(container).get(name, "")
            if text and not is_open(text) and (problem := _rules_problem(text)):
                yield Violation(name_of(container), f"`{name}` is {quoted(text)}, {problem}")
        if number(environment(container).get("DD_TRACE_RATE_LIMIT")) == 0:
            yield Violation(
                name_of(container),
                "`DD_TRACE_RATE_LIMIT` is `0`, which keeps no trace that a rule matches",
                "remove it",
            )


def _rules_problem(text: str) -> str:
    """Return the problem with sampling rules as a clause, "" if they are valid."""
    try:
        rules = json.loads(text)
    except ValueError:
        return "which is not JSON: the tracer ignores it"
    if not isinstance(rules, list) or not all(isinstance(entry, dict) for entry in rules):
        return "which is not a list of rules: the tracer ignores it"
    rates = [entry.get("sample_rate", 1) for entry in rules]
    if not all(isinstance(rate, int | float) and not isinstance(rate, bool) and 0 <= rate <= 1 for rate in rates):
        return "with a sample_rate that is not from 0 to 1: the tracer ignores it"
    # A rule with only a rate matches every trace, and the first rule that matches counts.
    rate_for_all = next((entry["sample_rate"] for entry in rules if entry.keys() == {"sample_rate"}), None)
    return "which keeps no trace" if rate_for_all == 0 else ""


@rule("sample-rate", MISTAKE, """write DD_TRACE_SAMPLING_RULES='[{"sample_rate": ...}]'""")
def a_sample_rate_has_an_effect(task: TaskDefinition) -> Iterator[Violation]:
    """`DD_TRACE_SAMPLE_RATE` is not a rate, or is set for ddtrace 4 (Python), which ignores it."""
    for container in task.services:
        variables, line = environment(container), command(container)
        value = variables.get("DD_TRACE_SAMPLE_RATE", "")
        if not value or is_open(value):
            continue
        has_unit = value.strip().lower().endswith(("gb", "vcpu"))  # which `number` accepts
        rate = None if has_unit else number(value)
        if rate is None or rate > 1:
            yield Violation(
                name_of(container),
                f"`DD_TRACE_SAMPLE_RATE` is {quoted(value)}, which is not from 0 to 1",
                "write 0.1 for 10%",
            )
        elif variables.get("DD_TRACE_SAMPLING_RULES") or is_hello_service(container):
            continue  # ddtrace reads the rules instead; hello-service makes a rule of the rate
        elif "ddtrace" in line:
            yield Violation(
                name_of(container),
                f"`DD_TRACE_SAMPLE_RATE` is {quoted(value)}, which ddtrace 4 ignores: it keeps every trace",
            )
        elif not NOT_PYTHON.search(line) and not any(map(NOT_PYTHON_NAME.match, variables)):
            yield Violation(
                name_of(container),
                f"`DD_TRACE_SAMPLE_RATE` is {quoted(value)}; "
                "if this is Python, ddtrace 4 ignores it and keeps every trace",
                level=WARNING,
            )
