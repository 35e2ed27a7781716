"""Tests of the rules of deploy/check.py: each rule reports the definition that breaks it, and no other rule does."""

from __future__ import annotations

import json
import re

import pytest
import task_check
from running import ROOT
from task_check.finding import FORM_RULES, HINT, LEVELS, MISTAKE, RULES, WARNING
from task_check.service_rules import BUDGET, CLOSING_SECONDS
from task_definitions import (
    HEX_KEY,
    REGISTRY,
    SECRET,
    Change,
    Definition,
    agent_fields,
    agent_variable,
    changed,
    service_fields,
    service_variable,
    task_fields,
    without_field,
)

from hello_service.settings import Settings

pytestmark = pytest.mark.deployment

PAGE = ROOT / "docs" / "task-definition-check.md"
SOCKET_URL = "unix:///var/run/datadog/apm.socket"
ROUTER_IMAGE = "public.ecr.aws/aws-observability/aws-for-fluent-bit:2.32.0"
WINDOWS_TASK = {
    "cpu": "1024",  # with this memory, Fargate's smallest size for Windows
    "memory": "2048",
    "runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"},
}


def findings(*changes: Change) -> list[task_check.Finding]:
    return task_check.check(json.dumps(changed(*changes))).findings


@pytest.fixture
def without_cfn_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off cfn-lint, which takes a quarter of a second and has its own tests below."""
    monkeypatch.setattr(task_check, "lint", lambda *_: [])


def route_logs(d: Definition, **options: str) -> Definition:
    """Send the service's log to Datadog through FireLens."""
    d.add_container("log", ROUTER_IMAGE, essential=True, firelensConfiguration={"type": "fluentbit"})
    secret = {"name": "apikey", "valueFrom": SECRET}
    options = {"Name": "datadog", "provider": "ecs", **options}
    d.service["logConfiguration"] = {"logDriver": "awsfirelens", "options": options, "secretOptions": [secret]}
    return d


def share_socket(d: Definition) -> Definition:
    """Send traces through a Unix socket, in a volume that the service shares with the Agent."""
    d.set_variable(d.service, "DD_TRACE_AGENT_URL", SOCKET_URL)
    d.add_volume("sockets")
    d.mount(d.service, "sockets", "/var/run/datadog")
    return d.mount(d.agent, "sockets", "/var/run/datadog")


def make_agent_read_only(d: Definition, *, fill_config: bool = True) -> Definition:
    """Make the Agent's root file system read-only, with a volume for each folder that it writes to.

    The volumes are empty at first. With `fill_config`, an init container copies the configuration into its volume.
    """
    d.agent["readonlyRootFilesystem"] = True
    for name, path in (("config", "/etc/datadog-agent"), ("run", "/opt/datadog-agent/run"), ("tmp", "/tmp")):
        d.add_volume(name)
        d.mount(d.agent, name, path)
    if fill_config:
        command = ["sh", "-c", "cp -R /etc/datadog-agent/* /config"]
        mounts = [{"sourceVolume": "config", "containerPath": "/config"}]
        d.add_container("init", d.agent["image"], essential=False, command=command, mountPoints=mounts)
        d.agent["dependsOn"] = [{"containerName": "init", "condition": "SUCCESS"}]
    return d


def remove_agent(d: Definition) -> None:
    d.task["containerDefinitions"].remove(d.agent)
    del d.service["dependsOn"]


