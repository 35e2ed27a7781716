"""Tests of deploy/stack.yaml: it is valid, grants only what is needed, and agrees with the service's timeouts."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from fargate import filled_definition
from running import BIN, ROOT

from hello_service.settings import Settings

pytestmark = pytest.mark.deployment

TEMPLATE = ROOT / "deploy" / "stack.yaml"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML ships no types
    """Loads YAML and turns CloudFormation's short forms into mappings, such as `!Ref X` into `{"Ref": "X"}`."""


def _construct_short_form(loader: _Loader, function: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {function: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {function: loader.construct_sequence(node, deep=True)}
    raise TypeError(node)


_Loader.add_multi_constructor("!", _construct_short_form)


def template() -> dict[str, Any]:
    return dict(yaml.load(TEMPLATE.read_text(), Loader=_Loader))  # safe: a subclass of SafeLoader


def resources() -> dict[str, Any]:
    return dict(template()["Resources"])


# A plausible value for each `Ref` and `GetAtt` in the policies. The keys are their JSON.
ARNS = {
    '{"Ref": "Secret"}': "arn:aws:secretsmanager:eu-west-1:123456789012:secret:key-AbCdEf",
    '{"Ref": "AWS::AccountId"}': "123456789012",
    '{"GetAtt": "ExecutionRole.Arn"}': "arn:aws:iam::123456789012:role/execution",
    '{"GetAtt": "TaskRole.Arn"}': "arn:aws:iam::123456789012:role/task",
    '{"GetAtt": "Repository.Arn"}': "arn:aws:ecr:eu-west-1:123456789012:repository/hello-service",
    '{"GetAtt": "Cluster.Arn"}': "arn:aws:ecs:eu-west-1:123456789012:cluster/hello-service",
    '{"GetAtt": "ServiceLogs.Arn"}': "arn:aws:logs:eu-west-1:123456789012:log-group:service:*",
    '{"GetAtt": "AgentLogs.Arn"}': "arn:aws:logs:eu-west-1:123456789012:log-group:datadog-agent:*",
}
# A plausible value for each name inside a `Sub`.
NAMES = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "hello-service",
    "Cluster": "hello-service",
}


def replace_references(value: Any) -> Any:
    """Return a part of the template with a plausible value in place of each reference."""
    if isinstance(value, list):
        return [replace_references(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "Sub" in value:
        return re.sub(r"\$\{([\w:]+)\}", lambda match: NAMES[match[1]], value["Sub"])
    reference = json.dumps(value)
    if reference in ARNS:
        return ARNS[reference]
    return {key: replace_references(item) for key, item in value.items()}


def policies() -> dict[str, Any]:
    """Return every policy document of the stack, by the names of its resource and its policy."""
    documents = {}
    for name, resource in resources().items():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::IAM::Role":
            for policy in properties.get("Policies", []):
                documents[f"{name}-{policy['PolicyName']}"] = replace_references(policy["PolicyDocument"])
        if resource["Type"] == "AWS::IAM::Policy":
            documents[name] = replace_references(properties["PolicyDocument"])
    return documents


def load_balancer_attributes() -> dict[str, Any]:
    attributes = resources()["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]
    return {attribute["Key"]: attribute["Value"] for attribute in attributes}


def target_group_attributes() -> dict[str, Any]:
    attributes = resources()["TargetGroup"]["Properties"]["TargetGroupAttributes"]
    return {attribute["Key"]: attribute["Value"] for attribute in attributes}


def test_cfn_lint_finds_no_problem_in_the_template() -> None:
    """`--include-checks I` adds the informational rules."""
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--", str(TEMPLATE)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (process.stdout, process.returncode) == ("", 0)


POLICIES = ["ExecutionRole-start-tasks", "TaskRole-datadog-agent", "ExecPolicy", "DeployRole-deploy"]


@pytest.mark.parametrize("name", POLICIES)
def test_parliament_finds_no_problem_in_a_policy(name: str) -> None:
    """parliament checks, for example, that the actions exist and accept the resources."""
    policy = json.dumps(policies()[name])
    process = subprocess.run([BIN / "parliament"], input=policy, capture_output=True, text=True, check=False)

    assert (process.stdout.strip(), process.returncode) == ("", 0)


def test_every_policy_is_checked() -> None:
    assert set(policies()) == set(POLICIES)


def test_only_actions_that_require_a_wildcard_have_one() -> None:
    """AWS accepts only `*` as the resource of these actions."""
    wildcard_actions: set[str] = set()
    for policy in policies().values():
        for statement in policy["Statement"]:
            if statement["Resource"] == "*":
                actions = statement["Action"]  # a string or a list
                wildcard_actions.update([actions] if isinstance(actions, str) else actions)

    assert wildcard_actions == {
        "ecr:GetAuthorizationToken",
        "ecs:DescribeTaskDefinition",
        "ecs:ListClusters",
        # for ECS Exec:
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }


def test_only_tasks_of_this_account_can_assume_the_roles() -> None:
    for name in ("ExecutionRole", "TaskRole"):
        (statement,) = resources()[name]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

        assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_only_one_branch_of_one_repository_can_deploy() -> None:
    """The role accepts only GitHub's tokens with AWS as audience and that branch as subject."""
    role = resources()["DeployRole"]
    (statement,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    issuer = "token.actions.githubusercontent.com"

    assert role["Condition"] == "HasGithub"
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"]["Federated"]["Sub"].endswith(f":oidc-provider/{issuer}")
    assert statement["Condition"]["StringEquals"] == {
        f"{issuer}:aud": "sts.amazonaws.com",
        f"{issuer}:sub": {"Sub": "repo:${GithubRepository}:ref:refs/heads/${GithubBranch}"},
    }


def test_the_template_has_neither_a_default_network_nor_a_key() -> None:
    """AllowedCidr has no default, so each deployment must set the network that can reach the load balancer."""
    assert "Default" not in template()["Parameters"]["AllowedCidr"]
    assert "SecretString" not in resources()["Secret"]["Properties"]


def test_one_parameter_protects_the_load_balancer_and_the_images() -> None:
    """deploy/deploy sets Protect once tasks run, because a stack that could not be created must be deletable."""
    repository = resources()["Repository"]["Properties"]

    assert load_balancer_attributes()["deletion_protection.enabled"] == {"Ref": "Protect"}
    # The arguments of `If` are the condition, the value if it is true, and the value if it is false.
    assert repository["EmptyOnDelete"] == {"If": ["IsProtected", False, True]}


def test_a_new_version_of_the_secret_replaces_the_tasks() -> None:
    """It changes the nonce, which forces a deployment."""
    condition, value_if_true, _ = resources()["Service"]["Properties"]["ForceNewDeployment"]["If"]

    assert condition == "HasSecretVersion"
    assert value_if_true == {"EnableForceNewDeployment": True, "ForceNewDeploymentNonce": {"Ref": "SecretVersion"}}


def test_an_alarm_rolls_back_a_deployment() -> None:
    deployment = resources()["Service"]["Properties"]["DeploymentConfiguration"]
    condition, value_if_true, _ = deployment["Alarms"]["If"]

    assert condition == "HasAlarms"
    assert value_if_true == {
        "AlarmNames": [{"Ref": "ErrorAlarm"}, {"Ref": "UnhealthyAlarm"}],
        "Enable": True,
        "Rollback": True,
    }


def test_only_the_load_balancer_reaches_tasks() -> None:
    """The only inbound rule opens the service's port to the load balancer's group. The Agent's port is closed."""
    (task_rule,) = resources()["TaskSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    load_balancer_rules = resources()["LoadBalancerSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    (port,) = filled_definition()["containerDefinitions"][0]["portMappings"]

    assert task_rule["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    assert task_rule["FromPort"] == task_rule["ToPort"] == port["containerPort"]
    assert {rule["FromPort"] for rule in load_balancer_rules} == {80}


def test_the_load_balancer_closes_an_idle_connection_before_the_service_does() -> None:
    """Otherwise the load balancer could send a request on a connection that is being closed, and respond with 502."""
    idle_timeout = float(load_balancer_attributes()["idle_timeout.timeout_seconds"])

    assert idle_timeout < Settings.from_environment({}).keep_alive_seconds


def test_the_load_balancer_detects_a_stop_in_time() -> None:
    """`/ready` fails often enough while the service still serves, and deregistration waits for the longest request."""
    target_group = resources()["TargetGroup"]["Properties"]
    service = filled_definition()["containerDefinitions"][0]
    settings = Settings.from_environment({variable["name"]: variable["value"] for variable in service["environment"]})
    seconds_until_unhealthy = target_group["HealthCheckIntervalSeconds"] * target_group["UnhealthyThresholdCount"]
    deregistration_delay = float(target_group_attributes()["deregistration_delay.timeout_seconds"])

    assert target_group["HealthCheckPath"] == "/ready"
    assert seconds_until_unhealthy < settings.drain_seconds
    assert settings.graceful_seconds <= deregistration_delay <= service["stopTimeout"]


def test_a_failed_deployment_is_rolled_back() -> None:
    """The circuit breaker rolls back, no deployment reduces the number of tasks, and image tags can't be changed."""
    service = resources()["Service"]["Properties"]
    deployment = service["DeploymentConfiguration"]

    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert deployment["MinimumHealthyPercent"] == 100
    assert "DesiredCount" not in service  # each update would reset the count that scaling has set
    assert resources()["Repository"]["Properties"]["ImageTagMutability"] == "IMMUTABLE"


def test_every_pushed_image_is_scanned() -> None:
    assert resources()["Repository"]["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
