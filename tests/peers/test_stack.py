"""Tests of deploy/stack.yaml: it is valid, opens only what it must, and agrees with the service's own timeouts."""

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


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    raise TypeError(node)


_Loader.add_multi_constructor("!", _short_form)


def template() -> dict[str, Any]:
    return dict(yaml.load(TEMPLATE.read_text(), Loader=_Loader))  # a safe loader


def resources() -> dict[str, Any]:
    return dict(template()["Resources"])


# A plausible value for each `Ref` and `GetAtt` in the policies, by its JSON.
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


def concrete(value: Any) -> Any:
    """Return a part of the template with a plausible value in place of each reference."""
    if isinstance(value, list):
        return [concrete(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "Sub" in value:
        return re.sub(r"\$\{([\w:]+)\}", lambda match: NAMES[match[1]], value["Sub"])
    return ARNS.get(json.dumps(value)) or {key: concrete(each) for key, each in value.items()}


def policies() -> dict[str, Any]:
    """Return the document of every policy of the stack, by the policy's name."""
    documents = {}
    for name, resource in resources().items():
        properties = resource["Properties"]
        if resource["Type"] == "AWS::IAM::Role":
            for policy in properties.get("Policies", []):
                documents[f"{name}-{policy['PolicyName']}"] = concrete(policy["PolicyDocument"])
        if resource["Type"] == "AWS::IAM::Policy":
            documents[name] = concrete(properties["PolicyDocument"])
    return documents


def attributes(resource: str, key: str) -> dict[str, Any]:
    """Return a property of a resource that is a list of keys and values."""
    return {each["Key"]: each["Value"] for each in resources()[resource]["Properties"][key]}


def test_the_template_has_no_finding() -> None:
    """cfn-lint reports nothing, not even at the level of information."""
    command = [str(BIN / "cfn-lint"), "--include-checks", "I", "--", str(TEMPLATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.stdout, done.returncode) == ("", 0)


POLICIES = ["ExecutionRole-start-tasks", "TaskRole-datadog-agent", "ExecPolicy", "DeployRole-deploy"]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_no_finding(name: str) -> None:
    """parliament reports nothing, so the actions exist and accept these resources."""
    policy = json.dumps(policies()[name])
    done = subprocess.run([BIN / "parliament"], input=policy, capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.returncode) == ("", 0)


def test_every_policy_is_checked() -> None:
    assert set(policies()) == set(POLICIES)


def test_only_actions_that_require_a_wildcard_have_one() -> None:
    """AWS accepts only `*` as the resource of these actions."""
    wildcard_actions = set()
    for policy in policies().values():
        for statement in policy["Statement"]:
            if statement["Resource"] == "*" and "Condition" not in statement:
                action = statement["Action"]
                wildcard_actions |= {action} if isinstance(action, str) else set(action)

    messages = {f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")}
    assert (
        wildcard_actions == {"ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "ecs:ListClusters"} | messages
    )


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


def test_nothing_is_open_or_deletable_by_default() -> None:
    """AllowedCidr has no default, and the load balancer and the images are protected."""
    assert "Default" not in template()["Parameters"]["AllowedCidr"]
    assert attributes("LoadBalancer", "LoadBalancerAttributes")["deletion_protection.enabled"] == {"Ref": "Protect"}
    assert resources()["Repository"]["Properties"]["EmptyOnDelete"] == {"If": ["IsProtected", False, True]}
    assert "SecretString" not in resources()["Secret"]["Properties"]


def test_a_new_secret_replaces_tasks_and_alarms_roll_a_deployment_back() -> None:
    """A new version of the secret changes the nonce, which forces a deployment. Both alarms are given by reference."""
    service = resources()["Service"]["Properties"]
    forced, alarms = service["ForceNewDeployment"]["If"], service["DeploymentConfiguration"]["Alarms"]["If"]

    assert forced[:2] == [
        "HasSecretVersion",
        {"EnableForceNewDeployment": True, "ForceNewDeploymentNonce": {"Ref": "SecretVersion"}},
    ]
    assert alarms[:2] == [
        "HasAlarms",
        {"AlarmNames": [{"Ref": "ErrorAlarm"}, {"Ref": "UnhealthyAlarm"}], "Enable": True, "Rollback": True},
    ]


def test_only_the_load_balancer_reaches_tasks() -> None:
    """The only inbound rule opens the service's port to the load balancer's group. The Agent's port is closed."""
    groups = {
        name: each["Properties"] for name, each in resources().items() if each["Type"] == "AWS::EC2::SecurityGroup"
    }
    (rule,) = groups["TaskSecurityGroup"]["SecurityGroupIngress"]
    (port,) = filled_definition()["containerDefinitions"][0]["portMappings"]

    assert rule["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}
    assert rule["FromPort"] == rule["ToPort"] == port["containerPort"]
    assert {each["FromPort"] for each in groups["LoadBalancerSecurityGroup"]["SecurityGroupIngress"]} == {80}


def test_the_load_balancer_closes_an_idle_connection_before_the_service_does() -> None:
    """Otherwise the load balancer could send a request on a connection that is being closed, and respond with 502."""
    idle = attributes("LoadBalancer", "LoadBalancerAttributes")["idle_timeout.timeout_seconds"]

    assert float(idle) < Settings.from_environment({}).keep_alive_seconds


def test_the_load_balancer_notices_a_stop_in_time() -> None:
    """`/ready` fails often enough while the service still serves, and deregistration waits for the longest request."""
    group = resources()["TargetGroup"]["Properties"]
    service = filled_definition()["containerDefinitions"][0]
    settings = Settings.from_environment({each["name"]: each["value"] for each in service["environment"]})
    unhealthy_after = group["HealthCheckIntervalSeconds"] * group["UnhealthyThresholdCount"]
    delay = float(attributes("TargetGroup", "TargetGroupAttributes")["deregistration_delay.timeout_seconds"])

    assert group["HealthCheckPath"] == "/ready"
    assert unhealthy_after < settings.drain_seconds
    assert settings.graceful_seconds <= delay <= service["stopTimeout"]


def test_a_failed_deployment_is_rolled_back() -> None:
    """The circuit breaker rolls back, no deployment reduces the number of tasks, and image tags can't be changed."""
    service = resources()["Service"]["Properties"]
    deployment = service["DeploymentConfiguration"]

    assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
    assert deployment["MinimumHealthyPercent"] == 100
    assert "DesiredCount" not in service
    assert resources()["Repository"]["Properties"]["ImageTagMutability"] == "IMMUTABLE"
    assert resources()["Repository"]["Properties"]["ImageScanningConfiguration"] == {"ScanOnPush": True}