# Each row: the rule, its level, words of its sentence, and the change of the definition `d` that breaks the rule.
# A lambda that returns a tuple makes several changes.
# fmt: off
BROKEN: tuple[tuple[str, str, str, Change], ...] = (
    ("agent-missing", MISTAKE, "no container is a Datadog Agent", remove_agent),
    ("agent-twice", WARNING, "`second-agent` share one port", lambda d: d.task["containerDefinitions"].append({**d.agent, "name": "second-agent"})),
    ("ecs-fargate", MISTAKE, "`ECS_FARGATE` is not set", agent_fields(environment=[])),
    ("ecs-fargate", MISTAKE, "`ECS_FARGATE` is `no`", agent_variable("ECS_FARGATE", "no")),
    ("ecs-fargate", MISTAKE, "`DD_ECS_FARGATE` does nothing", agent_fields(environment=[{"name": "DD_ECS_FARGATE", "value": "true"}])),
    ("ecs-fargate", HINT, "`DD_ECS_FARGATE` does nothing", agent_variable("DD_ECS_FARGATE", "true")),
    ("api-key-missing", MISTAKE, "has no `DD_API_KEY`", lambda d: d.agent.pop("secrets")),
    ("agent-memory", WARNING, "256 MiB", agent_fields(memory=256)),
    ("agent-essential", WARNING, "essential and has a health check", agent_fields(essential=True)),
    ("agent-essential", WARNING, "essential and has a health check", lambda d: d.agent.pop("essential")),  # the default is true
    ("apm-disabled", MISTAKE, "`DD_APM_ENABLED` is `false`", agent_variable("DD_APM_ENABLED", "false")),
    ("receiver-port", MISTAKE, "`DD_APM_RECEIVER_PORT` is `0`", agent_variable("DD_APM_RECEIVER_PORT", "0")),
    ("site", MISTAKE, "`https://app.datadoghq.eu`", agent_variable("DD_SITE", "https://app.datadoghq.eu")),
    ("site", MISTAKE, "`EU`", agent_variable("DD_SITE", "EU")),
    ("site", MISTAKE, "`app.datadoghq.com`", agent_variable("DD_SITE", "app.datadoghq.com")),
    ("site", MISTAKE, "`datadoghq.com/`", service_variable("DD_SITE", "datadoghq.com/")),
    ("site", WARNING, "`us9.datadoghq.com`", agent_variable("DD_SITE", "us9.datadoghq.com")),
    ("hostname", MISTAKE, "`DD_HOSTNAME`", agent_variable("DD_HOSTNAME", "web")),
    ("trace-port-udp", MISTAKE, "8126 is mapped as `udp`", agent_fields(portMappings=[{"containerPort": 8126, "protocol": "udp"}])),
    ("read-only-agent", MISTAKE, "/etc/datadog-agent, /opt/datadog-agent/run, /tmp", agent_fields(readonlyRootFilesystem=True)),
    ("read-only-agent", MISTAKE, "nothing fills the volume", lambda d: make_agent_read_only(d, fill_config=False)),
    ("agent-command", WARNING, "`sleep 1`", agent_fields(command=["sleep", "1"])),
    ("agent-address", MISTAKE, "`DD_AGENT_HOST` is `datadog-agent`", service_variable("DD_AGENT_HOST", "datadog-agent")),
    ("agent-address", MISTAKE, "not a host name", service_variable("DD_AGENT_HOST", "http://localhost:8126")),
    ("agent-address", MISTAKE, "`http://agent:8126`", service_variable("DD_TRACE_AGENT_URL", "http://agent:8126")),
    ("agent-address", MISTAKE, "not a URL", service_variable("DD_TRACE_AGENT_URL", "localhost:8126")),
    ("agent-address", MISTAKE, "not a URL", service_variable("DD_TRACE_AGENT_URL", "http://localhost:port")),
    ("agent-address", MISTAKE, "no TLS", service_variable("DD_TRACE_AGENT_URL", "https://localhost:8126")),
    ("agent-address", MISTAKE, "4317`, but the Agent listens on port 8126", service_variable("DD_TRACE_AGENT_URL", "http://localhost:4317")),
    ("agent-address", MISTAKE, "port `8125`", service_variable("DD_TRACE_AGENT_PORT", "8125")),
    ("agent-address", MISTAKE, "listens on port 8127", agent_variable("DD_APM_RECEIVER_PORT", "8127")),
    ("socket", MISTAKE, "no volume is mounted there", service_variable("DD_TRACE_AGENT_URL", SOCKET_URL)),
    ("socket", MISTAKE, "not in the same volume", lambda d: (share_socket(d), d.agent.pop("mountPoints"))),
    ("socket", MISTAKE, "read-only", lambda d: (share_socket(d), d.agent["mountPoints"][0].update(readOnly=True))),
    ("socket", MISTAKE, "`DD_DOGSTATSD_URL` is the socket", lambda d: (share_socket(d), d.set_variable(d.service, "DD_DOGSTATSD_URL", "unix:///other/dsd.socket"))),
    ("socket", MISTAKE, "Windows", lambda d: (share_socket(d), d.task.update(WINDOWS_TASK))),
    ("proxy", MISTAKE, "`HTTP_PROXY`", service_variable("HTTP_PROXY", "http://proxy:3128")),
    ("proxy", MISTAKE, "`127.0.0.1`", lambda d: (d.set_variable(d.service, "all_proxy", "http://proxy:3128"), d.set_variable(d.service, "NO_PROXY", "localhost"), d.set_variable(d.service, "DD_TRACE_AGENT_URL", "http://127.0.0.1:8126"))),
    ("tracing-off", MISTAKE, "`DD_TRACE_ENABLED` is `false`", service_variable("DD_TRACE_ENABLED", "false")),
    ("tracing-off", MISTAKE, "reads as false", service_variable("DD_TRACE_ENABLED", "enabled")),
    ("tracing-off", MISTAKE, "`DD_APM_TRACING_ENABLED`", service_variable("DD_APM_TRACING_ENABLED", "0")),
    ("tracing-off", MISTAKE, "`OTEL_TRACES_EXPORTER`", service_variable("OTEL_TRACES_EXPORTER", "none")),
    ("sampling-rules", MISTAKE, "not JSON", service_variable("DD_TRACE_SAMPLING_RULES", "[{sample_rate: 1}]")),
    ("sampling-rules", MISTAKE, "not a list", service_variable("DD_TRACE_SAMPLING_RULES", '{"sample_rate": 1}')),
    ("sampling-rules", MISTAKE, "from 0 to 1", service_variable("DD_SPAN_SAMPLING_RULES", '[{"sample_rate": 10}]')),
    ("sample-rate", MISTAKE, "`10%`", service_variable("DD_TRACE_SAMPLE_RATE", "10%")),
    ("sample-rate", WARNING, "if this is Python", service_variable("DD_TRACE_SAMPLE_RATE", "0.1")),
    ("sample-rate", MISTAKE, "ddtrace 4 ignores", lambda d: (d.set_variable(d.service, "DD_TRACE_SAMPLE_RATE", "0.1"), d.service.update(command=["ddtrace-run", "python", "app.py"]))),
    ("tags-missing", WARNING, "`DD_ENV` is not set", lambda d: d.service["environment"].pop(1)),
    ("tags-missing", WARNING, "com.datadoghq.tags.version` are missing", lambda d: d.service.pop("dockerLabels")),
    ("tags-differ", MISTAKE, "`DD_ENV` is `prod`", lambda d: d.service["dockerLabels"].update({"com.datadoghq.tags.env": "test"})),
    ("agent-order", WARNING, "does not depend on the Agent", lambda d: d.service.pop("dependsOn")),
    ("agent-order", WARNING, "starts last and stops first", lambda d: d.agent.update(dependsOn=[{**d.service.pop("dependsOn")[0], "containerName": "orders"}])),
    ("old-variable", WARNING, "`DD_SERVICE_NAME`", service_variable("DD_SERVICE_NAME", "orders")),
    ("untidy-value", WARNING, "`DD_TAGS`", service_variable("DD_TAGS", "team:a ")),
    ("stop-timeout", MISTAKE, "30 s (its default) is not above the 33 s", service_fields(command=["hello-service", "serve"])),
    ("stop-timeout", MISTAKE, "not a number of seconds", service_variable("DRAIN_SECONDS", "long")),
    ("keep-alive", WARNING, "hypercorn closes idle connections after 5 s", service_fields(command=["ddtrace-run", "hypercorn", "orders:app"])),
    ("keep-alive", HINT, "uvicorn closes", service_fields(command=["sh", "-c", "exec uvicorn --timeout-keep-alive=2 orders:app"])),
    ("keep-alive", WARNING, "`KEEP_ALIVE_SECONDS` is 30", lambda d: (d.service.update(command=["hello-service", "serve"], stopTimeout=60), d.set_variable(d.service, "KEEP_ALIVE_SECONDS", "30"))),
    ("key-in-clear", MISTAKE, "`DD_API_KEY` is in plain text under", agent_variable("DD_API_KEY", HEX_KEY)),
    ("key-in-clear", MISTAKE, "`DD_APP_KEY`", service_variable("DD_APP_KEY", HEX_KEY + HEX_KEY[:8])),  # an application key has 40 digits
    ("key-in-clear", MISTAKE, "`DD_API_KEY`", lambda d: (d.agent.pop("secrets"), d.set_variable(d.agent, "DD_API_KEY", "${key}"))),
    ("key-in-clear", MISTAKE, "`DD_API_KEY`", lambda d: (d.agent.pop("secrets"), d.set_variable(d.agent, "DD_API_KEY", "<YOUR_KEY>"))),
    ("key-in-clear", MISTAKE, "`DD_APM_ADDITIONAL_ENDPOINTS`", agent_variable("DD_APM_ADDITIONAL_ENDPOINTS", f'{{"https://x": ["{HEX_KEY}"]}}')),
    ("key-in-clear", MISTAKE, "`apikey` is in plain text in the log", lambda d: route_logs(d, apikey=HEX_KEY)),
    ("key-in-clear", MISTAKE, "`Header`", lambda d: d.service["logConfiguration"]["options"].update(Header=f"DD-API-KEY {HEX_KEY}")),
    ("key-in-clear", MISTAKE, "the label `dd.api_key`", lambda d: d.service["dockerLabels"].update({"dd.api_key": HEX_KEY})),
    ("key-in-clear", MISTAKE, "com.datadoghq.ad.instances", lambda d: d.service["dockerLabels"].update({"com.datadoghq.ad.instances": f'[{{"api_key": "{HEX_KEY}"}}]'})),
    ("key-in-clear", MISTAKE, "the command", service_fields(command=["sh", "-c", f"DD_API_KEY={HEX_KEY} exec app"])),
    ("secret-arn", MISTAKE, "lacks the two colons", lambda d: d.agent["secrets"][0].update(valueFrom=f"{SECRET}:DD_API_KEY")),
    ("secret-arn", MISTAKE, "not the ARN", lambda d: d.agent["secrets"][0].update(valueFrom="arn:aws:ssm:/datadog/key")),
    ("secret-arn", MISTAKE, "neither an ARN", lambda d: d.agent["secrets"][0].update(valueFrom="datadog:DD_API_KEY::")),
    ("secret-arn", MISTAKE, "no keys inside", lambda d: d.agent["secrets"][0].update(valueFrom="arn:aws:ssm:eu-west-1:111122223333:parameter/key:DD_API_KEY::")),
    ("secret-arn", MISTAKE, "lacks the two colons", lambda d: d.agent["secrets"][0].update(valueFrom="${secret_arn}:DD_API_KEY")),
    ("secret-arn", MISTAKE, "`credentialsParameter`", service_fields(repositoryCredentials={"credentialsParameter": "arn:aws:iam::1:x"})),
    ("secret-twice", MISTAKE, "`DD_ENV` is set in `environment` and in `secrets`", service_fields(secrets=[{"name": "DD_ENV", "valueFrom": "/env"}])),
    ("secret-twice", WARNING, "`DD_ENV` is set 2 times", lambda d: d.service["environment"].append({"name": "DD_ENV", "value": "prod"})),
    ("execution-role", MISTAKE, "secrets (`datadog-agent`)", without_field("executionRoleArn")),
    ("role-arn", MISTAKE, "`executionRoleArn` is `someArn`", task_fields(executionRoleArn="someArn")),
    ("names-twice", MISTAKE, "2 containers have the name `extra`", lambda d: [d.add_container("extra", "busybox:1.36.1", essential=False) for _ in range(2)]),
    ("no-essential", MISTAKE, "no container is essential", service_fields(essential=False)),
    ("depends-on-unknown", MISTAKE, "refers to `dd-agent`", lambda d: d.service["dependsOn"][0].update(containerName="dd-agent")),
    ("depends-on-unknown", MISTAKE, "`volumesFrom` refers to `gone`", service_fields(volumesFrom=[{"sourceContainer": "gone"}])),
    ("depends-on-never", MISTAKE, "HEALTHY", lambda d: (d.service["dependsOn"][0].update(condition="HEALTHY"), d.agent.pop("healthCheck"))),
    ("depends-on-never", MISTAKE, "waits for the end of `first`", lambda d: (d.add_container("first", "busybox:1.36.1"), d.service["dependsOn"].append({"containerName": "first", "condition": "COMPLETE"}))),
    ("depends-on-cycle", MISTAKE, "orders -> datadog-agent -> orders", agent_fields(dependsOn=[{"containerName": "orders", "condition": "START"}])),
    ("depends-on-cycle", MISTAKE, "orders -> orders", lambda d: d.service["dependsOn"].append({"containerName": "orders", "condition": "START"})),
    ("mount-without-volume", MISTAKE, "`nowhere` at `/x`", lambda d: d.mount(d.service, "nowhere", "/x")),
    ("mount-without-volume", MISTAKE, "not absolute", lambda d: (d.add_volume("v"), d.mount(d.service, "v", "tmp"))),
    ("firelens-router", MISTAKE, "no container has `firelensConfiguration`", service_fields(logConfiguration={"logDriver": "awsfirelens"})),
    ("firelens-router", MISTAKE, "2 containers have", lambda d: (route_logs(d), d.add_container("log2", ROUTER_IMAGE, firelensConfiguration={"type": "fluentbit"}))),
    ("firelens-datadog", MISTAKE, "no `apikey`", lambda d: (route_logs(d), d.service["logConfiguration"].pop("secretOptions"))),
    ("firelens-datadog", MISTAKE, "the Agent's site is `datadoghq.com`", lambda d: route_logs(d, Host="http-intake.logs.us5.datadoghq.com")),
    ("firelens-datadog", MISTAKE, "the Agent's site is `datadoghq.eu`", lambda d: (route_logs(d, Host="http-intake.logs.datadoghq.com"), d.set_variable(d.agent, "DD_SITE", "datadoghq.eu"))),
    ("image", MISTAKE, "no account id", service_fields(image="ACCOUNT.dkr.ecr.eu-west-1.amazonaws.com/orders:1.0")),
    ("image", MISTAKE, "not a valid reference", service_fields(image=f"{REGISTRY}/Orders:1.0")),
    ("image", MISTAKE, "not a valid reference", service_fields(image="https://example.com/orders:1.0")),
    *(("moving-tag", WARNING, "can move", agent_fields(image=f"public.ecr.aws/datadog/agent:{tag}")) for tag in ("latest", "7", "7.72", "7-jmx", "latest-jmx", "dev")),
    *(("moving-tag", WARNING, "can move", service_fields(image=f"{REGISTRY}/orders:{tag}")) for tag in ("latest", "dev", "main", "stable", "v1.28-latest", "staging")),
    ("moving-tag", WARNING, "has no tag", service_fields(image="localhost:5000/orders")),
    ("memory", MISTAKE, "the containers reserve 1280 MiB", service_fields(memory=768)),
    ("memory", MISTAKE, "above the task's 1024 MiB", service_fields(memory=2048, memoryReservation=256)),
    ("memory", MISTAKE, "`memoryReservation` 300 MiB is above", service_fields(memory=256, memoryReservation=300)),
    ("cpu", MISTAKE, "768 CPU units", lambda d: (d.service.update(cpu=512), d.agent.update(cpu=256))),
    ("health-check", MISTAKE, "does not start with CMD", agent_fields(healthCheck={"command": ["agent", "health"]})),
    ("health-check", MISTAKE, "name of one program", agent_fields(healthCheck={"command": ["CMD", "agent health"]})),
    ("health-check", MISTAKE, "are lost", agent_fields(healthCheck={"command": ["CMD-SHELL", "agent", "health"]})),
    ("health-check-program", HINT, "needs curl", service_fields(healthCheck={"command": ["CMD-SHELL", "curl -f localhost"]})),
    ("health-check-program", WARNING, "`gcr.io/distroless/python3:v1.2.3` does not have", service_fields(image="gcr.io/distroless/python3:v1.2.3", healthCheck={"command": ["CMD-SHELL", "curl localhost"]})),
    ("health-check-program", WARNING, "`python:3.13.1-slim` does not have", service_fields(image="python:3.13.1-slim", healthCheck={"command": ["CMD-SHELL", "wget localhost"]})),
    *(("fargate-unsupported", MISTAKE, f"`{field}`", service_fields(**{field: value})) for field, value in (("privileged", True), ("links", ["datadog-agent"]), ("dockerSecurityOptions", ["x"]), ("dnsServers", ["1.1.1.1"]), ("dnsSearchDomains", ["x"]), ("extraHosts", [{"hostname": "a", "ipAddress": "1.2.3.4"}]), ("hostname", "x"), ("disableNetworking", True))),
    *(("fargate-unsupported", MISTAKE, f"`linuxParameters.{field}`", service_fields(linuxParameters={field: value})) for field, value in (("devices", [{"hostPath": "/dev/x"}]), ("sharedMemorySize", 64), ("maxSwap", 64), ("swappiness", 0))),
    ("fargate-unsupported", MISTAKE, "`NET_ADMIN`", service_fields(linuxParameters={"capabilities": {"add": ["NET_ADMIN", "SYS_PTRACE"]}})),
    ("fargate-unsupported", MISTAKE, "GPU", service_fields(resourceRequirements=[{"type": "GPU", "value": "1"}])),
    ("fargate-unsupported", MISTAKE, "`s3`", lambda d: (route_logs(d), d.task["containerDefinitions"][2]["firelensConfiguration"].update(options={"config-file-type": "s3"}))),
    ("fargate-unsupported", MISTAKE, "`networkMode` is `bridge`", task_fields(networkMode="bridge")),
    ("fargate-unsupported", MISTAKE, "`networkMode` is missing", without_field("networkMode")),
    ("fargate-unsupported", MISTAKE, "`pidMode` is `host`", task_fields(pidMode="host")),
    ("fargate-unsupported", MISTAKE, "`ipcMode`", task_fields(ipcMode="task")),
    ("fargate-unsupported", MISTAKE, "`placementConstraints`", task_fields(placementConstraints=[{"type": "memberOf", "expression": "x"}])),
    ("fargate-unsupported", MISTAKE, "`host.sourcePath` `/data`", lambda d: d.add_volume("v", host={"sourcePath": "/data"})),
    ("fargate-unsupported", MISTAKE, "Docker volumes", lambda d: d.add_volume("v", dockerVolumeConfiguration={"scope": "task"})),
    ("fargate-size", MISTAKE, "`cpu` is missing", without_field("cpu")),
    ("log-driver", MISTAKE, "`json-file`", service_fields(logConfiguration={"logDriver": "json-file"})),
    ("awslogs-options", MISTAKE, "`awslogs-stream-prefix`", lambda d: d.service["logConfiguration"]["options"].pop("awslogs-stream-prefix")),
    *(("limits", MISTAKE, "must be", change) for change in (service_fields(stopTimeout=121), agent_fields(startTimeout=121), task_fields(ephemeralStorage={"sizeInGiB": 20}), task_fields(ephemeralStorage={"sizeInGiB": 201}))),
    *(("limits", MISTAKE, f"`healthCheck.{field}` is {value}", agent_fields(healthCheck={"command": ["CMD-SHELL", "agent health"], field: value})) for field, value in (("interval", 4), ("interval", 301), ("timeout", 1), ("timeout", 61), ("retries", 0), ("retries", 11), ("startPeriod", 301))),
    *(("limits", MISTAKE, f"restartAttemptPeriod` is {value}", agent_fields(restartPolicy={"enabled": True, "restartAttemptPeriod": value})) for value in (59, 1801)),
    ("limits", MISTAKE, "`memory` is 1 MiB", service_fields(memory=1)),
    ("limits", MISTAKE, "`containerPort` is 65536", service_fields(portMappings=[{"containerPort": 65536}])),
    ("host-port", MISTAKE, "`hostPort` 80 differs", service_fields(portMappings=[{"containerPort": 8080, "hostPort": 80}])),
    ("port-twice", MISTAKE, "8080/tcp is also mapped by `orders`", agent_fields(portMappings=[{"containerPort": 8080}])),
    ("windows", MISTAKE, "`readonlyRootFilesystem`", lambda d: (d.service.update(readonlyRootFilesystem=True), d.task.update(WINDOWS_TASK))),
    ("names", MISTAKE, "`my orders`", task_fields(family="my orders")),
    ("required-platform", WARNING, "`requiresCompatibilities` is missing", without_field("requiresCompatibilities")),
    ("unknown-field", MISTAKE, "no field `color`", service_fields(color="red")),
    ("unknown-field", MISTAKE, "`entrypoint` is misspelled", service_fields(entrypoint=[])),
    ("unknown-field", MISTAKE, "`networkMode` belongs to the task definition", service_fields(networkMode="awsvpc")),
    ("unknown-field", MISTAKE, "`stopTimeout` belongs to a container", task_fields(stopTimeout=60)),
    ("missing-field", MISTAKE, "`image` is empty", service_fields(image="")),
    ("missing-field", MISTAKE, "`family` is missing", without_field("family")),
    ("missing-field", MISTAKE, "`condition` is missing", lambda d: d.service["dependsOn"][0].pop("condition")),
    ("wrong-type", MISTAKE, "must be text in quotes, not `8080`", service_variable("PORT", 8080)),
    ("wrong-type", MISTAKE, "not the text `512`", agent_fields(memory="512")),
    ("wrong-type", MISTAKE, "not the text `false`", agent_fields(essential="false")),
    ("wrong-type", MISTAKE, "`cpu` must be text", task_fields(cpu=512)),
    ("unknown-value", MISTAKE, "`RUNNING`", lambda d: d.service["dependsOn"].append({"containerName": "datadog-agent", "condition": "RUNNING"})),
    ("null-field", WARNING, "`orders: user`", service_fields(user=None, workingDirectory=None)),
    ("value-from-in-environment", MISTAKE, "`X` has `valueFrom`", lambda d: d.service["environment"].append({"name": "X", "valueFrom": "/x"})),
    ("value-in-secrets", MISTAKE, "`X` has `value`", service_fields(secrets=[{"name": "X", "value": HEX_KEY}])),
    *(("placeholder", MISTAKE, "still contains the placeholder", service_fields(image=text)) for text in ("<IMAGE>", "$ECR/orders:$TAG", "$(IMAGE)", "{{ image }}", "%IMAGE%", "@IMAGE@", "__IMAGE__", "#{IMAGE}#", "((image))", "[IMAGE]", "{IMAGE}", "YOUR_IMAGE", "your-registry/orders:1.0", "REPLACE_ME", "changeme", "TODO", "repo/<name>:1.0", "${REPO}/orders:<TAG>")),
    ("placeholder", MISTAKE, "`DD_ENV`, `dockerLabels.com.datadoghq.tags.env`", lambda d: (d.set_variable(d.service, "DD_ENV", "<ENV>"), d.service["dockerLabels"].update({"com.datadoghq.tags.env": "<ENV>"}))),
    ("read-only-agent", MISTAKE, "does not wait for `init`", lambda d: (make_agent_read_only(d), d.agent.pop("dependsOn"))),
    ("awslogs-options", MISTAKE, "`awslogs-region` is `REGION`", lambda d: d.service["logConfiguration"]["options"].update({"awslogs-region": "REGION"})),
    ("key-in-clear", MISTAKE, "is the key itself", lambda d: d.agent["secrets"][0].update(valueFrom=HEX_KEY)),
    ("key-in-clear", MISTAKE, "the tag `dd-api-key`", task_fields(tags=[{"key": "dd-api-key", "value": HEX_KEY}])),
    ("key-in-clear", MISTAKE, "the tag `datadog-prod-key`", task_fields(tags=[{"key": "datadog-prod-key", "value": HEX_KEY}])),
    ("key-in-clear", MISTAKE, "`dd_prod_key`", lambda d: route_logs(d, dd_prod_key=HEX_KEY)),
    ("key-in-clear", MISTAKE, "`JAVA_OPTS`", service_variable("JAVA_OPTS", f"-Ddd.api-key={HEX_KEY}")),
    ("sampling-rules", MISTAKE, "keeps no trace", service_variable("DD_TRACE_SAMPLING_RULES", '[{"sample_rate": 0}]')),
    ("sampling-rules", MISTAKE, "`DD_TRACE_RATE_LIMIT`", service_variable("DD_TRACE_RATE_LIMIT", "0")),
    ("sampling-rules", MISTAKE, "not JSON", service_variable("DD_TRACE_SAMPLING_RULES", "'[{\"sample_rate\": 1}]'")),
    ("site", MISTAKE, "not a Datadog site", agent_variable("DD_SITE", "datadoghq.com ")),
    ("untidy-value", WARNING, "`DD_ENV`", service_variable("DD_ENV", "prod ")),
    ("wrong-type", MISTAKE, "must be an array, not an object", service_fields(environment={"DD_ENV": "prod"})),
    ("unknown-value", MISTAKE, "`networkMode` is `AWSVPC`", task_fields(networkMode="AWSVPC")),
    ("unknown-value", MISTAKE, "`networkMode` is `vpc`", task_fields(networkMode="vpc")),
    ("unknown-value", MISTAKE, "`fargate`", task_fields(requiresCompatibilities=["fargate"])),
    ("depends-on-unknown", MISTAKE, "`proxyConfiguration` refers to `envoy`", task_fields(proxyConfiguration={"containerName": "envoy"})),
    ("depends-on-never", MISTAKE, "waits for the end of `init`", lambda d: (make_agent_read_only(d), d.task["containerDefinitions"][2].pop("essential"))),
    ("unknown-field", MISTAKE, "no field `enviroment`", lambda d: d.service.update(enviroment=d.service.pop("environment"))),
    ("unknown-field", MISTAKE, "no field `imgae`", lambda d: d.service.update(imgae=d.service.pop("image"))),
    ("read-only-agent", MISTAKE, "does not wait for `init`", lambda d: (make_agent_read_only(d), d.agent["dependsOn"][0].update(condition="START"))),
    ("placeholder", MISTAKE, "`<ACCOUNT>`", task_fields(executionRoleArn="arn:aws:iam::<ACCOUNT>:role/x", taskRoleArn="arn:aws:iam::<ACCOUNT>:role/y")),
)

