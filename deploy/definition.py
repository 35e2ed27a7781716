"""The task definition: task-definition.json with its placeholders filled in, and the containers that parameters add."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from aws_cli import Failure

HERE = Path(__file__).resolve().parent
FILE = HERE / "task-definition.json"
CHECK = HERE / "check.py"
FAILED_CHECK_CODES = {1, 2}  # exit codes of check.py: a mistake, or a file that could not be checked
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
PLATFORMS = {"X86_64": "linux/amd64", "ARM64": "linux/arm64"}  # docker's platform for each CpuArchitecture
# The names of the containers.
SERVICE, AGENT, ROUTER, INIT = "service", "datadog-agent", "log-router", "datadog-agent-config"
ROUTER_IMAGE = "public.ecr.aws/aws-observability/aws-for-fluent-bit:3.5.10"
RELEASE_LABEL = "hello-service.agent-released"  # a docker label of the Agent: the month of its release
MAX_AGENT_AGE_DAYS = 90
# A third container (the log router or the init container) needs Fargate's next memory size for half a vCPU, in MiB.
MEMORY_WITH_THIRD_CONTAINER = "2048"
# The folders that the Agent writes to, by volume.
WRITABLE_FOLDERS = {
    "agent-config": "/etc/datadog-agent",
    "agent-run": "/opt/datadog-agent/run",
    "agent-sockets": "/var/run/datadog",
    "agent-logs": "/var/log/datadog",
    "agent-tmp": "/tmp",  # noqa: S108 - a path in the container
}


def read(path: Path) -> str:
    """Return the text of a task definition file.

    Raises:
        Failure: when it can't be read, or is not a task definition with a container named service.
    """
    try:
        text = path.read_text()
        document = json.loads(text)
        names = [container["name"] for container in document["containerDefinitions"]]
    except (OSError, UnicodeError) as error:
        raise Failure(f"--task-definition {path}: it can't be read: {error}") from None
    except ValueError as error:
        raise Failure(f"--task-definition {path}: it is not JSON: {error}") from None
    except (KeyError, TypeError):
        raise Failure(f"--task-definition {path}: it has no containerDefinitions list of named containers.") from None
    if SERVICE not in names:
        raise Failure(f"--task-definition {path}: no container is named {SERVICE}, which the load balancer needs.")
    return text


def fill(text: str, values: dict[str, str]) -> str:
    """Return `text` with every `${NAME}` replaced.

    Raises:
        Failure: when placeholders have no value; the message lists them.
    """
    if missing := sorted({name for name in PLACEHOLDER.findall(text) if not values.get(name)}):
        options = " ".join(f"--fill {name}=..." for name in missing)
        raise Failure(f"The task definition has placeholders without a value: {', '.join(missing)}. Add {options}.")
    # Each placeholder is inside a JSON string, so its value is escaped, without quotation marks of its own.
    return PLACEHOLDER.sub(lambda match: json.dumps(values[match[1]])[1:-1], text)


def values_in(template: Any, filled: Any) -> dict[str, str]:
    """Return the values that the placeholders of `template` have in `filled`.

    This is the inverse of `fill`, on parsed JSON. Objects with a name may be in any order.
    """
    values: dict[str, str] = {}
    if isinstance(template, str) and isinstance(filled, str):
        # `split` alternates between text and placeholder names, because the pattern has a group: [::2] is the text.
        pattern = "(.+)".join(map(re.escape, PLACEHOLDER.split(template)[::2]))
        if match := re.fullmatch(pattern, filled, re.DOTALL):
            values = dict(zip(PLACEHOLDER.findall(template), match.groups(), strict=True))
    elif isinstance(template, dict) and isinstance(filled, dict):
        for key in template.keys() & filled.keys():
            values |= values_in(template[key], filled[key])
    elif isinstance(template, list) and isinstance(filled, list):
        filled_by_name = {entry["name"]: entry for entry in filled if isinstance(entry, dict) and "name" in entry}
        for position, entry in enumerate(template):
            if isinstance(entry, dict) and "name" in entry:
                values |= values_in(entry, filled_by_name.get(entry["name"]))
            elif position < len(filled):
                values |= values_in(entry, filled[position])
    return values


def build(
    text: str, values: dict[str, str], *, logs_to: str = "cloudwatch", readonly_agent: bool = False
) -> dict[str, Any]:
    """Return the filled-in task definition, with the containers that the parameters add."""
    document: dict[str, Any] = json.loads(fill(text, values))
    if readonly_agent:
        _make_agent_readonly(document)
    if logs_to == "datadog":
        _route_logs(document, values)
    return document


def container(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the container with the name `name`, None if the task has no such container."""
    containers: list[dict[str, Any]] = document["containerDefinitions"]
    return next((container for container in containers if container["name"] == name), None)


