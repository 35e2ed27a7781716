"""Checks after a deployment: the service is stable, it responds, and the Datadog Agent is healthy."""

from __future__ import annotations

import json
import time
import urllib.request

from aws_cli import Aws, AwsError, Failure, echo, warn
from definition import AGENT


def wait_until_stable(aws: Aws, cluster: str) -> None:
    """Wait until the service is stable.

    Raises:
        Failure: when it does not become stable within ten minutes, the limit of `aws ecs wait`.
    """
    service_options = ["--cluster", cluster, "--services", "hello-service"]
    try:
        aws.run("ecs", "wait", "services-stable", *service_options)
    except AwsError:
        (service,) = aws.run("ecs", "describe-services", *service_options)["services"]
        last_event = next((event["message"] for event in service.get("events", [])), "")  # ECS lists the newest first
        raise Failure(
            f"The service is not stable: {service['runningCount']} of {service['desiredCount']} tasks are running. "
            f"{last_event} Read the service's log with aws logs tail /ecs/{cluster}/service, then run the same command again, "
            "or run deploy/deploy rollback."
        ) from None


def smoke_test(url: str, version: str, timeout_seconds: float) -> None:
    """Send requests to the service at `url` until it is healthy and reports `version`.

    Raises:
        Failure: when the service does not report `version` within `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=10) as health:  # noqa: S310 - http or https: the stack's own URL, or a checked --url
                status = health.status
            with urllib.request.urlopen(f"{url}/info", timeout=10) as info:  # noqa: S310 - the same
                running_version = json.load(info)["version"]
            if running_version == version:
                echo(f"  {url}/health: {status}, version {version}")
                return
            problem = f"version {running_version} responds, not {version}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise Failure(
                f"{url} does not serve the deployed version: {problem}. AllowedCidr must contain this machine's address; "
                "set --url to send the request to another address."
            )
        time.sleep(2)


def watch_agent(aws: Aws, cluster: str, timeout_seconds: float) -> None:
    """Warn if the Datadog Agent is unhealthy. No task depends on its health, so nothing else reports it.

    An Agent that is still starting has `timeout_seconds` to become healthy.
    """
    deadline = time.monotonic() + timeout_seconds
    while health := _agent_health(aws, cluster):
        unhealthy = health.count("UNHEALTHY")
        if unhealthy:
            warn(
                f"the Datadog Agent is UNHEALTHY in {unhealthy} of {len(health)} tasks, so traces may be lost. Usually "
                "the API key is revoked or belongs to another site. "
                f"Read the Agent's log with aws logs tail /ecs/{cluster}/datadog-agent."
            )
            return
        if "UNKNOWN" not in health or time.monotonic() > deadline:
            healthy = len(health) - health.count("UNKNOWN")
            echo(f"  the Datadog Agent is healthy in {healthy} of {len(health)} tasks")
            return
        time.sleep(2)


def _agent_health(aws: Aws, cluster: str) -> list[str]:
    """Return the health of the Datadog Agent in each running task; a stopped Agent counts as unhealthy."""
    arns = aws.run("ecs", "list-tasks", "--cluster", cluster, "--service-name", "hello-service")["taskArns"]
    if not arns:
        return []
    described_arns = arns[:100]  # ECS describes at most 100 in one call
    tasks = aws.run("ecs", "describe-tasks", "--cluster", cluster, "--tasks", *described_arns)["tasks"]
    agents = [container for task in tasks for container in task["containers"] if container["name"] == AGENT]
    return [
        "UNHEALTHY" if agent.get("lastStatus") == "STOPPED" else agent.get("healthStatus", "UNKNOWN")
        for agent in agents
    ]