# Changes that look like mistakes but are correct.
CORRECT: tuple[Change, ...] = (
    lambda _: None,  # no change
    lambda d: d.service["dependsOn"][0].update(condition="HEALTHY"),
    service_fields(image="orders@sha256:" + "0" * 64),
    service_fields(image=f"{REGISTRY}/orders:1234"),
    *(agent_fields(image=image) for image in (f"{REGISTRY}/ecr-public/datadog/agent:7.60.0", f"{REGISTRY}/datadog-agent:7.60.0", f"{REGISTRY}/tools/monitoring:3.1", "gcr.io/datadoghq/agent:7.60.0-jmx", "registry.datadoghq.com/agent:7.60.0", "datadoghq.azurecr.io/agent:7.60.0")),
    # Variables such as ECS_FARGATE show that this container is an Agent.
    lambda d: (d.agent.update(name="sidecar", image=f"{REGISTRY}/monitoring:3.1"), d.service["dependsOn"][0].update(containerName="sidecar")),
    *(agent_fields(secrets=[{"name": "DD_API_KEY", "valueFrom": source}]) for source in (SECRET, "/datadog/key", "DD_KEY", "arn:aws:ssm:eu-west-1:111122223333:parameter/datadog/key", SECRET.replace("arn:aws:", "arn:aws-us-gov:"), "${arn}:DD_API_KEY::")),
    service_variable("DD_TRACE_AGENT_URL", "http://127.0.0.1:8126"),
    lambda d: (d.set_variable(d.service, "DD_TRACE_AGENT_URL", "http://localhost:8200"), d.set_variable(d.agent, "DD_APM_RECEIVER_PORT", "8200")),
    share_socket,
    make_agent_read_only,
    route_logs,
    lambda d: route_logs(d, dd_message_key="log", json_date_key="time", tag_key="tag", **{"log-key": "message"}),
    lambda d: d.service["dockerLabels"].update({"datadog.message.key": "log"}),
    task_fields(tags=[{"key": "dd_partition_key", "value": "team"}]),
    lambda d: (d.set_variable(d.service, "HTTP_PROXY", "http://proxy:3128"), d.set_variable(d.service, "NO_PROXY", "169.254.170.2,localhost")),
    agent_variable("DD_PROXY_HTTPS", "http://proxy:3128"),
    task_fields(ephemeralStorage={"sizeInGiB": 21}, pidMode="task"),
    task_fields(ephemeralStorage={"sizeInGiB": 200}),
    agent_fields(restartPolicy={"enabled": True, "restartAttemptPeriod": 60}, startTimeout=120),
    service_fields(stopTimeout=120),
    service_fields(stopTimeout=10),
    service_fields(memory=1024, memoryReservation=256),
    task_fields(cpu="1 vCPU", memory="2 GB"),
    task_fields(ipcMode="", pidMode=""),
    service_fields(linuxParameters={"capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]}, "tmpfs": [{"containerPath": "/tmp", "size": 64}]}),
    lambda d: d.add_volume("v", host={}),
    lambda d: (d.add_volume("v", efsVolumeConfiguration={"fileSystemId": "fs-12345678"}), d.mount(d.service, "v", "/data")),
    lambda d: d.service["environment"].pop(),  # without DD_VERSION, which the image may set; the label with the version is still there
    lambda d: d.service.update(environment=[], environmentFiles=[{"type": "s3", "value": "arn:aws:s3:::b/x.env"}]),
    lambda d: (d.service.update(environment=[]), d.set_variable(d.service, "DD_TAGS", "service:orders env:prod version:1.0.0")),
    lambda d: d.service["dockerLabels"].update({"org.opencontainers.image.revision": "0123456789" * 4, "com.datadoghq.ad.instances": '[{"host": "%%host%%", "password": "%%env_X%%"}]'}),
    service_variable("DD_GIT_COMMIT_SHA", "0123456789" * 4),
    service_variable("DB_PASSWORD", "a$Bcd<e>{F}"),
    service_variable("GREETING", "<b>hi</b> there"),
    service_variable("DD_TRACE_SAMPLING_RULES", '[{"sample_rate": 0.5}]'),
    lambda d: (d.set_variable(d.service, "DD_TRACE_SAMPLE_RATE", "0.1"), d.service.update(command=["java", "-jar", "app.jar"])),
    lambda d: (d.set_variable(d.service, "DD_TRACE_SAMPLE_RATE", "0.1"), d.service.update(command=["hello-service", "serve"], stopTimeout=34)),
    service_fields(command=["ddtrace-run", "hypercorn", "--keep-alive", "35", "orders:app"]),
    service_fields(command=["sh", "-c", "exec gunicorn --bind 0.0.0.0:$PORT orders"]),
    agent_variable("DD_APM_IGNORE_RESOURCES", "(GET|POST) /health,GET /ping$"),
    lambda d: d.add_container("nginx", "public.ecr.aws/nginx/nginx:1.27.3", essential=True, portMappings=[{"containerPort": 80}], dependsOn=[{"containerName": "orders", "condition": "START"}]),
    lambda d: d.add_container("xray", "public.ecr.aws/xray/aws-xray-daemon:3.3.14", essential=False, portMappings=[{"containerPort": 2000, "protocol": "udp"}]),
    lambda d: d.add_container("cwagent", "public.ecr.aws/cloudwatch-agent/cloudwatch-agent:1.300040.0b650", secrets=[{"name": "CONFIG", "valueFrom": "config"}]),
    lambda d: (d.add_container("envoy", f"{REGISTRY}/aws-appmesh-envoy:v1.29.9.0-prod", portMappings=[{"containerPort": 9901}]), d.task.update(proxyConfiguration={"type": "APPMESH", "containerName": "envoy"})),
    lambda d: (d.add_container("migrate", d.service["image"], essential=False, environment=[{"name": "DB", "value": "x"}]), d.service["dependsOn"].append({"containerName": "migrate", "condition": "SUCCESS"})),
    lambda d: d.add_container("worker", f"{REGISTRY}/worker:1.0.0", essential=False),
    service_fields(environment=[*changed()["containerDefinitions"][0]["environment"], {"name": "LOG_PATTERN", "value": "%d ${LEVEL}"}]),
    lambda d: d.add_container("nginx", f"{REGISTRY}/web:1.27.3", portMappings=[{"containerPort": 80}]),
    service_fields(environment="${jsonencode(variables)}"),  # Terraform renders a list
    agent_fields(command=["${COMMAND}"]),
    service_fields(dependsOn="${jsonencode(order)}"),  # Terraform renders a list
)
# fmt: on


@pytest.mark.usefixtures("without_cfn_lint")
@pytest.mark.parametrize(
    ("rule", "level", "words", "change"), BROKEN, ids=[f"{row[0]}-{number}" for number, row in enumerate(BROKEN)]
)
def test_a_mistake_causes_exactly_one_finding(rule: str, level: str, words: str, change: Change) -> None:
    (finding,) = findings(change)

    assert (finding.rule, finding.level) == (rule, level)
    assert words in finding.sentence
    assert finding.fix
    assert HEX_KEY not in finding.sentence + finding.fix


@pytest.mark.usefixtures("without_cfn_lint")
@pytest.mark.parametrize("change", CORRECT, ids=range(len(CORRECT)))
def test_a_correct_definition_passes(change: Change) -> None:
    assert findings(change) == []


def test_a_correct_definition_also_passes_cfn_lint() -> None:
    assert findings() == []
    assert findings(route_logs, share_socket) == []


def test_cfn_lint_checks_the_sizes_of_fargate() -> None:
    (finding,) = findings(task_fields(cpu="512", memory="8192"))

    assert (finding.rule, finding.sentence) == ("fargate-size", "Fargate has no size with cpu `512` and memory `8192`")
    assert "1024 to 4096" in finding.fix


def test_cfn_lint_reports_the_same_mistake_in_each_container() -> None:
    label = {"label": "{{resolve:ssm:}}"}  # without the name of a parameter

    reported = findings(lambda d: d.service["dockerLabels"].update(label), agent_fields(dockerLabels=label))

    assert [(finding.rule, finding.container) for finding in reported] == [
        ("cfn-lint-E1050", "orders"),
        ("cfn-lint-E1050", "datadog-agent"),
    ]


def test_a_finding_of_cfn_lint_shows_no_value_that_may_be_a_password() -> None:
    label = {"token": "{{resolve:hunter2}}"}

    reported = findings(
        lambda d: d.service["environment"].extend([{"name": "DB_PASSWORD", "value": "hunter2"}] * 2),
        lambda d: d.service["dockerLabels"].update(label),
        service_fields(portMappings=[{"containerPort": 8080, "name": "hunter2"}] * 2),
    )

    assert {finding.rule for finding in reported} == {"secret-twice", "cfn-lint-E1050", "cfn-lint-E3037"}
    assert "`PortMappings`: two entries are equal" in {finding.sentence for finding in reported}
    assert "hunter2" not in str(reported)


@pytest.mark.parametrize("rule", ["host-port", "names-twice", "secret-twice", "mount-without-volume"])
def test_cfn_lint_does_not_repeat_the_finding_of_another_rule(rule: str) -> None:
    """These are the rows of `BROKEN` that cfn-lint also reports."""
    changes = [change for name, _, _, change in BROKEN if name == rule]

    assert [{finding.rule for finding in findings(change)} for change in changes] == [{rule}] * len(changes)


@pytest.mark.usefixtures("without_cfn_lint")
@pytest.mark.parametrize(
    ("value", "site"),
    [
        ("https://app.datadoghq.com/", "datadoghq.com"),
        ("https://api.us5.datadoghq.com", "us5.datadoghq.com"),
        ("HTTPS://US5.datadoghq.com/account", "us5.datadoghq.com"),
        ("app.datadoghq.eu", "datadoghq.eu"),
    ],
)
def test_the_fix_for_an_address_is_its_site(value: str, site: str) -> None:
    (finding,) = findings(agent_variable("DD_SITE", value))

    assert finding.fix == f'write "{site}"'


# By default, the first two have the network mode `bridge`, where each container has a network of its own.
@pytest.mark.parametrize(
    ("launch_type", "rules_of_two_agents"), [("EC2", []), ("EXTERNAL", []), ("MANAGED_INSTANCES", ["agent-twice"])]
)
def test_fargate_rules_do_not_apply_to_other_launch_types(launch_type: str, rules_of_two_agents: list[str]) -> None:
    def use_launch_type(d: Definition) -> None:
        d.task.update(requiresCompatibilities=[launch_type], networkMode="bridge")
        d.agent.update(environment=[], privileged=True)
        d.add_volume("socket", host={"sourcePath": "/var/run/docker.sock"})
        d.mount(d.agent, "socket", "/var/run/docker.sock")
        d.service.update(links=["datadog-agent"], hostname="orders", stopTimeout=600)
        d.set_variable(d.service, "DD_AGENT_HOST", "datadog-agent")

    def add_second_agent(d: Definition) -> None:
        del d.task["networkMode"]
        d.task["containerDefinitions"].append({**d.agent, "name": "second-agent"})

    report = task_check.check(json.dumps(changed(use_launch_type)))
    with_two_agents = task_check.check(json.dumps(changed(use_launch_type, add_second_agent)))

    assert report.findings == []
    assert [finding.rule for finding in with_two_agents.findings] == rules_of_two_agents
    assert report.notes == [f"this definition is for {launch_type}, so the Fargate rules are skipped"]


@pytest.mark.usefixtures("without_cfn_lint")
def test_a_daemon_on_ec2_is_recognized_by_its_volumes() -> None:
    """Without `requiresCompatibilities`, a volume of the host shows that a definition is for EC2."""

    def make_daemon(d: Definition) -> None:
        d.task.update(containerDefinitions=[{**d.agent, "environment": [], "essential": True}])
        for name in ("requiresCompatibilities", "networkMode"):
            del d.task[name]
        d.add_volume("proc", host={"sourcePath": "/proc"})

    report = task_check.check(json.dumps(changed(make_daemon)))

    assert report.findings == []
    assert report.notes == ["this definition is for EC2, so the Fargate rules are skipped"]


@pytest.mark.usefixtures("without_cfn_lint")
def test_on_ec2_a_container_needs_memory() -> None:
    (finding,) = findings(task_fields(requiresCompatibilities=["EC2"]), without_field("memory"))

    assert (finding.rule, finding.container) == ("ec2-memory", "orders")


@pytest.mark.usefixtures("without_cfn_lint")
def test_a_repeated_key_is_reported() -> None:
    text = json.dumps(changed()).replace('"family": ', '"family": "old", "family": ')

    assert [finding.rule for finding in task_check.check(text).findings] == ["repeated-key"]


@pytest.mark.usefixtures("without_cfn_lint")
def test_a_mistake_in_a_volume_is_not_attributed_to_a_container() -> None:
    (finding,) = findings(lambda d: d.add_volume("data", color="red"))

    assert (finding.rule, finding.container) == ("unknown-field", "")


def test_the_stop_budget_matches_the_settings_of_the_service() -> None:
    settings = Settings.from_environment({})

    assert sum(BUDGET.values()) + CLOSING_SECONDS == settings.stop_budget_seconds
    assert {name: getattr(settings, name.lower()) for name in BUDGET} == BUDGET


def test_every_rule_has_a_row_that_breaks_it() -> None:
    """`ec2-memory` does not apply on Fargate, so it has a test of its own instead."""
    assert RULES.keys() - {rule for rule, *_ in BROKEN} == {"ec2-memory"}


def test_the_page_lists_every_rule() -> None:
    """docs/task-definition-check.md has a row for each rule: its name, its level, and the docstring of its function."""
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    rules = [(rule.name, rule.level, " ".join(str(rule.find.__doc__).split())) for rule in task_check.ORDERED_RULES]

    assert [row for row in rows if row[0] in RULES] == rules
    assert {name for name, *_ in rows} - RULES.keys() == FORM_RULES
    assert {level for _, level, _ in rows} <= set(LEVELS)