def _required_container(document: dict[str, Any], name: str, parameter: str) -> dict[str, Any]:
    """Return the container with the name `name`, without which `parameter` can't be set."""
    if (required := container(document, name)) is None:
        raise Failure(f"--set {parameter}: the task definition has no container named {name}.")
    return required


def _make_agent_readonly(document: dict[str, Any]) -> None:
    """Make the Agent's root file system read-only, with a volume for each folder that it writes to.

    An init container copies the Agent's configuration into its volume.
    """
    agent = _required_container(document, AGENT, "ReadonlyAgent=true")
    agent["readonlyRootFilesystem"] = True
    agent["mountPoints"] = [{"sourceVolume": name, "containerPath": path} for name, path in WRITABLE_FOLDERS.items()]
    agent["dependsOn"] = [{"containerName": INIT, "condition": "SUCCESS"}]
    document["volumes"] = [*document.get("volumes", []), *({"name": name} for name in WRITABLE_FOLDERS)]
    document["memory"] = MEMORY_WITH_THIRD_CONTAINER
    document["containerDefinitions"].append(
        {
            "name": INIT,
            "image": agent["image"],
            "essential": False,
            "readonlyRootFilesystem": True,
            "memory": 128,
            "command": ["/bin/sh", "-c", "cp -R /etc/datadog-agent/. /agent-config/"],
            "mountPoints": [{"sourceVolume": "agent-config", "containerPath": "/agent-config"}],
            "stopTimeout": 30,
            "logConfiguration": agent["logConfiguration"],
        }
    )


def _route_logs(document: dict[str, Any], values: dict[str, str]) -> None:
    """Add a FireLens router that sends the service's log to Datadog.

    The router's own log goes to the Agent's log group.
    """
    service = _required_container(document, SERVICE, "LogsTo=datadog")
    agent = _required_container(document, AGENT, "LogsTo=datadog")
    service["logConfiguration"] = {
        "logDriver": "awsfirelens",
        "options": {
            "Name": "datadog",
            "Host": f"http-intake.logs.{values['DD_SITE']}",
            "TLS": "on",
            "compress": "gzip",
            "provider": "ecs",
            "dd_service": "hello-service",
            "dd_source": "python",
            "dd_tags": f"env:{values['ENVIRONMENT']},version:{values['VERSION']}",
        },
        "secretOptions": [{"name": "apikey", "valueFrom": f"{values['SECRET_ARN']}:DD_API_KEY::"}],
    }
    service["dependsOn"] = [*service.get("dependsOn", []), {"containerName": ROUTER, "condition": "START"}]
    document["memory"] = MEMORY_WITH_THIRD_CONTAINER
    document["containerDefinitions"].append(
        {
            "name": ROUTER,
            "image": ROUTER_IMAGE,
            "essential": False,
            "restartPolicy": {"enabled": True, "restartAttemptPeriod": 60},  # the minimum
            "memory": 128,
            "user": "0",  # FireLens requires root: https://github.com/aws/containers-roadmap/issues/2122
            "firelensConfiguration": {"type": "fluentbit", "options": {"enable-ecs-log-metadata": "true"}},
            "stopTimeout": 30,
            "logConfiguration": agent["logConfiguration"],
        }
    )


def agent_hint(document: dict[str, Any], today: date) -> str | None:
    """Return a hint if the Agent is older than MAX_AGENT_AGE_DAYS, None if it is newer or its age is unknown."""
    agent = container(document, AGENT) or {}
    match = re.fullmatch(r"(\d{4})-(\d\d)", agent.get("dockerLabels", {}).get(RELEASE_LABEL, ""))
    if not match or (today - date(int(match[1]), int(match[2]), 1)).days <= MAX_AGENT_AGE_DAYS:
        return None
    version = agent["image"].rpartition(":")[2]
    return (
        f"The Datadog Agent {version} was released in {match[0]}, over {MAX_AGENT_AGE_DAYS} days ago: "
        'see "Move to a newer Agent" in deploy/README.md.'
    )


def check(document: dict[str, Any], name: str) -> str | None:
    """Run check.py on `document`, the content of the file `name`.

    Returns:
        The output of check.py, or None if its libraries are not installed.

    Raises:
        Failure: when check.py finds a mistake, or can't check the file.
    """
    if not all(map(importlib.util.find_spec, ("botocore", "cfnlint"))):
        return None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "task-definition.json")
        path.write_text(json.dumps(document, indent=2))
        completed = subprocess.run([sys.executable, CHECK, path], capture_output=True, text=True, check=False)
    output = (completed.stdout + completed.stderr).replace(str(path), name).strip()
    if completed.returncode in FAILED_CHECK_CODES:
        raise Failure(f"check.py found mistakes in the filled-in task definition, so nothing was done:\n{output}")
    return output
